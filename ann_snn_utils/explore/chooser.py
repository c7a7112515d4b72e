"""A drop-down of networks, and the explorers that follow it."""

from __future__ import annotations

import html
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import ipywidgets as widgets

from ..runs.gallery import Network, network_names, open_network
from .page import STYLE, Explorer, choice, explained, live, on_change, say, say_error, status
from .plots import stage


@dataclass
class Networks:
    """A drop-down of networks, and the explorers that follow it; made by `networks`."""

    current: Network
    control: widgets.Dropdown | None = None
    box: widgets.Widget | None = None
    line: widgets.HTML | None = None
    _followers: list[tuple[widgets.Box, Callable[[Network], Explorer]]] = field(default_factory=list)

    def show(self, build: Callable[[Network], Explorer]) -> Explorer:
        """The explorer that `build` makes; it is built anew whenever another network is chosen."""
        shown = build(self.current)
        if shown.box is None:
            return shown
        frame = widgets.VBox([shown.box])
        self._followers.append((frame, build))
        return replace(shown, box=frame)

    def choose(self, name: str) -> None:
        """Open another network and rebuild every explorer that was shown; say why where that fails."""
        say(self.line, f"opening {html.escape(name)} …")
        try:
            self.current = open_network(name)
            built = [build(self.current).box for _, build in self._followers]
        except (OSError, ValueError) as error:
            say_error(self.line, error)
            return
        for (frame, _), box in zip(self._followers, built, strict=True):
            frame.children = [box]
        say(self.line, _described(self.current))

    def _ipython_display_(self) -> None:
        from IPython.display import HTML, display

        display(self.box if self.box is not None else HTML(_described(self.current)))


def networks(run: str = "") -> Networks:
    """The drop-down of networks, opened on a run (its name, or "bundled:…"); empty takes the latest."""
    current = open_network(run)
    if not live():
        return Networks(current)
    names = network_names()
    names = names if current.name in names else [current.name, *names]
    control = choice("network", "A run of this study, or a small network that comes with it.", names, current.name)
    line, list_of_names = status(), explained(control)
    say(line, _described(current))
    list_of_names.add_class("snn-chooser")
    box = widgets.VBox([widgets.HTML(STYLE), list_of_names, line, stage()])
    box.add_class("snn-explorer")
    chosen = Networks(current, control, box, line)
    on_change(lambda change: chosen.choose(change.new), control)
    return chosen


def _described(network: Network) -> str:
    spec, meta = network.snn.spec, network.ann.metadata
    known = "correct" in meta and "samples" in meta
    accuracy = f" · quantized ANN {meta['correct'] / meta['samples']:.2%}" if known else ""
    return (
        f"<b>{html.escape(network.name)}</b>: {spec.network}, k = {spec.k}, {spec.levels} levels"
        f"{accuracy} · {html.escape(network.samples.name)}, {len(network.samples):,} test images"
    )
