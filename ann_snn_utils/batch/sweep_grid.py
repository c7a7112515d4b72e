"""What a sweep asks for: every combination of the parameters that vary, checked strictly.

The YAML file of a sweep, read with suspicion: plain values, each key once, nothing that could grow.

What no run could be made from, found in seconds and before any run starts.
"""

from __future__ import annotations

import difflib
import hashlib
import itertools
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..ann.initialise import INITIALISATIONS
from ..ann.network import build_ann
from ..ann.optimizer import OPTIMIZERS, SCHEDULES
from ..data.augment import AUGMENTATIONS
from ..data.dataset import Dataset, load_dataset, source_of
from ..runs.folder import ARTIFACTS, check_run_name, default_run_name
from ..runs.parameters import check_parameters, defaults_of, ordered_notebooks, select_notebooks
from ..simulator.run import MOST_STEPS, simulate
from ..snn.conversion import convert
from ..snn.thresholds import scale_thresholds
from .stage import inputs_of, records_stage

_AT_LEAST = {
    "ann_epochs": 0,
    "qann_epochs": 0,
    "batch_size": 1,
    "limit": 0,
    "size": 0,
    "crop": 0,
    "held_out": 0,
    "clip": 0,
    "samples": 0,
    "robustness_samples": 1,
    "published_samples": 1,
    "time_steps": 1,
    "max_levels": 0,
    "learning_rate": 0,
    "qann_learning_rate": 0,
    "momentum": -1,
    "label_smoothing": -1,
    "distillation": 0,
}

_CHOICES = {
    "optimizer": OPTIMIZERS,
    "qann_optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "augmentation": AUGMENTATIONS,
    "initialisation": INITIALISATIONS,
}


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
    if settings.get("distillation", 0.0) > 1:
        raise ValueError(f"distillation={settings['distillation']!r}: give at most 1")
    for name in ("label_smoothing", "momentum"):
        if settings.get(name, 0.0) >= 1:
            raise ValueError(f"{name}={settings[name]!r}: give less than 1")
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
            settings["network"],
            test.in_shape,
            len(test.classes),
            padding=settings.get("padding") or None,
            clip=settings.get("clip") or None,
            **quantized,
        )


def _disturb(settings: Mapping[str, Any]) -> None:
    snn = convert(build_ann("2C3-4", (1, 5, 5), 2))
    simulate(
        scale_thresholds(snn, settings["threshold_scale"]),
        torch.zeros(1, 1, 5, 5, dtype=torch.uint8),
        1,
        noise_ratio=settings["noise_ratio"],
        fault=settings["fault"] or None,
        fault_rate=settings["fault_rate"],
    )


STAGES = "01-04"

_RANGE = re.compile(r"(-?\d{1,18})\.\.(-?\d{1,18})")

_MOST = 10_000


@dataclass(frozen=True)
class Sweep:
    """A sweep: its name, its notebooks in order, the parameters that vary, and the parameters of each run."""

    name: str
    notebooks: tuple[Path, ...]
    varied: tuple[str, ...]
    runs: Mapping[str, Mapping[str, Any]]


def parse_settings(settings: Sequence[str], option: str) -> dict[str, Any]:
    """Give the parameters of options such as k=0,1,2 or seed=0..4, with a list of texts for each.

    Raises ValueError for one that is not name=values, or that names a parameter again.
    """
    found: dict[str, Any] = {}
    for setting in settings:
        name, equals, values = setting.partition("=")
        name = name.strip()
        if not equals or not name:
            raise ValueError(f"{option} {setting!r:.200}: give name=value,value,… or name=first..last")
        if name in found:
            raise ValueError(f"{option} {setting!r:.200}: {name!r:.100} is given twice: give its values at once")
        found[name] = [value.strip() for value in values.split(",")]
    return found


