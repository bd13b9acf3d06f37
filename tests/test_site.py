"""The course as pages: what `make site` builds from the notebooks, and the check of its links.

Building needs `.venv-site`, which `make site` makes; without it the tests of the built site are skipped.
"""

import base64
import html
import json
import re
import subprocess
import sys

import pytest
import yaml
from common import ROOT

from helpers import notebooks

sys.path.insert(0, str(ROOT / "docs" / "site"))
import links

SITE_PYTHON = ROOT / ".venv-site" / "bin" / "python"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built anew."""
    if not (ROOT / ".venv-site" / ".ready").exists():
        pytest.skip("the site's packages are not here: `make site` installs them")
    folder = tmp_path_factory.mktemp("site")
    command = ["-m", "sphinx", "-q", "-W", "--keep-going", "-E", "-c", "docs/site", "-d", folder / "doctrees"]
    built = subprocess.run(
        [SITE_PYTHON, *command, ".", folder / "site"], cwd=ROOT, capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    return folder / "site"


def outputs(path):
    """The data and metadata of a notebook's stored outputs."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [
        (each["data"], each["metadata"])
        for cell in cells
        for each in cell.get("outputs", [])
        if "data" in each
    ]


def test_every_link_leads_somewhere(site):
    assert links.broken(site) == []


def test_every_notebook_is_a_page_and_in_the_list_at_the_side(site):
    first = (site / "index.html").read_text(encoding="utf-8")
    for path in notebooks.numbered():
        assert f'href="notebooks/{path.stem}.html">{path.stem[:2]} ' in first, path.stem


@pytest.mark.parametrize("path", notebooks.numbered(), ids=lambda path: path.stem)
def test_figures_are_there_with_their_text_alternatives(site, path):
    page = site / "notebooks" / f"{path.stem}.html"
    shown = [
        (source, html.unescape(alt).split())
        for alt, source in re.findall(
            r'<img alt="(.*?)" src="(.*?)"', page.read_text(encoding="utf-8"), re.DOTALL
        )
    ]
    stored = [(data, metadata) for data, metadata in outputs(path) if "image/png" in data]
    assert stored
    for data, metadata in stored:
        sources = [source for source, alt in shown if alt == metadata["image/png"]["alt"].split()]
        pictures = [
            (page.parent / source).read_bytes().strip()
            for source in sources
            if not source.startswith("data:")
        ]
        drawing = "".join(data.get("image/svg+xml", "")).encode().strip()
        assert {base64.b64decode("".join(data["image/png"])).strip(), drawing} & set(pictures), metadata


def test_the_search_finds_words_of_prose_and_of_code(site):
    index = (site / "searchindex.js").read_text(encoding="utf-8")
    assert "reward_fn" in index and "rollout" in index


def test_formulas_are_drawn_without_a_script(site):
    page = (site / "notebooks" / "07_inside_ppo.html").read_text(encoding="utf-8")
    assert "<math" in page and "merror" not in page
    assert "\\nabla" not in page  # the source of a formula is not shown beside it


def test_the_setup_cell_is_folded(site):
    page = (site / "notebooks" / "06_train.html").read_text(encoding="utf-8")
    folded = re.findall(r'<details class="admonition hide.*?</details>', page, re.DOTALL)
    assert any("course_folder" in code for code in folded)


# The check of the links


@pytest.fixture
def pages(tmp_path):
    """Write pages, {name: HTML}, and say what is wrong with them."""

    def write(**texts):
        for name, text in texts.items():
            (tmp_path / f"{name}.html").write_text(text, encoding="utf-8")
        return links.broken(tmp_path)

    return write


def test_links_that_lead_somewhere(pages):
    good = '<a href="b.html">b</a><a href="b.html#there">b</a><a href="#here" id="here">a</a><a href="https://example.org/x#y">out</a>'
    assert pages(a=good + '<img src="data:image/png;base64,AA">', b='<h2 id="there">There</h2>') == []


@pytest.mark.parametrize(
    "link, wrong",
    [
        ('<a href="c.html">c</a>', "is not there"),
        ('<a href="b.html#nowhere">b</a>', "names a place that is not on that page"),
        ('<a href="#nowhere">a</a>', "names a place that is not on that page"),
        ('<a href="/b.html">b</a>', "is not there"),
        ('<a href="file:///b.html">b</a>', "is not of this site"),
        ('<img src="picture.png">', "is not there"),
        ('<script src="https://example.org/x.js"></script>', "is not of this site"),
        ('<link rel="stylesheet" href="//example.org/x.css">', "is not of this site"),
    ],
)
def test_links_that_lead_nowhere(pages, link, wrong):
    (said,) = pages(a=link, b='<h2 id="there">There</h2>')
    assert said.startswith("a.html: ") and said.endswith(f"{wrong}.")


def test_the_workflow_publishes_what_make_site_builds():
    text = (ROOT / ".github" / "workflows" / "pages.yml").read_text(encoding="utf-8")
    steps = yaml.safe_load(text)["jobs"]["publish"]["steps"]
    (path,) = [step["with"]["path"] for step in steps if "upload-pages-artifact" in step.get("uses", "")]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert {"run": "make site"} in steps and f"SITE = {path}\n" in makefile
