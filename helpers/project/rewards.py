"""A reward as one writes it, for a notebook and for the command line: a classifier, a function, ratings, a program, or a sum of these."""

import difflib
import inspect
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers import assets, files
from helpers.errors import CourseError
from helpers.project import functions, programs
from helpers.rewards import call_with_accepted, score, takes_samples_first

FORMS = f"""A reward is one of
  MODEL:LABEL           how probable a text classifier, a folder or a name on the hub, finds the class LABEL;
                        MODEL alone where the class is POSITIVE, or where the model gives one number
  FILE.py:FUNCTION      a Python function of yours, reward_fn(samples) -> list[float]
  RATINGS.jsonl         a reward model fitted to preferences: the labeller's, or lines of prompt, chosen, rejected
  a program             {programs.GRAMMAR}
each with a weight where there are several: 0.7*MODEL:LABEL"""
RATINGS = (".jsonl", ".json", ".csv")
WEIGHTED = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*\*(.*)", re.DOTALL)
BEGINNINGS = (*programs.COUNTS, "contains", "starts with", "ends with")
HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")

TRIED_PROMPT, TRIED_OUTPUTS = "I watched this film", [" and loved every minute of it.", ""]
GIVEN = ("samples", "prompts", "outputs")


@dataclass(frozen=True)
class Part:
    """One term of a reward.

    Args:
        name: short, for a table.
        words: what it pays, for a sentence.
        pays: `pays(samples, prompts, outputs, **context)`, as a reward function returns it.
        needs: arguments that it asks for beside GIVEN, such as a column of the prompts.
        weight: what it is multiplied by.
    """

    name: str
    words: str
    pays: Callable[..., Any]
    needs: tuple[str, ...] = ()
    weight: float = 1.0

    def __call__(self, samples: list[str], prompts: list[str], outputs: list[str], **context: Any) -> list:
        """What it pays each sample, weighted: a number, or a list of numbers, one for each token."""
        try:
            paid = score(self.pays, samples, prompts, outputs, **context)
        except CourseError as error:
            raise CourseError(f"the reward {self.name}: {error}") from error
        return [
            [self.weight * each for each in reward] if isinstance(reward, list) else self.weight * reward
            for reward in paid
        ]


class Reward:
    """A reward function made of parts: their sum. Its docstring says in words what it pays.

    `parts` are the names of its parts. Where there are several, `metric_fn` gives what each of them pays, weighted, so that the
    metrics add up to the reward; else it is None.
    """

    def __init__(self, parts: list[Part]):
        self._parts = parts
        self._last: tuple | None = None
        several = len(parts) > 1
        self.parts = [f"{part.weight:g}*{part.name}" if part.weight != 1 else part.name for part in parts]
        self.metric_fn = self.by_part if several else None
        self.__doc__ = sentence(parts)

    def __call__(
        self,
        samples: list[str],
        prompts: list[str] | None = None,
        outputs: list[str] | None = None,
        **context: Any,
    ) -> list[float] | list[list[float]]:
        """The reward of each sample. Without `outputs` the samples count as continuations of nothing."""
        columns = self.columns(list(samples), prompts, outputs, context)
        if len(columns) == 1:
            return columns[0]
        return [sum(paid) for paid in zip(*columns, strict=True)]

    def by_part(
        self,
        samples: list[str],
        prompts: list[str] | None = None,
        outputs: list[str] | None = None,
        **context: Any,
    ) -> dict[str, list[float]]:
        """What each part pays each sample, weighted."""
        return dict(zip(self.parts, self.columns(list(samples), prompts, outputs, context), strict=True))

    def columns(self, samples: list[str], prompts: Any, outputs: Any, context: dict) -> list[list]:
        """What each part pays each sample. Those of the last call are remembered: an evaluation asks twice."""
        outputs = samples if outputs is None else list(outputs)
        prompts = [""] * len(samples) if prompts is None else list(prompts)
        asked = (samples, prompts, outputs)
        if self._last is None or self._last[0] != asked:
            columns = [part(samples, prompts, outputs, **context) for part in self._parts]
            for part, column in zip(self._parts, columns, strict=True):
                if len(columns) > 1 and any(isinstance(reward, list) for reward in column):
                    raise CourseError(
                        f"the reward {part.name} gives a number for each token, and the others one for each sample: let it return "
                        "one number for each sample, or use it alone."
                    )
            self._last = asked, columns
        return self._last[1]


