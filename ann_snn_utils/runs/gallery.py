"""The networks at hand to look at: those of all runs, and the small ones that come with the project."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..ann.network import ANN
from ..ann.store import BUNDLED, list_pretrained, load_ann, load_pretrained, pretrained_file, save_ann
from ..checks import expect
from ..data.dataset import SOURCE_OPTIONS, Dataset, identity_of, load_recorded, load_splits, source_of
from ..files import sha256
from ..hardware.bundle import check_target, write_bundle
from ..measure.equivalence import check_equivalence
from ..snn.conversion import convert
from ..snn.network import SNN
from ..snn.store import load_snn, save_snn
from .folder import QANN_FILE, SNN_FILE, check_run_name, latest_run, list_runs, require, run_folder, runs_root
from .provenance import git_state, versions
from .results import RECORDED

# What metadata record of a network's results, and where these came from.
_OF_RESULTS = {*RECORDED, "ann_correct", "snn_correct", "first_1000", "run", "command"}


@dataclass(frozen=True)
class Network:
    """A spiking network, the quantized network it was made from, and its test set, or what stands in for it.

    note: what a reader must know about samples that are not of its test set; empty where they are.
    """

    name: str
    ann: ANN
    snn: SNN
    samples: Dataset
    note: str = ""


def network_names() -> list[str]:
    """The names to choose from: every run that has a spiking network, then the bundled ones."""
    bundled = list_pretrained()
    # What was unpacked of a bundled network is in the list under that one's name.
    unpacked = set(bundled) - set(list_runs())
    return [run for run in list_runs(SNN_FILE) if run not in unpacked] + [BUNDLED + name for name in bundled]


def bundled_name(network: str) -> str | None:
    """The name that a network has in the project's index ("bundled:tiny" → "tiny"), or None for a run's name."""
    return network.removeprefix(BUNDLED).strip() if network.startswith(BUNDLED) else None


def open_network(
    name: str = "",
    dataset: str | None = None,
    stand_ins: Callable[[ANN, OSError], tuple[Dataset, str]] | None = None,
) -> Network:
    """The network of a name as of `network_folder`, or a bundled one; an empty name takes the latest run, if any.

    Its test samples come in the fixed, class-balanced order of `Dataset.subset`. dataset: where its images lie
    now, as in `load_recorded`. stand_ins: called with a network whose images are not here, unless `dataset` names
    others, and with the error that says so; it gives other images and a note on them, and nothing is downloaded.
    Raises FileNotFoundError or ValueError that says what is missing.
    """
    # papermill's -p makes a number of a name that looks like one.
    name = str(name)
    if not name:
        try:
            return open_network(latest_run(SNN_FILE), dataset, stand_ins)
        except (OSError, ValueError):
            # No run yet, or one whose data set is on another machine.
            if not (names := list_pretrained()):
                raise
            return open_network(BUNDLED + next(iter(names)), dataset, stand_ins)
    if bundled := bundled_name(name):
        ann, name = load_pretrained(bundled), BUNDLED + bundled
        snn = convert(ann)
    else:
        folder = network_folder(name)
        ann, snn = load_ann(require(folder, QANN_FILE)), load_snn(require(folder, SNN_FILE))
    try:
        test = load_recorded(ann.metadata, dataset=dataset, fetch=stand_ins is None)
    except OSError as missing:
        if stand_ins is None or dataset is not None:
            raise
        return Network(name, ann.eval(), snn, *stand_ins(ann, missing))
    return Network(name, ann.eval(), snn, test.subset(len(test)))


def is_path(name: str) -> bool:
    """Whether a network's name is the path of a folder, and not the name of a run."""
    return "/" in name or os.sep in name


def network_folder(name: str) -> Path:
    """The folder of a run, or the one that a path names, such as ./mine, where it holds a pair of networks."""
    if not is_path(name):
        return run_folder(name)
    folder = Path(name).expanduser()
    if not (folder / SNN_FILE).is_file():
        raise FileNotFoundError(f"{folder} holds no {SNN_FILE}: save_network keeps a pair of networks in a folder")
    return folder


