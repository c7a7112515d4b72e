"""What the processes do that test_faults.py kills; they are forked from one that has imported all of it."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path

import torch
from bundles import dataset
from networks import random_ann, random_images
from test_train import network, stripes

from ann_snn_utils import files as artifacts
from ann_snn_utils.ann.store import load_ann, save_ann
from ann_snn_utils.ann.train import train
from ann_snn_utils.cli import main
from ann_snn_utils.hardware.bundle import write_bundle
from ann_snn_utils.runs import folder as runs
from ann_snn_utils.runs import manifest
from ann_snn_utils.runs.manifest import only_maker
from ann_snn_utils.snn.conversion import convert
from ann_snn_utils.snn.store import save_snn

SLOW = 0.004


def _slow_replace(source, target) -> None:
    # A kill strikes a write only rarely when a write takes no time.
    time.sleep(SLOW)
    os.rename(source, target)
    time.sleep(SLOW)


def slowly() -> None:
    """Use one thread, so that forking is safe, and take a while over every rename."""
    torch.set_num_threads(1)
    manifest.git_state = lambda: {"commit": None, "dirty": None}
    artifacts.os = type("os", (), {**vars(os), "replace": staticmethod(_slow_replace)})


def train_and_convert(runs_root: str) -> None:
    """The stages of a run: train with checkpoints, save, record, convert, save, record."""
    os.environ["ANN_SNN_RUNS"] = runs_root
    folder = runs.run_folder("run", create=True)
    with only_maker(folder, print):
        ann = network()
        train(
            ann,
            stripes(16),
            epochs=4,
            batch_size=16,
            checkpoint=folder / "c.checkpoint.safetensors",
            augmentation="shift",
            progress=False,
        )
        save_ann(ann, folder / "qann.safetensors")
        record(folder, "02_quantize", [], ["qann.safetensors"])
        save_snn(convert(load_ann(folder / "qann.safetensors")), folder / "snn.safetensors")
        record(folder, "03_convert", ["qann.safetensors"], ["snn.safetensors"])


def record(folder: Path, notebook: str, inputs: list[str], made: list[str]) -> None:
    manifest.record_stage(folder, notebook, parameters={"seed": 0}, inputs=inputs, artifacts=made)


def bundle(out: str) -> None:
    """A small bundle."""
    ann = random_ann(3, network="2C3-P2-3", in_shape=(1, 6, 6))
    write_bundle(convert(ann, max_levels=512), dataset(random_images(3, (1, 6, 6), 4)), out)


def sweep(runs_root: str) -> None:
    """A sweep of two runs that share a stage, two stages at a time, over the notebooks beside the runs' parent."""
    os.environ["ANN_SNN_RUNS"] = runs_root
    folder = Path(runs_root).parents[1] / "notebooks"
    assert main(["sweep", "--set", "k=0,1", "--name", "x", "--jobs", "2"], folder) == 0


def run_slowly(work: str, place: str) -> None:
    """Do a piece of work, by name, as the process that may be killed."""
    slowly()
    globals()[work](place)


def record_many(runs_root: str, names: list[str]) -> None:
    """Record stages of these names, as one of several processes."""
    slowly()
    os.environ["ANN_SNN_RUNS"] = runs_root
    folder = runs.run_folder("run")
    for name in names:
        record(folder, name, [], ["a"])


def without_room(work: str, place: str, room: int, said: str) -> None:
    """Do the work where no file may grow beyond `room` bytes, and write down what is said."""
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
    _note(work, place, said)


def as_nobody(work: str, place: str, said: str) -> None:
    """Do the work without the right to write there, and note what is said."""
    torch.set_num_threads(1)
    if os.getuid() == 0:
        os.setgid(65534)
        os.setuid(65534)
    _note(work, place, said)


def make_when_free(runs_root: str, said: str) -> None:
    """Make a file in a run that another process holds, and write down what is said about waiting for it."""
    os.environ["ANN_SNN_RUNS"] = runs_root
    folder = runs.run_folder("run")
    with only_maker(folder, lambda text: Path(said).write_text(text)):
        (folder / "made").touch()


def _note(work: str, place: str, said: str) -> None:
    try:
        globals()[work](place)
    except (OSError, ValueError) as error:
        # Short enough for a disk that is nearly full.
        Path(said).write_text(f"{type(error).__name__}: {error}".replace(str(Path(said).parent), "…")[:400])
