"""What a sweep asks for, by a file and options: its runs, checked strictly, and tried before any of them starts."""

from __future__ import annotations

import difflib
import itertools
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..checks import check_settings
from ..data.dataset import Dataset, load_splits, source_of
from ..data.place import absolute_dataset
from ..runs.folder import ARTIFACTS, check_run_name, default_run_name, digest_of
from ..runs.parameters import check_parameters, defaults_of, ordered_notebooks, select_notebooks
from ..snn.conversion import check_network
from .stage import inputs_of, records_stage

_RANGE = re.compile(r"(-?\d{1,18})\.\.(-?\d{1,18})")

_MOST = 10_000

# What a sweep's file may hold: its kind, and in words.
_KEYS = {
    "name": (str, "text"),
    "notebooks": (str, "a selection such as 01-04"),
    "set": (dict, "parameters, each with a value or a list"),
    "zip": (dict, "parameters with lists of one length, taken side by side"),
}

_MOST_BYTES = 250_000


@dataclass(frozen=True)
class Sweep:
    """A sweep: its name, its notebooks in order, the parameters that vary, and the parameters of each run."""

    name: str
    notebooks: tuple[Path, ...]
    varied: tuple[str, ...]
    runs: Mapping[str, Mapping[str, Any]]


class _TextLoader(yaml.BaseLoader):
    """YAML of text: 010 is ten, 1:30 no number, and a tag makes nothing.

    A few aliases could stand for more values than there is memory, and of two equal keys the last would be kept in
    silence: both are refused.
    """

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            line = event.start_mark.line + 1
            raise yaml.YAMLError(f"line {line} holds the alias *{event.anchor:.50}: write its values out")
        node = super().compose_node(parent, index)
        keys = [key.value for key, _ in node.value] if isinstance(node, yaml.MappingNode) else []
        for place, key in enumerate(keys):
            if key in keys[:place]:
                again = node.value[place][0].start_mark.line + 1
                raise yaml.YAMLError(f"{key!r:.100} is given twice, again in line {again}: give it once")
        return node


def read_sweep(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The content of a YAML file of a sweep: name, notebooks, set and zip, each of them optional.

    Every value is text, as on a command line, or lists or dicts of it. Raises ValueError naming the file and what
    is wrong in it: not YAML, an alias, a key twice or unknown, a value of another kind.
    """
    path, remedy = Path(path), "give the path of a sweep's YAML file"
    if not path.exists():
        raise ValueError(f"there is no file {path}: {remedy}")
    # A device or a pipe may never end.
    if path.is_file() and path.stat().st_size > _MOST_BYTES:
        raise ValueError(f"{path} has over {_MOST_BYTES:,} bytes: write ranges such as 0..99, or split the sweep")
    try:
        text = path.read_text(encoding="utf-8") if path.is_file() else None
    except UnicodeDecodeError:
        text = None
    if text is None:
        raise ValueError(f"{path} is not a text file: {remedy}")
    try:
        content = _TextLoader(text).get_single_data()
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        said = "" if type(error) is yaml.YAMLError else " is not YAML"
        raise ValueError(f"{path}{said}: {' '.join(str(error).split()):.300}") from None
    if not isinstance(content, dict) or not content:
        raise ValueError(f"{path} holds no sweep: write `set:` and below it parameters with lists of values")
    for key, value in content.items():
        if key not in _KEYS:
            near = difflib.get_close_matches(str(key), _KEYS, n=1)
            others = f"choose from {', '.join(_KEYS)}; parameters go below `set:`"
            hint = f"did you mean {near[0]}?" if near else others
            raise ValueError(f"{path}: unknown key {key!r:.100}: {hint}")
        kind, words = _KEYS[key]
        if not isinstance(value, kind):
            raise ValueError(f"{path}: {key}={value!r:.200}: give {words}")
    return content


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
    after_these = "-".join([*(re.sub(r"[^A-Za-z0-9]", "-", one) for one in varied[:4]), digest_of([*runs])[:8]])
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


def rehearse(runs: Mapping[str, Mapping[str, Any]], notebooks: Sequence[Path]) -> None:
    """Find what is wrong with any of the runs, as far as that takes no training.

    Every parameter is checked, the data set is read, and the network is specified for its images; runs that differ
    in their seed alone are tried once. Raises ValueError, or FileNotFoundError for missing data, that names the
    run, the parameter and the remedy.
    """
    data: dict[tuple[Any, ...], tuple[Dataset, Dataset]] = {}
    tried: set[str] = set()
    hardware = any(path.stem == "08_hardware" for path in notebooks)
    for run, given in runs.items():
        settings = defaults_of(notebooks) | dict(given)
        if (text := repr(settings | {"seed": 0})) in tried:
            continue
        tried.add(text)
        try:
            check_settings(settings)
            if given.get("fault") and "fault_rate" not in given:
                raise ValueError(
                    f"fault={given['fault']!r} without a fault_rate: give the share of spikes it strikes"
                )
            # A notebook that only compares runs takes a data set too, and may leave it open.
            if "dataset" in settings and "network" in settings:
                source = source_of(settings)
                if (key := tuple(source.values())) not in data:
                    data[key] = load_splits(**source)
                training, test = data[key]
                if settings.get("samples", 0) > len(test):
                    raise ValueError(
                        f"samples={settings['samples']}: {test.name} has {len(test)} test images; "
                        "give fewer, or 0 for all"
                    )
                check_network(settings, test.in_shape, len(test.classes), len(training), hardware)
        except (ValueError, FileNotFoundError) as error:
            raise type(error)(f"run {run} cannot be made: {error}") from None
