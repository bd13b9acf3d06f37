"""How long a reader waits, in the browser: measured and written beside the screenshots, never asserted; machines differ."""

import re
import statistics

from conftest import SCREENSHOTS
from in_page import write_notebook

# From leaving the field until the text stands in the table of texts tried, which is drawn after its rewards.
WATCH_EDITS = """() => {
    window.waits = [];
    let left = 0, text = '';
    document.addEventListener('focusout', event => {
        if (event.target.tagName === 'TEXTAREA') { left = performance.now(); text = event.target.value; }
    });
    new MutationObserver(() => {
        const tried = Array.from(document.querySelectorAll('.jupyter-widgets caption')).findLast(
            caption => caption.textContent.startsWith('Texts tried'));
        if (left && tried?.parentElement.textContent.includes(text)) { waits.push(performance.now() - left); left = 0; }
    }).observe(document.body, {childList: true, subtree: true, characterData: true});
}"""
WATCH_PAGE = """() => {
    new MutationObserver(() => {
        if (!window.seenAt && document.body.innerText.includes('Page 1 of 3,125')) window.seenAt = Date.now();
    }).observe(document.body, {childList: true, subtree: true, characterData: true});
}"""
BIG = """import sys, time
sys.path.insert(0, "..")
from helpers.widgets.prompts import PromptBrowser
def sample(prompts, temperature, top_k, top_p):
    return [" good" for prompt in prompts]
prompts = [f"prompt number {n} of a film" for n in range(25_000)]
print("began", time.time())
PromptBrowser(prompts, lambda prompts: [prompt.split() for prompt in prompts], sample, lambda samples: [1.0 for _ in samples]).view"""


def note(server, line: str) -> None:
    line = f"{server[0].__name__}: {line}"
    print(line)
    with open(SCREENSHOTS / "latency.txt", "a", encoding="utf-8") as file:
        file.write(line + "\n")


def test_an_edit_shows_its_reward(open_notebook, server):
    reader = open_notebook("05_reward.ipynb")
    reader.run_all()
    reader.control("textbox", "Text")
    reader.page.evaluate(WATCH_EDITS)
    edits = 11
    for edit in range(edits):
        reader.type("Text", f"I loved every minute of it, all {edit + 100} of them.")
        reader.page.wait_for_function("count => waits.length === count", arg=edit + 1)
    waits = reader.page.evaluate("() => waits")
    assert len(waits) == edits
    note(
        server,
        f"an edit shows its reward after {statistics.median(waits):.0f} ms (median of {edits}; longest {max(waits):.0f} ms)",
    )


def test_a_browser_for_25_000_prompts_opens(open_notebook, server):
    _, _, course = server
    write_notebook(course / "notebooks" / "big.ipynb", [BIG])
    reader = open_notebook("big.ipynb")
    reader.page.evaluate(WATCH_PAGE)
    reader.run_all()
    assert reader.sees("Page 1 of 3,125")
    began = float(re.search(r"began ([\d.]+)", reader.page.inner_text("body")).group(1))
    seconds = reader.page.evaluate("() => seenAt") / 1000 - began
    assert seconds > 0
    note(server, f"a browser for 25,000 prompts is on the page after {seconds:.2f} s")