def reward_from(specs: str | list[str], device: str, model: str | None = None) -> Reward:
    """A reward function from what a reader writes. It is tried on two samples, of which one is empty, before it is returned.

    Args:
        specs: one or several of the forms in FORMS; of several the sum is paid.
        device: where models are, such as "cpu".
        model: the causal model whose network a reward model is fitted from; the course's, at its scale, if left out.
    Returns:
        The function. A classifier, a function and a reward model read the whole text, prompt and continuation; a program reads
        the continuation alone.
    Raises:
        CourseError: one of them is none of the forms, cannot be loaded or fitted, or breaks the contract of helpers/rewards.py.
    """
    specs = [specs] if isinstance(specs, str) else list(specs)
    if not specs:
        raise CourseError(f"no reward is given. {FORMS}")
    weighted = [split_weight(spec) for spec in specs]  # all are read before the first is loaded
    makers = [(weight, maker_of(spec)) for weight, spec in weighted]
    parts = []
    for weight, make in makers:
        part = make(device, model)
        parts.append(Part(part.name, part.words, part.pays, part.needs, weight))
    refuse_twice([part.name for part in parts])
    reward = Reward(parts)
    if not any(part.needs for part in parts):  # else the run tries it, which has the prompts' columns
        try_out(reward)
    return reward


def split_weight(spec: str) -> tuple[float, str]:
    """The weight that a text begins with, 1 where there is none, and the rest.

    Raises:
        CourseError: it is empty, or the weight is 0 or too large.
    """
    if not isinstance(spec, str) or not spec.strip():
        raise CourseError(f"the reward {spec!r:.60} is empty. {FORMS}")
    found = WEIGHTED.fullmatch(spec)
    weight, rest = (float(found[1]), found[2].strip()) if found else (1.0, spec.strip())
    if weight == 0 or not math.isfinite(weight):
        raise CourseError(
            f"the reward {spec!r:.100} has the weight {weight:g}: expected another number than 0, not infinite."
        )
    if not rest:
        raise CourseError(f"the reward {spec!r:.100} has a weight and nothing else. {FORMS}")
    return weight, rest


def maker_of(spec: str) -> Callable[[str, str | None], Part]:
    """What makes a part from a text without weight, given device and model. What the text alone shows to be wrong is refused.

    Raises:
        CourseError: it is none of the forms, or names no file.
    """
    if program := programs.parse(spec):
        words = f"1 where {program.words}, else 0"
        return lambda *_: Part(program.name, words, lambda samples, outputs: program(outputs))
    source, _, name = spec.rpartition(":")
    if source.lower().endswith(".py"):
        return lambda *_: of_function(files.expand(source), name.strip())
    path = files.expand(spec)
    if spec.lower().endswith(".py"):
        raise CourseError(f"the reward {spec} names no function in that file. {functions.EXPECTED}")
    if spec.lower().endswith(RATINGS):
        return lambda device, model: of_ratings(path, device, model)
    if path.exists():
        return lambda device, _: of_classifier(spec, "", device)
    refuse_misspelt_program(spec)
    if not source or re.fullmatch(r"[A-Za-z]:[\\/].*", spec) and len(source) == 1:  # a drive of Windows
        source, name = spec, ""
    if not files.expand(source).exists() and not HUB_NAME.fullmatch(source):
        raise CourseError(f"the reward {spec!r:.200}: there is no folder {source!r:.200}. {FORMS}")
    return lambda device, _: of_classifier(source, name.strip(), device)


def refuse_misspelt_program(spec: str) -> None:
    """Refuse what can only be meant as a program.

    Raises:
        CourseError: it shows the grammar.
    """
    if spec in programs.COUNTS:
        raise CourseError(
            f"the reward {spec!r} compares with nothing. Put it in quotation marks, --reward '{spec}>=10', because a shell takes "
            f"> for the name of a file. A program is {programs.GRAMMAR}."
        )
    first = re.match(r"[^<>=!\"']*", spec)[0].strip().lower()
    beginning = (
        " ".join(first.split()[:2]) if first.startswith(("start", "end")) else (first.split() or [""])[0]
    )
    near = difflib.get_close_matches(beginning, BEGINNINGS, 1, cutoff=0.75)
    if re.search(r"[<>=!\"']", spec) or (near and " " in spec):
        meant = f" Did you mean {near[0]}?" if near and near[0] != beginning else ""
        raise CourseError(f"the reward {spec!r:.100} is no program.{meant} A program is {programs.GRAMMAR}.")


def refuse_twice(names: list[str]) -> None:
    """Refuse two parts of one name, which a table could not tell apart."""
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise CourseError(
            f"the reward {twice} is given twice. Give it once, with the sum of the weights; or rename its file."
        )


def try_out(reward: Reward) -> None:
    """Hold a reward to its contract on two samples.

    Raises:
        CourseError: it breaks it.
    """
    samples = [TRIED_PROMPT + output for output in TRIED_OUTPUTS]
    try:
        score(reward, samples, [TRIED_PROMPT] * len(samples), TRIED_OUTPUTS)
    except CourseError as error:
        raise CourseError(
            f"{error} It was tried on two samples: {samples[0]!r} and, as a model that stops at once leaves it, {samples[1]!r}."
        ) from error


