"""Makes the pairs that are the same on every machine: `python -m helpers.maintain.shared_pairs`."""

import json
import os

from transformers import AutoModelForCausalLM, AutoTokenizer

from helpers import course, reviews
from helpers.compare import continue_prompts
from helpers.feedback.pairs import SHARED, Pair, choose_pairs
from helpers.files import write_text

COUNT = 60
UNUSED = slice(700, 700 + COUNT)
"""Prompts that notebook 09 takes neither for training, its first 500, nor for its test, the 125 after them."""
CONTINUATIONS = 4


def make() -> list[Pair]:
    """For each of sixty prompts the two of four continuations that have the fewest words in common, as notebook 09 chooses pairs."""
    os.environ["RLHF_SCALE"] = "tiny"
    here = course.start()
    prompts = reviews.make_prompts(here)[0][UNUSED]
    tokenizer = AutoTokenizer.from_pretrained(here.finetuned_model)
    policy = AutoModelForCausalLM.from_pretrained(here.finetuned_model, dtype="float32")
    drawn = [continue_prompts(policy, tokenizer, prompts, seed) for seed in range(CONTINUATIONS)]
    return choose_pairs(prompts, [list(texts) for texts in zip(*drawn, strict=True)], COUNT)


def lines(pairs: list[Pair]) -> str:
    """The pairs as the file has them: a JSON object on each line."""
    return "".join(
        json.dumps({"prompt": pair.prompt, "first": pair.first, "second": pair.second}) + "\n"
        for pair in pairs
    )


def main() -> None:
    """Write the file. The same machine writes the same bytes each time."""
    write_text(SHARED, lines(make()))
    print(f"{COUNT} pairs written to {course.show_path(SHARED)}")


if __name__ == "__main__":
    main()
