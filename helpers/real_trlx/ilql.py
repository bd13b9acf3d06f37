"""trlX's second method, ILQL: a policy from texts with a reward each. To import this file is to import trlX.

Snell et al. 2022 (arxiv.org/abs/2206.11871). trlX's loop, loss, heads, store and sampling run as they are. `ILQLTrainer`, which trlX
finds by `config.train.trainer`, replaces what no longer works. In the order in which a run meets it:

1. folders that hold only model.safetensors                     get_arch
2. a model that is called without its text                      with_heads
3. samples that are cut without a word                          make_experience
4. target heads that follow once a pass, or never               record
5. evaluation that draws other samples each time                evaluate
6. `generate`, which asks for a setting that ILQL has not       __init__
7. checkpoints that fail, saves that load as random weights     save, save_pretrained

"Until" says at each place how to see that trlX no longer needs it.
"""

import copy
import inspect
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import torch
from accelerate.utils import set_seed
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from helpers import files, weights
from helpers.errors import CourseError
from helpers.ppo import checkpoint, values
from helpers.ppo.config import TRLConfig, check, default_ppo_config
from helpers.ppo.ending import check_stop_sequences, end_response
from helpers.ppo.load import check_fit, context_limit, load_tokenizer
from helpers.ppo.parallel import processes
from helpers.ppo.prompts import PromptSet, as_list, check_text
from helpers.ppo.run import History, Run, Stopped
from helpers.ppo.texts import distinct_share
from helpers.ppo.values import Count, NotNegative, Range, Share
from helpers.real_trlx.patches import import_trlx, tokenizer_for_trlx
from helpers.rewards import measure

trlx = import_trlx()

from trlx.data import default_configs  # noqa: E402
from trlx.data.configs import TRLConfig as TrlxConfig  # noqa: E402
from trlx.models.modeling_ilql import AutoModelForCausalLMWithILQLHeads, ILQLConfig  # noqa: E402
from trlx.pipeline.offline_pipeline import tokenize_dialogue  # noqa: E402
from trlx.trainer import accelerate_ilql_trainer, register_trainer  # noqa: E402

HEADS = "ilql_heads.safetensors"
METHOD = dict(tau=Share, gamma=Share, cql_scale=NotNegative, awac_scale=NotNegative, alpha=Share)
METHOD |= dict(beta=NotNegative, steps_for_target_q_sync=Count, two_qs=bool)
GENERATE = dict(beta=Annotated[float, Range()], max_new_tokens=Count, temperature=NotNegative, top_k=Count)
"""What the settings of the method and of its sampling may be. trlX's ILQLConfig says what they do."""


def default_config() -> TrlxConfig:
    """trlX's `default_ilql_config`, except that there is no tracker."""
    return default_configs.default_ilql_config().evolve(train=dict(tracker=None))


def train(
    samples: Sequence,
    rewards: Sequence[float],
    eval_prompts: Sequence | None = None,
    metric_fn: Callable | None = None,
    config: TrlxConfig | None = None,
    stop_sequences: Sequence[str] | None = None,
    listeners: Sequence = (),
) -> "ILQLTrainer":
    """`trlx.train(samples=, rewards=)`, the real one: learn from texts with a reward each, without sampling meanwhile.

    Args:
        samples: texts, or pairs (prompt, output), or longer rows that go on in turns. Outputs are learned, prompts are given.
        rewards: a number for each sample. trlX subtracts their mean and divides by their standard deviation.
        eval_prompts: prompts that each evaluation continues; if left out, the token that begins a text.
        metric_fn: as PPO's. Evaluations have no reward function: a metric can be one.
        config: trlX's own; `default_config()` if left out. It stays as it was.
    Returns:
        The trainer: evaluate, generate, save_pretrained, model, tokenizer, history.
    Raises:
        CourseError: something is wrong with the input, before any training; or the run has diverged.
    """
    config = default_config() if config is None else config
    shared = check_config(config)
    samples, rewards = check_samples(samples), check_rewards(rewards)
    if len(samples) != len(rewards):
        raise CourseError(
            f"there are {len(samples)} samples and {len(rewards)} rewards: expected a reward for each sample"
        )
    settings = copy.deepcopy({name: vars(section) for name, section in vars(config).items()})
    own = dict(shared=shared, prompts=eval_prompts, listeners=listeners)
    settings["train"] |= dict(trainer="ILQLTrainer", tracker=None, trainer_kwargs=own)
    return trlx.train(
        samples=samples,
        rewards=rewards,
        eval_prompts=["-"],  # ours go to our trainer alone
        metric_fn=metric_fn,
        config=TrlxConfig.from_dict(settings),
        stop_sequences=check_stop_sequences(stop_sequences),
    )


