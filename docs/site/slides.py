"""The notebooks as slides, one HTML file each that loads nothing: `make slides`.

    python docs/site/slides.py FOLDER [NOTEBOOKS]

What is on a slide follows from the cells: one for each section, with its first sentences, formula and "predict first"; one for each cell
of it that gave figures, or, in a section without figures, tables; where a prediction waits for it, what was printed; the exercises
on one, without their solutions; what you learned. Folded answers, code and Setup are left out, and so is a section that has nothing to
see and explains no term. A cell tagged `skip` is on no slide. A cell tagged `slide` is on one whole: its text, or its code.
"""

import base64
import hashlib
import html
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from conf import mathml
from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin

HERE = Path(__file__).parent
NOTEBOOKS = HERE.parents[1] / "notebooks"
FOLDED = re.compile(r"<details>.*?</details>", re.DOTALL)
HEADING = re.compile(r"^(#{1,3}) (.+)$", re.MULTILINE)
QUESTION = re.compile(r"(?:> )?\*\*Predict first")
EXERCISE = re.compile(r"Exercise (\d+) (.+)")
LINK = re.compile(r"(?<!!)\[((?:`[^`]*`|[^\[\]`])+)\]\([^)]*\)")
WORDS, LINES = 45, 9
"""The most on a slide: words of a section's beginning; printed lines."""
ROWS, LETTERS, OF_A_CELL = 8, 900, 110
"""The most of a table: rows, letters in all, letters of a cell."""
SMALL = 250
"""Letters of a table that goes onto the slide of its section's first sentences."""


@dataclass(frozen=True)
class Slide:
    """A title as plain text, and what stands below it as HTML."""

    title: str
    body: str

    def has(self, *names: str) -> bool:
        """Whether an element of one of these names is on it."""
        return any(f"<{name}" in self.body for name in names)


def markdown(text: str) -> str:
    """Markdown as HTML, with formulas as MathML; of links the words."""
    return READER.render(LINK.sub(r"\1", text))


def formula(content: str, options: dict) -> str:
    """A formula as MathML."""
    return mathml(content, "block" if options.get("display_mode") else "inline")


READER = MarkdownIt("commonmark").enable("table").use(dollarmath_plugin, renderer=formula, allow_digits=False)


def slides_of(notebook: dict) -> list[Slide]:
    """The slides of a notebook with stored outputs, in order."""
    cells = [cell for cell in notebook["cells"] if "skip" not in tags(cell)]
    text = "".join(cells[0]["source"])
    title = HEADING.search(text)[2]
    promise = paragraphs(text[HEADING.search(text).end() :])[0]
    slides, exercises, section, predicted = [], [], title, False
    for number, cell in enumerate(cells[1:], start=1):
        source = "".join(cell["source"])
        if "slide" in tags(cell):
            whole = FOLDED.sub("", source) if is_text(cell) else f"```python\n{source}\n```"
            slides.append(Slide(section, f"<article>{markdown(whole)}</article>"))
        elif number == 1:
            slides.append(Slide(title, markdown(f"{promise}\n\n{source}")))
        elif not is_text(cell):
            shown = outputs(cell, predicted)
            slides += [Slide(section, "".join(shown))] if shown else []
            predicted = predicted and not shown
        else:
            for heading, part in parts(FOLDED.sub("", source)):
                predicted = predicted or "**Predict first" in part
                section = heading or section
                if found := EXERCISE.match(heading):
                    exercises.append(f"{found[1]}. {found[2]}: {sentences(paragraphs(part)[0], 1)}")
                elif heading == "What you learned":
                    slides += [Slide("Exercises", markdown("\n".join(exercises)))] if exercises else []
                    learned = [block for block in paragraphs(part) if not block.startswith("**Next")]
                    slides.append(Slide(heading, markdown("\n\n".join(learned))))
                elif heading not in ("Exercises", "Next"):
                    slides += [Slide(section, body) for body in told(part, bool(heading))]
    return worth_showing(slides)


def goes_below(slide: Slide, after: Slide) -> bool:
    """Whether the next slide's small table has its place below a section's first sentences, and not below a question, whose answer it may be."""
    is_text = not slide.has("img", "table", "pre", "blockquote", "article")
    is_small = after.has("table") and not after.has("img", "article") and letters_of(after.body) <= SMALL
    return slide.title == after.title and is_text and is_small


def letters_of(markup: str) -> int:
    """How many letters and digits stand in HTML."""
    return len(re.sub(r"<[^>]*>|\s+", "", markup))


def worth_showing(slides: list[Slide]) -> list[Slide]:
    """The slides without tables of sections that have a figure, and without sections that have nothing to see and explain no term.

    Small tables join the text before them.
    """
    with_figures = {slide.title for slide in slides if slide.has("img")}
    slides = [s for s in slides if not s.has("table") or s.has("article") or s.title not in with_figures]
    to_see = {
        slide.title
        for number, slide in enumerate(slides)
        if slide.has("img", "table", "pre", "math", "blockquote", "strong", "li", "article") or number == 0
    }
    kept: list[Slide] = []
    for slide in (slide for slide in slides if slide.title in to_see):
        if kept and goes_below(kept[-1], slide):
            kept[-1] = Slide(slide.title, kept[-1].body + slide.body)
        else:
            kept.append(slide)
    return kept


def tags(cell: dict) -> list[str]:
    """The tags of a cell."""
    return cell["metadata"].get("tags", [])


def is_text(cell: dict) -> bool:
    """Whether a cell is Markdown."""
    return cell["cell_type"] == "markdown"


