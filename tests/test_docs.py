"""README and docs: their links, files, targets and commands exist, and README is short enough for a person to read."""

import argparse
import ast
import builtins
import importlib.util
import json
import re
import shlex

import pytest
import yaml
from common import ROOT

from helpers import exercise_cells, notebooks, palette
from helpers.__main__ import parser

README = ROOT / "README.md"
NAMES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "helpers/README.md", "helpers/tiny/README.md"]
PAGES = [*[ROOT / name for name in NAMES], *sorted((ROOT / "docs").glob("*.md"))]

LINK = re.compile(r"\]\(([^)\s]+)\)|\b(?:src|href)=\"([^\"]+)\"")
FILE = re.compile(r"(?:helpers|tests|docs|configs|notebooks|\.ci)/[\w./-]+|[\w-]+\.(?:txt|toml)")
FENCE = re.compile(r"^```.*?\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.fixture(params=PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def page(request):
    return request.param


def prose(text: str) -> str:
    """The text without code blocks, in which a comment looks like a heading."""
    return FENCE.sub("", text)


def code(text: str) -> list[str]:
    """What stands in code spans and on the lines of code blocks, without comments."""
    lines = [line for block in FENCE.findall(text) for line in block.splitlines()]
    return [line.split("  #")[0].strip() for line in [*re.findall(r"`([^`\n]+)`", prose(text)), *lines]]


def links(path) -> set[str]:
    """Links that lead to a place in the repository, as they are written."""
    text = re.sub(r"`[^`\n]*`", "", prose(path.read_text(encoding="utf-8")))
    found = {one or other for one, other in LINK.findall(text)}
    return {link for link in found if not re.match(r"[a-z]+:", link)}


def anchors(path) -> set[str]:
    """What GitHub calls the headings of a page, and Jupyter those of a notebook."""
    if path.suffix == ".ipynb":
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        texts = [prose("".join(cell["source"])) for cell in cells if cell["cell_type"] == "markdown"]
        found = re.findall(r"^#+ +(.+?) *$", "\n".join(texts), re.MULTILINE)
        return {heading.replace("`", "").replace(" ", "-") for heading in found}
    headings = re.findall(r"^#+ +(.+?) *$", prose(path.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_lead_somewhere(page):
    for link in links(page):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.is_relative_to(ROOT) and target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_files_that_are_named_exist(page):
    """In code spans, which are no links. History is left out, since what it names is gone."""
    if page.name == "CHANGELOG.md":
        return
    for span in code(page.read_text(encoding="utf-8")):
        for name in FILE.findall(span):
            assert "NN_" in name or (ROOT / name.rstrip("/.")).exists(), span


def test_make_targets_exist(page):
    targets = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for span in code(page.read_text(encoding="utf-8")):
        if span.startswith("make "):
            words = [word for word in span.split()[1:] if "=" not in word]
            assert set(words) <= set(targets), span


def test_every_make_target_is_explained():
    targets = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    table = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert set(targets) - {"help"} == set(re.findall(r"^\| `make ([a-z-]+)", table, re.MULTILINE))


def commands() -> dict[str, argparse.ArgumentParser]:
    """The commands of `python -m helpers`."""
    (action,) = [action for action in parser()._actions if isinstance(action, argparse._SubParsersAction)]
    return action.choices


def test_commands_and_their_options_exist(page):
    for span in code(page.read_text(encoding="utf-8")):
        for module, rest in re.findall(r"-m (helpers[\w.]*)(.*)", span):
            if module != "helpers":
                assert importlib.util.find_spec(module), span
            elif words := rest.split():
                assert words[0] in commands(), span
                options = commands()[words[0]]._option_string_actions
                assert {word for word in words if word.startswith("--")} <= set(options), span


def test_run_sheets_name_sections_and_exercises_that_exist():
    """docs/teaching.md: each row of a run sheet, and each checkpoint."""
    text = (ROOT / "docs" / "teaching.md").read_text(encoding="utf-8")
    there = {exercise.name for exercise in exercise_cells.of_course() if exercise.check}
    rows = re.findall(r"^\| [\d-]+ \| (\d\d) \| (.*?) \|", text, re.MULTILINE)
    assert len(rows) >= 12
    for number, sections in rows:
        (path,) = [path for path in notebooks.numbered() if path.name.startswith(number)]
        headings = re.findall(r'"#{2,3} (.*?)(?:\\n)?"', path.read_text(encoding="utf-8"))
        for section in sections.split("; "):
            assert section in headings or section.removeprefix("exercise ") in there, (number, section)
    named = set(re.findall(r"\b\d\d\.\d\b", text))
    assert named >= {"01.1", "03.1", "06.3"} and named <= there


def names_in(source: str) -> tuple[set[str], set[str]]:
    """(the names that a source sets anywhere in it, the names that it reads)."""
    tree = ast.parse(
        "\n".join(line for line in source.splitlines() if not line.lstrip().startswith(("!", "%")))
    )
    found, read = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            (read if isinstance(node.ctx, ast.Load) else found).add(node.id)
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, ast.arg):
            found.add(node.arg)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            found |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    return found, read


def code_of(path) -> list[tuple[str, list[str]]]:
    """The sections of a notebook, each with the sources of its code cells; what stands before the first is Setup."""
    sections: list[tuple[str, list[str]]] = [("Setup", [])]
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code":
            sections[-1][1].append(source)
        else:
            sections += [(heading, []) for heading in re.findall(r"^## (.+)$", prose(source), re.MULTILINE)]
    return sections


def lacking(path, heading: str, given: str) -> set[str]:
    """The names that a section reads and that neither it nor Setup nor the code in `given` sets."""
    sections = dict(code_of(path))
    known = set(dir(builtins))
    if "palette import *" in given:
        known |= {name for name in vars(palette) if name.isupper()}
    for source in [given, *sections["Setup"], *sections[heading]]:
        known |= names_in(source)[0]
    return set().union(*(names_in(source)[1] for source in sections[heading])) - known


def test_sections_that_stand_alone_do():
    """docs/teaching.md: those in the table with the cell of imports, and the first of each notebook without it."""
    text = (ROOT / "docs" / "teaching.md").read_text(encoding="utf-8")
    part = text[text.index("## Sections that stand alone") : text.index("## Slides")]
    (imports,) = FENCE.findall(part)
    rows = re.findall(r"^\| (\d\d) \| (.+?) \|", part, re.MULTILINE)
    assert len(rows) >= 5
    for number, heading in rows:
        (path,) = [path for path in notebooks.numbered() if path.name.startswith(number)]
        assert not lacking(path, heading, imports), (number, heading)
    for path in notebooks.numbered():
        heading = next(heading for heading, sources in code_of(path)[1:] if sources)
        assert not lacking(path, heading, ""), (path.name, heading)


def test_readme_is_short():
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 130


def test_readme_lists_every_notebook():
    listed = re.findall(
        r"^\| \[\d\d .+?\]\(notebooks/(.+?)\)", README.read_text(encoding="utf-8"), re.MULTILINE
    )
    assert listed == [path.name for path in notebooks.numbered()]


def table_of_make_course() -> list[tuple[str, str]]:
    """The rows that `python -m helpers run` prints: what each is called, and a pattern of its value."""
    tree = ast.parse((ROOT / "helpers" / "__main__.py").read_text(encoding="utf-8"))
    (table,) = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.List)
        and node.elts
        and ast.unparse(node.elts[0]).startswith("('Reward, held-out prompts'")
    ]
    return [(row.elts[0].value, pattern(row.elts[1])) for row in table.elts]


