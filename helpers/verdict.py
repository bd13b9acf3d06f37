"""A run's health in plain words, read off its history.

A verdict is a line for each sign. Where several say "look", the likeliest cause comes first: a run whose rewards are all the same
also has a reward that does not rise, and it is no use to mend that. The numbers in the docstrings were measured on notebook 06's
run at tiny scale and on the sick runs of helpers/maintain/clinic.py, where no source is named.
"""

import json
import math
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean, stdev
from typing import NamedTuple

from helpers import files
from helpers.errors import CourseError
from helpers.ppo import checkpoint
from helpers.ppo.run import History

ROUND = "step samples reward reward_std same_reward cut_reward kl kl_std kl_coef length cut prompts".split()
ROUND += "distinct opening ending distinct_2".split()
UPDATE = "step policy_loss ratio clipfrac approx_kl entropy".split()
EVALUATION = "step reward/mean".split()
"""What a verdict reads of a round, of an update and of an evaluation."""
SURE = 3.0
"""Standard errors beyond which a change is taken to be no chance. Of 1,000 runs that learn nothing, 3 pass it, up or down."""


class Sign(NamedTuple):
    """One thing that is well with a run, or one that is not, what to change, and where that is explained.

    where: a notebook's number and one of its headings, such as "07 The details".
    """

    fine: bool
    text: str
    change: str = ""
    where: str = ""

    @property
    def said(self) -> str:
        """The sign in words, without the one that says whether it is well."""
        where = f" (notebook {self.where[:2]}, {self.where[3:]})" if self.where else ""
        return self.text + (f". {self.change}{where}" if self.change else "")

    def __str__(self) -> str:
        return ("ok:   " if self.fine else "look: ") + self.said


def summary(history: History, seconds: float, before: int = 0) -> list[str]:
    """What a run did, in a few lines; the verdict is the last of them. `before` steps were made by earlier calls."""
    lines = []
    if history.evals and history.updates:
        first, last = history.evals[0], history.evals[-1]
        earlier = f", after {before} of an earlier call" if before else ""
        lines.append(
            f"{history.updates[-1]['step'] - before} steps in {seconds:.0f} s{earlier}. Held-out reward {first['reward/mean']:.2f} -> "
            f"{last['reward/mean']:.2f}, KL {last['kl']:.1f} nats a sample, {last['distinct']:.0%} distinct outputs."
        )
    return lines + verdict(history)


def verdict(history: History) -> list[str]:
    """The run's health in plain words: first the lines that begin with "look", the likeliest cause first, then those with "ok"."""
    return [str(sign) for sign in signs(history)]


def signs(history: History) -> list[Sign]:
    """What `verdict` says, line by line."""
    if not_finite := first_not_finite(history):
        step, name, value = not_finite
        return [
            Sign(
                False,
                f"{name} is {value} at step {step}: the run has diverged, and says nothing from there on",
                "Start anew with a lower learning rate",
            )
        ]
    whole, history = history, said_in_full(history)
    if len(history.rounds) < 2 or not history.updates:
        older = (
            ", after those of an older version of the course, which say less"
            if len(history.rounds) < len(whole.rounds)
            else ""
        )
        return [Sign(False, f"too short a run to judge; let it make at least two rounds of rollouts{older}")]
    reward = judge_reward(history)
    found = list(causes(history))
    if reward.fine:  # where the reward does not rise, there is little for a value head to forecast
        found += judge_values(history)
    outcome = [reward, judge_kl(history), *judge_ratio(history), judge_variety(history)]
    # a policy that repeats itself is why its KL is large, and comes before it
    looks = [sign for sign in (outcome[-1], *outcome[:-1]) if not sign.fine]
    return [*found, *looks, *(sign for sign in outcome if sign.fine)]