def parts(text: str) -> list[tuple[str, str]]:
    """(heading, what follows up to the next one) of each part of a cell; the heading is empty before the first."""
    pieces = re.split(r"^#{1,3} (.+)$", text, flags=re.MULTILINE)
    found = [("", pieces[0]), *zip(pieces[1::2], pieces[2::2], strict=True)]
    return [(heading.strip(), part.strip()) for heading, part in found if heading or part.strip()]


def paragraphs(text: str) -> list[str]:
    """The paragraphs, lists, tables and formulas of a text."""
    return [block for block in re.split(r"\n\s*\n", text.strip()) if block.strip()]


def told(part: str, begins: bool) -> list[str]:
    """What of a text is on slides: of a section's beginning its first sentences and formula; of any text what is to be predicted."""
    blocks = paragraphs(part)
    lead = [block for block in blocks if is_prose(block)][:1] if begins else []
    lead = [sentences(block, WORDS) for block in lead]
    formulas = [block for block in blocks if block.startswith("$$")][:1] if begins else []
    questions = [block if block[0] == ">" else f"> {block}" for block in blocks if QUESTION.match(block)]
    found = [*lead, *formulas, *questions]
    return [markdown("\n\n".join(found))] if found else []


def is_prose(block: str) -> bool:
    """Whether a block is a paragraph, and none that asks for a prediction."""
    return not re.match(r"\$\$|\||[-*] |\d+\. |!\[|<|```|>", block) and not QUESTION.match(block)


def sentences(text: str, most: int) -> str:
    """The first sentence of a paragraph, and those after it for as long as all have at most `most` words."""
    pieces = re.split(r"(?<=[.?!:])\s+(?=[A-Z`*$“(])", " ".join(text.split()))
    prefixes = [" ".join(pieces[:number]) for number in range(1, len(pieces) + 1)]
    fitting = [kept for kept in prefixes if len(kept.split()) <= most and kept.count("(") == kept.count(")")]
    return re.sub(r":$", ".", fitting[-1] if fitting else prefixes[0])


def outputs(cell: dict, predicted: bool) -> list[str]:
    """The figures and tables that a cell gave; where a prediction waits for it, the few lines that it printed too."""
    if not "".join(cell["source"]).strip() or "progress.show()" in "".join(cell["source"]):
        return []
    found = []
    for output in cell["outputs"]:
        data = output.get("data", {})
        if "image/png" in data:
            found.append(
                picture("".join(data["image/png"]), output["metadata"].get("image/png", {}).get("alt", ""))
            )
        elif '<table class="dataframe' in "".join(data.get("text/html", "")):
            found.append(table("".join(data["text/html"])))
        elif predicted and output.get("name") == "stdout":
            printed = "".join(output["text"]).strip().splitlines()
            lines = [line for line in printed if "%|" not in line]  # bars of progress
            if 1 < len(lines) <= LINES and max(map(len, lines)) <= OF_A_CELL:
                found.append(f"<pre>{html.escape(chr(10).join(lines))}</pre>")
    return found


def picture(png: str, alt: str) -> str:
    """A PNG, in base64, with its text alternative."""
    return f'<img src="data:image/png;base64,{png.strip()}" alt="{html.escape(alt)}">'


def table(markup: str) -> str:
    """The first rows of a table of pandas; long texts in it are cut, and the last line says how many rows are left out."""
    head, _, body = markup.partition("<tbody>")
    rows = re.findall(r"<tr.*?</tr>", body, re.DOTALL)
    kept, letters = [], 0
    for row in rows[:ROWS]:
        kept.append(re.sub(r"(<td[^>]*>)(.*?)(</td>)", cut, row, flags=re.DOTALL))
        letters += letters_of(kept[-1])
        if letters > LETTERS:
            break
    rest = len(rows) - len(kept)
    more = f"<p>and {rest} more row{'s' * (rest > 1)} in the notebook</p>" if rest else ""
    head = re.sub(r"^.*?(?=<table)", "", head, flags=re.DOTALL)
    return f"{head}<tbody>{''.join(kept)}</tbody></table>{more}"


def cut(cell: re.Match) -> str:
    """A cell of a table with at most `OF_A_CELL` letters of its text."""
    text = html.unescape(cell[2])
    kept = text[:OF_A_CELL].rsplit(" ", 1)[0]
    return cell[0] if len(text) <= OF_A_CELL else f"{cell[1]}{html.escape(kept)} …{cell[3]}"


def page(title: str, slides: list[Slide]) -> str:
    """The slides as one page."""
    style, script = ((HERE / f"slides.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    sections = []
    for number, slide in enumerate(slides, start=1):
        level, heading = ("h1" if number == 1 else "h2"), html.escape(slide.title.replace("`", ""))
        sections.append(
            f'<section aria-label="Slide {number} of {len(slides)}"><{level}>{heading}</{level}>'
            f"<div>{slide.body}</div><footer>{number}</footer></section>\n"
        )
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{html.escape(title)}</title>\n'
        f"<style>\n{style}</style>\n</head>\n<body>\n<main>\n{''.join(sections)}</main>\n<script>{script}</script>\n</body>\n</html>\n"
    )


def main(folder: Path, notebooks: Path = NOTEBOOKS) -> None:
    """Write a deck for each notebook of a folder into another."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(notebooks.glob("[0-9][0-9]_*.ipynb")):
        slides = slides_of(json.loads(path.read_text(encoding="utf-8")))
        (folder / f"{path.stem}.html").write_text(
            page(slides[0].title, slides), encoding="utf-8", newline="\n"
        )
        print(f"{path.stem}.html: {len(slides)} slides")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
