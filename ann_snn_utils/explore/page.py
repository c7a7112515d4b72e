"""How an explorer stands on the page: live widgets in JupyterLab, still figures with a caption elsewhere."""

from __future__ import annotations

import html
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import ipywidgets as widgets
import plotly.graph_objects as go

from ..figures.renderer import has_reader
from .plots import stage
from .worker import Latest

# The theme's own ink in place of the template's grey, and figures that share a row while there is room.
STYLE = """<style>
.snn-explorer .js-plotly-plot text { fill: var(--jp-ui-font-color1, currentColor) !important; }
.snn-explorer .snn-figures > * { flex: 1 1 470px; min-width: 0; }
.snn-explorer .snn-figures > .snn-wide { flex-basis: 100%; }
.snn-explorer .snn-controls { display: grid; grid-template-columns: repeat(auto-fill, minmax(240px, 1fr));
  gap: 2px 14px; max-width: 1200px; }
@media (min-width: 620px) { .snn-explorer .snn-controls > .snn-player { grid-column: span 2; } }
.snn-explorer .widget-label, .snn-explorer .widget-readout { color: var(--jp-ui-font-color1, inherit); }
.snn-explorer .widget-slider .widget-readout { min-width: 42px; width: 42px; }
.snn-explorer .widget-checkbox .widget-label-basic { width: auto; }
.snn-explorer .snn-chooser { max-width: 560px; }
.snn-help { font-size: 12px; line-height: 1.35; color: var(--jp-ui-font-color2, #767676); padding-left: 4px; }
.snn-title { font-size: 17px; font-weight: 600; color: var(--jp-ui-font-color1, inherit); }
.snn-lead { line-height: 1.4; max-width: 900px; color: var(--jp-ui-font-color1, inherit); }
.snn-status { line-height: 1.5; color: var(--jp-ui-font-color1, inherit); font-variant-numeric: tabular-nums; }
.snn-status code { user-select: all; white-space: pre-wrap; overflow-wrap: anywhere; }
.snn-explorer :focus-visible { outline: 2px solid #1B7FC0; outline-offset: 2px; }
</style>"""

# Wide enough for the longest name of a control.
LABEL = "106px"


@dataclass(frozen=True)
class Explorer:
    """One explorer: its `box` with `controls` and live `figures` by name, or, headless, still figures only."""

    title: str
    caption: str
    figures: dict[str, go.Figure]
    controls: dict[str, widgets.Widget] = field(default_factory=dict)
    box: widgets.Widget | None = None

    def _ipython_display_(self) -> None:
        from IPython.display import Markdown, display

        if self.box is not None:
            display(self.box)
            return
        display(Markdown(f"**{self.title}.** {self.caption} *Still pictures: `make lab` brings the sliders.*"))
        for figure in self.figures.values():
            display(figure)


def live() -> bool:
    """Tell whether there is a reader to move sliders; False in papermill, nbconvert and exports.

    A set PLOTLY_RENDERER asks for still figures. True outside a kernel, where widgets are only built.
    """
    return not os.environ.get("PLOTLY_RENDERER") and has_reader()


def slider(
    label: str, explanation: str, low: float, high: float, value: float, step: float = 1, **arguments: Any
) -> widgets.Widget:
    """A slider over whole numbers, or over decimals where `step` is one."""
    kind = widgets.IntSlider if isinstance(step, int) else widgets.FloatSlider
    return kind(value, min=low, max=high, step=step, **_look(label, explanation), **arguments)


def choice(label: str, explanation: str, options: Sequence[Any], value: Any = None) -> widgets.Dropdown:
    """A drop-down list; options are values, or pairs of label and value."""
    return widgets.Dropdown(options=options, value=value, **_look(label, explanation))


def button(label: str, explanation: str) -> widgets.Button:
    """A button as wide as the other controls."""
    return widgets.Button(description=label, tooltip=explanation, layout=widgets.Layout(width="auto"))


def _look(label: str, explanation: str) -> dict[str, Any]:
    look = dict(style={"description_width": LABEL}, layout=widgets.Layout(width="auto"))
    return dict(description=label, tooltip=explanation, **look)


def explained(control: widgets.Widget, playable: bool = False) -> widgets.Widget:
    """A control with its explanation, if it has one, below; a playable slider has buttons that play it."""
    if not control.tooltip:
        return control
    note = widgets.HTML(f'<div class="snn-help">{html.escape(control.tooltip)}</div>')
    if not playable:
        return widgets.VBox([control, note])
    play = widgets.Play(min=control.min, max=control.max, value=control.value, interval=700)
    play.tooltip = control.tooltip
    # Python is not asked between the two: the page itself moves the slider.
    widgets.jslink((play, "value"), (control, "value"))
    control.layout.flex = "1 1 auto"
    box = widgets.VBox([widgets.HBox([control, play]), note])
    box.add_class("snn-player")
    return box


def on_change(function: Callable[[Any], object], *controls: widgets.Widget) -> None:
    """Call a function with the change whenever the value of one of the controls changes."""
    for control in controls:
        control.observe(function, names="value")


def status() -> widgets.HTML:
    """A line that says in words what the figures show."""
    return widgets.HTML()


def say(line: widgets.HTML, text: str) -> None:
    """Write HTML into a status line."""
    line.value = f'<div class="snn-status" role="status">{text}</div>'


def say_error(line: widgets.HTML, error: Exception) -> None:
    """Write what went wrong into a status line."""
    say(line, f"⚠ {html.escape(str(error))}")


def newest(
    compute: Callable[[Any, Callable[[float], None]], Any], deliver: Callable[[Any], None], line: widgets.HTML
) -> tuple[Latest, widgets.FloatProgress]:
    """A worker that computes the newest setting, and its progress bar, hidden until there is progress to show.

    line: the status line that says why a setting cannot be computed.
    """
    bar = widgets.FloatProgress(min=0, max=1, layout=widgets.Layout(height="10px", visibility="hidden"))

    def progress(share: float | None) -> None:
        bar.value = share or 0.0
        bar.layout.visibility = "hidden" if share is None else "visible"

    return Latest(compute, deliver, progress, lambda error: say_error(line, error)), bar


def page(
    still: Explorer,
    figures: dict[str, go.FigureWidget],
    controls: dict[str, widgets.Widget],
    lines: list[widgets.Widget],
    wide: str = "",
) -> Explorer:
    """The live explorer: title, one sentence, controls in rows, lines of words, figures.

    The control called "step" can be played. wide: the name of a figure that takes a row of its own.
    """
    head = f'<div class="snn-title">{html.escape(still.title)}</div>'
    head += f'<div class="snn-lead">{html.escape(still.caption)}</div>'
    wrap = widgets.Layout(flex_flow="row wrap")
    row = widgets.HBox([explained(control, name == "step") for name, control in controls.items()], layout=wrap)
    drawn = widgets.HBox(list(figures.values()), layout=wrap)
    row.add_class("snn-controls")
    drawn.add_class("snn-figures")
    if wide:
        figures[wide].add_class("snn-wide")
    box = widgets.VBox([widgets.HTML(STYLE + head), row, *lines, drawn, stage()])
    box.add_class("snn-explorer")
    return replace(still, figures=figures, controls=controls, box=box)
