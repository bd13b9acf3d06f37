"""The notebooks as slides (`make slides`): what is on them and what is not. That they fit is tested in tests/browser.

They are made with `.venv-site`, as the site is; without it these tests are skipped.
"""

import html
import json
import re
import subprocess

import nbformat
import pytest
from common import ROOT

from helpers import notebooks
from helpers.exercise_cells import SOLUTION

PYTHON = ROOT / ".venv-site" / "bin" / "python"
ANSWER = re.compile(r"<details><summary>Answer.*?</details>", re.DOTALL)


def make(folder, *more):
    if not (ROOT / ".venv-site" / ".ready").exists():
        pytest.skip("the site's packages are not here: `make slides` installs them")
    made = subprocess.run(
        [PYTHON, "docs/site/slides.py", folder, *more], cwd=ROOT, capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr
    return {path.stem: path.read_text(encoding="utf-8") for path in folder.glob("*.html")}


@pytest.fixture(scope="module")
def decks(tmp_path_factory):
    return make(tmp_path_factory.mktemp("slides"))


def sections(page):
    return re.findall(r"<section.*?</section>", page, re.DOTALL)


def markdown_of(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]


def words(text):
    """A text without markup, links and spaces."""
    return re.sub(r"\W+", "", re.sub(r"<[^>]*>|\]\([^)]*\)", "", html.unescape(text)))


@pytest.mark.parametrize("path", notebooks.numbered(), ids=lambda path: path.stem)
def test_no_solution_and_no_answer_is_on_a_slide(decks, path):
    page = decks[path.stem]
    shown = words(page)
    folded = [
        block
        for text in markdown_of(path)
        for kind in (SOLUTION, ANSWER)
        for found in kind.finditer(text)
        for block in re.split(r"\n\s*\n|```(?:python)?\n", found[0])
    ]
    assert folded and "<details" not in page and "<summary" not in page
    assert not [block for block in folded if len(words(block)) > 60 and words(block) in shown]


@pytest.mark.parametrize("path", notebooks.numbered(), ids=lambda path: path.stem)
def test_a_deck_has_the_title_the_questions_and_the_exercises(decks, path):
    page, text = decks[path.stem], "\n".join(markdown_of(path))
    slides = sections(page)
    assert 8 <= len(slides) <= 35
    titles = [html.unescape(re.search(r"<h[12]>(.*?)</h[12]>", slide)[1]) for slide in slides]
    assert titles[0] == re.search(r"^# (.+)$", text, re.MULTILINE)[1] and titles[-1] == "What you learned"
    tasks = re.findall(r"^### Exercise \d", text, re.MULTILINE)
    assert ("Exercises" in titles) == bool(tasks)
    assert page.count("<blockquote>") == len(re.findall(r"^(?:> )?\*\*Predict first", text, re.MULTILINE))
    if tasks:
        assert slides[titles.index("Exercises")].count("<li>") == len(tasks)


def test_every_picture_has_a_text_alternative_and_nothing_is_loaded(decks):
    for name, page in decks.items():
        pictures = re.findall(r"<img [^>]*>", page)
        alts = [re.search(r'alt="([^"]*)"', picture) for picture in pictures]
        assert all(alt and len(alt[1]) > 20 for alt in alts), name
        assert all('src="data:image/png;base64,' in picture for picture in pictures)
        assert not re.search(r"<(?:a|link|iframe|form)\b", page) and page.count("<script") == 1
        assert page.count("default-src 'none'") == 1


def test_tags_leave_a_cell_out_or_take_it_whole(tmp_path):
    text = nbformat.v4.new_markdown_cell
    head = text("# A title\n\nA promise.\n\n| a | b |\n|---|---|")
    able = text("You will be able to\n\n- do it.")
    first = text(
        "## First\n\nA **term**. It is explained & [linked](x.md).\n\n**Predict first.** Is $a < b$?"
    )
    code = nbformat.v4.new_code_cell("secret = 1 < 2")
    code.outputs = [nbformat.v4.new_output("stream", name="stdout", text="one <i>\ntwo\n")]
    folded = "<details><summary>Solution</summary>\n\nIt is **42**.\n\n</details>"
    answer = text(f"## Answer\n\n{folded}\n\nA **word** on it.")
    hidden = text("## Second\n\nNobody sees **this**.", metadata={"tags": ["skip"]})
    whole = text(f"One. Two. Three.\n\n{folded}\n\nFour.", metadata={"tags": ["slide"]})
    shown = nbformat.v4.new_code_cell("shown = 2 < 3", metadata={"tags": ["slide"]})
    plain = text("## Third\n\nNothing to see here.")
    notebook = nbformat.v4.new_notebook(cells=[head, able, first, code, answer, hidden, whole, shown, plain])
    (tmp_path / "notebooks").mkdir()
    nbformat.write(notebook, tmp_path / "notebooks" / "01_small.ipynb")
    (page,) = make(tmp_path / "slides", tmp_path / "notebooks").values()
    slides = sections(page)
    assert len(slides) == 6 and "42" not in page and "Solution" not in page
    assert "A promise." in slides[0] and "do it." in slides[0]
    assert "<strong>term</strong>" in slides[1] and "explained &amp; linked." in slides[1]
    assert "<blockquote>" in slides[1] and "<math" in slides[1]
    assert "<pre>one &lt;i&gt;\ntwo</pre>" in slides[2]  # what a prediction waited for
    assert "<strong>word</strong>" in slides[3]
    assert "Three." in slides[4] and "Four." in slides[4]
    assert "shown = 2 &lt; 3" in slides[5] and "secret" not in page and "Nobody" not in page


def code_with(*outputs):
    cell = nbformat.v4.new_code_cell("show()")
    cell.outputs = [
        nbformat.v4.new_output(
            "display_data", data={kind: data}, metadata={kind: {"alt": "a line that rises"}}
        )
        for kind, data in outputs
    ]
    return cell


def rows(count, text):
    row = f'<tr><td style="text-align: left">{text}</td></tr>'
    return "text/html", f'<table class="dataframe x"><thead></thead><tbody>{row * count}</tbody></table>'


def test_small_tables_stand_below_the_text_large_ones_are_cut_and_figures_come_alone(tmp_path):
    text, figure = nbformat.v4.new_markdown_cell, ("image/png", "iVBORw0K")
    cells = [text("# A title\n\nA promise."), text("You will be able to")]
    cells += [text("## Small\n\nText."), code_with(rows(3, "few words"))]
    cells += [text("## Large\n\nText."), code_with(rows(9, "many words " * 20))]
    cells += [text("## Many\n\nText."), code_with(rows(12, "a few words more, of forty letters in all"))]
    cells += [text("## Figure\n\nText."), code_with(rows(3, "few words")), code_with(figure)]
    (tmp_path / "notebooks").mkdir()
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "notebooks" / "01_small.ipynb")
    (page,) = make(tmp_path / "slides", tmp_path / "notebooks").values()
    _, small, large, cut, many, eight, figured, drawn = sections(page)
    assert small.count("<tr>") == 3 and "Text." in small and "Text." in large and "<table" not in large
    assert cut.count("<tr>") == 8 and cut.count("words …") == 8 and "and 1 more row in the notebook" in cut
    assert "Text." in many and eight.count("<tr>") == 8 and "and 4 more rows in the notebook" in eight
    assert "Text." in figured and "<table" not in figured + drawn and 'alt="a line that rises"' in drawn
