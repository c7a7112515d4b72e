"""What a sweep asks for: parameters that vary, from a YAML file or the command line, checked strictly."""

from __future__ import annotations

import difflib
import hashlib
import itertools
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .notebooks import check_parameters, ordered_notebooks, select_notebooks
from .runs import ARTIFACTS, check_run_name, default_run_name
from .stage_run import inputs_of, records_stage

STAGES = "01-04"
_KEYS = {"name": "text", "notebooks": "a selection such as 01-04", "set": "parameters, each with a value or a list",
         "zip": "parameters with lists of one length, taken side by side"}  # fmt: skip
_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)")
_MOST = 10_000


@dataclass(frozen=True)
class Sweep:
    """A sweep: its name, its notebooks in order, the parameters that vary, and the parameters of each run."""

    name: str
    notebooks: tuple[Path, ...]
    varied: tuple[str, ...]
    runs: Mapping[str, Mapping[str, Any]]


def read_sweep(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Give the content of a YAML file of a sweep: name, notebooks, set and zip, each of them optional.

    Raises ValueError naming the file and what is wrong in it: not YAML, a key twice, an unknown key.
    """
    import yaml

    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ValueError(f"there is no file {path}: give the path of a sweep's YAML file") from None
    except (UnicodeDecodeError, IsADirectoryError):
        raise ValueError(f"{path} is not a text file: give the path of a sweep's YAML file") from None
    try:
        _refuse_twice(yaml.compose(text, Loader=yaml.SafeLoader), path)
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict) or not content:
        raise ValueError(f"{path} holds no sweep: write `set:` and below it parameters with lists of values")
    for key, value in content.items():
        if key not in _KEYS:
            near = difflib.get_close_matches(str(key), _KEYS, n=1)
            others = f"choose from {', '.join(_KEYS)}; parameters go below `set:`"
            hint = f"did you mean {near[0]}?" if near else others
            raise ValueError(f"{path}: unknown key {key!r}: {hint}")
        kind = dict if key in ("set", "zip") else str
        if not isinstance(value, kind):
            quoted = "; put it in quotes" if kind is str else ""
            raise ValueError(f"{path}: {key}={value!r}: give {_KEYS[key]}{quoted}")
    return content


def _refuse_twice(node: Any, path: Path) -> None:
    # A YAML reader keeps the last of two equal keys, and says nothing.
    if node is None or isinstance(node.value, str):
        return
    pairs = [pair for pair in node.value if isinstance(pair, tuple)]
    names = [key.value for key, _ in pairs]
    for index, name in enumerate(names):
        if isinstance(name, str) and name in names[:index]:
            line = pairs[index][0].start_mark.line + 1
            raise ValueError(f"{path}: {name!r} is given twice, again in line {line}: give it once")
    for child in [value for _, value in pairs] or node.value:
        _refuse_twice(child, path)


def parse_settings(settings: Sequence[str], option: str) -> dict[str, Any]:
    """Give the parameters of options such as k=0,1,2 or seed=0..4, with a list of texts for each.

    Raises ValueError for one that is not name=values, or that names a parameter again.
    """
    found: dict[str, Any] = {}
    for setting in settings:
        name, equals, values = setting.partition("=")
        name = name.strip()
        if not equals or not name:
            raise ValueError(f"{option} {setting!r}: give name=value,value,… or name=first..last")
        if name in found:
            raise ValueError(f"{option} {setting!r}: {name} is given twice: give all its values at once")
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
        twice = [value for value in values if values.count(value) > 1]
        if twice:
            raise ValueError(f"{parameter} takes the value {twice[0]!r} twice: give it once")
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
    return Sweep(check_run_name(name or content.get("name") or _default_name(varied, runs)), chosen, varied, runs)


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
    values: list[Any] = []
    for value in given if isinstance(given, list) else [given]:
        ends = _RANGE.fullmatch(value) if isinstance(value, str) else None
        if ends:
            first, last = int(ends[1]), int(ends[2])
            if not first <= last < first + _MOST:
                raise ValueError(f"{name}={value}: write a range from the smaller to the larger end")
            values += range(first, last + 1)
        else:
            values.append(value)
    if not isinstance(name, str):
        raise ValueError(f"{name!r} is no name of a parameter: write name: values")
    if name == "run":
        raise ValueError("run: each run of a sweep is named after its parameters; leave it out")
    if not values:
        raise ValueError(f"{name} has no value: give at least one, or leave it out")
    checked = [check_parameters({name: _found(name, value)}, notebooks)[name] for value in values]
    return checked


def _found(name: str, value: Any) -> Any:
    from .commands import absolute_dataset

    return absolute_dataset(value) if name == "dataset" and isinstance(value, str) else value


def _named(cells: Sequence[dict[str, Any]], folder: str | os.PathLike[str]) -> dict[str, dict[str, Any]]:
    runs: dict[str, dict[str, Any]] = {}
    notebooks = ordered_notebooks(folder)
    for cell in cells:
        name = default_run_name(cell, notebooks)
        if name in runs:
            raise ValueError(f"two runs of the sweep are the same, {runs[name]} and {cell}: leave one out")
        runs[name] = cell
    return runs


def _default_name(varied: Sequence[str], runs: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps([*runs], sort_keys=True).encode()).hexdigest()[:8]
    return "-".join([*(re.sub(r"[^A-Za-z0-9]", "-", name) for name in varied[:4]), digest])
