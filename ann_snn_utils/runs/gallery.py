"""The networks at hand to look at: those of all runs, and the small ones that come with the project."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..ann.network import ANN
from ..ann.store import BUNDLED, list_pretrained, load_ann, load_pretrained, pretrained_file, save_ann
from ..data.dataset import Dataset, load_recorded
from ..files import sha256
from ..snn.conversion import convert
from ..snn.network import SNN
from ..snn.store import load_snn, save_snn
from .folder import SNN_FILE, latest_run, list_runs, require, run_folder
from .provenance import git_state, versions


@dataclass(frozen=True)
class Network:
    """A spiking network, the quantized network it was made from, and its test set, or what stands in for it.

    note: what is to be known of images that are not those of its test set.
    """

    name: str
    ann: ANN
    snn: SNN
    samples: Dataset
    note: str = ""


def network_names() -> list[str]:
    """The names to choose from: every run that has a spiking network, then the bundled ones."""
    runs = [run for run in list_runs() if (run_folder(run) / "snn.safetensors").is_file()]
    return runs + [BUNDLED + name for name in list_pretrained()]


def bundled_name(network: str) -> str | None:
    """The name that a network has in the project's index ("bundled:tiny" → "tiny"), or None for a run's name."""
    return network.removeprefix(BUNDLED).strip() if network.startswith(BUNDLED) else None


def open_network(
    name: str = "",
    dataset: str | None = None,
    replaced: Callable[[ANN, OSError], tuple[Dataset, str]] | None = None,
) -> Network:
    """The network of a run, or a bundled one ("bundled:…"); an empty name takes the latest run, if any.

    Its test samples come in the fixed, class-balanced order of `Dataset.subset`. dataset: where its images lie now,
    as in `load_recorded`. replaced: gives other images, and a note on them, for a network whose own are not here;
    nothing is fetched then. Raises FileNotFoundError or ValueError that says what is missing.
    """
    # papermill's -p makes a number of a name that looks like one.
    name = str(name)
    if not name:
        try:
            return open_network(latest_run("snn.safetensors"), dataset, replaced)
        except (OSError, ValueError):
            # No run yet, or one whose data set is on another machine.
            if not (names := list_pretrained()):
                raise
            return open_network(BUNDLED + next(iter(names)), dataset, replaced)
    if bundled := bundled_name(name):
        ann, name = load_pretrained(bundled), BUNDLED + bundled
        snn = convert(ann)
    else:
        folder = run_folder(name)
        ann = load_ann(require(folder, "qann.safetensors"))
        snn = load_snn(require(folder, "snn.safetensors"))
    try:
        test = load_recorded(ann.metadata, dataset=dataset, fetch=replaced is None)
    except OSError as missing:
        if replaced is None:
            raise
        return Network(name, ann.eval(), snn, *replaced(ann, missing))
    return Network(name, ann.eval(), snn, test.subset(len(test)))


def run_named(network: str) -> str:
    """The run of a network's name: a bundled one ("bundled:…") is unpacked into the run of its own name."""
    bundled = bundled_name(network)
    return unpack(bundled).name if bundled else network


def unpack(name: str) -> Path:
    """The folder of a run that holds a bundled network, made where it is not there yet.

    So that notebook 04 and the command line work with it. Raises ValueError for a name that is not bundled, and
    where a run of that name holds another network.
    """
    ann = load_pretrained(name)
    folder = run_folder(name, create=True)
    qann, snn = folder / "qann.safetensors", folder / "snn.safetensors"
    if not snn.exists():
        save_ann(ann, qann, **ann.metadata)
        save_snn(convert(ann), snn)
        return folder
    there = load_ann(require(folder, qann.name))
    mine, theirs = ann.state_dict(), there.state_dict()
    if ann.spec != there.spec or not all(torch.equal(mine[key], theirs[key]) for key in mine):
        remedy = f"name its folder {folder} otherwise"
        raise ValueError(f"run {name!r} holds another network than bundled:{name}: {remedy}")
    return folder


def spiking_network(name: str) -> tuple[SNN, dict[str, Any]]:
    """The integer network of a run or a bundled one, and what it was made from and with."""
    if bundled := bundled_name(name):
        path = pretrained_file(bundled)
        snn, title = convert(load_pretrained(bundled)), f"pretrained {bundled}"
    else:
        path = require(run_folder(name), SNN_FILE)
        snn, title = load_snn(path), f"run {name}"
    made = {"file": path.name, "sha256": sha256(path), "versions": versions(), "git": git_state()}
    return snn, {"network": title, **made}
