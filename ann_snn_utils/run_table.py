"""One tidy row for each run: its state, every parameter, every metric, and where all of it came from."""

from __future__ import annotations

import csv
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .artifacts import atomic, load_json
from .manifest import read_manifest, stale_stages
from .runs import runs_root
from .spec import SOURCE_OPTIONS
from .unfinished import mark_of

# Where these differ, results are not comparable without a word; the others may change the last digits.
_MIXED = {"code": "code of {}", "data.train": "training images", "data.test": "test images"}
_AROUND = ("versions.", "machine.", "commit", "device")
_COMMIT = re.compile(r"\b([0-9a-f]{10})[0-9a-f]{30}\b")


def parameters_of_run(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Give every parameter of a run's stages; one that stages disagree on has a column of each such stage."""
    found: dict[str, Any] = {}
    for stem, stage in manifest["stages"].items():
        for name, value in stage["parameters"].items():
            if name != "run" and found.setdefault(name, value) != value:
                found[f"{stem}.{name}"] = value
    return found


def run_row(run: str, stages: Sequence[str] = ()) -> dict[str, Any]:
    """Give the row of a run, as `row_of` does; `stages` are those it should have."""
    folder = runs_root() / run
    path = folder / "results.json"
    results = load_json(path) if path.is_file() else {}
    if not isinstance(results, dict):
        raise ValueError(f"{path} holds no results: delete it and run 04_spike_analysis again")
    return row_of(run, read_manifest(folder), results, mark_of(folder), stages)


def row_of(
    run: str, manifest: Mapping[str, Any], results: Mapping[str, Any], mark: Mapping[str, Any] | None = None,
    stages: Sequence[str] = (),
) -> dict[str, Any]:  # fmt: skip
    """Give the row of what a run recorded.

    Columns: run, state, error; the parameters; results.json, flattened with dots; of each stage its metrics
    (of a training's history the last epoch), seconds and code digest; versions, commit and machine.
    """
    row: dict[str, Any] = {"run": run, "state": _state(manifest, mark, stages)}
    row["error"] = f"{mark['stage']}: {mark.get('error')}" if row["state"] == "failed" and mark else None
    row |= parameters_of_run(manifest)
    row |= {name: value for name, value in _flat(results) if name not in row}
    around: dict[str, list[str]] = {}
    for stem, stage in manifest["stages"].items():
        metrics = part_of(stage, "metrics")
        history = metrics.pop("history", [])
        last = history[-1] if isinstance(history, list) and history else {}
        row |= {f"{stem}.{name}": value for name, value in _flat(metrics | part_of({"last": last}, "last"))}
        row[f"{stem}.seconds"] = stage.get("seconds")
        row[f"{stem}.code"] = part_of(stage, "request").get("code")
        row[f"{stem}.shared_from"] = stage.get("shared_from")
        facts = {"recorded": stage.get("recorded"), "device": stage.get("device"), **part_of(stage, "git")}
        facts |= dict(_flat({name: part_of(stage, name) for name in ("versions", "machine")}))
        for name, value in facts.items():
            if value is not None:
                around.setdefault(name, []).append(str(value))
    # Stages of one run may have been made at different times.
    row |= {name: " ".join(dict.fromkeys(values)) if name != "recorded" else max(values)
            for name, values in around.items()}  # fmt: skip
    return row


def part_of(stage: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Give a part of a stage's record, such as its metrics; empty where it has none."""
    # A record that another version of the project wrote may lack it.
    value = stage.get(name)
    return dict(value) if isinstance(value, dict) else {}


def _state(manifest: Mapping[str, Any], mark: Mapping[str, Any] | None, stages: Sequence[str]) -> str:
    if mark is not None:
        return str(mark["state"])
    if set(stages) - set(manifest["stages"]) or not manifest["stages"]:
        return "unfinished"
    return "outdated" if stale_stages(manifest) else "done"


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, item in value.items():
        if isinstance(item, Mapping):
            yield from _flat(item, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", item


def with_differences(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Give the rows with two more columns: what of each run differs from most others.

    `mixed`: code or data, so that its results must not be mixed with the others'. `around`: versions, commit,
    machine. Data are compared among runs of the same data set, size and limit.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    usual: dict[tuple[Any, ...], Any] = {}
    groups: dict[tuple[Any, ...], list[Any]] = {}
    for row in rows:
        for name in names:
            if row.get(name) is not None:
                groups.setdefault(_peers(name, row), []).append(row[name])
    for peers, values in groups.items():
        plain = [value for value in values if isinstance(value, str | int | float)]
        usual[peers] = Counter(plain).most_common(1)
    described = []
    for row in rows:
        mixed, around = [], []
        for name in names:
            common = usual.get(_peers(name, row))
            if row.get(name) is None or not common or row[name] == common[0][0]:
                continue
            stem, _, last = name.partition(".")
            if last in _MIXED:
                mixed.append(_MIXED[last].format(stem))
            elif name.startswith(_AROUND):
                said = f"{name.removeprefix('versions.')} {row[name]} (others {common[0][0]})"
                around.append(_COMMIT.sub(r"\1", said))
        described.append(dict(row) | {"mixed": "; ".join(mixed) or None, "around": "; ".join(around) or None})
    return described


def _peers(name: str, row: Mapping[str, Any]) -> tuple[Any, ...]:
    last = name.partition(".")[2]
    alike = ("dataset", *SOURCE_OPTIONS) if last.startswith("data.") else ()
    return (name, *(repr(row.get(setting)) for setting in alike))


def write_csv(rows: Sequence[Mapping[str, Any]], path: str | os.PathLike[str]) -> Path:
    """Write the rows as a CSV file with one header line, atomically; lists are written as JSON."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    first = [name for name in ("run", "state", "error", "mixed", "around") if name in names]
    names = first + [name for name in names if name not in first]
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        for row in rows:
            writer.writerow({name: json.dumps(v) if isinstance(v, list) else v for name, v in row.items()})
    return Path(path)
