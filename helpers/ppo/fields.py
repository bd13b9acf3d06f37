"""The parts of a configuration, with trlX's names. The words about a field stand under it.

`help(PPOConfig)` shows these words, and `python -m helpers config` prints them as comments in a YAML file. They end with the
field's unit, its default in `default_ppo_config()`, and whose default that is: trlX's or the course's. "Ignored" means that the
course takes the field and does nothing with it; "refuses" means that another value is an error.
"""

import ast
import difflib
import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from helpers.errors import CourseError
from helpers.ppo.values import (
    MANY,
    Count,
    Name,
    NotNegative,
    Place,
    Positive,
    Range,
    Share,
    Table,
    WholeNumber,
    fit,
    shown,
)

SOME = 30  # names that an error lists


def nearest(name: str, known: Iterable[str]) -> str:
    """' Did you mean ...?' where a known name is close to `name`, else the list of known names, or of the nearest of many."""
    known = sorted(known)
    if close := difflib.get_close_matches(f"{name:.60}", known, n=1, cutoff=0.6):
        return f" Did you mean {close[0]!r}?"
    if len(known) > SOME:
        return (
            f" The nearest are {', '.join(difflib.get_close_matches(f'{name:.60}', known, n=6, cutoff=0))}."
        )
    return f" Known: {', '.join(known)}."


