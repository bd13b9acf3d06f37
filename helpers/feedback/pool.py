"""The ratings of a class put together: `python -m helpers pool DIR`.

Everybody has rated the same pairs (`pairs.shared_pairs`). No file that was handed in is changed, not even to repair its end.
"""

import json
import os
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from helpers import files, tables
from helpers.compare import Estimate, bootstrap
from helpers.errors import CourseError
from helpers.feedback.agreement import judged, self_agreement
from helpers.feedback.exchange import json_or_none
from helpers.feedback.pairs import shared_pairs_in_order
from helpers.feedback.ratings import CHOICES, SIDES, TYPES, Content, Rating, cut_short, record_of

NAME = "pooled.jsonl"
MARK = "pooled-"
"""How the id of a pooled rating begins. A file in which one begins otherwise was not written here."""
LISTED = 5
"""Names of files that were not read; the others are counted."""


@dataclass(frozen=True)
class Pool:
    """The ratings of a class.

    Args:
        ratings: those of the shared pairs by people, each once; the raters' names tell people apart.
        files: the file that each rater's ratings came from first.
        notes: a sentence about each thing that was left out or changed.
    """

    ratings: list[Rating]
    files: dict[str, str]
    notes: list[str]


def pool(folder: str | Path) -> tuple[Pool, Path]:
    """Put the files of a folder together and write the ratings into its file pooled.jsonl, which is read as one person's file is.

    Args:
        folder: the files ratings.jsonl of a class under any names that end in .jsonl, in it or in its folders.
    Raises:
        CourseError: there is no such folder or no rating of a shared pair in it, or pooled.jsonl is there and is another file.
            Nothing is written then.
    """
    folder = files.expand(folder)
    if not folder.is_dir():
        raise CourseError(f"{folder} is no folder: expected one with the files ratings.jsonl of a class.")
    path = folder / NAME
    check_own(path)
    pooled = put_together(folder)
    files.write_text(path, "".join(json.dumps(record_of(rating)) + "\n" for rating in pooled.ratings))
    return pooled, path


def put_together(folder: Path) -> Pool:
    """The ratings in the files of a folder; errors as in `pool`."""
    notes, contents, others = [], {}, []
    for path in paths_in(folder, notes):
        name = path.relative_to(folder).as_posix()
        if path.suffix.lower() != ".jsonl" or not os.path.isfile(path):
            others.append(name)
            continue
        try:
            contents[name], cut = content_of(path)
        except CourseError as error:
            notes.append(f"Left out whole: {error}")
            continue
        if cut:
            notes.append(f"{name}: its last line is only half written and does not count.")
    if others:
        more = f" and {len(others) - LISTED} more" if len(others) > LISTED else ""
        notes.append(
            f"Not read, because it is no file, or its name does not end in .jsonl: {', '.join(others[:LISTED])}{more}."
        )
    kept, left_out = without_doubles(contents)
    notes += left_out
    named, from_files, renamed = with_names(kept, contents)
    if not named:
        raise CourseError(
            "\n".join([*notes, f"{folder} holds no rating of a shared pair. Nothing was written."])
        )
    return Pool(named, from_files, notes + renamed)


def paths_in(folder: Path, notes: list[str]) -> list[Path]:
    """The files in a folder and its folders, and links to folders. What is hidden and its own pooled.jsonl are no part of it.

    A sentence about each folder that cannot be read is added to `notes`.
    """
    paths = []

    def left_out(error: OSError) -> None:
        notes.append(f"Left out whole: the folder {error.filename} cannot be read: {files.reason(error)}.")

    for top, folders, names in os.walk(folder, onerror=left_out):
        folders[:] = [name for name in folders if name[0] != "."]  # such as .git
        links = [name for name in folders if os.path.islink(os.path.join(top, name))]
        paths += [Path(top) / name for name in [*names, *links] if name[0] != "."]
    return sorted(path for path in paths if path != folder / NAME)


def content_of(path: Path) -> tuple[Content, bool]:
    """(what a file of ratings says, whether its last line is cut short). The file is only read.

    Raises:
        CourseError: it cannot be read, or a line is no rating; names the line.
    """
    whole = tables.read_bytes(path, "the ratings").removeprefix(tables.BOM).rstrip(b"\0")
    lines = whole.split(b"\n")
    cut = cut_short(lines[-1])
    content = Content()
    for line in lines[: len(lines) - cut]:
        content.take(line, path)
    return content, cut