def read_history(path: Path) -> History:
    """The history in a checkpoint, in the newest of a folder's checkpoints, or in a JSON file with rounds, updates and evals.

    Raises:
        CourseError: there is none, or it is damaged.
    """
    path = files.expand(path)
    found = path / "state.json" if (path / "state.json").is_file() else path
    if path.is_dir() and found == path:
        newest = checkpoint.newest(path)
        if newest is None:
            raise CourseError(
                f"{path} holds no checkpoint: expected the folder that a run's checkpoint_ folders are in."
            )
        found = newest / "state.json"
    try:
        table = json.loads(found.read_text(encoding="utf-8"))
        table = table.get("progress", table)
        table = table.get("history", table)  # a checkpoint has it under progress
        history = History(**{name: list(table[name]) for name in ("rounds", "updates", "evals")})
        for rows, names in (
            (history.rounds, ROUND),
            (history.updates, UPDATE),
            (history.evals, EVALUATION),
        ):
            for row in rows:
                row |= {
                    name: float(row[name]) for name in names if rows is not history.rounds or "samples" in row
                }
    except OSError as error:
        raise CourseError(f"{found} cannot be read: {files.reason(error)}.") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CourseError(
            f"{found} holds no history ({files.reason(error)}): expected JSON with rounds, updates and evals, such as a checkpoint's state.json."
        ) from error
    return history


def said_in_full(history: History) -> History:
    """The history without rounds from before a round said how many samples it has, and without their updates."""
    rounds = [row for row in history.rounds if "samples" in row]
    start = rounds[0]["step"] if rounds else math.inf
    return History(rounds, [row for row in history.updates if row["step"] > start], history.evals)


def causes(history: History) -> Iterator[Sign]:
    """What is wrong with how a run was set up, the gravest first; nothing where nothing is."""
    yield from judge_numbers(history)
    yield from judge_samples(history)
    yield from judge_scores(history)
    yield from judge_whitening(history)
    yield from judge_prompts(history)
    yield from judge_steps(history)
    yield from judge_price(history)
    yield from judge_length(history)
    yield from judge_metrics(history)


def first_not_finite(history: History) -> tuple[int, str, float] | None:
    """The step, name and value of the first number that is infinite or NaN. Two may be: metrics, which are the reader's, and
    `grad_norm`, since in float16 a gradient may be too large, and its step is then left out."""
    rows = sorted(history.rounds + history.updates + history.evals, key=lambda row: row["step"])
    found = (
        (row["step"], name, value)
        for row in rows
        for name, value in row.items()
        if isinstance(value, float)
        and not math.isfinite(value)
        and not name.startswith(("metrics/", "grad_norm"))
    )
    return next(found, None)


def judge_numbers(history: History) -> Iterator[Sign]:
    """Whether rollout, update and reference gave the same numbers while they were the same model: ratio 1 and KL 0.

    With dropout on, the mean ratio of the first batch was 39 in the clinic and 63 to 749 in notebook 07, and the KL -3 to -4 nats; with
    positions that count padding both stay as they should be, and only a comparison with the model's own forward pass sees it. Half
    precision gives up to 0.05 nats a token, either way, and over the 700 tokens of a batch about 0.002 in the mean.
    """
    first, ratio = history.rounds[0], history.updates[0]["ratio"]
    if first["step"]:  # what came before was recorded by an older version
        return
    if abs(ratio - 1) > 0.02 or abs(first["kl"]) > 0.1 * max(first["length"], 1):
        yield Sign(
            False,
            f"before anything was learned the ratio was {ratio:.4g}, not 1, and the KL {first['kl']:.2g}, not 0: rollout and update "
            "disagree about the same tokens",
            "Switch dropout off, and score with the model that sampled",
            "07 The details",
        )


def judge_samples(history: History) -> Iterator[Sign]:
    """Whether the samples are from the policy as it is scored.

    The mean of log pi + entropy over the tokens is 0 for samples of pi, above it where they are likelier than pi's (top_k, top_p, a
    temperature below 1), below it where they are less likely. Each round gives one such mean, before its first step. With the five
    likeliest tokens it was 0.16, at a temperature of 0.7 it was 0.19, in healthy runs at most 0.03; a dozen rounds say their own error
    only roughly, so 4.5 of it are asked for, and of four rounds 6.5. And a KL is not negative, except by chance.
    """
    surer = [row["logprob"] + row["entropy"] for row in first_updates(history) if "logprob" in row]
    if len(surer) >= 4:
        average, error = fmean(surer), stdev(surer) / math.sqrt(len(surer))
        if abs(average) > max((3.5 + 12 / len(surer)) * error, 0.05):
            how = "likelier" if average > 0 else "less likely"
            yield Sign(
                False,
                f"the sampled tokens are {abs(average):.2f} nats {how} than the policy's own would be: the samples do not come from the "
                "policy as it is scored",
                "Set top_k=0 and top_p=1, leave min_new_tokens out, and use the same temperature for sampling and scoring",
                "07 Why PPO samples with top_k=0 and top_p=1",
            )
            return
    lowest = min(history.rounds, key=lambda row: row["kl"] + 4 * standard_error(row, "kl"))
    if lowest["kl"] < -max(4 * standard_error(lowest, "kl"), 0.5):
        yield Sign(
            False,
            f"KL fell to {lowest['kl']:.1f} nats. A true KL is never negative: the samples do not come from the policy as it is scored",
            "Set top_k=0 and top_p=1, leave min_new_tokens out, and use the same temperature everywhere",
            "07 Why PPO samples with top_k=0 and top_p=1",
        )