def build_sweep(
    content: Mapping[str, Any],
    folder: str | os.PathLike[str],
    notebooks: str | None = None,
    name: str | None = None,
) -> Sweep:
    """Give the sweep over the notebooks of a folder: every combination of `set`, times the rows of `zip`.

    notebooks, name: used instead of those in `content`. Raises ValueError for an unknown parameter, with the
    nearest ones; a wrong value; lists in `zip` of different lengths; a parameter in both; a run that comes up
    twice; notebooks that make no stage, or that read what none of the chosen ones makes.
    """
    chosen = _chosen(notebooks or content.get("notebooks", STAGES), folder)
    grid, rows = dict(content.get("set") or {}), dict(content.get("zip") or {})
    for parameter in grid:
        if parameter in rows:
            raise ValueError(f"{parameter} is in `set` and in `zip`: give it in one of them")
    grid, rows = ({n: _values(n, v, chosen) for n, v in lists.items()} for lists in (grid, rows))
    for parameter, values in grid.items():
        value, times = Counter(map(repr, values)).most_common(1)[0]
        if times > 1:
            raise ValueError(f"{parameter} takes the value {value:.200} twice: give it once")
    lengths = {parameter: len(values) for parameter, values in rows.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{parameter} has {length}" for parameter, length in lengths.items())
        raise ValueError(f"lists that are zipped have one length, and {listed} values")
    axes = [[{parameter: value} for value in values] for parameter, values in grid.items()]
    if rows:
        axes.append([dict(zip(rows, row, strict=True)) for row in zip(*rows.values(), strict=True)])
    total = 1
    for axis in axes:
        total *= len(axis)
    if total > _MOST:
        raise ValueError(f"{total:,} runs are more than {_MOST:,}: split the sweep")
    cells = [{n: v for part in parts for n, v in part.items()} for parts in itertools.product(*axes)]
    runs = _named(cells, folder)
    varied = tuple(n for n, values in (grid | rows).items() if len(set(map(repr, values))) > 1)
    named = check_run_name(name or content.get("name") or _default_name(varied, runs), "sweep")
    return Sweep(named, chosen, varied, runs)


def _chosen(selection: str, folder: str | os.PathLike[str]) -> tuple[Path, ...]:
    chosen = select_notebooks(selection, folder)
    makers = {path.stem: path for path in ordered_notebooks(folder) if records_stage(path)}
    for path in chosen:
        if path.stem not in makers:
            listed = ", ".join(makers)
            raise ValueError(f"notebooks={selection!r}: {path.stem} makes no stage of a run: choose from {listed}")
    for path in chosen:
        for artifact in inputs_of(path):
            maker = ARTIFACTS.get(artifact)
            if maker in makers and makers[maker] not in chosen:
                raise ValueError(
                    f"notebooks={selection!r}: {path.stem} reads {artifact}, which {maker} makes: add it "
                    "(a stage that is there already is not made again)"
                )
    return tuple(chosen)


def _values(name: str, given: Any, notebooks: Sequence[Path]) -> list[Any]:
    if not isinstance(name, str):
        raise ValueError(f"{name!r} is no name of a parameter: write name: values")
    if name == "run":
        raise ValueError("run: each run of a sweep is named after its parameters; leave it out")
    values: list[Any] = []
    for value in given if isinstance(given, list) else [given]:
        ends = _RANGE.fullmatch(value) if isinstance(value, str) else None
        found = range(int(ends[1]), int(ends[2]) + 1) if ends else [value]
        if not found:
            raise ValueError(f"{name}={value}: write a range from the smaller to the larger end")
        if len(values) + len(found) > _MOST:
            total = f"{len(values) + len(found):,} values, more than {_MOST:,}"
            raise ValueError(f"{name:.100}={value!s:.100} makes {total}: give fewer, or split the sweep")
        values += found
    if not values:
        raise ValueError(f"{name} has no value: give at least one, or leave it out")
    checked = [check_parameters({name: _found(name, value)}, notebooks)[name] for value in values]
    return checked


def _found(name: str, value: Any) -> Any:
    from ..data.dataset import absolute_dataset

    return absolute_dataset(value) if name == "dataset" and isinstance(value, str) else value


def _named(cells: Sequence[dict[str, Any]], folder: str | os.PathLike[str]) -> dict[str, dict[str, Any]]:
    runs: dict[str, dict[str, Any]] = {}
    notebooks = ordered_notebooks(folder)
    for cell in cells:
        name = default_run_name(cell, notebooks)
        if name in runs:
            two = f"{runs[name]!s:.200} and {cell!s:.200}"
            raise ValueError(f"two runs of the sweep are the same, {two}: leave one out")
        runs[name] = cell
    return runs


def _default_name(varied: Sequence[str], runs: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps([*runs], sort_keys=True).encode()).hexdigest()[:8]
    return "-".join([*(re.sub(r"[^A-Za-z0-9]", "-", name) for name in varied[:4]), digest])


_KEYS = {
    "name": "text",
    "notebooks": "a selection such as 01-04",
    "set": "parameters, each with a value or a list",
    "zip": "parameters with lists of one length, taken side by side",
}

_MOST_BYTES, _MOST_CHARACTERS, _DEEPEST = 250_000, 1_000, 8


def read_sweep(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Give the content of a YAML file of a sweep: name, notebooks, set and zip, each of them optional.

    Raises ValueError naming the file and what is wrong in it: not YAML, a key twice, an unknown key, or what a
    sweep has no use for, such as aliases and tags.
    """
    import yaml

    path = Path(path)
    text = _text(path)
    try:
        wrong = _elaborate(yaml.parse(text, Loader=yaml.SafeLoader))
        wrong = wrong or _twice(yaml.compose(text, Loader=yaml.SafeLoader))
        content = None if wrong else yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split()):.300}: correct it") from None
    if wrong:
        raise ValueError(f"{path}: {wrong}")
    if not isinstance(content, dict) or not content:
        raise ValueError(f"{path} holds no sweep: write `set:` and below it parameters with lists of values")
    for key, value in content.items():
        if key not in _KEYS:
            near = difflib.get_close_matches(str(key), _KEYS, n=1)
            others = f"choose from {', '.join(_KEYS)}; parameters go below `set:`"
            hint = f"did you mean {near[0]}?" if near else others
            raise ValueError(f"{path}: unknown key {key!r:.100}: {hint}")
        kind = dict if key in ("set", "zip") else str
        if not isinstance(value, kind):
            quoted = "; put it in quotes" if kind is str else ""
            raise ValueError(f"{path}: {key}={value!r:.200}: give {_KEYS[key]}{quoted}")
    return content


def _text(path: Path) -> str:
    if not path.exists():
        raise ValueError(f"there is no file {path}: give the path of a sweep's YAML file")
    # A device or a pipe may never end.
    if not path.is_file():
        raise ValueError(f"{path} is not a text file: give the path of a sweep's YAML file")
    if path.stat().st_size > _MOST_BYTES:
        raise ValueError(f"{path} has over {_MOST_BYTES:,} bytes: write ranges such as 0..99, or split the sweep")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not a text file: give the path of a sweep's YAML file") from None


def _elaborate(events: Iterable[Any]) -> str | None:
    # A few aliases can stand for more values than there is memory, and a tag can name any type.
    import yaml

    depth = 0
    for event in events:
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        value, line = getattr(event, "value", ""), event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            return f"line {line} holds the alias *{event.anchor:.50}: write its values out"
        if getattr(event, "tag", None):
            return f"line {line} holds the tag {event.tag:.50}: write plain values"
        if depth > _DEEPEST:
            return f"line {line} holds a list in {_DEEPEST} others: write `set:`, parameters, and lists of values"
        if len(value) > _MOST_CHARACTERS:
            return f"line {line} holds a value of {len(value):,} characters: write at most {_MOST_CHARACTERS:,}"
    return None


def _twice(node: Any) -> str | None:
    # A YAML reader keeps the last of two equal keys, and says nothing.
    if node is None or isinstance(node.value, str):
        return None
    pairs = [pair for pair in node.value if isinstance(pair, tuple)]
    seen: set[str] = set()
    for key, _ in pairs:
        if isinstance(key.value, str):
            if key.value in seen:
                line = key.start_mark.line + 1
                return f"{key.value!r:.100} is given twice, again in line {line}: give it once"
            seen.add(key.value)
    found = (_twice(child) for child in [value for _, value in pairs] or node.value)
    return next((wrong for wrong in found if wrong), None)