def without_doubles(contents: dict[str, Content]) -> tuple[list[tuple[str, Rating]], list[str]]:
    """(each rating that counts with its file, a sentence about each kind of others in each file).

    A rating that was taken back in one copy of a file is taken back in all of them.
    """
    pairs = {pair.id for pair in shared_pairs_in_order()}
    undone = {id for content in contents.values() for id in content.ids - content.standing.keys()}
    kept, notes, seen = [], [], set()
    for name, content in contents.items():
        left_out: Counter[str] = Counter()
        for id, rating in content.standing.items():
            if rating.simulated:
                left_out["made by a program"] += 1
            elif id.startswith(MARK):
                left_out["pooled before: collect the files that they came from"] += 1
            elif rating.pair.id not in pairs:
                left_out["of pairs that are not the shared ones"] += 1
            elif id in undone:
                left_out["taken back in another copy of the file"] += 1
            elif id in seen:
                left_out["in an earlier file already, by the id"] += 1
            else:
                seen.add(id)
                kept.append((name, rating))
        if left_out:
            said = ", ".join(f"{count} {why}" for why, count in left_out.items())
            notes.append(f"{name}: left out are ratings: {said}.")
        elif not content.standing:
            notes.append(f"{name}: holds no rating that stands.")
    return kept, notes


def with_names(
    kept: list[tuple[str, Rating]], contents: dict[str, Content]
) -> tuple[list[Rating], dict[str, str], list[str]]:
    """(the ratings with the mark of this program, the file of each rater, a sentence about each name that several people typed).

    Files with a rating in common are copies, so a name in them is one person. Other files with that name are other people's,
    and their names get the file's.
    """
    first_copy: dict[str, str] = {}
    for name, content in contents.items():
        copies = (first for other, first in first_copy.items() if content.ids & contents[other].ids)
        first_copy[name] = next(copies, name)
    people: dict[str, list[str]] = {}
    for name, rating in kept:
        found = people.setdefault(rating.rater, [])
        if first_copy[name] not in found:
            found.append(first_copy[name])
    ratings, from_files = [], {}
    for name, rating in kept:
        file, several = first_copy[name], len(people[rating.rater]) > 1
        rater = f"{rating.rater} ({of_file(file)})" if several else rating.rater
        from_files.setdefault(rater, name)
        ratings.append(replace(rating, id=MARK + rating.id, rater=rater))
    notes = [
        f"The name {rater!r:.60} is in {len(own)} files that have no rating in common, so it counts as {len(own)} people, "
        f"and each has the file's name added: {', '.join(own)}."
        for rater, own in people.items()
        if len(own) > 1
    ]
    return ratings, from_files, notes


def of_file(name: str) -> str:
    """What tells a file of ratings from others: its name, or its folder's where it is called ratings.jsonl."""
    return name.removesuffix("/ratings.jsonl").removesuffix(".jsonl")


def check_own(path: Path) -> None:
    """Check that a file that will be replaced was written here.

    Raises:
        CourseError: something else is there, or it was added to.
    """
    if not os.path.exists(path):  # False too where the folder lets nobody in
        return
    lines = tables.read_bytes(path, "the pooled ratings").splitlines() if path.is_file() else [b""]
    for number, line in enumerate(lines, start=1):
        record = json_or_none(line)
        ours = isinstance(record, dict) and tuple(record) == tuple(TYPES)
        if not (ours and str(record["id"]).startswith(MARK) and json.dumps(record).encode("ascii") == line):
            raise CourseError(
                f"{path} is there and line {number} is not as this command writes it, so it is left as it is. "
                "Move it away or rename it, and try again."
            )


def raters_table(pooled: Pool) -> list[tuple[str, ...]]:
    """Who rated how many: a head, and a line for each rater.

    A pair counts once for a rater. "twice" says on how many of the pairs that came again the choice was the same, "with others"
    on which share of all meetings with another rater on a pair the two chose the same.
    """
    by_pair = choices_by_pair(pooled.ratings)
    rows = [("who", "pairs", "preferences", "ties", "skipped", "twice", "with others", "file")]
    for rater, file in pooled.files.items():
        own = [rating for rating in pooled.ratings if rating.rater == rater]
        first, twice = firsts(own), self_agreement(own)
        counts = Counter(rating.choice for rating in first)
        same, met = meetings(rater, by_pair)
        rows.append(
            (
                f"{rater:.40}",
                str(len(first)),
                str(sum(counts[side] for side in SIDES)),
                str(counts["tie"]),
                str(counts["skip"]),
                f"{round((twice.share or 0) * twice.n)} of {twice.n}",
                f"{same / met:.0%} of {met}" if met else "nobody",
                file,
            )
        )
    return rows


