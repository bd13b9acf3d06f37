"""RLHF without a notebook: `python -m helpers train --config FILE --prompts FILE --reward MODEL`."""

import warnings
from pathlib import Path

from helpers import course
from helpers.errors import CourseError


def main(
    config: str, prompts: str, reward: str, out: str | None = None, minutes: float | None = None
) -> Path:
    """Train as `config` says on one prompt a line, rewarded by P(POSITIVE) of the classifier `reward`.

    The last tenth of the prompts (64 at most, one at least) is held out. Returns the folder of the tuned model.
    Under `accelerate launch` each process trains on its GPU, and the main one writes and prints.
    """
    from helpers.ppo import checkpoint
    from helpers.ppo.parallel import processes

    processes.check_launch()
    here = course.start()
    from helpers.engine import TRLConfig, train

    if not processes.is_main():
        warnings.simplefilter("ignore")  # the main process gives them

    settings = TRLConfig.load_yaml(config)
    folder = Path(out) if out else here.out / "train" / "model"
    processes.on_main(lambda: checkpoint.check_model_folder(folder, settings.model.model_path))
    texts = read_prompts(prompts)
    held_out = min(64, max(1, len(texts) // 10))
    if len(texts) <= held_out:
        raise CourseError(
            f"{prompts} has {len(texts)} prompt: at least 2 are needed, one of them to evaluate on"
        )
    trainer = train(
        reward_fn=load_reward(reward, processes.device()),
        prompts=texts[:-held_out],
        eval_prompts=texts[-held_out:],
        config=settings,
        minutes=minutes,
    )
    trainer.save_pretrained(folder)
    if processes.is_main():
        print(f"The tuned model is in {here.show_path(folder)}.")
    return folder


def read_prompts(path: str) -> list[str]:
    """One prompt a line; empty lines are left out."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CourseError(
            f"--prompts {path}: {error}. Expected a text file in UTF-8 with one prompt a line."
        ) from None
    texts = [line.strip() for line in lines if line.strip()]
    if not texts:
        raise CourseError(f"--prompts {path} has no prompts: expected one a line")
    return texts


def load_reward(model: str, device: str):
    """A reward function from a classifier with the class POSITIVE: a folder or a hub id.

    Raises:
        CourseError: it cannot be loaded, or has no such class.
    """
    from transformers import AutoModelForSequenceClassification, pipeline

    from helpers import weights
    from helpers.rewards import sentiment_reward

    expected = "Expected a classifier's folder or its name on the hub."
    classifier = weights.load_model(AutoModelForSequenceClassification, model, "--reward", expected=expected)
    tokenizer = weights.load_tokenizer(model, "--reward", expected=expected)
    labels = [str(label) for label in classifier.config.id2label.values()]
    if "POSITIVE" not in labels:
        raise CourseError(
            f"--reward {model:.200} has the classes {', '.join(labels):.200}: expected one called POSITIVE"
        )
    judge = pipeline(
        "sentiment-analysis",
        classifier,
        tokenizer=tokenizer,
        top_k=None,  # all classes, however many: POSITIVE need not be among the likeliest two
        batch_size=64,
        device=device,
        trust_remote_code=False,
    )
    longest = judge.model.config.max_position_embeddings  # a tokenizer may not know it, and then cuts nothing
    judge.tokenizer.model_max_length = min(judge.tokenizer.model_max_length, longest)
    return sentiment_reward(lambda samples: judge(samples, truncation=True))
