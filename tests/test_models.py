"""Models that people bring: other architectures, other files, other tokenizers, chat templates. Each trains, or is refused."""

import copy
import re
import shutil

import pytest
import torch
from common import ROOT
from ppo_run import PROMPTS, count_the, small_config, without_times
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BloomConfig,
    FalconConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    OPTConfig,
    PhiConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from helpers import compare, engine
from helpers.errors import CourseError
from helpers.feedback import dpo
from helpers.ppo.fast.rollout import FastRollouts
from helpers.ppo.fast.trainer import FastPPOTrainer
from helpers.ppo.prompts import prompt_ids

ROWS = 300  # of the embeddings; the tokenizer has a few less
SHAPE = dict(vocab_size=ROWS, hidden_size=32, num_hidden_layers=3, num_attention_heads=4)
GATED = SHAPE | dict(intermediate_size=48, num_key_value_heads=2)
WINDOW = dict(sliding_window=4)  # shorter than every text here
HEADS = dict(head_dim=8)

MODELS = {
    "Llama, output layer of its own": LlamaConfig(**GATED),
    "Llama, output layer tied": LlamaConfig(**GATED, tie_word_embeddings=True),
    "Mistral, sliding window": MistralConfig(**GATED, **WINDOW),
    "Qwen 2": Qwen2Config(**GATED, tie_word_embeddings=True),
    "Qwen 2, window above block 1": Qwen2Config(
        **GATED, **WINDOW, use_sliding_window=True, max_window_layers=1
    ),
    "Qwen 3": Qwen3Config(**GATED, **HEADS),
    "GPT-NeoX": GPTNeoXConfig(**SHAPE, intermediate_size=48),
    "OPT": OPTConfig(**SHAPE, ffn_dim=48, word_embed_proj_dim=32),
    "Gemma 2 without caps": Gemma2Config(
        **GATED, **HEADS, **WINDOW, final_logit_softcapping=None, attn_logit_softcapping=None
    ),
    "Gemma 3, sliding window": Gemma3TextConfig(**GATED, **HEADS, **WINDOW),
    "Phi": PhiConfig(**SHAPE, intermediate_size=48),
    "Bloom": BloomConfig(vocab_size=ROWS, hidden_size=32, n_layer=3, n_head=4),
    "Falcon": FalconConfig(**SHAPE),
}
# the output layer is narrower than the blocks, and there is no final norm
NARROW = OPTConfig(**SHAPE, ffn_dim=48, word_embed_proj_dim=16, do_layer_norm_before=False)

SPECIAL = dict(bos_token="<s>", eos_token="</s>", pad_token="<pad>")
TURNS = ("<|im_start|>", "<|im_end|>")
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def save_tokenizer(folder, begins=False, **special):
    """A byte-level tokenizer, saved. `begins`: it puts <s> before every text, as Llama's does."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=290,
        special_tokens=[*SPECIAL.values(), *TURNS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(PROMPTS * 4, trainer)
    if begins:
        raw.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", raw.token_to_id("<s>"))]
        )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, **(special or SPECIAL))
    tokenizer.save_pretrained(folder)
    return tokenizer


def save_model(folder, config):
    """A model with random weights, biases and norms among them, saved with a tokenizer."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    model.generation_config.eos_token_id = model.generation_config.pad_token_id = None
    model.save_pretrained(folder)
    return save_tokenizer(folder)


class Watched(FastPPOTrainer):
    """Keeps its rounds of rollouts, and the weights from before."""

    def learn(self):
        self.seen, self.before = [], copy.deepcopy(self.policy.state_dict())
        super().learn()

    def collect(self):
        self.seen.append(super().collect())
        return self.seen[-1]


