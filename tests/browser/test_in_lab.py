"""The course's notebooks in a real browser: every widget worked by keyboard, hostile texts, a run that is stopped."""

import re

from in_page import idle, run_all

HOSTILE = "<img src=x onerror=\"document.title='hacked'\"><script>document.title='hacked'</script> \u202e\u05e9\u05dc\u05d5\u05dd \U0001f3ac"


def control(page, role: str, name: str):
    """The widget with that label, brought into view."""
    found = page.get_by_role(role, name=name, exact=True).last
    found.wait_for(state="attached", timeout=100_000)
    found.scroll_into_view_if_needed()
    return found


def retype(page, field, text: str, leave_by: str) -> None:
    """Replace what stands in a field by keyboard, and leave it."""
    field.focus()
    page.keyboard.press("Control+A")
    page.keyboard.type(text)
    page.keyboard.press(leave_by)
    idle(page)


def widgets_text(page) -> str:
    return "\n".join(page.locator(".jupyter-widgets").all_inner_texts())


def wait_for_text(page, pattern: str, seconds: float = 120) -> None:
    page.get_by_text(re.compile(pattern)).last.wait_for(state="attached", timeout=1000 * seconds)


def changes(page, before: str, seconds: float = 15) -> bool:
    """Whether the widgets come to show something else."""
    for _ in range(int(4 * seconds)):
        if widgets_text(page) != before:
            return True
        page.wait_for_timeout(250)
    return False


def unharmed(page) -> bool:
    return page.title() != "hacked" and page.locator("img[src='x']").count() == 0


def test_stop_ends_the_run_and_the_notebook_goes_on(lab):
    page = lab("01_install.ipynb")
    run_all(page)
    stop = page.get_by_role("button", name="Stop training")
    stop.wait_for(timeout=180_000)
    wait_for_text(page, r"\b[1-9]\d*/\d+ \[")  # the bar has moved
    stop.focus()
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Stopped").wait_for(timeout=60_000)
    idle(page)
    wait_for_text(page, r"\d+ steps in \d+ s\. Held-out reward")
    steps, planned = re.search(r"step (\d+) of (\d+)", page.content()).groups()
    assert 0 < int(steps) < int(planned)


def test_prompt_browser_by_keyboard(lab):
    page = lab("04_prompts.ipynb")
    run_all(page)
    search = control(page, "textbox", "Filter")
    idle(page, 100)
    search.focus()
    page.keyboard.type("i saw")
    page.keyboard.press("Enter")
    wait_for_text(page, r"prompts pass the filter")
    page.keyboard.press("Tab")
    sample = control(page, "button", "Sample")
    sample.focus()
    page.keyboard.press("Enter")
    idle(page)
    wait_for_text(page, "highest")
    retype(page, search, HOSTILE, "Enter")
    assert unharmed(page)


def test_reward_inspector_by_keyboard(lab):
    page = lab("05_reward.ipynb")
    run_all(page)
    text = control(page, "textbox", "Text")
    idle(page, 100)
    for typed, score in [
        ("I loved every minute of it.", r"0\.9\d"),
        ("I watched this film and fell asleep.", r"0\.0\d"),
    ]:
        retype(page, text, typed, "Tab")
        page.wait_for_timeout(500)
        assert re.search(rf"Rewards of this text\s+judge\s+keywords\s+combined\s+{score}", widgets_text(page))
    words = control(page, "button", "Words that moved it")
    words.focus()
    page.keyboard.press("Enter")
    page.locator("ruby").last.wait_for(state="attached", timeout=30_000)
    page.screenshot(path=page.shots / "inspector_words.png")
    retype(page, text, HOSTILE, "Tab")
    page.wait_for_timeout(500)
    assert unharmed(page)


def test_sample_explorer_and_kl_lab_by_keyboard(lab):
    page = lab("06_train.ipynb")
    run_all(page)
    idle(page, 100)
    beta = page.locator(".widget-hslider", has_text="beta").get_by_role("slider")
    before = widgets_text(page)
    beta.focus()
    page.keyboard.press("ArrowRight")
    assert changes(page, before)
    page.screenshot(path=page.shots / "kl_lab.png")
    loss = control(page, "button", "largest loss")
    before = widgets_text(page)
    loss.focus()
    page.keyboard.press("Enter")
    assert changes(page, before)
    page.screenshot(path=page.shots / "sample_explorer.png")
    assert unharmed(page)