def sentence(parts: list[Part]) -> str:
    """In words what the parts pay together."""
    said = [part.words if part.weight == 1 else f"{part.weight:g} times {part.words}" for part in parts]
    return f"It pays {said[0]}." if len(said) == 1 else f"It pays the sum of: {'; '.join(said)}."


# --------------------------------------------------------------------------------------------- the forms


def of_function(path: Path, name: str) -> Part:
    """A function of the reader's own, out of a file, which is run."""
    function = functions.load_function(path, name)
    what = f"the function {name}"

    def pays(samples: list[str], **context: Any) -> Any:
        with functions.errors_in(path, what):
            return call_with_accepted(function, samples=samples, **context)

    with functions.errors_in(path, what):
        parameters = inspect.signature(function).parameters
        asked = list(parameters.values())[takes_samples_first(parameters, dict.fromkeys(GIVEN)) :]
    needs = tuple(
        each.name
        for each in asked
        if each.default is each.empty
        and each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)
        and each.name not in GIVEN
    )
    first = (inspect.getdoc(function) or "").strip().partition("\n")[0]
    words = f"what {name} in {path.name} returns" + (f" ({first.rstrip('.')})" if first else "")
    return Part(f"{path.name}:{name}", words, pays, needs)


def of_classifier(source: str, label: str, device: str) -> Part:
    """P(label) of each text by a classifier; of one with a single output the number that it gives."""
    from helpers.feedback.reward_model import learned_reward
    from helpers.judge import load_classifier, pad_alike, pipeline_of

    place = files.expand(source)
    short = place.name if place.exists() else source
    with assets.cache_alone(source) as silent:
        try:
            model, tokenizer = load_classifier(str(place))
        except CourseError as error:
            if not silent:
                raise
            raise CourseError(
                f"the reward {source!r:.200}: there is no folder of this name. A model would come from huggingface.co, which does not "
                f"answer, and no earlier run left it here. {FORMS}"
            ) from error
    labels = [str(each) for each in model.config.id2label.values()]
    if len(labels) == 1 and label in ("", *labels) and labels != ["POSITIVE"]:
        pad_alike(model, tokenizer)
        reward_fn = learned_reward(model.to(device), tokenizer)
        return Part(short, f"the number that the reward model {short} gives the text", reward_fn)
    label = find_label(labels, label, source)
    judge = pipeline_of(model, tokenizer, device)

    def pays(samples: list[str]) -> list[float]:
        return [{row["label"]: row["score"] for row in rows}[label] for rows in judge(list(samples))]

    what = (
        f"{label} of the text by"
        if model.config.problem_type == "regression"
        else f"P({label}) of the text by"
    )
    return Part(f"{short}:{label}", f"{what} the classifier {short}", pays)


def find_label(labels: list[str], label: str, source: str) -> str:
    """The class that is meant: `label`, or POSITIVE where it is empty.

    Raises:
        CourseError: there is not exactly one of that name; it lists the classes.
    """
    wanted = label or "POSITIVE"
    if labels.count(wanted) == 1:
        return wanted
    near = difflib.get_close_matches(wanted.lower(), [each.lower() for each in labels], 1)
    meant = next((each for each in labels if [each.lower()] == near), labels[0])
    what = f"the class {wanted!r:.60} more than once" if wanted in labels else f"no class {wanted!r:.60}"
    raise CourseError(
        f"the model {source!r:.200} has {what}. It has {', '.join(map(repr, labels)):.300}. "
        + (f"Did you mean {source}:{meant}?" if near else f"Name one, such as {source}:{meant}.")
    )


def of_ratings(path: Path, device: str, model: str | None) -> Part:
    """What a reward model fitted to preferences gives each text, normalised over the rated texts."""
    from helpers.feedback import exchange, reward_model
    from helpers.ppo.parallel import processes

    ratings = exchange.read_ratings(path)
    try:
        fitted = reward_model.fit_and_test(
            ratings, model or course_model(), device, progress=processes.is_main()
        )
    except CourseError as error:
        raise CourseError(f"the reward {path}: {error}") from error
    right = f"right on {fitted.accuracy.share:.0%} of {fitted.accuracy.n} held-out preferences"
    if processes.is_main():
        doubt = "" if fitted.accuracy.low > 0.5 else "; so it may be no better than a coin: rate more"
        print(
            f"The reward model fitted to {fitted.preferences} preferences in {path.name} is {right}, "
            f"95% interval {fitted.accuracy.low:.0%} to {fitted.accuracy.high:.0%}{doubt}."
        )
    words = f"what a reward model fitted to {fitted.preferences} preferences in {path.name} gives ({right}; normalised)"
    return Part(path.name, words, fitted.reward_fn)


def course_model() -> str:
    """The folder of the course's own policy at its scale."""
    from helpers import course

    scale, folder = course.choose_scale()
    return assets.find_model("gpt2-imdb", scale, folder)