def trained(folder, out, prompts=PROMPTS, changes=None, **kwargs):
    """Two rounds of four steps on the model in `folder`."""
    changes = {
        "model": {"model_path": str(folder)},
        "tokenizer": {"tokenizer_path": str(folder)},
        **(changes or {}),
    }
    kwargs = dict(reward_fn=count_the, prompts=prompts, eval_prompts=prompts) | kwargs
    config = small_config(out, model={"num_layers_unfrozen": 1}).evolve(**changes)
    return engine.train(config=config, trainer_class=Watched, **kwargs)


def refused(*arguments, **kwargs) -> str:
    """The message of a run that is refused before anything is scored but the two samples on trial."""
    scored = []

    def reward_fn(samples, **kwargs):
        scored.extend(samples)
        return count_the(samples)

    with pytest.raises(CourseError) as error:
        trained(*arguments, reward_fn=reward_fn, **kwargs)
    assert len(scored) <= 2
    return str(error.value)


def plain_logprobs(model, rollouts) -> torch.Tensor:
    """The log-probabilities (N, R) of the responses from the model's own forward pass, text by text, without padding."""
    found = torch.zeros_like(rollouts.mask)
    for row in range(len(rollouts)):
        query = rollouts.query[row][rollouts.query_mask[row].bool()]
        response = rollouts.response[row][rollouts.mask[row].bool()]
        with torch.no_grad():
            logits = model(torch.cat([query, response])[None]).logits[0, len(query) - 1 : -1]
        found[row, : len(response)] = logits.log_softmax(-1).gather(-1, response[:, None])[:, 0]
    return found


def learns(name: str) -> bool:
    """Whether a weight is of the top one of three blocks, the final norm, an output layer of its own, or the value head."""
    if block := re.search(r"\.(?:layers|h)\.(\d)\.", name):
        return block[1] == "2"
    above = ("norm", "ln_f", "final_layer_norm", "final_layernorm", "lm_head", "embed_out")
    return name.startswith("v_head.") or name.split(".")[-2] in above


def check(trainer, folder, out):
    """The numbers of a run on the model in `folder`, held against transformers alone."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    first, second = trainer.seen
    assert first.query_mask.min() == 0  # there is padding
    own, reference = plain_logprobs(model, first), plain_logprobs(model, second)
    for found, expected in [
        (first.logprobs, own),
        (first.ref_logprobs, own),
        (second.ref_logprobs, reference),
    ]:
        assert torch.allclose(found, expected, atol=2e-5)
    history = trainer.history
    assert history.rounds[0]["kl"] == pytest.approx(0, abs=1e-4) == history.evals[0]["kl"]
    assert history.updates[0]["ratio"] == pytest.approx(1, abs=1e-5)
    # the reference and all that is frozen are as they were, and all that learns has moved
    weights = dict(trainer.policy.named_parameters())
    moved = {name for name, weight in weights.items() if not torch.equal(weight, trainer.before[name])}
    all_of_it = trainer.config.model.num_layers_unfrozen == -1
    kept = {name for name in weights if name.startswith("reference.") or not (all_of_it or learns(name))}
    assert moved == set(weights) - kept and len(moved) < len(weights)
    # plain transformers reads what is saved, and gives what the engine gives after its steps
    saved = AutoModelForCausalLM.from_pretrained(trainer.save_pretrained(out)).eval()
    last, _ = trainer.sampler.rollouts(trainer.prompts, list(range(len(trainer.prompts))))
    after = plain_logprobs(saved, last)
    assert torch.equal(after, plain_logprobs(trainer.model, last))
    assert torch.allclose(last.logprobs, after, atol=2e-5)
    assert not torch.allclose(last.ref_logprobs, after, atol=1e-3)


# ---------------------------------------------------------------------------------- architectures


ALL_OF_IT = ["Llama, output layer tied", "GPT-NeoX", "Phi", "Bloom"]  # also with every weight learning


@pytest.mark.parametrize(
    "kind, unfrozen", [*((kind, 1) for kind in MODELS), *((kind, -1) for kind in ALL_OF_IT)]
)
def test_an_architecture_trains(tmp_path, kind, unfrozen):
    save_model(tmp_path / "model", MODELS[kind])
    changes = {"model": {"model_path": str(tmp_path / "model"), "num_layers_unfrozen": unfrozen}}
    trainer = trained(tmp_path / "model", tmp_path / "run", changes=changes)
    check(trainer, tmp_path / "model", tmp_path / "saved")
    fast = kind == "Llama, output layer tied" and unfrozen == 1
    assert isinstance(trainer.seen[0], FastRollouts) == fast


def test_an_output_layer_narrower_than_the_blocks(tmp_path):
    """OPT-350m's: it has no final norm either, so only all of it can learn."""
    save_model(tmp_path / "model", NARROW)
    message = refused(tmp_path / "model", tmp_path / "run")
    assert "OPTForCausalLM names its blocks" in message and "num_layers_unfrozen to -1" in message
    changes = {"model": {"model_path": str(tmp_path / "model"), "num_layers_unfrozen": -1}}
    trainer = trained(tmp_path / "model", tmp_path / "run", changes=changes)
    assert trainer.policy.v_head[0].in_features == 16
    check(trainer, tmp_path / "model", tmp_path / "saved")


