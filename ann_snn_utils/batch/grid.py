"""What a sweep asks for: every combination of the parameters that vary, checked strictly."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.dataset import absolute_dataset
from ..runs.folder import ARTIFACTS, check_run_name, default_run_name
from ..runs.parameters import check_parameters, ordered_notebooks, select_notebooks
from .stage import inputs_of, records_stage

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
    """The parameters of options such as k=0,1,2 or seed=0..4, with a list of texts for each.

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


def build_sweep(content: Mapping[str, Any], folder: str | os.PathLike[str]) -> Sweep:
    """The sweep over the notebooks of a folder: every combination of `set`, times the rows of `zip`.

    content: of a sweep's file. Raises ValueError for an unknown parameter, with the nearest ones; a wrong value;
    lists in `zip` of different lengths; a parameter in both; a run that comes up twice; notebooks that make no
    stage, or that read what none of the chosen ones makes.
    """
    chosen = _chosen(content.get("notebooks", "01-04"), folder)
    given = content.get("set") or {}, content.get("zip") or {}
    if twice := [parameter for parameter in given[0] if parameter in given[1]]:
        raise ValueError(f"{twice[0]} is in `set` and in `zip`: give it in one of them")
    grid, rows = ({n: _values(n, v, chosen) for n, v in lists.items()} for lists in given)
    lengths = {parameter: len(values) for parameter, values in rows.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{parameter} has {length}" for parameter, length in lengths.items())
        raise ValueError(f"lists that are zipped have one length, and {listed} values: give each as many")
    axes = [[{parameter: value} for value in values] for parameter, values in grid.items()]
    if rows:
        axes.append([dict(zip(rows, row, strict=True)) for row in zip(*rows.values(), strict=True)])
    if (total := math.prod(map(len, axes))) > _MOST:
        raise ValueError(f"{total:,} runs are more than {_MOST:,}: split the sweep")
    runs: dict[str, dict[str, Any]] = {}
    known = ordered_notebooks(folder)
    for parts in itertools.product(*axes):
        cell = {n: v for part in parts for n, v in part.items()}
        run = default_run_name(cell, known)
        if run in runs:
            two = f"{runs[run]!s:.200} and {cell!s:.200}"
            raise ValueError(f"two runs of the sweep are the same, {two}: leave one out")
        runs[run] = cell
    varied = tuple(n for n, values in (grid | rows).items() if len(set(map(repr, values))) > 1)
    digest = hashlib.sha256(json.dumps([*runs]).encode()).hexdigest()[:8]
    after_these = "-".join([*(re.sub(r"[^A-Za-z0-9]", "-", one) for one in varied[:4]), digest])
    return Sweep(check_run_name(content.get("name") or after_these, "sweep"), chosen, varied, runs)


def _chosen(selection: str, folder: str | os.PathLike[str]) -> tuple[Path, ...]:
    chosen = select_notebooks(selection, folder)
    makers = {path.stem: path for path in ordered_notebooks(folder) if records_stage(path)}
    for path in chosen:
        said = f"notebooks={selection!r}: {path.stem}"
        if path.stem not in makers:
            raise ValueError(f"{said} makes no stage of a run: choose from {', '.join(makers)}")
        for artifact in inputs_of(path):
            maker = ARTIFACTS.get(artifact)
            if maker in makers and makers[maker] not in chosen:
                remedy = "add it (a stage that is there already is not made again)"
                raise ValueError(f"{said} reads {artifact}, which {maker} makes: {remedy}")
    return tuple(chosen)


def _values(name: str, given: Any, notebooks: Sequence[Path]) -> list[Any]:
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
    if name == "dataset":
        values = [absolute_dataset(value) if isinstance(value, str) else value for value in values]
    return [check_parameters({name: value}, notebooks)[name] for value in values]
