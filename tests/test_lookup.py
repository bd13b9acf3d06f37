"""What a reader looks up: the glossary, the map of questions, the reading list. Links to files and headings are tested in test_docs.py."""

import json
import re

import pytest
from common import ROOT

from helpers import notebooks

DOCS = ROOT / "docs"
ENTRY = re.compile(r"^### (.+)\n\n(.+)$", re.MULTILINE)
PLACE = re.compile(r"\[(\d\d), ([^]]+)\]\(\.\./notebooks/(\d\d\w+\.ipynb)#([^)]+)\)")

# Words of everyday English too: a test that reads letters cannot tell the term from the word.
EVERYDAY = {
    "Contract",
    "Group",
    "History",
    "Labels",
    "Margin",
    "Model card (card)",
    "Objective",
    "Return",
    "Round",
    "Tie",
    "Value",
    "Verdict",
}


def entries() -> list[tuple[str, str]]:
    """The terms with what stands under them."""
    return ENTRY.findall((DOCS / "glossary.md").read_text(encoding="utf-8"))


def place(text: str) -> tuple[str, str]:
    """The name of the notebook's file that introduces a term, and the heading there."""
    ((number, heading, file, anchor),) = PLACE.findall(text)
    assert file.startswith(number) and anchor == heading.replace(" ", "-"), text
    return file, heading


def names(term: str) -> re.Pattern:
    """Any name of a term: what stands before the brackets and in them; one in capitals alone is not looked for in small letters."""
    each = [name for name in re.split(r"[(),]", term) if name.strip()]
    found = [re.escape(name.strip()) for name in each]
    return re.compile(
        "|".join(rf"(?<![\w-])(?{'' if name.isupper() else 'i'}:{name}(?:e?s)?)(?!\w)" for name in found)
    )


def cells(file: str) -> list[str]:
    """The Markdown of a notebook's cells, with "" for a cell of code; without the line that links the neighbours."""
    stored = json.loads((ROOT / "notebooks" / file).read_text(encoding="utf-8"))["cells"]
    texts = ["".join(cell["source"]) if cell["cell_type"] == "markdown" else "" for cell in stored]
    return [re.sub(r"^(Previous|Next|\[Start).*$", "", text, flags=re.MULTILINE) for text in texts]


def prose(text: str) -> str:
    """Markdown without code, formulas, pictures and addresses."""
    for markup in (
        r"!\[.*?\]\([^)]*\)",
        r"```.*?```",
        r"\$\$.*?\$\$",
        r"\$[^$\n]+\$",
        r"`[^`\n]*`",
        r"\]\([^)]*\)",
    ):
        text = re.sub(markup, " ", text, flags=re.DOTALL)
    return " ".join(text.split())


def section(file: str, heading: str) -> str:
    """All Markdown from a heading to the next one of its level or above."""
    text = "\n\n".join(cells(file))
    start = re.search(rf"^(#+) {re.escape(heading)} *$", text, re.MULTILINE)
    assert start, f"{file} has no heading {heading}"
    rest = text[start.start() + 1 :]
    end = re.search(rf"^#{{1,{len(start[1])}}} ", rest[len(start[0]) :], re.MULTILINE)
    return " ".join((rest[: len(start[0]) + end.start()] if end else rest).split())


def early(term: str, text: str) -> set[tuple[str, str]]:
    """The term with each notebook that has it in its prose before it is introduced, in a cell that does not name the notebook that does.

    A longer term of which it is a part is another term.
    """
    file, _ = place(text)
    told = re.compile(rf"notebooks? (?:\d\d and )?{file[:2]}\b|\({file[:2]}_")
    longer = [names(other) for other, _ in entries() if term.lower() in other.lower() and other != term]

    def has(cell: str) -> bool:
        said = prose(cell)
        for other in longer:
            said = other.sub(" ", said)
        return bool(names(term).search(said)) and not told.search(cell)

    earlier = [path.name for path in notebooks.numbered() if path.name < file]
    return {(term, name[:2]) for name in earlier if any(map(has, cells(name)))}


def test_the_glossary_is_in_order_and_says_little():
    terms = [term for term, _ in entries()]
    plain = [re.sub(r"\W", "", term.lower()) for term in terms]
    assert len(terms) > 100 and plain == sorted(set(plain))
    for term, text in entries():
        said = PLACE.sub("", text).strip()
        assert said.endswith(".") and len(said) < 320, term


@pytest.mark.parametrize("term, text", entries(), ids=lambda value: value[:20])
def test_the_heading_that_a_term_links_to_introduces_it(term, text):
    file, heading = place(text)
    said = section(file, heading)
    spellings = f"{said.replace('_', '')} {said.replace('_', ' ')}"  # k_1 is k1, and attention_mask two words
    assert names(term).search(spellings), f"{term} is not in {file}, {heading}"


def test_terms_are_introduced_before_they_are_used(record_property):
    """In an earlier notebook a term may occur beside the number of the notebook that introduces it."""
    looked_for = [(term, text) for term, text in entries() if term not in EVERYDAY]
    found = set().union(*(early(term, text) for term, text in looked_for))
    assert not found
    record_property("terms introduced before use", len(looked_for))


def test_what_counts_as_a_use():
    assert names("KL divergence (KL)").search("rewards, KL and") and not names("KL").search("kl_lab")
    assert names("Rollout").search("two rollouts") and not names("Ratio").search("generation")
    assert "beta" not in prose("a `beta` of $\\beta$ in [it](beta.ipynb)")


def test_the_map_has_many_questions_each_once():
    """That its links lead somewhere is tested in test_docs.py."""
    rows = re.findall(
        r"^\| (.+\?.*) \| (.+) \|$", (DOCS / "questions.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert len(rows) >= 40 and len({question for question, _ in rows}) == len(rows)
    for question, answer in rows:
        for number, heading, file, anchor in PLACE.findall(answer):
            assert file.startswith(number) and anchor == heading.replace(" ", "-"), question
        assert len(PLACE.findall(answer)) == answer.count("]("), question


def papers(text: str) -> set[str]:
    """The addresses of papers that a text links."""
    return set(re.findall(r"\]\((https?://(?:arxiv|doi|aclanthology|joschu|iclr-blogposts)[^)\s]+)\)", text))


def test_the_reading_list_has_every_paper_that_the_notebooks_link_and_no_other():
    linked = {path.name: papers("\n".join(cells(path.name))) for path in notebooks.numbered()}
    text = (DOCS / "reading.md").read_text(encoding="utf-8")
    assert papers(text) == set().union(*linked.values())
    for row in text.splitlines():
        file = re.search(r"\((?:\.\./)notebooks/(\S+)\) \|$", row)
        assert not file or papers(row) <= linked[file[1]], row


def test_terms_link_to_the_glossary_where_they_are_introduced():
    """Each term once, in the notebook that introduces it; a term that stands there only in a heading, a formula or code has no link."""
    found = {
        path.name: re.findall(r"\]\(\.\./docs/glossary\.md#([^)]+)\)", "\n".join(cells(path.name)))
        for path in notebooks.numbered()
    }
    introduced = {
        re.sub(r"[^\w\- ]", "", term.lower()).replace(" ", "-"): place(text)[0] for term, text in entries()
    }
    linked = [anchor for anchors in found.values() for anchor in anchors]
    assert len(linked) == len(set(linked)) and len(linked) > 0.9 * len(introduced)
    assert all(introduced[anchor] == file for file, anchors in found.items() for anchor in anchors)