# ------------------------------------------------------------------------------------------ files


LLAMA = MODELS["Llama, output layer tied"]


@pytest.fixture
def model(tmp_path):
    """The folder of a small Llama."""
    save_model(tmp_path / "model", LLAMA)
    return tmp_path / "model"


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_half_the_precision_is_read_as_it_is_and_trained_in_float32(tmp_path, model, precision):
    half = AutoModelForCausalLM.from_pretrained(model, dtype=precision)
    half.save_pretrained(model)
    trainer = trained(model, tmp_path / "run")
    assert {p.dtype for p in trainer.policy.parameters()} == {torch.float32}
    check(trainer, model, tmp_path / "saved")
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    assert saved.dtype == torch.float32  # as its file says


def test_shards_are_one_model(tmp_path, model):
    whole = trained(model, tmp_path / "whole")
    tensors = AutoModelForCausalLM.from_pretrained(model)
    (model / "model.safetensors").unlink()
    tensors.save_pretrained(model, max_shard_size="20KB")
    assert len(list(model.glob("model-*.safetensors"))) > 3
    shards = trained(model, tmp_path / "shards")
    assert without_times(shards.history) == without_times(whole.history)


def test_an_adapter_is_refused_and_trains_once_it_is_merged_as_the_message_says(tmp_path, model):
    peft = pytest.importorskip("peft", reason="an adapter needs peft: python -m pip install peft")
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    adapted = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(model), config)
    adapted.save_pretrained(tmp_path / "adapter")
    save_tokenizer(tmp_path / "adapter")
    for there in (True, False):  # the model that it was made for
        if not there:
            shutil.move(model, tmp_path / "elsewhere")
        message = refused(tmp_path / "adapter", tmp_path / "run")
        assert "it is an adapter for" in message and str(model) in message and "merge_and_unload" in message
    with torch.no_grad():
        expected = adapted.eval()(torch.arange(9)[None]).logits
    shutil.move(tmp_path / "elsewhere", model)
    loaded = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model), tmp_path / "adapter")
    loaded.merge_and_unload().save_pretrained(tmp_path / "merged")
    save_tokenizer(tmp_path / "merged")
    trainer = trained(tmp_path / "merged", tmp_path / "run")
    check(trainer, tmp_path / "merged", tmp_path / "saved")
    with torch.no_grad():
        assert torch.allclose(trainer.policy.reference(torch.arange(9)[None]).logits, expected, atol=1e-5)


