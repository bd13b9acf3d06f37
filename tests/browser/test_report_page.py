"""The report in a real browser: it sorts, nothing in it runs or is fetched, and it reads well wide and narrow, light and dark."""

import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from conftest import CHROMIUM, LAUNCH, SCREENSHOTS
from ppo_run import small_run
from report_run import HELD_OUT, HOSTILE, WORDS, compare_run

from helpers import compare
from helpers.project.report import write_report

PLACES = {"reward before": 3, "reward after": 4, "gain": 5, "tokens after": 6}
# What the texts of a page have for contrast where it is too small: a text's colour against what lies behind it, as WCAG 2 counts it.
PALE = """() => {
    const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
    const numbers = (colour) => {
        canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
        const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data; return [r, g, b, a / 255];
    };
    const over = (top, below) => below.map((value, i) => i < 3 ? top[i] * top[3] + value * (1 - top[3]) : 1);
    const behind = (element) => {
        const own = numbers(getComputedStyle(element).backgroundColor);
        return own[3] === 1 ? own : over(own, element.parentElement ? behind(element.parentElement) : [255, 255, 255, 1]);
    };
    const light = (colour) => [0.2126, 0.7152, 0.0722].reduce((sum, share, i) => {
        const value = colour[i] / 255;
        return sum + share * (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
    }, 0);
    document.querySelectorAll('details').forEach((part) => { part.open = true; });
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    const pale = []; let seen = 0;
    while (walker.nextNode()) {
        const element = walker.currentNode.parentElement;
        if (!walker.currentNode.data.trim() || element.closest('script, style, rp') || !element.getClientRects().length) continue;
        const style = getComputedStyle(element), ground = behind(element);
        const ink = over(numbers(element.closest('svg') ? style.fill : style.color), ground);
        const [low, high] = [light(ink), light(ground)].sort((a, b) => a - b);
        const contrast = (high + 0.05) / (low + 0.05);
        seen += 1;
        if (contrast < 4.5) pale.push([contrast, walker.currentNode.data.trim().slice(0, 30)]);
    }
    return [seen, pale];
}"""
CUT = """() => Array.from(document.querySelectorAll('h1, h2, h3, p, dd, th, td, li, ruby, summary, pre, button, svg'))
    .filter((part) => getComputedStyle(part.closest('.settings thead') || part).clipPath === 'none')  // the others are only read out
    .filter((part) => part.getBoundingClientRect().right > innerWidth || part.scrollWidth > part.clientWidth + 1 && part.clientWidth)
    .map((part) => part.outerHTML.slice(0, 200))"""


# Parts of tables that the page lays out as no table, which some browsers then no longer take for one, unless it says their role.
WITHOUT_ROLE = """() => Array.from(document.querySelectorAll('table, thead, tbody, tr, th, td'))
    .filter((part) => !getComputedStyle(part).display.startsWith('table') && !part.hasAttribute('role'))
    .map((part) => part.outerHTML.slice(0, 200))"""
COLUMNS = ["prompt", "before", "after", *PLACES]
HEADS = "\n".join(
    ["- rowgroup:", "  - row:"]
    + [f'    - columnheader "{name}"' + f':\n      - button "{name}"' * (name in PLACES) for name in COLUMNS]
)


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
    return small_run(tmp_path_factory.mktemp("run"))


@pytest.fixture
def open_page(browser):
    """Opens a file as a reader does; gives the page, and what it asked for, said and broke."""
    pages = []

    def open_it(path: Path, width=1400, height=900, scheme="light"):
        page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
        pages.append(page)
        heard = []
        page.on("request", lambda request: heard.append(request.url))
        page.on("console", lambda message: heard.append(message.text))
        page.on("pageerror", lambda error: heard.append(str(error)))
        page.goto(path.as_uri())
        return page, heard

    yield open_it
    for page in pages:
        page.close()


def shown(page, column):
    """The numbers of a column from top to bottom."""
    return page.eval_on_selector_all(
        f".samples td:nth-child({PLACES[column] + 1})",
        "cells => cells.map(cell => Number(cell.dataset.value))",
    )


@pytest.fixture(scope="module")
def thousand(trainer, tmp_path_factory):
    """A report on 1,000 samples, and the numbers of each column."""
    table = compare_run(trainer, samples=40)
    assert len(table) == 1000 and table["gain"].nunique() > 2
    path = write_report(trainer, table, tmp_path_factory.mktemp("report") / "report.html", **WORDS)
    lengths = [len(tokens) for tokens in compare.token_kl(trainer, table)]
    columns = [table["reward_before"], table["reward_after"], table["gain"], lengths]
    return path, dict(zip(PLACES, map(list, columns)))


@pytest.mark.parametrize("width", [1400, 400])
def test_a_thousand_samples_are_sorted(thousand, open_page, width):
    path, columns = thousand
    page, heard = open_page(path, width)
    assert shown(page, "gain") == sorted(columns["gain"], reverse=True)
    texts = sorted(page.locator(".samples tbody tr").all_text_contents())
    for name in ("reward before", "reward after", "tokens after", "gain"):
        button = page.get_by_role("button", name=name)
        head = page.locator("th", has=button)
        assert sorted(columns[name], reverse=True) != shown(page, name)
        button.click()
        assert shown(page, name) == sorted(columns[name], reverse=True)
        assert head.get_attribute("aria-sort") == "descending"
        button.press("Enter")
        assert shown(page, name) == sorted(columns[name])
        assert head.get_attribute("aria-sort") == "ascending"
        assert page.locator("[aria-sort]").count() == 1
    assert sorted(page.locator(".samples tbody tr").all_text_contents()) == texts
    assert heard == [page.url]


