"""Which images a run takes: the parameters that say so, and the training and test set they give."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .data import Dataset, load_dataset
from .spec import SOURCE_OPTIONS


def source_of(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Give the arguments of `load_dataset` and `load_splits` that a run's parameters name; 0 there is None here."""
    return {"name": parameters["dataset"]} | {name: parameters.get(name) or None for name in SOURCE_OPTIONS}


def load_splits(name: str, **options: Any) -> tuple[Dataset, Dataset]:
    """Give the training and the test set; the test images are cropped, the training images whole.

    Training takes its crops at random places. Raises what `load_dataset` raises.
    """
    whole = {option: value for option, value in options.items() if option != "crop"}
    return load_dataset(name, "train", **whole), load_dataset(name, "test", **options)