def test_a_checkpoint_is_a_model_in_a_folder_of_it(tmp_path, model):
    """As trlX's are too."""
    first = trained(model, tmp_path / "run")
    message = refused(tmp_path / "run" / "checkpoint_8", tmp_path / "again")
    assert message.startswith("tokenizer.tokenizer_path") and "in the folder hf_model there" in message
    again = trained(tmp_path / "run" / "checkpoint_8" / "hf_model", tmp_path / "again")
    ids = torch.arange(9)[None]
    with torch.no_grad():
        assert torch.equal(again.policy.reference(ids).logits, first.model(ids).logits)


# ------------------------------------------------------------------------------------- tokenizers


@pytest.mark.parametrize("without", ["bos_token", "pad_token"])
def test_a_tokenizer_that_lacks_a_token(tmp_path, model, without):
    save_tokenizer(model, **{name: token for name, token in SPECIAL.items() if name != without})
    trainer = trained(model, tmp_path / "run")
    check(trainer, model, tmp_path / "saved")
    if without == "pad_token":
        assert trainer.tokenizer.pad_token == "</s>"
        return
    message = refused(model, tmp_path / "run", prompts=None)
    assert message.endswith("no token that begins a text, from which samples could start: give prompts")


def test_where_the_tokenizer_begins_each_text_prompts_begin_so_too(tmp_path, model):
    tokenizer = save_tokenizer(model, begins=True)
    given = [*PROMPTS[:3], "<s>The plot", "<s>The director of this film"]
    expected = tokenizer([text.removeprefix("<s>") for text in given])["input_ids"]
    assert all(ids.count(tokenizer.bos_token_id) == 1 for ids in expected)
    assert tokenizer(given)["input_ids"] != expected  # transformers writes a second one
    trainer = trained(model, tmp_path / "run", prompts=given)
    assert trainer.prompts.tokens == expected
    check(trainer, model, tmp_path / "saved")
    # without prompts samples start from the one token
    assert trained(model, tmp_path / "run", prompts=None).prompts.tokens[0] == [tokenizer.bos_token_id]
    # DPO, and the texts before and after, have the same ids
    assert dpo.tokens_of(tokenizer, given[3], " was") == (
        expected[3],
        tokenizer(" was", add_special_tokens=False)["input_ids"],
    )
    seen = []
    generate = trainer.model.generate
    trainer.model.generate = lambda **given: seen.append(given["input_ids"]) or generate(**given)
    compare.continue_prompts(trainer.model, tokenizer, given[3:])
    assert seen[0][-1].tolist() == expected[-1]


def test_a_tokenizer_that_ends_each_text_does_not_end_prompts(tmp_path):
    tokenizer = save_tokenizer(tmp_path)
    plain = tokenizer("The plot")["input_ids"]
    raw = tokenizer.backend_tokenizer
    raw.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    assert tokenizer("The plot")["input_ids"] == [*plain, 1]
    assert prompt_ids(["The plot", ""], tokenizer) == [plain, []]


def test_more_rows_than_tokens_train_and_fewer_are_refused(tmp_path, model):
    """Rows that fill the embeddings up to a round number, as Qwen's do, are sampled from as the model has them."""
    larger = AutoModelForCausalLM.from_pretrained(model)
    larger.resize_token_embeddings(384)
    larger.save_pretrained(model)
    trainer = trained(model, tmp_path / "run")
    check(trainer, model, tmp_path / "saved")
    assert max(rollouts.response.max() for rollouts in trainer.seen) >= len(trainer.tokenizer)
    larger.resize_token_embeddings(len(trainer.tokenizer) - 1)
    larger.save_pretrained(model)
    message = refused(model, tmp_path / "run")
    assert f"the model knows the ids 0 to {len(trainer.tokenizer) - 2} alone" in message


# ------------------------------------------------------------------------------------------- chat


def question(tokenizer, text):
    """A prompt as docs/chat-templates.md makes it."""
    messages = [{"role": "user", "content": text}]
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)


