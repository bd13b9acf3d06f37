"""The course as pages: Sphinx's configuration, for `make site`.

The pages are the notebooks with their stored outputs, README and the docs. Nothing is run, and neither building nor reading asks
anything of a network: formulas are MathML, which browsers draw by themselves.
"""

import json
import re
import tomllib
from pathlib import Path

from docutils.nodes import SkipNode, make_id
from latex2mathml.converter import convert
from myst_nb.core.render import NbElementRenderer

ROOT = Path(__file__).parents[2]
COURSE = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["course"]
LINK = re.compile(r"(?<!!)\[((?:`[^`]*`|[^\[\]`])+)\]\(([^)\s#]*)(?:#([^)\s]+))?\)")

project = html_title = "RLHF with trlX"
root_doc = "README"
include_patterns = ["README.md", "notebooks/*.ipynb", "docs/*.md"]
exclude_patterns = ["docs/maintaining.md"]
extensions = ["myst_nb"]
nb_execution_mode = "off"
nb_render_markdown_format = "gfm"
nb_ipywidgets_js = {}  # a script from the network; there are no widgets in stored outputs
myst_enable_extensions = ["dollarmath", "html_image"]
myst_heading_anchors = 4
html_theme = "furo"
html_static_path = ["style.css"]
html_css_files = ["style.css"]
html_copy_source = False
pygments_style, pygments_dark_style = (
    "a11y-light",
    "a11y-dark",
)  # contrast of at least 4.5 on their own ground
nb_code_prompt_show, nb_code_prompt_hide = "Show the {type} of this cell", "Hide the {type} of this cell"
html_show_sphinx = False
html_math_renderer = "mathml"


def contents() -> str:
    """What is in the list at the side, in its order: the notebooks as README's table names them, and the docs."""
    named = re.findall(
        r"^\| \[(\d\d .+?)\]\((notebooks/.+?)\.ipynb\)",
        (ROOT / "README.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    look_up = ["docs/questions", "docs/glossary", "docs/reading"]
    more = {f"docs/{path.stem}" for path in (ROOT / "docs").glob("*.md")} - {*look_up, "docs/maintaining"}
    lists = {
        "The course": [f"{title} <{page}>" for title, page in named],
        "To look up": look_up,
        "More": sorted(more),
    }
    return "".join(
        "\n\n```{toctree}\n:hidden:\n:caption: " + title + "\n" + "\n".join(pages) + "\n```\n"
        for title, pages in lists.items()
    )


def read(app, name: str, source: list[str]) -> None:
    """Change a page's text before it is parsed; the files stay as they are."""

    def linked(text: str) -> str:
        return LINK.sub(lambda found: link(found, (ROOT / name).parent, app.env.found_docs), text)

    if name.startswith("notebooks/"):
        source[0] = json.dumps(notebook(json.loads(source[0]), linked))
    else:
        source[0] = linked(source[0]) + contents() * (name == root_doc)


def link(found: re.Match, folder: Path, pages: set[str]) -> str:
    """A link of Markdown as the site has it: to a page or into the network as it is, else to GitHub, or no link before `make publish`.

    Headings of notebooks are named as Jupyter does (`#The-details`), and become what GitHub and MyST call them (`#the-details`).
    """
    text, path, anchor = found.groups(default="")
    if not path or ":" in path:
        return found[0]
    target = (folder / path).resolve().relative_to(ROOT)
    if target.with_suffix("").as_posix() in pages:
        return f"[{text}]({path}{'#' * bool(anchor)}{slug(anchor) if target.suffix == '.ipynb' else anchor})"
    return (
        f"[{text}](https://github.com/{COURSE['repository']}/tree/{COURSE['branch']}/{target.as_posix()})"
        if COURSE["repository"]
        else text
    )


def slug(anchor: str) -> str:
    """What GitHub and MyST call a heading that Jupyter calls so."""
    return re.sub(r"[^\w-]", "", anchor.lower())


def notebook(content: dict, linked) -> dict:
    """A notebook with links that lead somewhere on the site; folded is what Jupyter folds, such as the Setup cell."""
    content["metadata"]["language_info"]["pygments_lexer"] = (
        "ipython3"  # for the lines of a shell in the Setup cell
    )
    for cell in content["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            cell["source"] = linked(with_pictures(text, cell.get("attachments", {})))
            continue
        folds = cell["metadata"].get("jupyter", {})
        hidden = {
            "hide-input": folds.get("source_hidden"),
            "hide-output": folds.get("outputs_hidden"),
        }
        cell["metadata"]["tags"] = [
            *cell["metadata"].get("tags", []),
            *(tag for tag, yes in hidden.items() if yes),
        ]
        for output in cell["outputs"]:
            for kind in {"text/html", "text/markdown"} & set(output.get("data", {})):
                output["data"][kind] = built_links("".join(output["data"][kind]))
    return content


def with_pictures(text: str, attachments: dict) -> str:
    """Markdown with the pictures that Jupyter keeps in the cell, {name: {kind: base64}}, in place of their names."""
    for name, data in attachments.items():
        for kind, base64 in data.items():
            text = text.replace(f"(attachment:{name})", f"(data:{kind};base64,{''.join(base64.split())})")
    return text


def built_links(text: str) -> str:
    """HTML or Markdown of an output, which is not parsed for links, with links to built pages in place of notebooks."""
    return re.sub(
        r"(\b\d\d_\w+)\.ipynb(#[^)\s\"]+)?",
        lambda found: f"{found[1]}.html" + (f"#{make_id(found[2])}" if found[2] else ""),
        text,
    )


def described(render):
    """MyST-NB's way to show a picture, with the text alternative that helpers/figures.py puts into the output's metadata."""

    def render_image(self, data):
        (image,) = render(self, data)
        image["alt"] = next((given["alt"] for given in data.output_metadata.values() if "alt" in given), "")
        return [image]

    return render_image


def inline_formula(writer, node) -> None:
    """Write a formula within a line."""
    writer.body.append(mathml(node.astext(), "inline"))
    raise SkipNode


def formula(writer, node) -> None:
    """Write a formula that stands alone, in a box that scrolls where the screen is narrow."""
    writer.body.append(f'<div class="formula" tabindex="0">{mathml(node.astext(), "block")}</div>')
    raise SkipNode


def mathml(source: str, display: str) -> str:
    """A formula as MathML; round the names of functions there is the thin space that TeX has and the converter leaves out."""
    space = '<mspace width="0.17em" />'
    return re.sub(
        r"<mi>(log|min|max)</mi>",
        rf"<mrow>{space}<mi>\1</mi>{space}</mrow>",
        convert(source, display=display),
    )


def first_page(app, error) -> None:
    """README's page is the one that a browser opens."""
    if not error:
        (Path(app.outdir) / "index.html").write_bytes((Path(app.outdir) / "README.html").read_bytes())


def setup(app) -> dict:
    """Sphinx calls this."""
    NbElementRenderer.render_image = described(NbElementRenderer.render_image)
    app.add_html_math_renderer(
        "mathml", inline_renderers=(inline_formula, None), block_renderers=(formula, None)
    )
    app.connect("source-read", read)
    app.connect("build-finished", first_page)
    return {"parallel_read_safe": True}