def check_config(config: Any) -> TRLConfig:
    """Hold a configuration of ILQL to what works.

    Returns:
        What it shares with PPO's, as the course's own configuration, checked as that is. PPO's method stands in for ILQL's.
    Raises:
        CourseError: it is no configuration of ILQL, or a field has a value that does not work; it names the field.
    """
    if not isinstance(config, TrlxConfig) or not isinstance(config.method, ILQLConfig):
        raise CourseError(
            "samples with rewards are learned by ILQL, and config is not for ILQL: start from trlx.default_ilql_config()"
        )
    for name, kind in METHOD.items():
        values.fit(f"method.{name}", getattr(config.method, name), kind)
    check_sampling(config.method.gen_kwargs)
    for name, found, only in [
        ("train.trainer", config.train.trainer, "AccelerateILQLTrainer"),
        ("train.resume_from_checkpoint", config.train.resume_from_checkpoint, None),
        ("model.peft_config", config.model.peft_config, None),
    ]:
        if found != only:
            raise CourseError(f"{name} is {found!r:.60}, only {only!r} works with ILQL here")
    processes.check_launch()
    if processes.count() > 1:
        raise CourseError("ILQL runs in one process here: start it without `accelerate launch`")
    given = copy.deepcopy({name: vars(section) for name, section in vars(config).items()})
    given["train"] |= dict(trainer="AcceleratePPOTrainer", tracker=None)
    length = dict(max_new_tokens=config.method.gen_kwargs.get("max_new_tokens"))
    given["method"] = vars(default_ppo_config().method) | dict(gen_kwargs=length)
    shared = TRLConfig.from_dict(given)
    check(shared)
    return shared


def check_sampling(settings: dict) -> None:
    """Hold settings of ILQL's sampling to what they may be.

    Raises:
        CourseError: it names the setting.
    """
    for name, value in settings.items():
        if name not in GENERATE:
            raise CourseError(f"ILQL samples by {', '.join(GENERATE)} alone: leave out gen_kwargs.{name:.60}")
        values.fit(f"gen_kwargs.{name}", value, GENERATE[name])


def check_samples(samples: Any) -> list[str | list[str]]:
    """The samples as texts and lists of texts.

    Raises:
        CourseError: one is neither, has no output for a prompt, or a text of it says nothing.
    """
    found = []
    for index, sample in enumerate(as_list(samples, "samples")):
        where = f"samples[{index}]"
        if isinstance(sample, (list, tuple)) and sample and len(sample) % 2 == 0:
            found.append([check_text(text, f"{where}[{place}]") for place, text in enumerate(sample)])
        elif isinstance(sample, (list, tuple)):
            raise CourseError(
                f"{where} has {len(sample)} texts: expected (prompt, output), or more such turns"
            )
        else:
            found.append(check_text(sample, where))
    return found


def check_rewards(rewards: Any) -> list[float]:
    """The rewards as numbers.

    Raises:
        CourseError: one is no finite number, or all are the same.
    """
    numbers = []
    for index, reward in enumerate(as_list(rewards, "rewards")):
        numbers.append(values.fit(f"rewards[{index}]", reward, Annotated[float, Range()]))
    if len(set(numbers)) == 1:
        raise CourseError(
            f"all {len(numbers)} rewards are {numbers[0]:g}: nothing tells better samples from worse"
        )
    return numbers


def with_heads(base: PreTrainedModel, two_qs: bool, alpha: float = 0.0) -> AutoModelForCausalLMWithILQLHeads:
    """trlX's model for ILQL: `base`, a value head, Q heads, and the target heads that follow these by `alpha`.

    trlX asks `inspect.getfullargspec` which arguments `base` takes. Today's transformers wraps that method, so that the answer is
    `self` alone, and trlX leaves out even the text.
    Until: trlX's model, made from a loaded one, gives the logits of `base`.
    """
    model = AutoModelForCausalLMWithILQLHeads.from_pretrained(base, two_qs=two_qs, alpha=alpha)
    model.forward_kwargs = list(inspect.signature(base.forward).parameters)
    return model


def load(folder: str | Path) -> AutoModelForCausalLMWithILQLHeads:
    """The model that `ILQLTrainer.save_pretrained` wrote, with its heads: trlX's, whose `generate` takes `beta`.

    Raises:
        CourseError: there is no such model, or its heads are missing.
    """
    folder = files.expand(folder)
    base = weights.load_model(AutoModelForCausalLM, str(folder), "folder")
    try:
        heads = load_file(folder / HEADS)
        model = with_heads(base, two_qs="q_heads.1.0.weight" in heads)
        model.ilql_heads.load_state_dict(heads)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise CourseError(
            f"{folder / HEADS} is not readable as heads of this model ({weights.first_line(error)}): expected a folder that ILQL saved"
        ) from error
    return model.eval()