@pytest.mark.parametrize("begins", [True, False])
@pytest.mark.parametrize("template", [CHATML, "{{ bos_token }}" + CHATML])
def test_prompts_from_a_chat_template_have_its_ids(tmp_path, model, begins, template):
    tokenizer = save_tokenizer(model, begins=begins)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(model)
    prompts = [question(tokenizer, text) for text in PROMPTS]
    trainer = trained(model, tmp_path / "run", prompts=prompts)
    check(trainer, model, tmp_path / "saved")
    for text, ids in zip(PROMPTS, trainer.prompts.tokens, strict=True):
        messages = [{"role": "user", "content": text}]
        alone = tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
        bos = tokenizer.bos_token_id
        assert ids == ([bos, *alone] if begins and alone[0] != bos else alone)
        assert ids.count(bos) == (begins or template != CHATML)
    saved = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert question(saved, PROMPTS[0]) == prompts[0]


def favour(model, token, bias):
    """Let `token` be a likely one after any text: its row of the output layer is along the mean hidden state."""
    with torch.no_grad():
        hidden = model.model(torch.randint(10, 280, (4, 20))).last_hidden_state.mean((0, 1))
        model.lm_head.weight[token] += bias * hidden / hidden.square().sum()


def test_the_end_of_a_turn_ends_a_response_where_it_is_named(tmp_path):
    """The tokenizer of a base model ends texts at </s>; its chat template ends turns at <|im_end|>."""
    model = tmp_path / "model"
    tokenizer = save_model(model, MODELS["Llama, output layer of its own"])
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    chat = AutoModelForCausalLM.from_pretrained(model)
    favour(chat, end, 8.0)
    chat.save_pretrained(model)
    without = trained(model, tmp_path / "without")
    assert max(row.tolist().count(end) for row in without.seen[0].response) > 1  # it writes on, and on
    message = refused(model, tmp_path / "run", stop_sequences=["<|im_end|>"])
    assert (
        "is a special token" in message and "tokenizer_extra_configs=dict(eos_token='<|im_end|>')" in message
    )
    named = {"tokenizer_path": str(model), "tokenizer_extra_configs": dict(eos_token="<|im_end|>")}
    trainer = trained(
        model, tmp_path / "run", changes={"model": {"model_path": str(model)}, "tokenizer": named}
    )
    check(trainer, model, tmp_path / "saved")
    for rollouts in trainer.seen:
        for row, mask in zip(rollouts.response, rollouts.mask, strict=True):
            assert end not in row[mask.bool()][:-1]
    assert trainer.history.rounds[0]["length"] < 0.8 * without.history.rounds[0]["length"]
    # what is saved ends there as well
    saved, tokenizer = (
        AutoModelForCausalLM.from_pretrained(tmp_path / "saved"),
        AutoTokenizer.from_pretrained(tmp_path / "saved"),
    )
    assert tokenizer.eos_token == "<|im_end|>" and saved.generation_config.eos_token_id == end


def numbers_of(table: str) -> dict[str, list[float]]:
    """The rows of a table of docs/chat-templates.md, with shares as fractions."""
    rows = [re.split(r" {2,}", line.strip()) for line in table.strip().splitlines()[1:]]
    return {
        name: [float(cell[:-1]) / 100 if cell.endswith("%") else float(cell) for cell in cells]
        for name, *cells in rows
    }


def test_the_numbers_on_the_page_are_those_of_its_code(capsys):
    """Another processor rounds differently, so losses may differ by a tenth and shares by ten points."""
    page = (ROOT / "docs" / "chat-templates.md").read_text(encoding="utf-8")
    (table,) = re.findall(r"^```text\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    (code,) = [
        block
        for block in re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
        if "def tune" in block
    ]
    exec(compile(code, "docs/chat-templates.md", "exec"), {})
    found, expected = numbers_of(capsys.readouterr().out), numbers_of(table)
    assert found.keys() == expected.keys() and len(found) == 4
    for name, row in expected.items():
        assert found[name] == pytest.approx(row, rel=0.1, abs=0.1), name
