"""Executed notebooks as HTML pages that work without network, and a run's pages as a site of plain files.

The template is nbconvert's own, extended by `page/`. Figures stay alive, by one plotly.js for all pages; equations
in TeX become MathML, which browsers draw by themselves, so that no script comes from elsewhere.
"""

from __future__ import annotations

import functools
import html
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from ..files import atomic
from ..runs.parameters import NOTEBOOKS, ordered_notebooks
from ..runs.report import run_card
from ..tables import markdown_table

# What latex2mathml does not know, in words that it knows.
_REWRITTEN = (
    (r"\\(begin|end)\{(?:aligned|gathered|split)\}", r"\\\1{align*}"),
    (r"\\\\\s*\[[^\]]*\]", r"\\\\"),
    (r"\\arg(?![a-zA-Z])", r"\\operatorname{arg}"),
)

# What HTMLExporter gives inputs and outputs, which may scroll, for the keyboard, and pictures for screen readers.
_FOCUSED = r'\g<0> tabindex="0"'
_UNDESCRIBED = r'\g<0> alt="No description has been provided for this image"'

PLOTLY_JS = "plotly.min.js"

PLOTLY_MIME = "application/vnd.plotly.v1+json"

# By which an index is known again.
_OPENING = "The study, notebook by notebook"

_NOT_RUN = "*Text and code only: this notebook was not run here.*"


def mathml(latex: str, display: bool = False) -> str:
    """An equation in TeX as a MathML element. ValueError quotes an equation that cannot be converted."""
    from latex2mathml.converter import convert

    source = latex.strip()
    for pattern, replacement in _REWRITTEN:
        source = re.sub(pattern, replacement, source)
    try:
        element = convert(source, display="block" if display else "inline")
    except Exception as error:  # its parser raises many kinds, most of them without a message
        name = type(error).__name__
        raise ValueError(f"the equation {latex!r} is not TeX that can be converted ({name}): simplify it") from None
    unknown = re.findall(r">\\(\w+)<", element)
    if unknown:
        raise ValueError(f"the equation {latex!r} holds the unknown command \\{unknown[0]}: use another one")
    # It leaves ampersands, which align columns, unescaped where it meets one out of place.
    if re.search(r"&(?!#?\w+;)", element):
        raise ValueError(f"the equation {latex!r} has an & outside an aligned environment: remove it")
    return element


def readable(latex: str, display: bool = False) -> str:
    """An equation as MathML, or its source as code where it cannot be converted."""
    try:
        return mathml(latex, display)
    except ValueError:
        return f"<code>{html.escape(latex)}</code>"


def read_notebook(path: str | os.PathLike[str]) -> Any:
    """The notebook in a file. Raises ValueError where it is none."""
    try:
        return nbformat.read(path, as_version=4)
    except Exception as error:  # nbformat raises kinds of its own for each way of not being a notebook
        raise ValueError(f"{path} cannot be read as a notebook: {error}") from None


def write_page(content: Any, page: Path, site: Mapping[str, str] | None = None) -> Path:
    """Write a notebook as an HTML page, and return its path; plotly.js is laid once beside all pages.

    Figures (plotly's JSON, with its frames) stay interactive and equations become MathML. Widgets, which need a
    kernel, are left out. site: stem → name of the pages that lie beside this one; links to other notebooks become
    text.
    """
    _lay_plotly(page.parent)
    about = {"metadata": {"name": page.stem}, "pages": dict(site or {})}
    with atomic(page) as temporary:
        temporary.write_text(_rendered(content, about), encoding="utf-8")
    return page


def _rendered(content: Any, about: dict[str, Any]) -> str:
    """A page as nbconvert's HTMLExporter makes it, which would parse and write all of it once more at its end."""
    from nbconvert.exporters import TemplateExporter

    body, _ = TemplateExporter.from_notebook_node(_exporter(), content, resources=about)
    body = re.sub(r'<div class="(?:jp-Cell-inputWrapper|[^"<>]* jp-OutputArea-output\b[^"<>]*)"', _FOCUSED, body)
    return re.sub(r'<img src="data:image/[^"]*"(?![^<>]* alt=)', _UNDESCRIBED, body)


def figure_html(figure: Mapping[str, Any]) -> str:
    """The HTML that draws a figure, plotly's JSON, with the plotly.js that its page loads."""
    from plotly.io import to_html

    drawn = {part: figure[part] for part in ("data", "layout", "frames") if part in figure}
    config = {"responsive": True, "displaylogo": False, **figure.get("config", {})}
    height = f"{figure.get('layout', {}).get('height') or 450}px"
    how: dict[str, Any] = dict(include_plotlyjs=False, full_html=False, default_height=height)
    return to_html(drawn, config, auto_play=False, validate=False, **how)


def _lay_plotly(folder: Path) -> None:
    import plotly

    source = Path(plotly.__file__).parent / "package_data" / PLOTLY_JS
    target = folder / PLOTLY_JS
    if target.is_file() and target.stat().st_size == source.stat().st_size:
        return
    with atomic(target) as temporary:
        try:
            os.link(source, temporary)  # 5 MB for every run otherwise
        except OSError:
            shutil.copyfile(source, temporary)