@register_trainer
class ILQLTrainer(accelerate_ilql_trainer.AccelerateILQLTrainer):
    """trlX's ILQL trainer with what the course replaces in it. trlX makes it, gives it the samples, and calls `learn`.

    Attributes beside trlX's:
        history: `updates` has a row for each step: step, lr, loss and its parts (loss_q, loss_v, loss_cql, loss_awac), and value, the
            value head's mean, in standard deviations of the rewards from their mean. `evals` has a row for each evaluation: step,
            length (tokens), distinct (share from 0 to 1), metrics/*. There are no rounds.
        eval_samples: prompts and outputs of the last evaluation.

    Raises:
        CourseError: the model or the tokenizer cannot be loaded, a prompt does not fit, or the run could not be saved.
    """

    step = property(lambda self: self.iter_count)
    random_state_kept, stop, tell = Run.random_state_kept, Run.stop, Run.tell

    def __init__(self, config: TrlxConfig, shared: TRLConfig, prompts: Any, listeners: Sequence, **kwargs):
        config.train.trainer_kwargs = {}  # read by now
        self.iter_count, self.stopping, self.listeners = 0, False, listeners
        self.history, self.eval_samples = History(), []
        tokenizer = load_tokenizer(config)
        with tokenizer_for_trlx(tokenizer):
            super().__init__(config, **kwargs)
        self.tokenizer = tokenizer  # not the copy with trlX's <sep>, which would be saved with the model
        self.generate_experience_kwargs = None
        self.accelerator.log = lambda stats, step=None: self.record(stats)
        check_fit(shared, tokenizer, self.model)
        limit = context_limit(shared, self.model)
        self.context = limit + shared.method.gen_kwargs["max_new_tokens"]
        if prompts is None:
            prompts = [tokenizer.bos_token] * config.train.batch_size
        self.eval_prompts = PromptSet(prompts, tokenizer, limit, "eval_prompts")

    def get_arch(self, config: TrlxConfig) -> AutoModelForCausalLMWithILQLHeads:
        """The model, loaded by helpers/weights.py. trlX looks for pytorch_model.bin and, finding none, asks the hub.

        Until: `trlx.train` starts from a folder with model.safetensors alone.
        """
        settings = config.model.model_extra_configs
        base = weights.load_model(AutoModelForCausalLM, config.model.model_path, "model.model_path", settings)
        return with_heads(base, config.method.two_qs, config.method.alpha)

    def make_experience(self, samples: list, rewards: list[float], max_length: int = 2048) -> None:
        """trlX's store of the samples, without those that trlX would cut.

        Raises:
            CourseError: a sample does not fit into `train.seq_length` and the model's positions.
        """
        dialogues = [tokenize_dialogue(sample, self.tokenizer, 10**9) for sample in samples]
        for index, dialogue in enumerate(dialogues):
            if (tokens := sum(len(part.tokens) for part in dialogue)) > self.context:
                raise CourseError(
                    f"samples[{index}] has {tokens} tokens with those that begin and end it, and {self.context} fit (the smaller of "
                    "train.seq_length and the model's positions): shorten it, or raise train.seq_length"
                )
        self.store = accelerate_ilql_trainer.make_experience(dialogues, rewards, verbose=False)

    def prepare_learning(self) -> None:
        """What trlX prepares. Now the run's length is known, and where it will save.

        Raises:
            CourseError: the disk is too full, or something that is not ours would be replaced.
        """
        super().prepare_learning()
        self.tell("start")
        folder = files.expand(self.config.train.checkpoint_dir)
        needed = 4 * sum(p.numel() for p in self.model.parameters())
        files.check_space(folder, needed, "set train.checkpoint_dir to another disk")
        for name in (f"checkpoint_{self.total_steps}", "best_checkpoint"):
            checkpoint.check_model_folder(folder / name / "hf_model", self.config.model.model_path)

    def learn(self) -> None:
        """Run trlX's loop. Where `stop` ends it, evaluate once more. An error or an interrupt carries the run as its `trainer`."""
        try:
            super().learn()
        except Stopped:
            if self.history.evals[-1]["step"] < self.step:
                with suppress(Stopped):
                    self.record(self.evaluate())
        except BaseException as error:
            error.trainer = self
            raise
        finally:
            self.tell("end")

    def post_backward_callback(self) -> None:
        """Not here: trlX calls this once a pass over the samples; `record` does its work after each step."""

    def record(self, stats: dict) -> None:
        """Put what trlX logs into the history, and let the target heads follow every `steps_for_target_q_sync` steps.

        Since its pull request 522 trlX asks for that once a pass, and only where the steps so far are a multiple of that number.
        Until: a pass of ten steps with `alpha` 1 leaves trlX's target heads equal to its Q heads.

        Raises:
            CourseError: the run has diverged.
        """
        if "losses/loss" in stats:
            super().post_backward_callback()
            row = {name: stats[f"losses/{name}"] for name in "loss loss_q loss_v loss_cql loss_awac".split()}
            row |= dict(lr=stats["learning_rate_group_0"], value=stats["values/mean"].item())
            self.history.updates.append({"step": self.step, **row})
            self.refuse_divergence()
        if "distinct" in stats:
            ours = {k: v for k, v in stats.items() if k in ("length", "distinct") or k.startswith("metrics/")}
            self.history.evals.append({"step": self.step, **ours})
        if self.step < self.total_steps:
            self.tell("progress")

    def refuse_divergence(self) -> None:
        """End a run whose weights are no numbers any more.

        Raises:
            CourseError: one is infinite or NaN.
        """
        if not sum(p.detach().sum() for p in self.model.parameters()).isfinite():
            raise CourseError(
                f"after step {self.step} there are weights that are infinite or no number at all: the run has diverged. Try a tenth of "
                f"the learning rate ({self.opt.param_groups[0]['lr']:g})."
            )

    def evaluate(self, **sampling: Any) -> dict:
        """Sample once for each of the evaluation's prompts: mean length (tokens), distinct share, and means of the metrics.

        Every evaluation has the same prompts and the same seed. `sampling` overrides `method.gen_kwargs`, as in evaluate(beta=4).
        Until: two trlX evaluations of one model give the same metrics.

        Raises:
            CourseError: a setting of the sampling does not work, the metric function breaks its contract, or the run has diverged.
        """
        self.refuse_divergence()
        check_sampling(sampling)
        ends, prompts, lengths = [self.tokenizer.eos_token_id], self.eval_prompts, []
        found: dict[str, list] = {"samples": [], "prompts": prompts.texts, "outputs": []}
        with self.random_state_kept():
            set_seed(self.config.train.seed)
            for rows in torch.arange(len(prompts)).split(self.config.train.batch_size):
                ids, mask, _ = prompts.batch(rows.tolist())
                responses = self.generate_eval(ids, mask, **sampling)[:, ids.shape[1] :]
                for row, response in zip(rows.tolist(), responses.tolist(), strict=True):
                    asked = prompts.tokens[row]
                    tokens, output = end_response(asked, response, self.tokenizer, ends, self.stop_sequences)
                    lengths.append(len(tokens))
                    found["outputs"].append(output)
                    found["samples"].append(prompts.texts[row] + output)
            extra = {key: [each[key] for each in prompts.metadata] for key in prompts.metadata[0]}
            given = dict(**found, **extra, tokenizer=self.tokenizer)
            measured = measure(self.metric_fn, **given) if self.metric_fn else {}
        pairs = zip(prompts.texts, found["outputs"], strict=True)
        self.eval_samples = [{"prompt": prompt, "output": output} for prompt, output in pairs]
        means = {f"metrics/{name}": sum(numbers) / len(numbers) for name, numbers in measured.items()}
        return {"length": sum(lengths) / len(lengths), "distinct": distinct_share(found["outputs"]), **means}

    def save(self, directory: str | None = None, **kwargs) -> None:
        """Not trlX's checkpoint, which fails on GPT-2's tied embedding. A run of ILQL cannot be resumed here.

        Until: `accelerator.save_state` writes a model with tied weights.
        """

    def save_pretrained(self, directory: str | Path | None = None, **kwargs) -> Path:
        """Write language model, tokenizer and heads into a folder, all of them or none.

        `AutoModelForCausalLM.from_pretrained` reads the language model alone: what beta 0 samples from. `load` reads all.
        Until: `AutoModelForCausalLM.from_pretrained` gives back the logits of a model that trlX saved.

        Raises:
            CourseError: the folder cannot take the model, or the disk is full. The folder is then as it was.
        """
        folder = files.expand(directory or Path(self.config.train.checkpoint_dir) / "hf_model")
        checkpoint.check_model_folder(folder, self.config.model.model_path)
        model = self.accelerator.unwrap_model(self.model)

        def write(place: Path) -> None:
            model.base_model.save_pretrained(place)
            self.tokenizer.save_pretrained(place)
            save_file(model.ilql_heads.state_dict(), place / HEADS)

        return files.write_folder(folder, write)
