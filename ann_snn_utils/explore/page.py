"""How an explorer stands on a page, and how the kernel answers it.

An explorer is one piece of HTML that holds its code (the .js and .css files beside this one) and what it shows at
first, so that it works in a saved notebook and in an exported page; a kernel answers what has to be computed.
"""

from __future__ import annotations

import base64
import html
import json
import os
import uuid
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import plotly.graph_objects as go
import traitlets
from IPython.display import HTML, Markdown, display
from plotly.offline import get_plotlyjs

from ..figures.look import has_reader
from ..files import atomic

# Told the share that is done, 0 … 1, or what is being done, in words, or a first part of the answer.
Report = Callable[[Any], None]

# Pixels of a figure: with the bar above, two rows of them are seen at once.
HEIGHT = 300

# In the order in which one needs another.
CODE = ("page.js", "maps.js", "neuron.js", "drawings.js", "own.js", "parts.js", "sample.js")

HERE = Path(__file__).parent
# What stands before an explorer that is a page of its own.
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<style>:root { color-scheme: light dark; background: Canvas; color: CanvasText; }</style>"""

# Said of a slider of time steps: what it moves is in the answer, step by step, and nothing is asked.
IN_PAGE = {"in_page": True}

ASLEEP = "Without a kernel, time and neurons can still be moved; run the notebook's cells (make lab) for all else."


@dataclass(frozen=True, eq=False)
class Explorer:
    """One explorer: what it shows at first, and how it answers.

    shown: JSON values and `packed` arrays; "view" names how page.js shows them. answer: from the values of all
    controls to what to show; raises ValueError for a setting that cannot be computed. rebuild: makes it anew, when
    another network was chosen; opened: is told of its line to the page.
    """

    title: str
    caption: str
    shown: dict[str, Any]
    answer: Callable[[dict[str, Any], Report], dict[str, Any]]
    rebuild: Callable[[], Explorer] | None = None
    opened: Callable[[Line], None] = lambda line: None

    @property
    def figures(self) -> dict[str, go.Figure]:
        """What it shows at first as still pictures, for where nobody can move anything."""
        return {name: go.Figure(figure) for name, figure in self.shown.get("figures", {}).items()}

    def html(self, name: str = "") -> str:
        """The explorer as a piece of HTML that needs nothing else; name: that of its line to a kernel."""
        name = name or f"snn-{uuid.uuid4().hex[:12]}"
        told = dict(id=name, title=self.title, caption=self.caption, shown=self.shown, hint=ASLEEP)
        # No "<", so that nothing in it ends the script.
        about = json.dumps(told).replace("<", "\\u003c")
        return (
            f'<style>{source("style.css")}</style><div class="snn-explorer jp-mod-explorer" id="{name}">'
            f"<b>{html.escape(self.title)}.</b> Trust this notebook, or run its cells, to bring it to life.</div>"
            f'<script type="module">{source(*CODE)}\n'
            f'mount(document.getElementById("{name}"), {about});</script>'
        )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the explorer as a web page of its own, which works offline."""
        head = f"{PAGE}<title>{html.escape(self.title)}</title>"
        with atomic(Path(path)) as temporary:
            temporary.write_text(head + self.html(), encoding="utf-8")
        return Path(path)

    def _ipython_display_(self) -> None:
        if live():
            line = Line(self)
            self.opened(line)
            display(HTML(self.html(line.page)))
        elif self.figures:
            display(Markdown(f"**{self.title}.** {self.caption} *Still pictures: `make lab` brings the controls.*"))
            first = self.shown.get("at", [self.shown])[-1]
            display(HTML("".join(f"<p>{first[words]}</p>" for words in ("line", "below") if words in first)))
            for figure in self.figures.values():
                display(figure)
        else:
            display(HTML(self.html()))


