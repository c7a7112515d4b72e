"""The manifest of a run: how each of its stages was made, from what, and whether that still holds.

The mark that a run carries while a stage of it is being made, and keeps where that was stopped or failed.

One process at a time: in a run folder for long, and in a manifest for as long as a change of it takes.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import platform
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..files import load_json, save_json, sha256
from .provenance import git_state, machine, versions

LOCK = ".lock"

_MANIFEST_SECONDS = 60


@contextlib.contextmanager
def working_in(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Hold a run folder while its stages are made; the system lets go of it where the process dies.

    Raises BlockingIOError where another process holds it, OSError where the folder cannot be written.
    """
    with _held(Path(folder) / LOCK, 0, "another process works in {}: wait for it, or name another run"):
        yield


@contextlib.contextmanager
def changing_manifest(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Hold a run's manifest between reading and writing it; waits for another process that does."""
    message = f"another process has been changing the manifest of {{}} for {_MANIFEST_SECONDS} s: end it"
    with _held(Path(folder) / ".manifest.lock", _MANIFEST_SECONDS, message):
        yield


@contextlib.contextmanager
def _held(path: Path, seconds: float, message: str) -> Iterator[None]:
    lock = FileLock(path, timeout=seconds)
    try:
        lock.acquire()
    except Timeout:
        raise BlockingIOError(message.format(path.parent)) from None
    except OSError as error:
        remedy = "make the folder writable, or set ANN_SNN_RUNS to one that is"
        raise OSError(error.errno, f"cannot write in {path.parent} ({error}): {remedy}") from error
    try:
        yield
    finally:
        lock.release()


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
        "recorded": now,
        "parameters": dict(parameters),
        "seed": parameters.get("seed"),
        "inputs": taken,
        "artifacts": made,
        "metrics": dict(metrics or {}),
        "seconds": seconds,
        "stale": bool(stale),
        "versions": versions(),
        "git": git_state(),
        "device": str(device) if device is not None else None,
        "machine": machine(),
    }
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


MARK = "unfinished.json"


@dataclass
class Mark:
    """The mark of a run folder, with what its stage said last."""

    path: Path
    record: dict[str, Any]

    def say(self, text: str) -> None:
        """Note a line that the stage printed."""
        self.record["said"] = text
        self.write()

    def fail(self, **error: Any) -> None:
        """Note that the stage failed, and how."""
        self.record |= {"state": "failed", **error}
        self.write()

    def stop(self) -> None:
        """Note that the stage was interrupted."""
        self.record["state"] = "interrupted"
        self.write()

    def write(self) -> None:
        """Write the mark."""
        save_json(self.path, self.record)


@contextlib.contextmanager
def only_maker(folder: Path, tell: Callable[[str], object]) -> Iterator[None]:
    """Hold the run's lock: of several processes that want to make stages of a run, one goes first.

    tell: called with a line where this process has to wait. The lock of a process that dies is free at once.
    """
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        tell(f"waiting: another process makes {folder.name}\n")
        lock.acquire(poll_interval=0.5)
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def marked(folder: Path, stage: str, request: Mapping[str, Any], by: str = "") -> Iterator[Mark]:
    """Mark the run as unfinished for the time of the block; the mark stays where the block does not end.

    by: who makes the stage, such as a call of `ann-snn sweep`.
    """
    mark = Mark(
        folder / MARK,
        {
            "stage": stage,
            "state": "running",
            "said": "",
            "started": time.time(),
            "host": platform.node(),
            "pid": os.getpid(),
            "by": by,
            "request": dict(request),
        },
    )
    mark.write()
    try:
        yield mark
    except KeyboardInterrupt:
        mark.stop()
        raise
    except BaseException as error:
        if mark.record["state"] == "running":
            mark.fail(error=f"{type(error).__name__}: {error}")
        raise
    unmark(folder, stage)


def unmark(folder: Path, stage: str) -> None:
    """Take the mark of this stage away, now that the stage is there."""
    mark = mark_of(folder)
    if mark is not None and mark["stage"] in (stage, ""):
        (folder / MARK).unlink(missing_ok=True)


def mark_of(folder: Path) -> dict[str, Any] | None:
    """Give the mark of a run, None where it has none; a stage whose process is gone is "interrupted"."""
    try:
        record = load_json(folder / MARK)
    except FileNotFoundError:
        return None
    except ValueError:
        record = None
    if not isinstance(record, dict) or not all(isinstance(record.get(n), str) for n in ("stage", "state", "said")):
        return {"stage": "", "state": "interrupted", "said": ""}
    if record["state"] == "running" and not _locked(folder):
        record["state"] = "interrupted"
    return record


def _locked(folder: Path) -> bool:
    from filelock import FileLock, Timeout

    try:
        with FileLock(folder / LOCK).acquire(timeout=0):
            return False
    except Timeout:
        return True
