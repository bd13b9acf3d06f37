"""Whether every link of the built site leads somewhere: to a file of the site, and to a place on its page.

    python docs/site/links.py FOLDER

Needs nothing but Python. Links into the network are not followed; but no page may need it to be drawn.
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """The names of places on a page, its links, and what it loads, as they are written."""

    def __init__(self, path: Path):
        super().__init__()
        self.places, self.links, self.loads = set(), [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        self.places |= {given.get("id"), given.get("name")}
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        if (tag == "link" and given.get("rel") in ("stylesheet", "icon")) or tag in (
            "script",
            "img",
            "source",
        ):
            self.loads += [given[name] for name in ("href", "src") if given.get(name)]


def broken(site: Path) -> list[str]:
    """A sentence for each link that leads nowhere, and for each style sheet or script that comes from the network."""
    pages = {path: Page(path) for path in sorted(site.resolve().rglob("*.html"))}
    found = []
    for path, page in pages.items():
        for link in dict.fromkeys(page.links + page.loads):
            if wrong := what_is_wrong(link, path, page, pages):
                found.append(f"{path.relative_to(site.resolve())}: {link} {wrong}.")
    return found


def what_is_wrong(link: str, path: Path, page: Page, pages: dict[Path, Page]) -> str | None:
    """What is wrong with one link of a page, in words; None where it leads somewhere."""
    parts = urlsplit(link)
    if parts.scheme == "data" or (parts.scheme in ("http", "https", "mailto") and link in page.links):
        return None
    if parts.scheme or parts.netloc:
        picture = parts.scheme == "https" and not parts.path.endswith((".js", ".css"))
        return None if picture else "is not of this site"
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if parts.path.startswith("/") or not target.is_file():
        return "is not there"
    if parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].places:
        return "names a place that is not on that page"
    return None


if __name__ == "__main__":
    site = Path(sys.argv[1])
    wrong = broken(site)
    print(
        "\n".join(wrong)
        or f"All links of {len(list(site.rglob('*.html')))} pages lead somewhere: open {site}/index.html"
    )
    sys.exit(bool(wrong))