def firsts(ratings: list[Rating]) -> list[Rating]:
    """Of each pair that a rater rated, the first rating, skips included."""
    found: dict[tuple[str, str], Rating] = {}
    for rating in ratings:
        found.setdefault((rating.rater, rating.pair.id), rating)
    return list(found.values())


def choices_by_pair(ratings: list[Rating]) -> dict[str, dict[str, str]]:
    """{pair's id: {rater: the first choice}}, skips left out."""
    found: dict[str, dict[str, str]] = {}
    for (rater, pair_id), choices in judged(ratings).items():
        found.setdefault(pair_id, {})[rater] = choices[0]
    return found


def meetings(rater: str, by_pair: dict[str, dict[str, str]]) -> tuple[int, int]:
    """(how often another rater chose the same on a pair, how often another rater chose at all)."""
    met = [
        choice == choices[rater]
        for choices in by_pair.values()
        if rater in choices
        for other, choice in choices.items()
        if other != rater
    ]
    return sum(met), len(met)


@dataclass(frozen=True)
class Agreement:
    """How far many raters agree.

    Args:
        share: how often two raters of a pair chose the same of first, second and tie: the mean over pairs, with an interval
            over pairs. It is of these raters.
        chance: the share that choices at random would give, with each choice as frequent as it is here.
        kappa: (share - chance) / (1 - chance); None where all choices are alike.
    """

    share: Estimate
    chance: float
    kappa: float | None


def agreement_of_many(ratings: list[Rating]) -> Agreement | None:
    """The agreement of raters over the pairs that two or more of them rated; None where there is no such pair.

    Fleiss, "Measuring nominal scale agreement among many raters", Psychological Bulletin 76 (1971), 378-382,
    doi.org/10.1037/h0031619; with pairs that differ in how many rated them.
    """
    by_pair = {pair: Counter(own.values()) for pair, own in choices_by_pair(ratings).items() if len(own) > 1}
    if not by_pair:
        return None
    shares = []
    for counts in by_pair.values():
        n = counts.total()
        shares.append(sum(count * (count - 1) for count in counts.values()) / (n * (n - 1)))
    total = sum(by_pair.values(), Counter())
    chance = sum((count / total.total()) ** 2 for count in total.values())
    share = bootstrap(shares, list(by_pair))
    return Agreement(share, chance, (share.mean - chance) / (1 - chance) if chance < 1 else None)


def agreement_in_words(ratings: list[Rating]) -> str:
    """One sentence about `agreement_of_many`."""
    found = agreement_of_many(ratings)
    if found is None:
        return "No pair was rated by two people, so there is no agreement to measure."
    kappa = "None: all choices are alike" if found.kappa is None else f"{found.kappa:.2f}"
    return (
        f"Two raters of a pair agree (first, second or tie): {found.share:.0%}. Choices at random would agree on {found.chance:.0%}. "
        f"Kappa: {kappa}."
    )


def pairs_table(ratings: list[Rating]) -> list[tuple[str, ...]]:
    """How often each choice was made on each shared pair: a head, and a line for each pair in the labeller's order.

    The majority is the choice of more than half of those who did not skip.
    """
    counts: dict[str, Counter[str]] = {}
    for rating in firsts(ratings):
        counts.setdefault(rating.pair.id, Counter())[rating.choice] += 1
    rows = [("pair", "prompt", *CHOICES, "majority")]
    for number, pair in enumerate(shared_pairs_in_order(), start=1):
        own = counts.get(pair.id, Counter())
        rows.append((str(number), pair.prompt, *(str(own[choice]) for choice in CHOICES), majority(own)))
    return rows


def majority(counts: Counter[str]) -> str:
    """The choice of more than half of those who chose; a dash where there is none."""
    chosen = {choice: count for choice, count in counts.items() if choice != "skip"}
    best = max(chosen, key=chosen.get, default="")
    return best if best and chosen[best] * 2 > sum(chosen.values()) else "-"