def judge_scores(history: History) -> Iterator[Sign]:
    """Whether the scores tell samples apart, and whether the KL penalty has a say beside them.

    A score that 95% of the samples share, at the start and at the end, teaches little: of 128 samples 6 differ. (At the end alone
    they may do so because the task is solved.) The penalty beta KL is 0.09 at the end of the healthy run, against scores that differ by
    0.42 at its start. RLOO and GRPO learn nothing from a group whose samples all have one reward.
    """
    rounds = history.rounds
    start = rounds[: max(2, len(rounds) // 4)]
    early = column_mean(start, "same_reward")
    alike = min(fmean(row.get("same_group", 0.0) for row in part) for part in (start, rounds[-2:]))
    cut = column_mean(rounds, "cut_reward")
    apart = max(row["reward_std"] for row in rounds)
    if apart == 0:
        # one round is a trial, whose samples are few
        all_have = (
            "every sample has"
            if len(rounds) > 1
            else f"all {rounds[0]['samples']:.0f} samples of this round have"
        )
        yield Sign(
            False,
            f"{all_have} the same reward, {rounds[0]['reward']:g}: nothing can be learned from that",
            "Print some samples with their rewards, and mend the reward function",
            "05 Before any training",
        )
    elif cut > 0.5:
        yield Sign(
            False,
            f"{cut:.0%} of the rewards lie beyond method.cliprange_reward and are cut to it, so PPO cannot tell them apart",
            "Divide the reward by a number that brings it to about 1. (To raise cliprange_reward alone makes the value loss large)",
            "07 Credit: three tokens on paper",
        )
    elif early > 0.95 and column_mean(rounds[-2:], "same_reward") > 0.95:
        yield Sign(
            False,
            f"{early:.0%} of the samples have the same reward: it tells hardly any of them apart",
            "Reward a part of the way too, start from a model that earns it more often, or draw more samples a round",
            "05 Before any training",
        )
    elif alike > 0.5:
        yield Sign(
            False,
            f"in {alike:.0%} of the groups all samples have the same reward, and such a group teaches nothing",
            "Draw larger groups (method.group_size), take prompts that sometimes succeed, or reward a part of the way too",
            "11 A judge that cannot be fooled",
        )
    elif rounds[-1].get("scaled_reward"):
        return
    elif (beta := rounds[-1]["kl_coef"]) > 0 and beta * 10 < 0.05 * apart:
        change = f"Divide the reward by {apart:.0f}, or set method.scale_reward='running'"
        yield Sign(
            False,
            f"rewards differ by {apart:.3g}, and 10 nats of KL cost {10 * beta:.2g}: the penalty has no say",
            change if apart > 5 else "Raise method.init_kl_coef",
            "05 Probability or logit?",
        )


def judge_whitening(history: History) -> Iterator[Sign]:
    """Whether the advantages of a batch have mean 0: then the policy loss before a round's first step is 0 (below 1e-6 where they do, and
    about 0.002 in half precision; 0.16 and 0.19 in the clinic where they do not).

    trlX counts padding in the mean, and learns as well; RLOO and GRPO whiten nothing: there this says nothing.
    """
    if any(row.get("padding_whitened") or "group_size" in row for row in history.rounds):
        return
    losses = [abs(row["policy_loss"]) for row in first_updates(history)]
    if fmean(losses) > 0.02:
        yield Sign(
            False,
            f"the policy loss begins its rounds at {fmean(losses):.2g}, not at 0: the advantages are not whitened, or padding counts in "
            "their mean",
            "Whiten them, over the tokens of the responses alone",
            "07 Credit: three tokens on paper",
        )


def judge_prompts(history: History) -> Iterator[Sign]:
    """Whether there are prompts enough to learn more than their continuations."""
    prompts = history.rounds[-1]["prompts"]
    if prompts < 16:
        yield Sign(
            False,
            f"the run has {prompts:.0f} different prompts: what it learns is about these",
            "Give it hundreds",
            "04 Repeats and leaks",
        )


def judge_steps(history: History) -> Iterator[Sign]:
    """Whether the policy moves, and not too far at once.

    approx_kl, the KL of a step's policy to the one that sampled, is 0.01 to 0.04 nats a token over a round of the healthy run, 5 with
    steps that destroy the model in the first round, and below 1e-6 with steps a thousandth as large. It alone tells little: one token
    that became much likelier gave 1.7 over a round of a run whose clip fraction was 10%, where it is 48% with steps that destroy.
    """
    rounds = by_round(history)
    clipped, moved = (max(column_mean(part, name) for part in rounds) for name in ("clipfrac", "approx_kl"))
    if clipped > 0.3 or (moved > 1 and clipped > 0.15):
        yield Sign(
            False,
            f"within a round up to {clipped:.0%} of the tokens hit the clip range, and steps moved the policy by up to {moved:.2g} nats a token: "
            "steps are too large",
            "Lower the learning rate to a third or a tenth",
            "06 The configuration",
        )
    elif moved < 1e-4 and abs(history.rounds[-1]["kl"]) < 0.05:
        yield Sign(
            False,
            "no round moved the policy by 0.0001 nats a token: steps are too small",
            "Raise the learning rate tenfold",
            "06 The configuration",
        )


def judge_price(history: History) -> Iterator[Sign]:
    """Whether moving away from the reference costs anything."""
    if not any(column(history.rounds, "kl_coef")):
        last = column_mean(history.rounds[-2:], "kl")
        yield Sign(
            False,
            f"beta is 0: nothing holds the policy to the language it started from, and KL is {last:.1f} nats a sample",
            "Set method.init_kl_coef to 0.02 or more",
            "06 Without the KL penalty",
        )


def judge_length(history: History) -> Iterator[Sign]:
    """Whether responses end by themselves, and keep their length.

    Of the healthy run's samples 80% end at max_new_tokens before training and 45% after it. GPT-2 itself hardly ever ends a text, so
    an end at the limit is a sign only where the limit is short.
    """
    rounds = history.rounds
    quarter = max(1, len(rounds) // 4)
    before, after = rounds[0]["length"], column_mean(rounds[-quarter:], "length")
    cut = column_mean(rounds[-quarter:], "cut")
    if rounds[0]["cut"] > 0.95 and before < 12:
        yield Sign(
            False,
            f"{rounds[0]['cut']:.0%} of the samples end at max_new_tokens, after {before:.0f} tokens: the judge sees no whole text",
            "Raise max_new_tokens",
            "04 Length",
        )
    elif after < 0.5 * before:
        yield Sign(
            False,
            f"responses shrank from {before:.0f} tokens to {after:.0f}",
            "Does brevity pay? If the reward falls with length, mend it there",
            "05 How it will be gamed: best of n",
        )
    elif after > 1.25 * before or cut > rounds[0]["cut"] + 0.3:
        yield Sign(
            False,
            f"responses grew from {before:.0f} tokens to {after:.0f}, and {cut:.0%} end at max_new_tokens",
            "Does length pay? If the reward rises with it, divide it by the length or cap it",
            "05 How it will be gamed: best of n",
        )


def judge_metrics(history: History) -> Iterator[Sign]:
    """Whether a metric of the reader's, from 0 to 1, went with the reward on the same held-out prompts.

    The reward counts as risen by half its spread at the start or more. On a reward model of ten ratings it rose by 1.8 spreads, and
    the taste of the simulated rater went from 0.53 to 0.50; on one of a thousand the taste went to 0.81 and more.
    """
    if len(history.evals) < 2:
        return
    first, last = history.evals[0], history.evals[-1]
    gain = last["reward/mean"] - first["reward/mean"]
    for name in (name for name in first if name.startswith("metrics/") and name in last):
        best = max(row.get(name, -math.inf) for row in history.evals)
        if not (gain > 0 and 0 <= last[name] and best <= 1):
            continue
        if last[name] < best - 0.2:
            what = f"{name} fell from {best:.2f} to {last[name]:.2f} while the reward rose"
        elif (
            gain > 0.5 * history.rounds[0]["reward_std"] > 0
            and last[name] <= first[name]
            and 0.05 < first[name] < 0.9
        ):
            what = (
                f"the reward rose by {gain:.2g}, and {name} went from {first[name]:.2f} to {last[name]:.2f}"
            )
        else:
            continue
        yield Sign(
            False,
            f"{what}: if it should be high, the reward is being gamed",
            "Stop where it was highest, raise beta, or mend the reward: more ratings, or several reward models",
            "10 Goodhart's law",
        )


def judge_values(history: History) -> Iterator[Sign]:
    """Whether the value head forecasts returns better than a constant would.

    In healthy runs the later half of the rounds had an explained variance of -0.2 to 0.5, one with an untrained head -0.4.
    """
    later = [
        row["explained_variance"]
        for row in history.rounds[len(history.rounds) // 2 :]
        if "explained_variance" in row
    ]
    if later and fmean(later) < -0.3:
        yield Sign(
            False,
            f"explained variance is {fmean(later):.1f}: the value head forecasts worse than a constant, which has 0",
            "Is method.vf_coef 0? Else give the run more rounds, and bring rewards to about 1",
            "07 Is the value head worth it?",
        )


def judge_reward(history: History) -> Sign:
    """Whether the rewards of the rounds changed by more than chance.

    A round's mean has the standard error std / sqrt(n). Where a run learns nothing, the two ends differ by more than three of them in
    0.3% of runs, and the best quarter of the rounds lies four above the last one more seldom still.
    """
    rounds = history.rounds
    quarter = max(1, len(rounds) // 4)
    head, tail = rounds[:2] if len(rounds) > 3 else rounds[:1], rounds[-quarter:]
    start, end = column_mean(head, "reward"), column_mean(tail, "reward")
    error = error_of_change(head, tail, "reward")
    span = f"reward went from {start:.2f} to {end:.2f}"
    if end - start < -max(SURE * error, 1e-9):
        return Sign(
            False,
            f"{span}: it falls",
            "Lower the learning rate, and print some samples with their rewards",
            "06 Is this run healthy?",
        )
    quarters = [rounds[i : i + quarter] for i in range(0, len(rounds) - quarter, quarter)]
    best = max(quarters, key=lambda part: column_mean(part, "reward"))
    highest = column_mean(best, "reward")
    if highest - end > max(4 * error_of_change(best, tail, "reward"), 0.1 * (highest - start), 1e-9):
        if highest - start > SURE * error_of_change(head, best, "reward"):
            return Sign(
                False,
                f"reward went from {start:.2f} to {highest:.2f}, and fell back to {end:.2f}",
                "Take the best checkpoint, not the last; raise beta, or lower the learning rate",
                "06 Is this run healthy?",
            )
    if end - start <= max(SURE * error, 1e-9):
        return Sign(
            False,
            f"{span}: no more than chance, which is {SURE * error:.2f}",
            "Was it high from the start? Else more steps, or a higher learning rate; is the reward ever high?",
            "06 Is this run healthy?",
        )
    if levelled_off(rounds):
        return Sign(True, f"{span} and has levelled off: more steps of the same will not add much")
    return Sign(True, span)


def levelled_off(rounds: list[dict]) -> bool:
    """Whether the last quarter of the rounds, of which there are eight or more, added less than a tenth of the whole gain in reward."""
    quarter = len(rounds) // 4
    if quarter < 2:
        return False
    parts = rounds[:2], rounds[-2 * quarter : -quarter], rounds[-quarter:]
    start, before, end = (column_mean(part, "reward") for part in parts)
    return end - before < 0.1 * (end - start)


def judge_kl(history: History) -> Sign:
    """Whether the KL of the last rounds is small, 10 nats a sample or, where responses are long, 0.4 a token; and whether it stays.

    10 is a custom, not a law (notebook 06). Healthy runs have 4 to 5 nats for 21 tokens, those of notebook 09 up to 8; with beta 0 it
    is 13, and where a word or length is rewarded 12 to 17. Once the reward has levelled off, a healthy KL grows by less than a fifth
    from the third quarter of a run to the last, with beta 0 by a third.
    """
    rounds = history.rounds
    quarter = max(1, len(rounds) // 4)
    last, length = column_mean(rounds[-2:], "kl"), max(rounds[-1]["length"], 1)
    level = f"KL is {last:.1f} nats a sample of {length:.0f} tokens"
    if last > max(10, 0.4 * length):
        return Sign(
            False,
            f"{level}: the policy has left the language it started from",
            "Raise beta, or lower method.target",
            "06 What a nat of KL buys",
        )
    before, now = column_mean(rounds[-2 * quarter : -quarter], "kl"), column_mean(rounds[-quarter:], "kl")
    if now > max(5, 1.22 * before) and levelled_off(rounds):
        return Sign(
            False,
            f"{level} and grows on, though the reward has levelled off",
            "Stop earlier, or raise beta",
            "06 What a nat of KL buys",
        )
    return Sign(True, f"{level}: the policy still writes like the model it started from")


def judge_ratio(history: History) -> Iterator[Sign]:
    """That few tokens of the last updates hit the clip range; where many do, `judge_steps` has said so."""
    clipped = column_mean(history.updates[-16:], "clipfrac")
    if clipped <= 0.3:
        start = "the ratio starts at 1 and " if abs(history.updates[0]["ratio"] - 1) <= 0.02 else ""
        yield Sign(True, f"{start}{clipped:.0%} of the tokens hit the clip range")


def judge_variety(history: History) -> Sign:
    """Whether the outputs stay various, and the entropy, in nats a token, near what it was.

    Of pairs of neighbouring words 53% are distinct before training, 42% after the healthy run, 19% where a word is rewarded. In
    healthy runs up to 20% of the samples share an ending, in one of notebook 09's 34%; the entropy falls to 68%.
    """
    first, last, updates = history.rounds[0], history.rounds[-1], history.updates
    if column_mean(history.rounds[-2:], "distinct") < 0.8 * first["distinct"]:
        return repeats(f"only {last['distinct']:.0%} of the outputs are distinct")
    for place in ("ending", "opening"):
        if last[place] > max(0.5, 3 * first[place]):
            return repeats(f"{last[place]:.0%} of the outputs have one {place} in common")
    if last["distinct_2"] < 0.6 * first["distinct_2"]:
        share = last["distinct_2"] / first["distinct_2"]
        return repeats(f"distinct pairs of words are down to {share:.0%} of what they were")
    if not updates[0]["entropy"]:
        return Sign(
            False,
            "entropy was 0 at the start: the model is sure of every token, and there is nothing for PPO to choose from",
            "Sample at temperature 1, from a model that is not sure of all it says",
        )
    kept = updates[-1]["entropy"] / updates[0]["entropy"]
    if kept < 0.4:
        return Sign(
            False,
            f"entropy is down to {kept:.0%} of what it was: the policy is narrowing",
            "Raise beta, or stop earlier",
            "06 What a nat of KL buys",
        )
    if kept > 1.5:
        return Sign(
            False,
            f"entropy is up to {kept:.0%} of what it was: the texts dissolve",
            "Lower the learning rate, bring rewards to about 1, and print some samples",
            "06 The configuration",
        )
    return Sign(
        True, f"{last['distinct']:.0%} of the outputs are distinct and entropy is {kept:.0%} of what it was"
    )


def repeats(what: str) -> Sign:
    """The sign of a policy that has found one thing to say."""
    return Sign(
        False,
        f"{what}: the policy repeats itself",
        "Print samples: what they share is what the reward likes. Mend the reward, or raise beta",
        "05 How it will be gamed: best of n",
    )


def by_round(history: History) -> list[list[dict]]:
    """The updates of each round that has some."""
    steps = column(history.updates, "step")
    starts = [bisect_right(steps, row["step"]) for row in history.rounds]
    parts = [history.updates[start:stop] for start, stop in zip(starts, [*starts[1:], None], strict=True)]
    return [part for part in parts if part]


def first_updates(history: History) -> list[dict]:
    """The first update of each round that has some: in it the policy is still the one that sampled."""
    return [part[0] for part in by_round(history)]


def standard_error(row: dict, name: str) -> float:
    """The standard error of a round's mean."""
    return row[f"{name}_std"] / math.sqrt(row["samples"])


def error_of_change(before: list[dict], after: list[dict], name: str) -> float:
    """The standard error of the difference between the means over two sets of rounds."""
    return math.hypot(error_of_mean(before, name), error_of_mean(after, name))


def error_of_mean(rows: list[dict], name: str) -> float:
    """The standard error of the mean over several rounds."""
    return math.sqrt(sum(standard_error(row, name) ** 2 for row in rows)) / len(rows)


def column(rows: list[dict], name: str) -> list:
    """One column of the rows of a history."""
    return [row[name] for row in rows]


def column_mean(rows: list[dict], name: str) -> float:
    """The mean of one column of one row or more."""
    return fmean(column(rows, name))