@functools.cache
def _exporter() -> Any:
    import jinja2
    from nbconvert.exporters import HTMLExporter
    from nbconvert.filters import Highlight2HTML
    from traitlets.config import Config

    kinds = [PLOTLY_MIME, "text/html", "image/svg+xml", "image/png", "image/jpeg", "text/markdown", "text/latex"]
    config = Config(NbConvertBase={"display_data_priority": [*kinds, "text/plain"]})
    here = str(Path(__file__).parent)
    page: dict[str, Any] = dict(template_name="page", extra_template_basedirs=[here])
    # Not after each of its twelve steps, that is.
    exporter = HTMLExporter(config=config, optimistic_validation=True, **page)
    exporter.register_filter("highlight_code", Highlight2HTML(parent=exporter))
    exporter.register_filter("markdown2html", jinja2.pass_context(_markdown))
    exporter.register_filter("figure", figure_html)
    exporter.register_filter("mathml", lambda latex: readable(latex.strip().strip("$"), latex.lstrip()[:2] == "$$"))
    return exporter


def _markdown(context: Any, source: str) -> str:
    from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

    attachments = context.get("cell", {}).get("attachments", {})
    renderer = IPythonRenderer(escape=False, attachments=attachments, anchor_link_text="¶")
    equation: Callable[[str], str] = functools.partial(readable, display=True)
    vars(renderer).update(
        block_math=equation,
        multiline_math=equation,
        inline_math=readable,
        latex_environment=lambda name, body: equation(f"\\begin{{{name}}}{body}\\end{{{name}}}"),
    )
    pages = context["resources"]["pages"]

    def link(found: re.Match[str]) -> str:
        stem, place, text = found.groups()
        return f'<a href="{stem}.html{place or ""}">{text}</a>' if stem in pages else text

    rendered = MarkdownWithMath(renderer=renderer).render(source)
    return re.sub(r'<a href="([\w-]+)\.ipynb(#[^"]*)?">(.*?)</a>', link, rendered, flags=re.DOTALL)


def check_site(site: Path) -> None:
    """Raise ValueError for the path of a file, and for a folder that holds anything but such a site."""
    if site.exists() and not site.is_dir():
        raise ValueError(f"{site} is a file: give the path of a new folder")
    above = next(path for path in (site, *site.absolute().parents) if path.exists())
    if site.is_symlink() and not site.exists() or not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise ValueError(f"{site} cannot be written below {above}: give the path of a new folder")
    index = site / "index.html"
    ours = index.is_file() and _OPENING in index.read_text(encoding="utf-8", errors="replace")
    # What is hidden, such as .git and .nojekyll, stays as it is.
    if site.is_dir() and not ours and any(not path.name.startswith(".") for path in site.iterdir()):
        raise ValueError(f"{site} holds something else than a study's pages: give the path of a new folder")


def write_site(run: Path, site: Path | None = None, folder: str | os.PathLike[str] = NOTEBOOKS) -> Path:
    """Write the pages of the run in a folder, and return the path of their index.

    Every notebook of `folder` has a page, with its outputs where the run has executed it, so that every link leads
    somewhere. The pages need no server and no network. site: where they go, <run>/html unless given.
    """
    site = site or run / "html"
    sources = ordered_notebooks(folder)
    names = {"index": "Index"} | {path.stem: path.stem.replace("_", " ") for path in sources}
    names["gallery"] = "Figures"
    rows, figures = [], list[Any]()
    for source in sources:
        executed = run / "notebooks" / source.name
        there = executed.is_file()
        notebook = read_notebook(executed if there else source)
        if there:
            figures += _figures(notebook, source.stem)
        else:
            notebook.cells.insert(1, new_markdown_cell(_NOT_RUN))
        write_page(notebook, site / f"{source.stem}.html", names)
        rows.append(_row(source, there))
    title = f"# {run.name}\n\n{_OPENING}; [all its figures](gallery.html) on one page."
    index = [new_markdown_cell(text) for text in (title, markdown_table(rows), *_card(run))]
    write_page(new_notebook(cells=index), site / "index.html", names)
    gallery = [new_markdown_cell("# Figures\n\nPoint at a figure for its numbers."), *figures]
    write_page(new_notebook(cells=gallery), site / "gallery.html", names)
    return site / "index.html"


def _row(source: Path, executed: bool) -> dict[str, str]:
    opening = read_notebook(source).cells[0].source
    title, asked = re.search(r"^# (.+)", opening), re.search(r"\*\*Question\.\*\* (.+)", opening)
    page = f"[{title[1] if title else source.stem}]({source.stem}.html){'' if executed else ', not run here'}"
    return {"notebook": page, "question": asked[1] if asked else ""}


def _card(run: Path) -> list[str]:
    try:
        return [f"```\n{run_card(run)}\n```"]
    except FileNotFoundError:
        return []
    except ValueError as error:
        return [f"```\n{error}\n```"]


def _figures(executed: Any, stem: str) -> list[Any]:
    """The figures of an executed notebook as cells without code, below a link to its page."""
    outputs = [output for cell in executed.cells for output in cell.get("outputs", [])]
    outputs = [output for output in outputs if PLOTLY_MIME in output.get("data", {})]
    heading = f"## [{stem.replace('_', ' ')}]({stem}.html)"
    return [new_markdown_cell(heading), *(new_code_cell(outputs=[one]) for one in outputs)] if outputs else []