def pattern(value: ast.expr) -> str:
    """What an expression can come out as: of an f-string, its words with something between them."""
    if isinstance(value, ast.JoinedStr):
        return "".join(
            re.escape(part.value) if isinstance(part, ast.Constant) else ".+" for part in value.values
        )
    return pattern(value.left) if isinstance(value, ast.BinOp) else ".+"


def test_readme_shows_the_table_of_make_course():
    (block,) = re.findall(
        r"^```text\n(.*?)^```", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    shown = [re.split(r" {2,}", line, maxsplit=1) for line in block.splitlines()]
    rows = table_of_make_course()
    assert [name for name, _ in shown] == [name for name, _ in rows]
    for (name, value), (_, expected) in zip(shown, rows):
        assert re.fullmatch(expected, value), name


def test_pictures_are_small():
    pictures = sorted((ROOT / "docs" / "images").iterdir())
    assert {picture.suffix for picture in pictures} == {".gif", ".png", ".svg"}
    most = {".gif": 1_000_000, ".png": 200_000, ".svg": 200_000}
    assert all(picture.stat().st_size < most[picture.suffix] for picture in pictures)


def test_hooks_run_what_is_here():
    """Each from the course's own Python, with a file of tests that exists where it names one."""
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert local["repo"] == "local"
    for hook in local["hooks"]:
        program, *arguments = shlex.split(hook["entry"])
        assert program == ".venv/bin/python" and hook["language"] == "system"
        assert all((ROOT / name).is_file() for name in arguments if name.startswith("tests/"))
