"""Makes the PNG beside each diagram, with Chromium: `python -m helpers.maintain.diagrams`, after an SVG has changed.

It needs what `make test-browser` installs. The PNG names the SVG it was made from, so that a test tells when it is out of date.
"""

import hashlib
import io
import re
import shutil
from pathlib import Path

from helpers.errors import CourseError
from helpers.figures import DIAGRAMS


def digest(svg: Path) -> str:
    """SHA-256 of a diagram's text."""
    return hashlib.sha256(svg.read_text(encoding="utf-8").encode()).hexdigest()


def render(svg: Path) -> bytes:
    """A diagram as Chromium draws it, pixel for pixel, as a PNG whose text field Source is the SVG's digest."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        raise CourseError(
            "There is no Chromium on this machine, which draws the diagrams: apt install chromium"
        )
    text = svg.read_text(encoding="utf-8")
    width, height = map(int, re.search(r'width="(\d+)" height="(\d+)"', text).groups())
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": width, "height": height})
        page.set_content(f'<body style="margin: 0">{text}</body>')
        drawn = Image.open(io.BytesIO(page.screenshot()))
        browser.close()
    source, png = PngInfo(), io.BytesIO()
    source.add_text("Source", digest(svg))
    drawn.quantize(64).save(png, "PNG", pnginfo=source, optimize=True)
    return png.getvalue()


if __name__ == "__main__":
    for svg in sorted(DIAGRAMS.glob("*.svg")):
        svg.with_suffix(".png").write_bytes(render(svg))
        print(svg.with_suffix(".png").name)
