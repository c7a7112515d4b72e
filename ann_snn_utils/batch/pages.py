"""Executed notebooks as HTML pages that work without network: live figures, equations, one plotly.js for all.

The template is nbconvert's own, extended by `page/`. Equations in TeX become MathML, which browsers draw by
themselves, so that no script comes from elsewhere.
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

from ..files import atomic

# What latex2mathml does not know, in words that it knows.
_REWRITTEN = (
    (r"\\(begin|end)\{(?:aligned|gathered|split)\}", r"\\\1{align*}"),
    (r"\\\\\s*\[[^\]]*\]", r"\\\\"),
    (r"\\arg(?![a-zA-Z])", r"\\operatorname{arg}"),
)

PLOTLY_JS = "plotly.min.js"

PLOTLY_MIME = "application/vnd.plotly.v1+json"

WIDGET_MIME = "application/vnd.jupyter.widget-view+json"


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
    body, _ = _exporter().from_notebook_node(content, resources=about)
    with atomic(page) as temporary:
        temporary.write_text(body, encoding="utf-8")
    return page


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
    from traitlets.config import Config

    kinds = [PLOTLY_MIME, "text/html", "image/svg+xml", "image/png", "image/jpeg", "text/markdown", "text/latex"]
    config = Config(NbConvertBase={"display_data_priority": [*kinds, "text/plain"]})
    here = str(Path(__file__).parent)
    exporter = HTMLExporter(config=config, template_name="page", extra_template_basedirs=[here])
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
