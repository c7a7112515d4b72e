"""What no run could be made from, found in seconds and before any run starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from .augment import AUGMENTATIONS
from .convert import convert
from .data import Dataset, load_dataset
from .initialise import INITIALISATIONS
from .models import build_ann
from .notebooks import defaults_of
from .optimizers import OPTIMIZERS, SCHEDULES
from .rescale import scale_thresholds
from .simulate import MOST_STEPS, simulate
from .source import source_of

_AT_LEAST = {
    "ann_epochs": 0, "qann_epochs": 0, "batch_size": 1, "limit": 0, "size": 0, "crop": 0, "held_out": 0, "clip": 0,
    "samples": 0, "robustness_samples": 1, "published_samples": 1, "time_steps": 1, "max_levels": 0,
    "learning_rate": 0, "qann_learning_rate": 0, "momentum": 0, "label_smoothing": -1, "distillation": 0,
}  # fmt: skip

_CHOICES = {
    "optimizer": OPTIMIZERS, "qann_optimizer": OPTIMIZERS, "schedule": SCHEDULES, "augmentation": AUGMENTATIONS,
    "initialisation": INITIALISATIONS,
}  # fmt: skip


def rehearse(runs: Mapping[str, Mapping[str, Any]], notebooks: Sequence[Path]) -> None:
    """Try, for each of the runs, what its parameters must allow, as far as that takes no training.

    The data set is read, the networks are built without memory, and a tiny network is disturbed as the runs
    will be. Raises ValueError, or FileNotFoundError for missing data, that names the run and the parameter.
    """
    data: dict[tuple[Any, ...], Dataset] = {}
    tried: set[str] = set()
    for run, given in runs.items():
        settings = defaults_of(notebooks) | dict(given)
        settings.pop("seed", None)
        if repr(settings) in tried:
            continue
        tried.add(repr(settings))
        try:
            _try(settings, data)
        except (ValueError, FileNotFoundError) as error:
            raise type(error)(f"run {run} cannot be made: {error}") from None


def _try(settings: Mapping[str, Any], data: dict[tuple[Any, ...], Dataset]) -> None:
    for name, least in _AT_LEAST.items():
        if name in settings and settings[name] < least:
            raise ValueError(f"{name}={settings[name]!r}: give at least {least}")
    if settings.get("time_steps", 1) > MOST_STEPS:
        raise ValueError(f"time_steps={settings['time_steps']!r}: give at most {MOST_STEPS:,}")
    for name in ("label_smoothing", "distillation", "momentum"):
        if settings.get(name, 0.0) > 1:
            raise ValueError(f"{name}={settings[name]!r}: give at most 1")
    for name, known in _CHOICES.items():
        if settings.get(name, "") not in ("", *known):
            raise ValueError(f"{name}={settings[name]!r}: choose one of {', '.join(known)}")
    if "dataset" in settings:
        source = source_of(settings)
        key = tuple(source.values())
        if key not in data:
            data[key] = load_dataset(split="test", **source)
        test = data[key]
        if settings.get("samples", 0) > len(test):
            raise ValueError(f"samples={settings['samples']}: {test.name} has {len(test)} test images")
        if "network" in settings:
            _build(settings, test)
    if "noise_ratio" in settings:
        _disturb(settings)


def _build(settings: Mapping[str, Any], test: Dataset) -> None:
    quantized = {name: settings[name] for name in ("k", "ternary", "levels", "int8_ends") if name in settings}
    with torch.device("meta"):
        build_ann(
            settings["network"], test.in_shape, len(test.classes), padding=settings.get("padding") or None,
            clip=settings.get("clip") or None, **quantized,
        )  # fmt: skip


def _disturb(settings: Mapping[str, Any]) -> None:
    snn = convert(build_ann("2C3-4", (1, 5, 5), 2))
    simulate(
        scale_thresholds(snn, settings["threshold_scale"]), torch.zeros(1, 1, 5, 5, dtype=torch.uint8), 1,
        noise_ratio=settings["noise_ratio"], fault=settings["fault"] or None, fault_rate=settings["fault_rate"],
    )  # fmt: skip
