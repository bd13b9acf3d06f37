"""How every widget looks, measured in the browser: nothing cut off, nothing overlapping, contrast, one screen. Pictures of all are kept."""

from pathlib import Path

import pytest
from conftest import SCREENSHOTS
from gallery import WIDGETS, write_gallery
from in_page import LabPage

MEASURE = Path(__file__).with_name("measure.js").read_text(encoding="utf-8")
SIZES = {"large": (1400, 900), "small": (1024, 700), "phone": (480, 900)}
CONTRAST = 4.5
"""The least that the Web Content Accessibility Guidelines 2.2 ask of text (1.4.3)."""
OPEN_FOLDS = "() => document.querySelectorAll('.rlhf details').forEach(fold => fold.open = true)"


@pytest.fixture
def gallery(open_notebook, server):
    write_gallery(server[2] / "notebooks" / "gallery.ipynb")
    reader = open_notebook("gallery.ipynb", by="mouse")
    if server[0] is LabPage:
        reader.page.keyboard.press("Control+B")  # a class sees the notebook without the list of files
    reader.run_all()
    assert "Traceback" not in reader.page.inner_text("body")
    return reader


def widgets_on(page):
    """{name: element} of the widgets, then of their static doubles, in the order of the page."""
    found = page.locator(".rlhf").all()
    names = [*WIDGETS, *(f"{name}_static" for name in WIDGETS)]
    assert len(found) == len(names)
    return dict(zip(names, found))


def use_theme(page, name: str) -> None:
    """Choose a theme of JupyterLab in its menu."""
    page.get_by_role("menuitem", name="Settings", exact=True).click()
    page.locator(".lm-Menu-item[data-type=submenu]", has_text="Theme").first.click()
    page.locator(".lm-Menu-item", has_text=name).last.click()
    page.wait_for_selector(
        f"body[data-jp-theme-light={'false' if name.endswith('Dark') else 'true'}]", state="attached"
    )
    page.wait_for_timeout(1000)


def test_nothing_is_cut_off_overlaps_or_is_too_pale(gallery, server):
    page, kind = gallery.page, server[0]
    themes = ["JupyterLab Light", "JupyterLab Dark"] if kind is LabPage else ["classic"]
    faults = []
    for theme in themes:
        page.set_viewport_size({"width": 1400, "height": 900})
        if kind is LabPage:
            use_theme(page, theme)
        for size, (width, height) in SIZES.items():
            page.set_viewport_size({"width": width, "height": height})
            page.wait_for_timeout(500)
            for name, widget in widgets_on(page).items():
                # classic Notebook's header and its notice leave 500 of 700 pixels: there some of it lies below
                one_screen = size == "large" or (size == "small" and kind is LabPage)
                one_screen = one_screen and not name.endswith("_static")
                shown = page.evaluate(f"() => document.querySelector('{kind.scrolls}').clientHeight")
                widget.evaluate("widget => widget.scrollIntoView({block: 'start'})")
                found = widget.evaluate(MEASURE, [shown if one_screen else 0, CONTRAST])
                faults += [f"{theme}, {size}, {name}: {fault}" for fault in found]
                page.wait_for_timeout(100)
                page.screenshot(path=SCREENSHOTS / f"look_{theme.replace(' ', '_')}_{size}_{name}.png")
    if kind is LabPage:
        page.set_viewport_size({"width": 1400, "height": 900})
        use_theme(page, "JupyterLab Light")
    assert not faults, "\n".join(faults)
    assert not page.get_by_text("Jupyter news").count(), "make lab sets that nobody is asked"


def test_what_a_screen_reader_is_told(gallery, server):
    """The accessibility tree is kept beside the pictures; each control in it has a name, and each table a caption."""
    told = {name: widget.aria_snapshot() for name, widget in widgets_on(gallery.page).items()}
    text = "\n\n".join(f"# {name}\n{tree}" for name, tree in told.items())
    (SCREENSHOTS / f"told_{server[0].__name__}.txt").write_text(text, encoding="utf-8")
    for name, tree in told.items():
        for line in tree.splitlines():
            role, _, rest = line.strip().removeprefix("- ").partition(" ")
            if role.rstrip(":") in ("button", "textbox", "spinbutton", "table", "img"):
                assert rest.startswith('"'), f"{name}: {line}"


CONTROLS = """widget => Array.from(widget.querySelectorAll('button, input, textarea, [tabindex="0"], [contenteditable=true]'))
    .filter(control => !control.disabled && control.checkVisibility())"""
PLACE = f"widget => ({CONTROLS})(widget).indexOf(document.activeElement)"


def test_tab_goes_through_the_controls_in_their_order(gallery):
    page = gallery.page
    for name in WIDGETS:
        widget = widgets_on(page)[name]
        count = widget.evaluate(f"widget => ({CONTROLS})(widget).length")
        widget.evaluate(f"widget => ({CONTROLS})(widget)[0].focus()")
        visited = []
        for _ in range(count):
            visited.append(widget.evaluate(PLACE))
            page.keyboard.press("Tab")
        assert count > 1 and visited == list(range(count)), name
