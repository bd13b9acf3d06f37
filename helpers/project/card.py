"""The card of a tuned model: the README.md that says, in the model's own folder, what it is and what it is not."""

from pathlib import Path

import pandas as pd
from huggingface_hub import ModelCard, ModelCardData

from helpers import files
from helpers.errors import CourseError
from helpers.ppo.run import Run
from helpers.project.report import (
    base_name,
    facts,
    method_name,
    refuse_unfinished,
    result,
    title,
)
from helpers.seal import check_own, sealed

TEXT = """\
# {title}

{base}, fine-tuned with {method} on a reward, to be tried out and studied.

{result} The intervals are over other prompts of the same kind, not over another training. KL is the sum of log pi - log pi_ref
over a sample's tokens: how far the model is from the one before training.

| | |
|---|---|
{rows}

## Limits

- The reward is a program's or a classifier's opinion; texts that please it need not please people. Nobody judged these texts,
  unless the line "reward" above says so.
- Training seeks out what the reward pays for, its mistakes too. A higher reward is no proof of a better text.
- The numbers are of held-out prompts of the same kind. Of other prompts, other lengths and other ways of sampling nothing is known.
- They are of one training with one seed. Another seed gives other numbers.
- What the base model has learned from its data, with its errors and prejudices, is still in this model. Nobody tested it for
  harmful or false texts, so do not put it before people unread.

## How to load it

In this folder; elsewhere put the folder's path, or the name on the hub, in place of ".":

```python
from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed

tokenizer = AutoTokenizer.from_pretrained(".")
model = AutoModelForCausalLM.from_pretrained(".")
set_seed({seed})
prompt = tokenizer({prompt}, return_tensors="pt")
tokens = model.generate(**prompt, pad_token_id=tokenizer.eos_token_id, **{sampling})
print(tokenizer.decode(tokens[0], skip_special_tokens=True))
```

## How it was made

{repeat}

## How to publish it

Nothing has been sent anywhere. These lines would send the model and this card to the Hugging Face hub, where others can read
them; `hf auth login` comes first. Check before that the licences of the base model and of the prompts allow it.

```python
from huggingface_hub import ModelCard

model.push_to_hub("your-name/your-model", private=True)
tokenizer.push_to_hub("your-name/your-model")
ModelCard.load("README.md").push_to_hub("your-name/your-model")
```
"""


def write_card(
    trainer: Run,
    compared: pd.DataFrame,
    folder: str | Path,
    *,
    reward: str,
    prompts: str,
    repeat: str,
    language: str | None = None,
    license: str | None = None,
) -> Path:
    """Write the model card README.md into the folder of a saved model.

    A README.md that the course did not write, or that was edited since, is left as it is: call `check_card` before the training.

    Args:
        trainer: a finished run of either engine.
        compared: what `compare.before_after` gave for held-out prompts.
        folder: where `trainer.save_pretrained` has put the model.
        reward, prompts, repeat: as `report.write_report` takes them.
        language: the texts' language as the hub names it, such as "en"; it is not guessed.
        license: the model's licence as the hub names it, such as "mit"; it is not guessed.
    Returns:
        The path of the card.
    Raises:
        CourseError: there is no model in the folder, there is nothing to report yet, another README.md is there, or the card
            cannot be written.
    """
    folder = files.expand(folder)
    check_card(folder)
    refuse_unfinished(trainer, compared)
    if not (folder / "config.json").is_file():
        raise CourseError(
            f"{folder} holds no model: save it there with trainer.save_pretrained, then write the card"
        )
    model = trainer.config.model.model_path
    data = ModelCardData(
        # a folder's path means nothing to the hub
        base_model=None if Path(model).is_dir() else model,
        language=language,
        license=license,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["rlhf", method_name(trainer).lower()],
    )
    text = TEXT.format(
        title=title(trainer),
        base=base_name(trainer),
        method=method_name(trainer),
        result=result(trainer, compared),
        rows="\n".join(
            f"| {name} | {in_a_cell(words)} |" for name, words in facts(trainer, reward, prompts).items()
        ),
        seed=trainer.config.train.seed,
        prompt=ascii(compared["prompt"].iloc[0]),
        sampling=sampling(trainer),
        # indented it is code, whatever stands in it
        repeat="\n".join(f"    {line}" for line in repeat.splitlines()),
    )
    card = ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}")
    files.write_text(folder / "README.md", sealed(str(card)))
    return folder / "README.md"


def check_card(folder: str | Path) -> None:
    """Check that a card can be written to a folder; call it before the training.

    Raises:
        CourseError: a README.md is there that the course did not write, or that was edited.
    """
    check_own(files.expand(folder) / "README.md")


def in_a_cell(words: str) -> str:
    """A text in one line, in which nothing begins another cell."""
    return " ".join(words.split()).replace("|", "\\|")


def sampling(trainer: Run) -> dict:
    """How the run's evaluation sampled, as arguments of `generate`."""
    return {
        name: value
        for name, value in trainer.sampler.eval_kwargs.items()
        if name not in ("eos_token_id", "pad_token_id")
    }
