"""Where data sets lie: by name in one folder, or at a path of their own. Without torch, which takes seconds."""

from __future__ import annotations

import os
from pathlib import Path

from ..files import ROOT

NAMES = ("digits", "mnist", "fashion_mnist", "cifar10")


def data_folder(root: str | os.PathLike[str] | None = None) -> Path:
    """The folder of the raw files, see `load_dataset`. ValueError where there is something else."""
    folder = resolve(root or os.environ.get("ANN_SNN_DATA") or ROOT / "data" / "raw")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"data root {folder} is not a folder: set root or ANN_SNN_DATA to a folder")
    return folder


def resolve(path: str | os.PathLike[str]) -> Path:
    """A path from the working directory, where it is there, else from the top of the repository."""
    # os.path takes a name that no file system allows for one that is not there; a Path raises.
    path = os.path.expanduser(path)
    return Path(os.path.abspath(path)) if os.path.exists(path) else ROOT / path


def absolute_dataset(dataset: str) -> str:
    """The path of a data set as an absolute one, where it is there; named sets and other text as they are.

    It would mean another folder in another working directory, and notebooks run in one of their own.
    """
    place = resolve(dataset)
    return str(place) if dataset and dataset not in NAMES and os.path.exists(place) else dataset