@pytest.fixture
def listening(browser):
    """A browser that a screen reader listens to: it tells of rows out of sight too, whose layout it puts off."""
    chromium = browser.browser_type.launch(
        executable_path=CHROMIUM, args=[*LAUNCH, "--force-renderer-accessibility"]
    )
    yield chromium
    chromium.close()


def told(page) -> dict:
    """What the browser tells a screen reader: the root of its tree of {role, name, children}."""
    nodes = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    by_id = {node["nodeId"]: node for node in nodes}

    def shown(node):
        """The node; in place of one that is passed over, what is in it."""
        children = [each for child in node["childIds"] if child in by_id for each in shown(by_id[child])]
        if node["ignored"]:
            return children
        name = node.get("name", {}).get("value", "")
        return [{"role": node["role"]["value"], "name": name, "children": children}]

    return shown(nodes[0])[0]


def parts(node: dict, role: str) -> list[dict]:
    """The nodes of a role below a node, in their order."""
    below = [part for child in node["children"] for part in parts(child, role)]
    return [node, *below] if node["role"] == role else below


@pytest.mark.parametrize("width", [1400, 400])
def test_a_screen_reader_finds_tables(thousand, listening, width):
    from playwright.sync_api import expect

    page = listening.new_page(viewport={"width": width, "height": 900})
    page.goto(thousand[0].as_uri())
    page.locator("details").evaluate("part => { part.open = true; }")
    assert page.evaluate(WITHOUT_ROLE) == []
    expect(page.locator(".samples thead")).to_match_aria_snapshot(HEADS)
    expect(page.get_by_role("columnheader", name="gain")).to_have_attribute("aria-sort", "descending")
    samples, _, settings, more, _ = parts(told(page), "table")
    heads, rows = samples["children"]
    assert (heads["role"], rows["role"]) == ("rowgroup", "rowgroup")
    assert [head["name"] for head in parts(heads, "columnheader")] == COLUMNS
    assert {(row["role"], len(row["children"])) for row in rows["children"]} == {("row", len(COLUMNS))}
    texts = page.locator(".samples tbody td").all_text_contents()
    cells = [cell["name"] for cell in parts(rows, "cell")]
    assert len(cells) == len(texts) == 1000 * len(COLUMNS)
    unlike = [(cell, text) for cell, text in zip(cells, texts) if cell.split() != text.split()]
    assert unlike[:3] == []  # three, since pytest compares thousands for minutes
    for table, names in [(settings, ["setting", "value", "default"]), (more, ["setting", "value"])]:
        assert [head["name"] for head in parts(table, "columnheader")] == names
        assert len(parts(table, "cell")) == (len(names) - 1) * len(parts(table, "rowheader")) > 10


def test_nothing_runs_and_nothing_is_fetched(trainer, open_page, tmp_path):
    table = compare_run(trainer, HELD_OUT[: len(HOSTILE)])
    table = table.assign(before=[text * 30 for text in HOSTILE], after=HOSTILE, prompt=HOSTILE)
    words = dict.fromkeys(WORDS, " ".join(HOSTILE))
    page, heard = open_page(write_report(trainer, table, tmp_path / "report.html", **words))
    assert page.title() == "gpt2-reviews, tuned with PPO"
    assert page.locator("script").count() == 1 and page.locator("[onload], [onerror], img").count() == 0
    assert heard == [page.url]
    for width in (1400, 400):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate(CUT) == []


@pytest.fixture
def caller():
    """A server of this machine: its address, and what it was asked for."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(404)
            self.end_headers()

        def log_message(self, *arguments): ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


CALL = """async (address) => {
    const script = document.createElement('script');
    script.textContent = "document.title = 'hacked'";
    document.body.append(script);
    const made = [['img', 'src'], ['iframe', 'src'], ['link', 'href'], ['script', 'src']].map(([name, key]) => {
        const element = document.createElement(name);
        element.rel = 'stylesheet';
        const over = new Promise((done) => { element.onload = element.onerror = done; });
        element[key] = `${address}/${name}`;
        document.body.append(element);
        return over;
    });
    await Promise.all([...made, fetch(`${address}/fetch`).catch(() => 0)]);
}"""


@pytest.mark.parametrize("guarded", [True, False])
def test_the_page_forbids_what_a_text_could_try(trainer, open_page, caller, tmp_path, guarded):
    """Were a text ever to become markup, it could still neither run nor call anybody. Without the page's policy it could."""
    path = write_report(trainer, compare_run(trainer), tmp_path / "report.html", **WORDS)
    if not guarded:
        markup = path.read_text(encoding="utf-8")
        path.write_text(re.sub("<meta http-equiv[^>]*>", "", markup), encoding="utf-8")
    page, _ = open_page(path)
    address, asked = caller
    page.evaluate(CALL, address)
    everything = {"/img", "/iframe", "/link", "/script", "/fetch"}
    assert set(asked) == (set() if guarded else everything)
    assert (page.title() == "hacked") is not guarded


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width, height", [(1400, 900), (400, 800)])
def test_it_reads_well(trainer, open_page, tmp_path, scheme, width, height):
    table = compare_run(trainer)
    table["after"] *= 5  # long enough for a strip of several lines
    page, _ = open_page(
        write_report(trainer, table, tmp_path / "report.html", **WORDS), width, height, scheme
    )
    for part in ("", "_whole"):
        page.screenshot(path=SCREENSHOTS / f"report_{scheme}_{width}{part}.png", full_page=bool(part))
    seen, pale = page.evaluate(PALE)
    assert seen > 400 and pale == []
    assert page.evaluate(CUT) == []
    assert page.evaluate("document.documentElement.scrollWidth") == width
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 27)"}[scheme]
