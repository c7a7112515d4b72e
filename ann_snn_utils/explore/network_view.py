"""Network over time: every layer's spikes, a raster and the class scores, at any step of one run."""

from __future__ import annotations

import html
from typing import Any

from ..ann.network import ANN
from ..ann.reference import codes
from ..data.dataset import Dataset
from ..figures import class_scores, raster, spike_maps
from ..simulator.record import Record, Traces
from ..simulator.run import simulate
from ..snn.network import SNN
from .page import Explorer, choice, live, on_change, page, say, slider, status
from .plots import alive

CAPTION = (
    "A spike crosses all layers within its step. Blue spikes count up, orange ones take back what was sent too "
    "early; once nothing fires, nothing can change any more, and the answer is the quantized ANN's."
)


def network_over_time(snn: SNN, samples: Dataset, ann: ANN | None = None, time_steps: int = 8) -> Explorer:
    """The explorer of the whole network: one run of each chosen image, sliced at any of its steps.

    ann: the quantized network, to say whether its answer is reached; without it that is left out.
    """
    names = [layer.name for layer in snn.layers]

    def run(index: int) -> Record:
        return simulate(snn, samples.images[index][None], time_steps, trace=[0])

    def scores(record: Record, index: int, step: int) -> dict:
        shown = record.logits[step - 1, 0]
        return dict(scores=shown, classes=samples.classes, label=int(samples.labels[index]), step=step)

    def ann_answer(index: int) -> int | None:
        return None if ann is None else int(codes(ann, samples.images[index][None])[1].argmax())

    # The first step at which layers correct each other.
    record, step = run(0), min(2, time_steps)
    figures = {
        "maps": spike_maps(_traces(record), names, step),
        "raster": raster(_traces(record), names, step=step),
        "scores": class_scores(**scores(record, 0, step)),
    }
    still = Explorer("Network over time", CAPTION, figures)
    if not live():
        return still
    figures = alive(figures)
    kinds = [("spikes at T", "spikes"), ("counts up to T", "counts")]
    colours = "Spikes (+1 blue, −1 orange), or net counts: deeper blue is more."
    sliced = "Slices one finished run at T; nothing is computed anew."
    controls = {
        "sample": slider("sample", "Which test image is presented, once, at step 1.", 0, len(samples) - 1, 0),
        "show": choice("maps show", colours, kinds, "spikes"),
        "step": slider("time steps T", sliced, 1, time_steps, step),
    }
    line, answer = status(), ann_answer(0)

    def draw(_: Any = None) -> None:
        step, index, traces = controls["step"].value, controls["sample"].value, _traces(record)
        spike_maps(traces, names, step, show=controls["show"].value, figure=figures["maps"])
        raster(traces, names, step=step, figure=figures["raster"])
        class_scores(**scores(record, index, step), figure=figures["scores"])
        say(line, _sentence(record, index, step, samples, answer))

    def choose_sample(change: Any) -> None:
        nonlocal record, answer
        record, answer = run(change.new), ann_answer(change.new)
        draw()

    on_change(choose_sample, controls["sample"])
    on_change(draw, controls["step"], controls["show"])
    say(line, _sentence(record, 0, step, samples, answer))
    return page(still, figures, controls, [line], wide="maps")


def _traces(record: Record) -> Traces:
    assert record.traces is not None, "the run was asked to trace its sample"
    return record.traces


def _sentence(record: Record, index: int, step: int, samples: Dataset, ann_answer: int | None) -> str:
    scores = record.logits[step - 1, 0]
    answer, label = int(record.predictions[step - 1, 0]), int(samples.labels[index])
    best, second = scores.topk(2).values.tolist()
    silent, pending = int(record.settled_at[0]), int(record.pending[step - 1].sum())
    right = "✓" if answer == label else f"✗ (true: {html.escape(samples.classes[label])})"
    parts = [
        f"Sample {index}, after step {step}: <b>“{html.escape(samples.classes[answer])}”</b> {right}",
        f"margin {best - second:,.6g}",
        f"{int(record.spike_num[step - 1]):,} hidden spikes so far",
        f"silent since step {silent + 1}" if 0 < silent < step else f"{pending:,} neurons will still fire",
    ]
    if ann_answer is not None:
        parts.insert(2, f"the quantized ANN says “{html.escape(samples.classes[ann_answer])}”")
    return " · ".join(parts)
