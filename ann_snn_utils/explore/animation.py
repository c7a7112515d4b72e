"""The spikes of one image as a file to show or to send: a GIF, or a page with a slider."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from itertools import count
from pathlib import Path

from ..figures.pictures import spike_gif
from ..runs.gallery import Network
from ..simulator.run import simulate
from .sample import one_image


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
