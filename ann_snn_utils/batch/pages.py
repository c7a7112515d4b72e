"""Executed notebooks as HTML pages that work without network: live figures, equations, one plotly.js for all.

Equations in TeX become MathML, which browsers draw by themselves, so that no script comes from elsewhere.
"""

from __future__ import annotations

import copy
import functools
import html
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..files import atomic

# What latex2mathml does not know, in words that it knows.
_REWRITTEN = (
    (r"\\(begin|end)\{(?:aligned|gathered|split)\}", r"\\\1{align*}"),
    (r"\\\\\s*\[[^\]]*\]", r"\\\\"),
    (r"\\arg(?![a-zA-Z])", r"\\operatorname{arg}"),
)


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


PLOTLY_JS = "plotly.min.js"

PLOTLY_MIME = "application/vnd.plotly.v1+json"

WIDGET_MIME = "application/vnd.jupyter.widget-view+json"

# The pages of nbconvert's "lab" template, without the scripts that it fetches from elsewhere.
_TEMPLATE = """
{%- extends 'lab/index.html.j2' -%}
{%- block html_head_js_requirejs -%}<script src="PLOTLY_JS" charset="utf-8"></script>{%- endblock -%}
{%- block html_head_js_mathjax -%}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
{%- block jupyter_widgets -%}{%- endblock -%}
{%- block extra_css -%}<style>
body.jp-Notebook { max-width: 1100px; margin: 0 auto; padding: 1em; }
math { font-family: "Latin Modern Math", "STIX Two Math", "Cambria Math", "DejaVu Math TeX Gyre", math, serif; }
math[display="block"] { font-size: 1.15em; margin: 0.8em 0; }
.jp-RenderedMarkdown .highlight pre { font-size: var(--jp-code-font-size); line-height: 1.3; }
.jp-RenderedMarkdown .highlight * { font-family: var(--jp-code-font-family); }
</style>{%- endblock -%}
""".replace("PLOTLY_JS", PLOTLY_JS)


def export_html(notebook: str | os.PathLike[str], page: str | os.PathLike[str]) -> Path:
    """Write an executed notebook as an HTML page, and return its path; plotly.js is laid once beside all pages.

    Figures (plotly's JSON) stay interactive and equations become MathML. Widgets, which need a kernel, are
    left out. Raises ValueError where `notebook` is not one.
    """
    import nbformat

    notebook, page = Path(notebook), Path(page)
    try:
        content = nbformat.read(notebook, as_version=4)
    except Exception as error:  # nbformat raises kinds of its own for each way of not being a notebook
        raise ValueError(f"{notebook} cannot be read as a notebook: {error}") from None
    page.parent.mkdir(parents=True, exist_ok=True)
    _lay_plotly(page.parent)
    titled = {"metadata": {"name": notebook.stem}}
    body, _ = _exporter().from_notebook_node(with_plain_outputs(content), resources=titled)
    with atomic(page) as temporary:
        temporary.write_text(body, encoding="utf-8")
    return page


def without_widgets(notebook: Any) -> Any:
    """A copy of an executed notebook without the outputs that are only the shell of a widget.

    Their state lives in a kernel that is gone; progress bars are among them.
    """
    notebook = copy.deepcopy(notebook)

    def is_shell(output: Any) -> bool:
        kinds = set(output.get("data", {}))
        return WIDGET_MIME in kinds and kinds <= {WIDGET_MIME, "text/plain"}

    for cell in notebook.cells:
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if not is_shell(output)]
    notebook.metadata.pop("widgets", None)
    return notebook


def with_plain_outputs(notebook: Any) -> Any:
    """A copy of an executed notebook whose figures and equations are HTML that calls plotly.js only."""
    notebook = without_widgets(notebook)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if PLOTLY_MIME in data:
                output.data = {"text/html": figure_html(data[PLOTLY_MIME])}
            elif "text/latex" in data and "text/html" not in data:
                latex = "".join(data["text/latex"]).strip()
                output.data = {"text/html": readable(latex.strip("$"), display=latex.startswith("$$"))}
    return notebook


def figure_html(figure: dict[str, Any]) -> str:
    """The HTML that draws a figure, plotly's JSON, with the plotly.js that its page loads."""
    from plotly.io import to_html

    drawn = {"data": figure.get("data", []), "layout": figure.get("layout", {})}
    config = {"responsive": True, "displaylogo": False, **figure.get("config", {})}
    height = f"{drawn['layout'].get('height') or 450}px"
    return to_html(drawn, config, include_plotlyjs=False, full_html=False, default_height=height, validate=False)


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

    exporter = HTMLExporter(raw_template=_TEMPLATE)
    exporter.register_filter("markdown2html", jinja2.pass_context(_markdown))
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
    rendered = MarkdownWithMath(renderer=renderer).render(source)
    # A link to another notebook leads to that notebook's page, which lies beside this one.
    return re.sub(r'href="([\w-]+)\.ipynb"', r'href="\1.html"', rendered)
