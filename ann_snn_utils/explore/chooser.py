"""The list of networks, and the explorers that follow it."""

from __future__ import annotations

import html
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from ..runs.gallery import Network, network_names, open_network
from .images import stand_ins
from .page import Explorer, Line, Report, choice


@dataclass
class Networks:
    """The network that is open, and the lines to the explorers that show it; made by `networks`."""

    current: Network
    _followers: list[Line] = field(default_factory=list)

    def show(self, build: Callable[[Network], Explorer]) -> Explorer:
        """The explorer that `build` makes; made anew, when looked at, after another network was chosen."""

        def rebuild() -> Explorer:
            return replace(build(self.current), rebuild=rebuild, opened=self._followers.append)

        return rebuild()

    def choose(self, name: str, report: Report = lambda done: None) -> None:
        """Open another network; every explorer that was shown follows. Where that fails, all stays as it is."""
        report(f"opening {html.escape(name)} and its images …")
        self.current = open_network(name, stand_ins=stand_ins)
        for line in self._followers:
            line.send({"stale": True})

    @property
    def page(self) -> Explorer:
        """The list as an explorer."""
        names = network_names()
        names = names if self.current.name in names else [self.current.name, *names]
        explained = "A run of this study, or a network that comes with it"
        control = choice("name", "network", explained, names, self.current.name)

        def answer(values: dict[str, Any], report: Report) -> dict[str, Any]:
            self.choose(values["name"], report)
            return {"line": _described(self.current)}

        shown = {"view": "networks", "control": control, "line": _described(self.current)}
        follow = "Explorers below follow; a figure shows the network that was open when its cell ran."
        return Explorer("Network", follow, shown, answer)

    def _ipython_display_(self) -> None:
        self.page._ipython_display_()


def networks(run: str = "") -> Networks:
    """The list of networks, opened on a run (its name, or "bundled:…"); empty takes the latest.

    Nothing is fetched: a network whose data set is not here is shown other images, and says which.
    """
    return Networks(open_network(run, stand_ins=stand_ins))


def _described(network: Network) -> str:
    spec, meta = network.snn.spec, network.ann.metadata
    known = "correct" in meta and "samples" in meta
    accuracy = f" · quantized ANN {meta['correct'] / meta['samples']:.2%}" if known else ""
    note = f"<br>{network.note}" if network.note else ""
    return (
        f"<b>{html.escape(network.name)}</b>: {html.escape(spec.title)}, k = {spec.k}, {spec.levels} levels"
        f"{accuracy} · {html.escape(network.samples.name)}, {len(network.samples):,} images{note}"
    )
