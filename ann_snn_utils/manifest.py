"""The manifest of a run: how each of its stages was made, from what, and whether that still holds."""

from __future__ import annotations

import datetime
import os
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .artifacts import load_json, save_json, sha256
from .locks import changing_manifest
from .provenance import git_state, machine, versions

MANIFEST = "manifest.json"


def read_manifest(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Give a run's manifest, {"run": name, "stages": {notebook: record}}; no stages where it is missing."""
    path = Path(folder) / MANIFEST
    if not path.is_file():
        return {"run": Path(folder).name, "stages": {}}
    manifest = load_json(path)
    if not is_manifest(manifest):
        raise ValueError(f"{path} is not a manifest of stages: delete it and run the study again")
    return manifest


def is_manifest(value: Any) -> bool:
    """Tell whether a JSON value has the form of a manifest."""
    stages = value.get("stages") if isinstance(value, dict) else None
    return isinstance(stages, dict) and all(map(_is_stage, stages.values()))


def _is_stage(stage: Any) -> bool:
    if not isinstance(stage, dict) or not isinstance(stage.get("stale"), bool):
        return False
    listed = [stage.get(name) for name in ("parameters", "inputs", "artifacts")]
    if not all(isinstance(part, dict) for part in listed):
        return False
    files = [file for files in listed[1:] for file in files.items()]
    return all(isinstance(digest, str) and _is_inside(Path(name)) for name, digest in files)


def _is_inside(file: Path) -> bool:
    # Sharing writes a file of the same name into another run's folder.
    return not file.is_absolute() and ".." not in file.parts


def record_stage(
    folder: str | os.PathLike[str],
    notebook: str,
    *,
    parameters: Mapping[str, Any],
    inputs: Iterable[str | os.PathLike[str]] = (),
    artifacts: Iterable[str | os.PathLike[str]] = (),
    seconds: float | None = None,
    metrics: Mapping[str, Any] | None = None,
    device: str | None = None,
) -> dict[str, Any]:
    """Record in the run's manifest how a notebook made its artifacts, and give that record.

    inputs, artifacts: files, named as in the run folder or by path; their SHA-256 is taken. An input that is
    not the file which an earlier stage recorded, or that comes from a stale stage, makes this one stale too:
    that is warned of and recorded. Raises FileNotFoundError for a file that is missing.
    """
    folder = Path(folder)
    taken, made = _hashes(folder, inputs), _hashes(folder, artifacts)
    with changing_manifest(folder):
        return _record(folder, notebook, parameters, taken, made, seconds, metrics, device)


def _record(folder, notebook, parameters, taken, made, seconds, metrics, device) -> dict[str, Any]:
    manifest = read_manifest(folder)
    stages = manifest["stages"]
    stale = _stale(stages, notebook, taken)
    for reason in stale:
        warnings.warn(f"run {folder.name}, {notebook}: {reason}", stacklevel=3)
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    stages[notebook] = {
        "recorded": now, "parameters": dict(parameters), "seed": parameters.get("seed"), "inputs": taken,
        "artifacts": made, "metrics": dict(metrics or {}), "seconds": seconds, "stale": bool(stale),
        "versions": versions(), "git": git_state(), "device": str(device) if device is not None else None,
        "machine": machine(),
    }  # fmt: skip
    manifest["stages"] = dict(sorted(stages.items()))
    save_json(folder / MANIFEST, manifest)
    return stages[notebook]


def _hashes(folder: Path, files: Iterable[str | os.PathLike[str]]) -> dict[str, str]:
    found = {}
    for file in map(Path, files):
        path = folder / file
        inside = path.resolve().is_relative_to(folder.resolve())
        name = path.resolve().relative_to(folder.resolve()).as_posix() if inside else file.name
        found[name] = sha256(path)
    return found


def _stale(stages: Mapping[str, Any], notebook: str, inputs: Mapping[str, str]) -> list[str]:
    reasons = []
    for name, digest in inputs.items():
        for maker, stage in stages.items():
            recorded = stage["artifacts"].get(name)
            if maker == notebook or recorded is None:
                continue
            if recorded != digest:
                reasons.append(f"{name} is not the file that {maker} recorded: run {maker} again")
            elif stage["stale"]:
                reasons.append(f"{name} was made by {maker} from an outdated input: run {maker} again")
    return reasons


def stale_stages(manifest: Mapping[str, Any]) -> list[str]:
    """Give the notebooks whose recorded inputs are no longer those of the stages before them."""
    stages = manifest["stages"]
    return [name for name, stage in stages.items() if stage["stale"] or _stale(stages, name, stage["inputs"])]


def record_request(folder: str | os.PathLike[str], notebook: str, request: Mapping[str, Any]) -> None:
    """Note with a stage's new record what was asked of it: all parameters and the digest of its code.

    Does nothing where the notebook recorded no stage, or not anew since the last request.
    """
    with changing_manifest(folder):
        manifest = read_manifest(folder)
        if "request" not in manifest["stages"].get(notebook, {"request": None}):
            manifest["stages"][notebook]["request"] = dict(request)
            save_json(Path(folder) / MANIFEST, manifest)


def is_current(folder: str | os.PathLike[str], notebook: str, request: Mapping[str, Any]) -> bool:
    """Tell whether a stage was made by this very request and its inputs and artifacts are unchanged."""
    folder = Path(folder)
    manifest = read_manifest(folder)
    stage = manifest["stages"].get(notebook)
    if not stage or stage.get("request") != request or notebook in stale_stages(manifest):
        return False
    files = stage["inputs"] | stage["artifacts"]
    return bool(stage["artifacts"]) and all(
        (folder / name).is_file() and sha256(folder / name) == digest for name, digest in files.items()
    )
