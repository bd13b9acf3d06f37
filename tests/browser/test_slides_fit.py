"""The slides in a real browser: everything fits, in type that can be read across a room, and the keys lead through them."""

import subprocess

import pytest
from conftest import ROOT, SCREENSHOTS

# What of the slide that shows lies outside of it, and the smallest type on it, in pixels.
LOOK = """() => {
    const body = document.querySelector('section.now > div'), frame = body.getBoundingClientRect();
    const parts = Array.from(body.querySelectorAll('*')).filter((part) => part.getClientRects().length);
    const out = parts.filter((part) => {
        const box = part.getBoundingClientRect();
        return box.left < frame.left - 2 || box.right > frame.right + 2 || box.top < frame.top - 2 || box.bottom > frame.bottom + 2;
    });
    const text = parts.filter((part) => /^(P|LI|TD|TH|PRE|BLOCKQUOTE)$/.test(part.tagName));
    return [out.map((part) => part.outerHTML.slice(0, 80)), Math.min(99, ...text.map((part) => parseFloat(getComputedStyle(part).fontSize)))];
}"""
NUMBER = "Array.from(document.querySelectorAll('section')).findIndex((slide) => slide.offsetParent || slide.offsetHeight) + 1"


@pytest.fixture(scope="module")
def decks(tmp_path_factory):
    folder, python = tmp_path_factory.mktemp("slides"), ROOT / ".venv-site" / "bin" / "python"
    if not (ROOT / ".venv-site" / ".ready").exists():
        pytest.skip("the site's packages are not here: `make slides` installs them")
    subprocess.run([python, ROOT / "docs" / "site" / "slides.py", folder], check=True)
    return sorted(folder.glob("*.html"))


@pytest.mark.parametrize(
    "size", [(1280, 720), (1024, 768), (1920, 1080)], ids=lambda size: "x".join(map(str, size))
)
def test_everything_fits_on_each_slide(browser, decks, size):
    width, height = size
    page = browser.new_page(viewport=dict(width=width, height=height))
    asked, wrong = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: wrong.append(message.text))
    for deck in decks:
        page.goto(deck.as_uri())
        for number in range(1, page.locator("section").count() + 1):
            assert page.evaluate(NUMBER) == number
            out, smallest = page.evaluate(LOOK)
            if out or (smallest < height / 46 and width / height > 1.7):
                wrong.append((deck.stem, number, out, smallest))
            if deck.stem == "06_train" and width == 1280:
                page.screenshot(path=SCREENSHOTS / f"slides_06_{number:02}.png")
            page.keyboard.press("ArrowRight")
    assert not wrong and all(url.startswith("file:") or url.startswith("data:") for url in asked)
    page.close()


def test_keys_clicks_and_the_address_lead_through_the_slides(browser, decks):
    page = browser.new_page(viewport=dict(width=1280, height=720))
    page.goto(f"{decks[0].as_uri()}#3")
    last = page.locator("section").count()
    assert page.evaluate(NUMBER) == 3
    steps = {
        " ": 4,
        "PageUp": 3,
        "ArrowLeft": 2,
        "End": last,
        "ArrowDown": last,
        "Home": 1,
        "ArrowUp": 1,
        "a": 1,
    }
    for key, number in steps.items():
        page.keyboard.press(key)
        assert page.evaluate(NUMBER) == number, key
    page.mouse.click(1000, 400)
    assert page.evaluate(NUMBER) == 2 and page.url.endswith("#2")
    page.mouse.click(50, 400)
    assert page.evaluate(NUMBER) == 1
    page.close()
