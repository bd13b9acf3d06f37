"""The course's notebooks in a browser: every widget worked by keyboard alone, then by mouse, in JupyterLab and in classic Notebook."""

import re

import nbformat
import pandas as pd
import pytest
from common import ROOT

HANDS = ["keyboard", "mouse"]


def test_stop_ends_a_run_and_the_notebook_goes_on(open_notebook, screenshot, server):
    kind, _, course = server
    text = (course / "notebooks" / "01_install.ipynb").read_text()
    assert "here.steps(64)" in text
    # On a fast machine the notebook's own run is over before a hand reaches the button.
    (course / "notebooks" / "01_long.ipynb").write_text(text.replace("here.steps(64)", "20_000"))
    reader = open_notebook("01_long.ipynb", by="keyboard" if kind.__name__ == "LabPage" else "mouse")
    reader.front_end.run_all()
    stop = reader.page.get_by_role("button", name="Stop training")
    stop.wait_for(timeout=180_000)
    reader.wait_for_text(r"\b[1-9]\d*/\d+ \[")  # the bar has moved
    stop.scroll_into_view_if_needed()
    screenshot(reader, "running")
    reader.press("button", "Stop training")
    reader.page.get_by_role("button", name="Stopped").wait_for(timeout=60_000)
    reader.front_end.wait_until_idle()
    reader.wait_for_text(r"\d+ steps in \d+ s\. Held-out reward")
    steps, planned = re.search(r"step (\d+) of (\d+)", reader.page.content()).groups()
    assert 0 < int(steps) < int(planned)


def test_prompt_browser(open_notebook, screenshot):
    reader = open_notebook("04_prompts.ipynb")
    reader.run_all()
    for reader.by in HANDS:
        reader.type("Filter", "i saw")
        assert reader.sees(r"Page 1 of [\d,]+\. [1-9][\d,]* of [\d,]+ prompts pass the filter"), reader.by
        before = reader.shown()
        reader.press("button", "Next")
        assert reader.sees(r"Page 2 of "), reader.by
        reader.press("button", "Previous")
        assert reader.sees(r"Page 1 of "), reader.by
        reader.type("Temperature", "0.5", role="spinbutton")
        reader.type("Top-k (0 = off)", "7", role="spinbutton")
        reader.type("Top-p (1 = off)", "0.9", role="spinbutton")
        reader.press("button", "Sample")
        assert reader.sees(r"Sampled at temperature 0\.5, top-k 7, top-p 0\.9\."), reader.by
        screenshot(reader, reader.by)
        reader.type("Filter", "no such words")
        assert reader.sees("No prompt contains"), reader.by
        assert reader.shown() != before
        reader.type("Temperature", "1.0", role="spinbutton")
        reader.type("Top-k (0 = off)", "0", role="spinbutton")


@pytest.mark.parametrize("reader_by", HANDS)
def test_reward_inspector(open_notebook, screenshot, reader_by):
    reader = open_notebook("05_reward.ipynb", by=reader_by)
    reader.run_all()
    for typed, score in [
        ("I loved every minute of it.", r"0\.9\d"),
        ("I watched this film and fell asleep.", r"0\.0\d"),
    ]:
        reader.type("Text", typed)
        assert reader.sees(rf"Rewards of this text\s+judge\s+{score}"), typed
    reader.press("button", "keywords")
    reader.press("button", "Words that moved it")
    assert reader.sees("By how much keywords falls without the word")
    screenshot(reader, "words")
    reader.press("button", "review")
    first = reader.control("textbox", "Text").input_value()
    assert first != typed and not reader.page.locator(".rlhf-piece").filter(has_text="asleep").is_visible()
    reader.type("Number", "2", role="spinbutton")
    assert reader.becomes(lambda _: reader.control("textbox", "Text").input_value() != first, 10)


