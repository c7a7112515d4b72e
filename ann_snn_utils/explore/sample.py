"""One image in the network, step by step: what the page of sample.js shows, and its spikes as a file to send."""

from __future__ import annotations

import base64
import json
import os
import re
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..ann.reference import codes
from ..figures.pictures import spike_gif
from ..runs.gallery import Network
from ..simulator.run import simulate
from ..snn.network import SpikingLayer
from .images import own_image
from .page import Explorer, Report, live, packed

CAPTION = (
    "The membrane U only accumulates. A neuron that has sent n net spikes fires +1 when U reaches θₙ₊₁ and takes "
    "one back, −1, when U is below θₙ: each spike moves both thresholds by one step. A spike crosses all layers in "
    "its step; once nothing fires, nothing can change any more, and the answer is the quantized network's."
)

# What the runs that a page without a kernel can show may take in it, in characters.
ROOM = 1_500_000


def one_image(net: Network, time_steps: int = 8, samples: int = 256, step: int = 2, first: int = 0) -> Explorer:
    """The explorer of single images: maps, one neuron and why it fires, class scores and raster, over time.

    samples: how many images stand in the row to choose from, 0 for all. step: shown at first. first: the number
    that the first image is called by.
    """
    most = min(samples or len(net.samples), len(net.samples))
    images, labels = net.samples.images[:most], net.samples.labels[:most]
    record = simulate(net.snn, images, time_steps)
    # A kernel runs an image when it is chosen. A page without one holds as many as there is room for.
    runs: dict[str, Any] = {}
    for sample in range(1 if live() else min(most, 12)):
        runs[str(sample)] = run_of(net, images[sample], time_steps)
        if len(json.dumps(runs)) > ROOM:
            break

    def answer(values: dict[str, Any], report: Report) -> dict[str, Any]:
        if "save" in values:
            path = unused(f"{net.name}-image-{values['sample']}", values["save"])
            return {"path": str(animate(net, path, int(values["sample"]), time_steps).resolve())}
        if "sample" in values:
            return {"run": run_of(net, images[int(values["sample"])], time_steps)}
        given = np.frombuffer(base64.b64decode(values["pixels"]), np.uint8).reshape(values["shape"])
        image = own_image(given, net.snn.spec.in_shape)
        return {"run": run_of(net, image, time_steps), "pixels": packed(image)}

    shown = {
        "view": "sample",
        "network": network_of(net, time_steps),
        "steps": time_steps,
        "step": min(step, time_steps),
        "sample": 0,
        "draw": images.shape[1] == 1,
        "images": {
            "first": first,
            "pixels": packed(images),
            "labels": labels.tolist(),
            "settled": record.settled_at.tolist(),
            "answers": packed(record.predictions),
            "note": net.note,
        },
        "runs": runs,
    }
    return Explorer("One image, step by step", CAPTION, shown, answer)


def run_of(net: Network, image: Tensor, time_steps: int) -> dict[str, Any]:
    """Every spike of one image, its class scores, and the quantized network's codes and answer."""
    record = simulate(net.snn, image[None], time_steps, trace=[0])
    assert record.traces is not None, "the run was asked to trace its sample"
    expected, logits = codes(net.ann, image[None])
    return {
        "spikes": [packed(spikes[:, 0]) for spikes in record.traces.spikes],
        "scores": packed(record.logits[:, 0]),
        "answers": record.predictions[:, 0].tolist(),
        "settled": int(record.settled_at[0]),
        "codes": [packed(code[0].flatten()) for code in expected],
        "ann": int(logits[0].argmax()),
    }


def network_of(net: Network, time_steps: int) -> dict[str, Any]:
    """Shapes, kernels and thresholds of every layer, as far as a run of so many steps can compare with them."""
    return {
        "layers": [
            {
                "name": layer.name,
                "shape": layer.spec.out_shape,
                "inputs": _inputs(net, index),
                "lowest": layer.spec.lowest,
                "maximum": layer.spec.kind == "maximum",
                **_thresholds(layer, net.snn.levels if index == 0 else time_steps),
            }
            for index, layer in enumerate(net.snn.layers)
        ],
        "classes": net.samples.classes,
        "scale": float(net.snn.metadata.get("logit_scale", 1.0)),
    }


def _inputs(net: Network, index: int) -> list[dict[str, Any]]:
    """The sources of a layer's inputs: which layer (None: the image), through which kernel, and what it counts.

    amplitude: of one input spike. gain: of the sum, for each channel, where it is not 1.
    """
    spec = net.snn.spec
    return [
        {
            "from": one.spec.source if one.spec.source >= 0 else None,
            "amplitude": spec.amplitude(one.spec.source) if one.spec.source >= 0 else 1,
            "gain": None if one.gain is None else one.gain.tolist(),
            "weight": packed(one.weight),
            "in_shape": one.spec.in_shape,
            "stride": one.spec.stride,
            "padding": one.spec.padding,
            "dilation": one.spec.dilation,
            "groups": one.spec.groups,
        }
        for one in net.snn.layers[index].synapses
    ]


def _thresholds(layer: SpikingLayer, spikes: int) -> dict[str, Any]:
    """θ up to so many spikes; a neuron sends at most one at a step."""
    rising, falling = (torch.as_tensor(table)[:, : spikes - layer.spec.lowest] for table in layer.compared)
    return {"rising": packed(rising), "falling": packed(falling)}


def animate(network: Network, path: str | os.PathLike[str], sample: int = 0, time_steps: int | None = None) -> Path:
    """Write the animation of one image, and return its path; its suffix says what it is, .gif or .html.

    sample: its place among the network's samples. time_steps: None shows all until it is silent. Raises ValueError
    for another suffix, and for a sample that is not there.
    """
    path, images = Path(path), len(network.samples)
    if path.suffix.lower() not in (".gif", ".html"):
        raise ValueError(f"{path}: name a file that ends in .gif or .html")
    if not 0 <= sample < images:
        raise ValueError(f"sample={sample}: {network.samples.name!r} has images 0 to {images - 1}")
    chosen = network.samples.subset([sample])
    record = simulate(network.snn, chosen.images, time_steps, trace=[0])
    if path.suffix.lower() == ".html":
        return one_image(replace(network, samples=chosen), record.time_steps, 1, 1, sample).save(path)
    assert record.traces is not None, "the run was asked to trace its sample"
    spikes = [fired[:, 0].numpy() for fired in record.traces.spikes]
    about = (record.layer_names, chosen.classes, int(chosen.labels[0]))
    return spike_gif(path, chosen.images[0].numpy(), spikes, record.logits[:, 0], *about)


def unused(name: str, suffix: str) -> Path:
    """A file of the working directory that is not there yet, called `name` or `name`-2, -3, …"""
    # Of a network named by its folder, ./mine, no hidden file is made.
    stem = re.sub(r"[^\w.-]+", "-", name).lstrip(".-")
    names = (f"{stem}{suffix}" if number == 1 else f"{stem}-{number}{suffix}" for number in count(1))
    return next(path for path in map(Path, names) if not path.exists())