@dataclass
class Section:
    """One part of the configuration. A field takes only what its declaration says, whenever it is set.

    Raises:
        CourseError: there is no such field, or the value is of another kind or out of range.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        kinds = {f.name: f.type for f in fields(self)}
        if name not in kinds:
            raise CourseError(f"unknown key {name!r:.60} in {type(self).__name__}.{nearest(name, kinds)}")
        section = next(section for section, kind in SECTIONS.items() if isinstance(self, kind))
        try:
            super().__setattr__(name, fit(f"{section}.{name}", value, kinds[name]))
        except RecursionError:
            raise CourseError(f"{section}.{name} is nested too deep, or holds itself") from None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """This part with `values` for its fields.

        Raises:
            CourseError: a key is not known, one without a default is missing, or a value does not fit.
        """
        known = [f.name for f in fields(cls)]
        for key in values:
            if key not in known:
                raise CourseError(f"unknown key {shown(key)} in {cls.__name__}.{nearest(str(key), known)}")
        try:
            return cls(**values)
        except TypeError as error:
            raise CourseError(f"{cls.__name__}: {str(error).split('__init__() ')[-1]}") from None


@dataclass
class ModelConfig(Section):
    """Which model learns, and how much of it."""

    model_path: Place
    """The model that training starts from: a folder that save_pretrained wrote, or a name on the
    Hugging Face hub. A frozen copy of it is the reference. Nothing of PPO helps a model that cannot
    write the texts at all: fine-tune it first (notebook 02).
    Default: lvwerra/gpt2-imdb (trlX's)."""

    model_arch_type: Name = "causal"
    """The kind of model. This engine refuses all but causal; the real trlX knows seq2seq too.
    Default: causal (trlX's)."""

    num_layers_unfrozen: Annotated[int, Range(-1, MANY)] = -1
    """How many of the top blocks learn. The final norm and the value head learn with them; -1 lets all
    weights learn; 0 lets the value head learn alone, so that the texts stay as they are.
    The reference keeps its own copy of what learns: -1 holds the model twice. Lower it when memory
    runs out; raise it when the reward levels off too low. A file without this key means -1.
    Unit: blocks. Default: 2 (trlX's)."""

    peft_config: Table | None = None
    """LoRA: small matrices learn beside the frozen weights (Hu et al. 2021,
    https://arxiv.org/abs/2106.09685). Write {peft_type: LORA, r: 8, lora_alpha: 16}; it needs the
    package peft. num_layers_unfrozen then counts for nothing. This engine refuses other kinds of
    adapters. Use it for models too large for Adam's memory.
    Default: null (trlX's)."""

    model_extra_configs: Table = field(default_factory=dict)
    """How the model is loaded, such as {revision: main} or {attn_implementation: eager}.
    helpers/weights.py says what is passed on; it refuses whatever would run code.
    Default: {} (trlX's)."""


@dataclass
class TokenizerConfig(Section):
    """How texts become tokens."""

    tokenizer_path: Place
    """The tokenizer: a folder or a name on the Hugging Face hub. It must be the one the model was
    trained with, so it is the same path as model.model_path for nearly every model.
    Default: gpt2 (trlX's)."""

    padding_side: Literal["left", "right"] = "left"
    """The side on which prompts are filled up to one length. This engine refuses right, because a
    continuation must follow the last token of its prompt.
    Default: left (trlX's)."""

    truncation_side: Literal["left", "right"] = "right"
    """The side on which trlX cuts texts that are too long. Ignored here: a prompt that does not fit is
    an error that names it.
    Default: right (trlX's)."""

    tokenizer_extra_configs: Table = field(default_factory=dict)
    """How the tokenizer is loaded, such as {add_prefix_space: true}. helpers/weights.py says what is
    passed on.
    Default: {} (trlX's)."""


@dataclass
class OptimizerConfig(Section):
    """How a gradient becomes a step."""

    name: Name
    """The optimizer of torch: adamw, adam or sgd. The real trlX offers more. Adam divides each weight's
    step by the usual size of its gradient (Kingma & Ba 2014, https://arxiv.org/abs/1412.6980).
    Default: adamw (trlX's)."""

    kwargs: Table = field(default_factory=dict)
    """What the optimizer is called with.
    lr is the size of a step. Lower it when the clip fraction is above 0.3 or KL jumps; raise it when
    nothing moves. A narrow network takes larger steps: notebook 06 uses 1.4e-5 for GPT-2, which is 768
    wide, and 2.0e-3 for the embedded network, which is 112 wide.
    betas say how long Adam remembers gradients and their squares; eps keeps its division from 0;
    weight_decay pulls weights towards 0, and 1.0e-6 hardly does.
    Write numbers as 3.0e-5: YAML reads 3e-5 as text.
    Default: {lr: 3.0e-5, betas: [0.9, 0.95], eps: 1.0e-8, weight_decay: 1.0e-6} (trlX's)."""


@dataclass
class SchedulerConfig(Section):
    """How the learning rate changes during a run."""

    name: Name
    """The schedule: cosine_annealing (half a cosine from lr down to eta_min in T_max steps) or linear
    (torch's LinearLR: from start_factor * lr to end_factor * lr in total_iters steps).
    Default: cosine_annealing (trlX's)."""

    kwargs: Table = field(default_factory=dict)
    """What the schedule is called with. With T_max 1.0e+12 the rate stays at lr for the whole run,
    whatever eta_min is. To let it fall, set T_max to train.total_steps and eta_min to a tenth of lr.
    Unit: T_max in optimizer steps. Default: {T_max: 1.0e+12, eta_min: 3.0e-5} (trlX's)."""


@dataclass
class TrainConfig(Section):
    """How long a run is, how much it takes at once, and where it saves. A step is one update by the
    optimizer; an epoch is one round of rollouts and the updates from them."""

    total_steps: Count
    """When the run is over, unless epochs end it before. Raise it when the reward still rises at the
    end. A round makes ppo_epochs * num_rollouts / batch_size steps.
    Unit: optimizer steps. Default: 10000 (trlX's)."""

    seq_length: Count
    """The most tokens that prompt and continuation have together; the model's own limit counts too. A
    prompt that leaves no room for max_new_tokens is an error. Lowering it saves no memory, because
    texts are padded to the longest among them and no further.
    Unit: tokens. Default: 1024 (trlX's)."""

    epochs: Count
    """The most rounds of rollouts. The run ends here or at total_steps, whichever comes first.
    Unit: rounds. Default: 100 (trlX's)."""

    batch_size: Count
    """Rollouts that one optimizer step learns from; of several processes, each has so many. Raise it
    when steps are noisy. It does not decide about memory: minibatch_size does.
    Unit: rollouts. Default: 32 (trlX's)."""

    checkpoint_interval: Count
    """How often the whole state of the run is saved, at the end of the round in which a multiple of this
    falls. The end of the run always saves. Lower it where a run may be cut off.
    Unit: optimizer steps. Default: 10000 (trlX's)."""

    eval_interval: Count
    """How often the held-out prompts are sampled and scored, each time with the same random numbers. The
    beginning and the end of the run always do. An evaluation costs time and changes nothing.
    Unit: optimizer steps. Default: 100 (trlX's)."""

    pipeline: Name = "PromptPipeline"
    """trlX's class for prompts. This engine refuses any other.
    Default: PromptPipeline (trlX's)."""

    trainer: Name = "AcceleratePPOTrainer"
    """trlX's class for the algorithm. This engine refuses any other: method.name chooses.
    Default: AcceleratePPOTrainer (trlX's)."""

    trainer_kwargs: Table = field(default_factory=dict)
    """What trlX hands to its trainer besides. Ignored here.
    Default: {} (trlX's)."""

    project_name: str = "trlx"
    """The project's name in wandb.
    Default: trlx (trlX's)."""

    run_name: str | None = None
    """The run's name in the tracker: wandb makes one up where there is none, and TensorBoard's is the name
    of a folder, tensorboard.
    Default: null (trlX's)."""

    entity_name: str | None = None
    """The account's name in wandb.
    Default: null (trlX's)."""

    group_name: str | None = None
    """The name of a group of runs in wandb.
    Default: null (trlX's)."""

    checkpoint_dir: Place = "ckpts"
    """The folder for checkpoints (checkpoint_080 and so on) and for the best model
    (best_checkpoint/hf_model). A later run with the same folder replaces checkpoints of the same step:
    give each run that you want to keep its own.
    Default: ckpts (trlX's)."""

    rollout_logging_dir: str | None = None
    """Where trlX writes all rollouts. This engine refuses it.
    Default: null (trlX's)."""

    save_best: bool = True
    """Whether the model is saved each time the held-out reward is higher than at all evaluations before.
    The highest reward is not always the best model: this looks at neither KL nor texts.
    Default: true (trlX's)."""

    save_optimizer: bool = True
    """Whether trlX's checkpoints hold the optimizer. Ignored here: they always do, so that a run that
    was cut off goes on exactly as if it had not been.
    Default: true (trlX's)."""

    resume_from_checkpoint: Place | Literal[""] | None = None
    """The checkpoint to go on from, or the folder whose newest one is taken; where it holds none yet,
    the run starts anew and says so. Checkpoints of earlier runs in that folder are left alone. The model,
    the prompts and the settings must be the same as before, but for lengths, intervals, folders and
    minibatch_size.
    Default: null (trlX's)."""

    tracker: Literal["tensorboard", "wandb", ""] | None = None
    """Where the numbers of trainer.history are sent while a run trains: tensorboard writes them into
    a folder, wandb sends them to its servers and asks for a login (WANDB_MODE=offline in the environment
    keeps them in a folder). Each needs the package of its name. Sending changes nothing in the run. With
    the real trlX it is ignored.
    Default: null (the course's; trlX's is wandb)."""

    logging_dir: str | None = None
    """The folder that the tracker writes to; null means checkpoint_dir.
    Default: null (trlX's)."""

    tags: list[str] | None = field(default_factory=list)
    """Words that mark the run in wandb.
    Default: [] (trlX's)."""

    seed: Annotated[int, Range(0, 2**32 - 1)] = 1000
    """The start of all random numbers: the value head's first weights, the order of the prompts, the
    samples and the batches. On one machine's CPU the same seed gives the same run again. One seed shows
    one run: compare settings over several.
    Unit: none, a whole number. Default: 1000 (trlX's)."""

    minibatch_size: Count | None = None
    """Rollouts in memory at once; it must divide batch_size, and null means all of it. It decides about
    memory and time alone: gradients add up, so that the step is the same but for rounding. Lower it
    when memory runs out (this engine then halves it by itself and says so).
    Unit: rollouts. Default: null (trlX's)."""

    max_grad_norm: Positive | None = None
    """The longest gradient that a step may take: a longer one is scaled down to this length, all weights
    alike (Pascanu et al. 2012, https://arxiv.org/abs/1211.5063, section 3.2); null scales none. The
    history has each step's length before that, grad_norm. Set it to a few times the usual length where
    single steps throw a run off. Adam divides by the usual size anyway, so a limit below it that shortens
    all steps alike hardly makes them smaller: lower lr for that. A file that sets it is not one for the
    real trlX by itself; through the course both engines take it.
    Unit: the gradient's own, as a Euclidean length. Default: null (the course's; trlX has none)."""


@dataclass
class MethodConfig(Section):
    """How a model learns from rewards: one of METHODS."""


@dataclass
class PPOConfig(MethodConfig):
    """Proximal policy optimisation (Schulman et al. 2017, https://arxiv.org/abs/1707.06347), with the
    KL penalty of Ziegler et al. 2019 (https://arxiv.org/abs/1909.08593)."""

    name: Name
    """The method, and with it the keys beside this one. This engine refuses all but PPOConfig, RLOOConfig
    and GRPOConfig; the real trlX has PPOConfig, ILQLConfig and SFTConfig.
    Default: PPOConfig (trlX's)."""

    ppo_epochs: Count
    """Passes over each round's rollouts. More passes learn more from a sample, and the later ones learn
    from samples of a policy that is no longer this one. Lower it when many tokens are clipped.
    Unit: passes. Default: 4 (trlX's)."""

    num_rollouts: Count
    """Samples that are drawn and scored before each round of updates; of several processes, each draws so
    many. Raise it when the reward curve is all noise; a round then takes as much longer.
    Unit: samples. Default: 128 (trlX's)."""

    chunk_size: Count
    """Samples that are drawn at a time, and that one call of the reward function scores. Lower it when
    memory runs out while sampling (this engine then takes fewer by itself and says so).
    Unit: samples. Default: 128 (trlX's)."""

    init_kl_coef: NotNegative
    """beta, the price of a nat of KL. A token earns -beta * (log pi - log pi_ref), and the last one also
    the score (Ziegler et al. 2019, https://arxiv.org/abs/1909.08593, eq. 2). trlX's 0.001 is almost
    none: 10 nats a sample cost 0.01 of the reward. Raise it when texts decay; lower it when the reward
    stays low with KL near 0. What suits depends on the size of the rewards.
    Unit: reward per nat. Default: 0.001 (trlX's)."""

    target: Positive | None
    """The KL a sample that an adaptive beta steers for (Ziegler et al. 2019,
    https://arxiv.org/abs/1909.08593, sec. 2.2); null keeps beta as it is. Set it, to 6 say, where no
    fixed beta suits the whole run, and make horizon small enough for it to act.
    Unit: nats a sample. Default: null (trlX's)."""

    horizon: Count
    """How slowly beta follows target. Each pass over the rollouts multiplies beta by
    1 + error * batch_size / horizon, where error = KL / target - 1, cut to -0.2 .. 0.2. With horizon
    10000 and batch_size 32 that is at most 1.00064, which makes less than 3% in the 40 passes of
    notebook 06's tiny run. With horizon 200 it is 3% a pass. Without target it counts for nothing.
    Unit: samples. Default: 10000 (trlX's)."""

    gamma: Share
    """Discount: what a reward is worth one token earlier. With 1 the score at the end counts in full for
    the first token; with 0.99 it counts 0.79 for a token 23 places before it. Leave it at 1, because
    texts are short.
    Unit: a factor from 0 to 1. Default: 1 (trlX's)."""

    lam: Share
    """Lambda of generalised advantage estimation (Schulman et al. 2015, https://arxiv.org/abs/1506.02438,
    eq. 16). It says how much the value head is trusted: with 0 an advantage is what the next token
    alone changes in the value (little noise, all of the head's errors), with 1 it is all that was
    earned from here on, less the value (much noise, no such error). Seldom worth changing.
    Unit: a factor from 0 to 1. Default: 0.95 (trlX's)."""

    cliprange: NotNegative
    """How far the ratio pi / pi_old may go from 1 before a token's gradient is taken away, on the side to
    which its advantage pushes (Schulman et al. 2017, https://arxiv.org/abs/1707.06347, eq. 7). It does
    not bound the ratio: tokens share weights, and the others move it on. On notebook 06's settings single
    tokens have ratios from 7e-5 to 38. Lower the learning rate before you change this.
    Unit: a ratio. Default: 0.2 (trlX's)."""

    cliprange_value: NotNegative
    """The same for the value head: how far a value may go from the one at sampling towards its return
    before its gradient is taken away. It comes from OpenAI's baselines
    (https://github.com/openai/baselines, ppo2/model.py), not from the paper. Raise it where rewards are
    much larger than 1.
    Unit: that of the reward. Default: 0.2 (trlX's)."""

    vf_coef: NotNegative
    """Weight of the value loss beside the policy loss. Both move the unfrozen blocks, because the value
    head reads what they give. Lower it when rewards are large and the value loss drowns the other.
    Whether the head foresees anything is the history's explained_variance: 1 is every return, 0 no more
    than a constant would.
    Unit: a factor. Default: 1 (trlX's)."""

    scale_reward: Literal["ignored", "ref", "running"] | Literal[False] | None
    """What scores are divided by: ignored (nothing), ref (the standard deviation of the first round, or
    ref_std) or running (that of all scores so far). No mean is subtracted. Advantages are brought to
    variance 1 in any case, so this changes the reward's weight beside the KL penalty and the size of
    the value loss. Use it for rewards whose size you do not know.
    Default: ignored (trlX's)."""

    ref_mean: float | None
    """Mean of the scores before training. Ignored here; trlX too subtracts no mean, and measures the
    deviation for ref only where this is null.
    Unit: that of the reward. Default: null (trlX's)."""

    ref_std: Positive | None
    """The standard deviation that scale_reward ref divides by; null measures it in the first round.
    Unit: that of the reward. Default: null (trlX's)."""

    cliprange_reward: NotNegative | None
    """Scores beyond plus or minus this are cut to it, before they are scaled; 0 cuts nothing. A reward
    such as -len(sample) is then -10 for every text of ten characters or more: a constant, from which
    nothing is learned. Scale such a reward down, or raise this.
    Unit: that of the reward. Default: 10 (trlX's)."""

    gen_kwargs: Table
    """How texts are sampled, as transformers' generate has it; an unknown key is an error.
    max_new_tokens is the length of a continuation: raise it when texts end in mid-sentence.
    top_k 0 and top_p 1.0 cut nothing. PPO needs samples of the policy as it is: where these or others
    (min_p, repetition_penalty, min_new_tokens, num_beams) change which words are drawn, log-probabilities
    are still those of the unchanged policy, and KL and ratio come out wrong, with a warning. With top_k 4
    a KL of 5.0 was reported where 6.3 was true: a wrong KL need not be negative.
    temperature divides the logits. This engine takes log-probabilities and KL at that temperature too;
    the real trlX takes them at 1, of another distribution than it samples from.
    do_sample false always takes the likeliest word: there is nothing to compare, and nothing to learn.
    Unit: max_new_tokens and top_k in tokens.
    Default: {max_new_tokens: 40, top_k: 0, top_p: 1.0, do_sample: true} (trlX's)."""

    gen_experience_kwargs: Table | None = None
    """The same for rollouts alone, in place of gen_kwargs, which then counts for evaluations. Use it to
    evaluate with other settings than you train with.
    Default: null (trlX's)."""

    num_value_layers_unfrozen: WholeNumber = 0
    """Blocks of their own that trlX can give the value head. This engine refuses all but 0.
    Unit: blocks. Default: 0 (trlX's)."""


@dataclass
class GroupConfig(MethodConfig):
    """What RLOO and GRPO have in common. They draw several samples of each prompt, a group, and compare each
    with the others of its group. That takes the place of PPO's value head, and of all that belongs to it."""

    name: Name

    group_size: Annotated[int, Range(2, MANY)]
    """Samples of each prompt in a round. It must divide num_rollouts and chunk_size, so a round has
    num_rollouts / group_size prompts. Raise it where the samples of a prompt often have one reward: such
    a group teaches nothing (the history's same_group is their share). TRL calls it num_generations.
    Unit: samples. Default: 4 (the course's; trlX has none)."""

    ppo_epochs: Count
    num_rollouts: Count
    chunk_size: Count
    init_kl_coef: NotNegative
    target: Positive | None
    horizon: Count
    cliprange: NotNegative

    scale_reward: Literal["ignored", "ref", "running"] | Literal[False] | None
    """What scores are divided by before they are compared: ignored (nothing), ref (the standard deviation
    of the first round, or ref_std) or running (that of all scores so far). Use it for rewards whose size
    you do not know.
    Default: ignored (trlX's)."""

    ref_std: Positive | None
    cliprange_reward: NotNegative | None
    gen_kwargs: Table
    gen_experience_kwargs: Table | None = None


@dataclass
class RLOOConfig(GroupConfig):
    """REINFORCE leave-one-out (Ahmadian et al. 2024, https://arxiv.org/abs/2402.14740). A sample's advantage
    is its reward, less the mean reward of the others of its group. Clip and passes are PPO's."""

    name: Name
    """The method, and with it the keys beside this one. The real trlX has neither this nor GRPOConfig.
    Default: RLOOConfig (the course's; trlX has none)."""

    init_kl_coef: NotNegative
    """beta, the price of a nat of KL. A sample's reward is its score, less beta times the sum of
    log pi - log pi_ref over its tokens. Raise it when texts decay; lower it when the reward stays low
    with KL near 0. What suits depends on the size of the rewards. 0.05 is TRL's.
    Unit: reward per nat. Default: 0.05 (the course's; trlX has none)."""


@dataclass
class GRPOConfig(GroupConfig):
    """Group relative policy optimisation (Shao et al. 2024, https://arxiv.org/abs/2402.03300). A sample's
    advantage is its score, less the mean score of its group, over the group's standard deviation. Clip and
    passes are PPO's."""

    name: Name
    """The method, and with it the keys beside this one. The real trlX has neither this nor RLOOConfig.
    Default: GRPOConfig (the course's; trlX has none)."""

    init_kl_coef: NotNegative
    """beta, the price of a nat of KL. It stands in the loss: each token adds beta * k3, where
    k3 = pi_ref / pi - 1 - log(pi_ref / pi), which is never negative
    (http://joschu.net/blog/kl-approx.html). Raise it when texts decay; lower it when the reward stays low
    with KL near 0. With scale_by_deviation it means the same whatever the size of the rewards. 0.04 is
    the paper's; TRL's default is 0.
    Unit: advantage per nat. Default: 0.04 (the course's; trlX has none)."""

    scale_by_deviation: bool = True
    """Whether advantages are divided by the standard deviation of their group's scores. Then all groups
    weigh alike, and those whose samples hardly differ weigh more than they tell (Liu et al. 2025,
    https://arxiv.org/abs/2503.20783, leave it out). TRL calls it scale_rewards, group or none.
    Default: true (the course's; trlX has none)."""


METHODS = {"PPOConfig": PPOConfig, "RLOOConfig": RLOOConfig, "GRPOConfig": GRPOConfig}
SECTIONS = {
    "method": MethodConfig,
    "model": ModelConfig,
    "optimizer": OptimizerConfig,
    "scheduler": SchedulerConfig,
    "tokenizer": TokenizerConfig,
    "train": TrainConfig,
}


def read_words() -> dict[str, dict[str, str]]:
    """{"PPOConfig": {"gamma": "Discount: ..."}, ...}: the text under each field of this file, which Python itself drops.

    A method's field without a text of its own means what it means elsewhere: in the class above, or in PPOConfig.
    """
    found = {}
    for part in ast.parse(Path(__file__).read_text(encoding="utf-8")).body:
        if isinstance(part, ast.ClassDef):
            found[part.name] = {
                line.target.id: inspect.cleandoc(below.value.value)
                for line, below in pairwise(part.body)
                if isinstance(line, ast.AnnAssign) and isinstance(below, ast.Expr)
            }
    for method in (RLOOConfig, GRPOConfig):
        known = found["PPOConfig"] | found["GroupConfig"] | found[method.__name__]
        found[method.__name__] = {each.name: known[each.name] for each in fields(method)}
    return found


def add_words_to_help() -> None:
    """Put the words of its fields into each part's docstring, where `help` looks."""
    for section in {**SECTIONS, **METHODS}.values():
        each = [f"{name}: {words}" for name, words in WORDS[section.__name__].items()]
        section.__doc__ = "\n\n".join([inspect.cleandoc(section.__doc__), *each])


WORDS = read_words()
add_words_to_help()