def test_sample_explorer_and_kl_lab(open_notebook, screenshot):
    reader = open_notebook("06_train.ipynb")
    reader.run_all(300)
    for reader.by in HANDS:
        reader.press("button", "largest loss")
        assert reader.sees(r"Sample 1 of \d+: gain \u2212"), reader.by
        reader.press("button", "Next")
        assert reader.sees(r"Sample 2 of \d+: gain"), reader.by
        reader.type("Sample", "5", role="spinbutton")
        assert reader.sees(r"Sample 5 of \d+: gain"), reader.by
        assert reader.sees("each over its KL in nats .* and its advantage"), reader.by
        screenshot(reader, f"explorer_{reader.by}")
        reader.press("button", "largest gain")
        reader.press("button", "Larger beta")
        assert reader.sees(r"beta 0\.005: samples at the end"), reader.by
        screenshot(reader, f"kl_lab_{reader.by}")
        reader.press("button", "Smaller beta")
        assert reader.sees(r"beta 0: samples at the end"), reader.by
    slide(reader)
    assert reader.sees(r"beta 0\.005: samples at the end")


def slide(reader) -> None:
    """The slider for beta one place up, by its handle."""
    handle = reader.page.locator(".widget-hslider", has_text="beta").last.locator(
        "[role=slider], .ui-slider-handle"
    )
    handle.scroll_into_view_if_needed()
    handle.focus()
    reader.page.keyboard.press("ArrowRight")


def test_diagnosis(open_notebook, screenshot):
    """Every patient of notebook 08 is solved, the first ones by keyboard, the others by mouse."""
    reader = open_notebook("08_clinic.ipynb")
    reader.run_all(300)
    cards = pd.read_csv(ROOT / "notebooks" / "data" / "clinic_cases.csv")
    order = cards.sample(frac=1, random_state=0)  # as the notebook has it
    for place, card in enumerate(order.itertuples(), 1):
        reader.by = "keyboard" if place <= 4 else "mouse"
        reader.type("Patient", str(place), role="spinbutton")
        assert reader.sees(f"Patient {place}: samples at the end"), card.run
        if place == 1:
            reader.press("button", "Am I right?")
            assert reader.sees("Choose a sickness and a cure first")
        reader.press("button", card.run)
        reader.press("button", card.cure)
        reader.press("button", "Am I right?")
        assert reader.sees(f"{place} of {len(order)} patients solved"), card.run
        if place in (1, 5):
            screenshot(reader, reader.by)
    reader.press("button", "Previous")
    assert reader.sees(f"Right: {order.iloc[-2].run}")


def test_preference_labeller(open_notebook, screenshot, server):
    """Notebook 09 up to its labeller: rated by keyboard and by mouse, closed, and gone on with in a new page and kernel."""
    _, _, course = server
    notebook = nbformat.read(course / "notebooks" / "09_human_feedback.ipynb", as_version=4)
    shows = next(place for place, cell in enumerate(notebook.cells) if "labeller.view" in cell.source)
    notebook.cells = notebook.cells[: shows + 1]
    rated = 0
    for by in HANDS:
        name = f"rating_by_{by}.ipynb"
        nbformat.write(notebook, course / "notebooks" / name)
        reader = open_notebook(name, by=by)
        reader.run_all()
        assert reader.sees("Type your name")
        reader.type("Rater", "Ada")
        assert reader.sees(rf"\b{rated} of \d+ rated"), "what was rated before is still there"
        for button in ("Left is better (1)", "Tie (2)", "Right is better (3)", "Skip (4)"):
            rated = press_and_see(reader, button, rated + 1)
        screenshot(reader, by)
        rated = press_and_see(reader, "Undo (5)", rated - 1)
        reader.type("Reason (optional)", "it is shorter")
        rated = press_and_see(reader, "Left is better (1)", rated + 1)
        if by == "keyboard":  # once: the tenth showing is of a pair that was rated before
            reader.page.wait_for_timeout(500)
            reader.control("textbox", "Keys").focus()
            reader.page.keyboard.press("3")
            rated += 1
            assert reader.sees(rf"\b{rated} of \d+ rated")
            assert reader.control("textbox", "Keys").input_value() == "", "ready for the next key"
        reader.page.close()


def press_and_see(reader, button: str, rated: int) -> int:
    """Press a button of the labeller, see that `rated` pairs are rated then, and return that number."""
    reader.page.wait_for_timeout(500)  # the labeller takes anything quicker for a double click
    reader.press("button", button)
    assert reader.sees(rf"\b{rated} of \d+ rated"), button
    return rated