class Line(anywidget.AnyWidget):
    """The kernel's end of the line to an explorer's page: an invisible widget that answers questions."""

    _esm = (HERE / "page.js").read_text(encoding="utf-8")
    page = traitlets.Unicode().tag(sync=True)

    def __init__(self, explorer: Explorer) -> None:
        super().__init__(page=f"snn-{uuid.uuid4().hex[:12]}")
        self.explorer = explorer
        self.on_msg(self._hear)

    def _hear(self, _: Any, question: dict[str, Any], __: Any) -> None:
        number = question.get("number")

        def report(done: Any) -> None:
            self.send({"number": number, "part" if isinstance(done, dict) else "progress": done})

        try:
            if question["ask"] == "plotly":
                self.send({"number": number, "code": True}, [get_plotlyjs().encode()])
                return
            if question["ask"] == "rebuild":
                assert self.explorer.rebuild is not None, "only explorers that follow a network are told to"
                self.explorer = self.explorer.rebuild()
                answer = self.explorer.shown
            else:
                answer = self.explorer.answer(question["values"], report)
        except (Exception, KeyboardInterrupt) as error:
            # The page is the only place where somebody would read it.
            told = str(error) if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: {error}"
            self.send({"number": number, "error": told})
        else:
            self.send({"number": number, "answer": answer})


def live() -> bool:
    """Tell whether there is a reader to move sliders; False in papermill, nbconvert and exports.

    A set PLOTLY_RENDERER asks for still figures. True outside a kernel, where widgets are only built.
    """
    return not os.environ.get("PLOTLY_RENDERER") and has_reader()


@cache
def source(*names: str) -> str:
    """Files beside this one, one after the other."""
    return "\n".join((HERE / name).read_text(encoding="utf-8") for name in names)


def packed(values: Any) -> dict[str, Any]:
    """An array as JSON that `unpack` of page.js reads: {dtype, shape, data}, deflated.

    Integers of 64 bits, which a page has no plain numbers for, become the smallest ones that hold them, or float64.
    """
    array = np.asarray(values)
    if array.dtype == np.int64:
        ends = np.array([array.min(), array.max()] if array.size else [0])
        exact = (kind for kind in (np.int8, np.int16, np.int32) if np.array_equal(ends.astype(kind), ends))
        array = array.astype(next(exact, np.float64))
    data = zlib.compress(np.ascontiguousarray(array).tobytes(), 1)
    return {"dtype": array.dtype.name, "shape": list(array.shape), "data": base64.b64encode(data).decode()}


def drawn(figures: dict[str, go.Figure]) -> dict[str, Any]:
    """Figures as plotly's JSON, by name."""
    return {name: json.loads(figure.update_layout(height=HEIGHT).to_json()) for name, figure in figures.items()}


def figure_explorer(
    title: str,
    caption: str,
    controls: Sequence[dict],
    answer: Callable[[dict[str, Any], Report], dict],
    **more: Any,
) -> Explorer:
    """The explorer of figures below controls, each of which begins with its value; more: of what it shows."""
    first = answer({control["name"]: control["value"] for control in controls}, lambda done: None)
    return Explorer(title, caption, {"view": "figures", "controls": controls, **more, **first}, answer)


def remembered(compute: Callable[[Any, Report], Any], most: int = 8) -> Callable[[Any, Report], Any]:
    """The same function, which keeps its last `most` results; a report of progress is passed on."""
    found: dict[Any, Any] = {}

    def look_up(key: Any, report: Report) -> Any:
        if key not in found:
            while len(found) >= most:
                found.pop(next(iter(found)))
            found[key] = compute(key, report)
        return found[key]

    return look_up


def slider(name: str, label: str, help: str, low: float, high: float, value: float, step: float = 1) -> dict:
    """A slider with a number beside it that can be typed; decimals are those of `step`."""
    digits = len(f"{step:g}".partition(".")[2])
    bounds = dict(low=low, high=high, value=value, step=step, digits=digits)
    return dict(kind="range", name=name, label=label, help=help, **bounds)


def choice(name: str, label: str, help: str, options: Iterable[tuple[str, Any] | str], value: Any) -> dict:
    """A drop-down list; options are pairs of label and value, or values that are their own labels."""
    pairs = [[one, one] if isinstance(one, str) else list(one) for one in options]
    return dict(kind="choice", name=name, label=label, help=help, options=pairs, value=value)


def checkbox(name: str, label: str, help: str, value: bool) -> dict:
    """A box to tick."""
    return dict(kind="check", name=name, label=label, help=help, value=value)
