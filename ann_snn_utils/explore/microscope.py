"""Neuron microscope: one neuron's membrane between its two moving thresholds, step by step."""

from __future__ import annotations

import html
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from ..ann.network import ANN
from ..ann.reference import codes
from ..data.dataset import Dataset
from ..figures import layer_map, mosaic_position, neuron_trace
from ..simulator.record import Record, Traces
from ..simulator.run import simulate
from ..snn.network import SNN
from .page import Explorer, button, choice, live, on_change, page, say, slider, status
from .plots import alive

PLACE = {
    "channel": "Output channel: its neurons share weights and thresholds.",
    "row": "Row of the neuron in the channel's map; or click the map.",
    "column": "Column of the neuron in the channel's map.",
}

CAPTION = (
    "The membrane U only accumulates. A neuron that has sent n net spikes fires +1 when U reaches θₙ₊₁ and takes "
    "one back, −1, when U is below θₙ: each spike moves both thresholds by one step, and in between it is silent."
)


@dataclass(frozen=True, eq=False)
class Sample:
    """One image run through the network, every spike and membrane kept, beside the quantized network's codes."""

    snn: SNN
    image: torch.Tensor
    index: int
    label: str
    time_steps: int
    ann: ANN | None = None

    @cached_property
    def record(self) -> Record:
        return simulate(self.snn, self.image[None], self.time_steps, trace=[0])

    @cached_property
    def codes(self) -> list[torch.Tensor] | None:
        return None if self.ann is None else [code[0] for code in codes(self.ann, self.image[None])[0]]

    @property
    def traces(self) -> Traces:
        assert self.record.traces is not None, "the run was asked to trace its sample"
        return self.record.traces

    def counts(self, layer: int, step: int) -> torch.Tensor:
        return self.traces.spikes[layer][:step, 0].sum(0, dtype=torch.int64)

    def liveliest(self, layer: int) -> tuple[int, int, int]:
        """The neuron of a layer with the most spikes, those taken back counting more."""
        spikes = self.traces.spikes[layer][:, 0].long()
        lively = ((spikes != 0) + 3 * (spikes < 0)).sum(0)
        channel, row, column = map(int, torch.unravel_index(lively.argmax(), lively.shape))
        return channel, row, column

    def layer_name(self, layer: int) -> str:
        return f"{layer} · {self.snn.layers[layer].name}"

    def neuron_arguments(self, layer: int, neuron: tuple[int, int, int], step: int) -> dict:
        """The arguments of `neuron_trace` for one neuron."""
        channel, row, column = neuron
        traces = self.traces
        return dict(
            membrane=traces.membranes[layer][:, 0, channel, row, column],
            spikes=traces.spikes[layer][:, 0, channel, row, column],
            thresholds=self.snn.layers[layer].thresholds[channel],
            ann_code=None if self.codes is None else int(self.codes[layer][neuron]),
            settled_at=int(self.record.settled_at[0]),
            until=step,
            encoder=layer == 0,
            name=f"sample {self.index}, layer {self.layer_name(layer)}, channel {channel}, ({row}, {column})",
        )

    def map_arguments(self, layer: int, neuron: tuple[int, int, int], step: int) -> dict:
        """The arguments of `layer_map` for one layer."""
        counts = self.counts(layer, step)
        return dict(image=self.image, counts=counts, neuron=neuron, layer=self.layer_name(layer), step=step)

    def sentence(self, layer: int, neuron: tuple[int, int, int], step: int) -> str:
        """Say what the neuron and the sample have done up to the step."""
        count, silent = int(self.counts(layer, step)[neuron]), int(self.record.settled_at[0])
        shown = f"Sample {self.index} (class “{html.escape(self.label)}”)"
        parts = [f"{shown}, after step {step}: <b>count {count}</b>"]
        if self.codes is not None:
            code = int(self.codes[layer][neuron])
            parts.append(f"the ANN's code is {code} {'✓' if code == count else '… not yet'}")
        parts.append(
            f"the whole sample is silent since step {silent + 1}"
            if 0 < silent < step
            else "neurons are still firing"
        )
        return " · ".join(parts)


def neuron_microscope(snn: SNN, samples: Dataset, ann: ANN | None = None, time_steps: int = 8) -> Explorer:
    """The explorer of single neurons, over the first images of `samples` and `time_steps` steps.

    ann: the quantized network that the codes beside the count come from; without it they are left out.
    """

    def run(index: int) -> Sample:
        label = samples.classes[int(samples.labels[index])]
        return Sample(snn, samples.images[index], index, label, time_steps, ann)

    sample, first = run(0), min(1, len(snn.layers) - 1)
    neuron = sample.liveliest(first)
    figures = {
        "neuron": neuron_trace(**sample.neuron_arguments(first, neuron, time_steps)),
        "map": layer_map(**sample.map_arguments(first, neuron, time_steps)),
    }
    still = Explorer("Neuron microscope", CAPTION, figures)
    if not live():
        return still
    figures = alive(figures)
    layers = [(sample.layer_name(i), i) for i in range(len(snn.layers))]
    drawn = "Draw up to this time step; the buttons play it."
    controls = {
        "sample": slider("sample", "Which test image is presented, once, at step 1.", 0, len(samples) - 1, 0),
        "layer": choice("layer", "Layer 0 encodes the image: its threshold climbs by itself.", layers, first),
        **{
            name: slider(name, PLACE[name], 0, size - 1, value)
            for name, size, value in zip(PLACE, snn.layers[first].spec.out_shape, neuron, strict=True)
        },
        "liveliest": button("Liveliest neuron", "Go to the neuron of this layer that corrects itself most."),
        "step": slider("time step", drawn, 1, time_steps, time_steps),
    }
    line, moving = status(), False

    def move_to(neuron: tuple[int, int, int]) -> None:
        nonlocal moving
        # One redraw for the three sliders.
        moving = True
        shape = snn.layers[controls["layer"].value].spec.out_shape
        for name, size, value in zip(PLACE, shape, neuron, strict=True):
            controls[name].max, controls[name].value = size - 1, value
        moving = False
        draw()

    def draw(_: Any = None) -> None:
        if moving:
            return
        channel, row, column = (controls[name].value for name in PLACE)
        place = (controls["layer"].value, (channel, row, column), controls["step"].value)
        neuron_trace(**sample.neuron_arguments(*place), figure=figures["neuron"])
        layer_map(**sample.map_arguments(*place), figure=figures["map"])
        say(line, sample.sentence(*place))

    def choose_sample(change: Any) -> None:
        nonlocal sample
        sample = run(change.new)
        draw()

    def find_liveliest(_: Any = None) -> None:
        move_to(sample.liveliest(controls["layer"].value))

    def choose_cell(_trace: Any, points: Any, _selector: Any) -> None:
        shape = snn.layers[controls["layer"].value].spec.out_shape
        for row, column in points.point_inds:
            place = mosaic_position(int(row), int(column), shape)
            if place is not None:
                move_to(place)

    say(line, sample.sentence(first, neuron, time_steps))
    on_change(choose_sample, controls["sample"])
    on_change(find_liveliest, controls["layer"])
    on_change(draw, *(controls[name] for name in (*PLACE, "step")))
    controls["liveliest"].on_click(find_liveliest)
    figures["map"].data[1].on_click(choose_cell)
    return page(still, figures, controls, [line])
