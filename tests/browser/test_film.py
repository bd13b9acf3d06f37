"""Somebody fools the judge of notebook 05, filmed: fooling_the_judge.gif beside the screenshots, as it is in docs/images."""

import io

import pytest
from conftest import SCREENSHOTS
from in_page import LabPage
from PIL import Image

TYPED = [
    ("The film was so dull that I slept.", r"0\.0\d"),
    (" The best thing about it is the exit.", r"0\.9\d"),
    (None, ""),
    ("A great and brilliant waste of time.", r"0\.0\d"),
]
"""What is typed after what stands there (None: the field is emptied), and the judge's reward then."""
SECONDS = {"typing": 0.12, "reading": 3.0}
MOST = 1_000_000  # bytes


class Film:
    """Frames of one place on a page, each with its seconds."""

    def __init__(self, page, place: dict):
        self.page, self.place = page, place
        self.frames, self.seconds = [], []

    def shoot(self, seconds: float) -> None:
        picture = Image.open(io.BytesIO(self.page.screenshot(clip=self.place)))
        self.frames.append(picture.convert("RGB").quantize(64, dither=Image.Dither.NONE))
        self.seconds.append(seconds)

    def save(self, path) -> None:
        times = [round(1000 * seconds) for seconds in self.seconds]
        self.frames[0].save(path, save_all=True, append_images=self.frames[1:], duration=times, loop=0)


def test_fooling_the_judge(open_notebook, server):
    if server[0] is not LabPage:
        pytest.skip("one film is enough")
    reader = open_notebook("05_reward.ipynb", by="mouse")
    page = reader.page
    page.set_viewport_size({"width": 1100, "height": 700})
    page.keyboard.press("Control+B")
    reader.run_all()
    field = reader.control("textbox", "Text")
    widget = page.locator(".rlhf").filter(has=field).last
    widget.evaluate("widget => widget.scrollIntoView({block: 'start'})")
    page.wait_for_timeout(500)
    box = widget.bounding_box()
    film = Film(page, {"x": box["x"] - 8, "y": box["y"] - 4, "width": box["width"] + 16, "height": 560})
    field.fill("")
    page.keyboard.press("Tab")
    for text, reward in TYPED:
        field.click()
        page.keyboard.press("Control+End")
        if text is None:
            field.fill("")
            page.keyboard.press("Tab")
            continue
        for start in range(0, len(text), 3):
            page.keyboard.insert_text(text[start : start + 3])
            film.shoot(SECONDS["typing"])
        page.keyboard.press("Tab")
        assert reader.sees(rf"Rewards of this text\s+judge\s+{reward}"), text
        film.shoot(SECONDS["reading"] / 2)
        page.get_by_role("button", name="Words that moved it").last.click()
        assert reader.sees("By how much judge falls")
        page.wait_for_timeout(300)
        film.shoot(SECONDS["reading"])
        if "exit" in text:
            assert reader.sees(r"met\s+2\.")
    assert reader.sees(r"met\s+1\.")
    film.save(SCREENSHOTS / "fooling_the_judge.gif")
    assert (SCREENSHOTS / "fooling_the_judge.gif").stat().st_size < MOST
    assert 15 < sum(film.seconds) < 25
