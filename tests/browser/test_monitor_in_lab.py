"""A run is watched and stopped in a real browser."""

from conftest import idle, run_all


def test_stop_ends_the_run_and_the_notebook_goes_on(lab):
    page = lab("01_install.ipynb")
    run_all(page)
    stop = page.get_by_role("button", name="Stop training")
    stop.wait_for(timeout=180_000)
    page.get_by_text("step/s").first.wait_for(timeout=60_000)
    stop.focus()
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Stopped").wait_for(timeout=60_000)
    idle(page)
    assert page.get_by_text("steps in").first.is_visible()