def save_network(name: str, ann: ANN, snn: SNN, dataset: str, **options: Any) -> Path:
    """Keep a network of one's own where every command and notebook finds it by name; its folder.

    name        of a new run, or the path of a new folder, such as ./mine, which commands take too
    ann, snn    the quantized network, and what was converted of it
    dataset     what it classifies, by a name or path that `load_dataset` takes
    options     size, crop, limit and held_out, as of `load_dataset`; TypeError for others

    All test images are run first, and what they show is kept: right answers, and that every code is reached. Raises
    ValueError where one is not, where images of the data set have another shape, and where the folder holds a
    network; and what `load_dataset` raises.
    """
    expect(ANN, ann=ann)
    expect(SNN, snn=snn)
    if ann.spec != snn.spec:
        raise ValueError(f"{name}: the spiking network was not made of this quantized one; give convert(ann)")
    if unknown := options.keys() - set(SOURCE_OPTIONS):
        raise TypeError(f"save_network takes no {', '.join(unknown)}: options are {', '.join(SOURCE_OPTIONS)}")
    source = source_of({"dataset": dataset, **options})
    training, test = load_splits(**source)
    if test.in_shape != ann.spec.in_shape or len(test.classes) != ann.spec.classes:
        raise ValueError(
            f"{name}: images of {dataset!r} are {test.in_shape} in {len(test.classes)} classes, those of the "
            f"network {ann.spec.in_shape} in {ann.spec.classes}; give its data set, with its size= or crop="
        )
    folder = Path(name).expanduser() if is_path(name) else runs_root() / check_run_name(name)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file: give the path of a new folder")
    if any((folder / file).exists() for file in (QANN_FILE, SNN_FILE)):
        raise ValueError(f"{folder} holds a network already: choose another name, or remove it")
    proof = check_equivalence(ann, snn, test.images)
    if not proof.exact:
        place = proof.examples[0] if proof.examples else f"in class scores of {proof.score_mismatches} images"
        raise ValueError(f"{name}: the networks differ, {place}; convert the quantized one again")
    right = int((proof.predictions == test.labels).sum())
    made = {"source": source, "data": identity_of(training, test), "samples": len(test), "correct": right}
    made |= {"mismatches": 0, "neurons": sum(proof.neurons)}
    # A network that was trained on keeps what was recorded of the one it was loaded as.
    kept = {name: value for name, value in ann.metadata.items() if name not in _OF_RESULTS}
    folder.mkdir(parents=True, exist_ok=True)
    try:
        save_ann(ann, folder / QANN_FILE, **kept | made)
        save_snn(snn, folder / SNN_FILE, **made)
    except BaseException:
        # One of a pair is no network, and would stand in the way of the next attempt.
        for file in (QANN_FILE, SNN_FILE):
            (folder / file).unlink(missing_ok=True)
        raise
    return folder


def run_named(network: str) -> str:
    """The run of a network's name: a bundled one ("bundled:…") is unpacked into the run of its own name."""
    bundled = bundled_name(network)
    return unpack(bundled).name if bundled else network


def unpack(name: str) -> Path:
    """The folder of the run that holds a bundled network under its name; the run is made where there is none yet.

    Notebook 04 and the command line then work with it as with any run. Raises ValueError for a name that is not
    bundled, and where a run of that name holds another network.
    """
    ann = load_pretrained(name)
    folder = run_folder(name, create=True)
    qann, snn = folder / QANN_FILE, folder / SNN_FILE
    if qann.exists() or snn.exists():
        there = load_ann(require(folder, qann.name))
        mine, theirs = ann.state_dict(), there.state_dict()
        if ann.spec != there.spec or not all(torch.equal(mine[key], theirs[key]) for key in mine):
            remedy = f"name its folder {folder} otherwise"
            raise ValueError(f"run {name!r} holds another network than bundled:{name}: {remedy}")
    else:
        save_ann(ann, qann, **ann.metadata)
    if not snn.exists():
        save_snn(convert(ann), snn)
    return folder


def bundle_network(
    name: str, out: Path, samples: int | None = None, time_steps: int | None = None, dataset: str | None = None
) -> tuple[Path, int]:
    """Write the hardware bundle of a network of a name as of `open_network`; its folder and number of test images.

    samples: None takes 32 at most. time_steps: as of `write_bundle`. dataset: where the images lie now.
    """
    check_target(out)
    if bundled := bundled_name(name):
        path, title = pretrained_file(bundled), f"pretrained {bundled}"
        snn = convert(load_pretrained(bundled))
    else:
        path, title = require(network_folder(name), SNN_FILE), f"run {name}"
        snn = load_snn(path)
    test = load_recorded(snn.metadata, dataset=dataset)
    chosen = test.subset(samples or min(32, len(test)))
    origin: dict[str, Any] = {"network": title, "file": path.name, "sha256": sha256(path), "versions": versions()}
    origin |= {"git": git_state(), "dataset": test.name, "split": "test", "samples_of": len(test)}
    return write_bundle(snn, chosen, out, origin, time_steps), len(chosen)
