"""The manifest of a run: how each of its stages was made, from what, and whether that still holds.

Beside it lies, while a stage is being made or where that was stopped or failed, the run's mark. Processes that work
in one run take turns by the locks of its folder.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import os
import platform
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
from filelock import FileLock, Timeout

from ..files import load_json, save_json, sha256
from .provenance import git_state, machine, versions

MANIFEST, MARK = "manifest.json", "unfinished.json"

# Held while stages are made, and while a manifest is read and written.
LOCK, _MANIFEST_LOCK = ".lock", ".manifest.lock"

_MANIFEST_SECONDS = 60.0


class Images(msgspec.Struct):
    """The images that a stage stands on: the arguments of `load_splits`, and what `data_identity` says of them."""

    source: dict[str, Any]
    identity: dict[str, Any]

    def unchanged(self) -> bool:
        """Whether the source still gives the very same images, labels and classes."""
        from ..data.dataset import data_identity  # which needs torch

        try:
            return data_identity(self.source) == self.identity
        except (ValueError, OSError, TypeError, LookupError):
            return False


class StageRecord(msgspec.Struct, kw_only=True):
    """How a notebook made its artifacts.

    inputs, artifacts: SHA-256 by the file's name in the run folder. stale: made from an outdated input, or, as
    `read_for` finds, what it made is another file now. request: what was asked of the stage, see
    `runs.stage.request_of`; None where that is unknown. images: those it stands on, None where it names none.
    shared_from: the run that made it, None for this one.
    """

    recorded: str | None = None
    parameters: dict[str, Any]
    seed: Any = None
    inputs: dict[str, str]
    artifacts: dict[str, str]
    metrics: dict[str, Any] = {}
    seconds: float | None = None
    stale: bool
    versions: dict[str, str] = {}
    git: dict[str, Any] = {}
    device: str | None = None
    machine: dict[str, Any] = {}
    request: dict[str, Any] | None = None
    images: Images | None = None
    shared_from: str | None = None

    def __post_init__(self) -> None:
        # Sharing writes a file of the same name into another run's folder.
        for file in map(Path, (*self.inputs, *self.artifacts)):
            if file.is_absolute() or ".." in file.parts:
                raise ValueError(f"{file} lies outside the run folder")


class Manifest(msgspec.Struct):
    """A run's name and the records of its stages by notebook."""

    run: str
    stages: dict[str, StageRecord] = {}

    def has(self, name: str) -> bool:
        """Whether a stage recorded that it made a file; a run without any record is taken at its word."""
        return not self.stages or any(name in stage.artifacts for stage in self.stages.values())

    def stale_stages(self) -> list[str]:
        """The notebooks whose recorded inputs are no longer those of the stages before them, or that are stale."""
        return [name for name, stage in self.stages.items() if stage.stale or self.outdated(name, stage.inputs)]

    def outdated(self, notebook: str, inputs: Mapping[str, str]) -> list[str]:
        """Why inputs, SHA-256 by name, are not those that the other stages recorded: a reason each."""
        reasons = []
        for name, digest in inputs.items():
            for maker, stage in self.stages.items():
                recorded = stage.artifacts.get(name)
                if maker == notebook or recorded is None:
                    continue
                if recorded != digest:
                    reasons.append(f"{name} is not the file that {maker} recorded: run {maker} again")
                elif stage.stale:
                    reasons.append(f"{name} was made by {maker} from an outdated input: run {maker} again")
        return reasons


class Mark(msgspec.Struct, kw_only=True):
    """The mark of a run: the stage that is being made, or was, and the last line that it printed.

    state: "running", "interrupted" or "failed", with the error, its cell and the executed notebook's path.
    request: what was asked of it. host, pid: the process that makes it.
    """

    stage: str
    state: str
    said: str
    started: float | None = None
    host: str | None = None
    pid: int | None = None
    request: dict[str, Any] | None = None
    error: str | None = None
    cell: int | None = None
    path: str | None = None

    def write(self, folder: Path) -> None:
        """Write the mark into its run's folder."""
        save_json(folder / MARK, self)


@contextlib.contextmanager
def _held(
    folder: Path, name: str, seconds: float = -1, waiting: Callable[[], object] = lambda: None
) -> Iterator[None]:
    """Hold one of a run's locks, which the system frees where a process dies. waiting: called before a wait."""
    lock = FileLock(folder / name)
    try:
        with contextlib.suppress(Timeout):
            lock.acquire(timeout=0)
        if not lock.is_locked:
            waiting()
            lock.acquire(timeout=seconds, poll_interval=0.05 if seconds > 0 else 0.5)
    except Timeout:
        raise BlockingIOError(f"another process has held {folder / name} for {seconds:.0f} s: end it") from None
    except OSError as error:
        remedy = "make the folder writable, or set ANN_SNN_RUNS to one that is"
        raise OSError(error.errno, f"cannot write in {folder} ({error}): {remedy}") from error
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def only_maker(folder: Path, tell: Callable[[str], object]) -> Iterator[None]:
    """Hold a run while a stage of it is made: of several processes that want to, one goes first.

    tell: called with a line where this process has to wait. Raises OSError where the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _held(folder, LOCK, waiting=lambda: tell(f"waiting: another process makes {folder.name}")):
        yield


@contextlib.contextmanager
def change_manifest(folder: str | os.PathLike[str]) -> Iterator[Manifest]:
    """A run's manifest to be changed; it is written at the block's end, and no other process changes it before."""
    folder = Path(folder)
    with _held(folder, _MANIFEST_LOCK, _MANIFEST_SECONDS):
        manifest = read_manifest(folder)
        yield manifest
        manifest.stages = dict(sorted(manifest.stages.items()))
        save_json(folder / MANIFEST, manifest)


def read_manifest(folder: str | os.PathLike[str]) -> Manifest:
    """A run's manifest; without stages where the file is missing. ValueError names a file that is none."""
    path = Path(folder) / MANIFEST
    if not path.is_file():
        return Manifest(path.parent.name)
    content = load_json(path)
    try:
        return msgspec.convert(content, Manifest)
    except ValueError as error:
        remedy = "delete it and run the study again"
        raise ValueError(f"{path} is not a manifest of stages ({error}): {remedy}") from None


def record_stage(
    folder: str | os.PathLike[str],
    notebook: str,
    *,
    parameters: Mapping[str, Any],
    inputs: Iterable[str | os.PathLike[str]] = (),
    artifacts: Iterable[str | os.PathLike[str]] = (),
    **facts: Any,
) -> StageRecord:
    """Record in the run's manifest how a notebook made its artifacts.

    - inputs, artifacts: files by their names in the run folder; their SHA-256 is taken
    - facts: other fields of `StageRecord`, such as seconds and metrics

    An input that is not the file which an earlier stage recorded, or that comes from a stale stage, makes this one
    stale too: that is warned of and recorded. Raises FileNotFoundError for a file that is missing.
    """
    folder = Path(folder)
    taken, made = (
        {Path(name).as_posix(): sha256(folder / name) for name in names} for names in (inputs, artifacts)
    )
    with change_manifest(folder) as manifest:
        reasons = manifest.outdated(notebook, taken)
        for reason in reasons:
            warnings.warn(f"run {folder.name}, {notebook}: {reason}", stacklevel=3)
        manifest.stages[notebook] = StageRecord(
            recorded=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            parameters=dict(parameters),
            seed=parameters.get("seed"),
            inputs=taken,
            artifacts=made,
            stale=bool(reasons),
            versions=versions(),
            git=git_state(),
            machine=machine(),
            **facts,
        )
    return manifest.stages[notebook]


def read_for(name: str, folder: Path) -> Manifest:
    """A run's manifest to read a file with, if it is there: the stage that made another file there is stale."""
    manifest = read_manifest(folder)
    if (folder / name).is_file():
        digest = sha256(folder / name)
        for stage in manifest.stages.values():
            stage.stale |= stage.artifacts.get(name, digest) != digest
    return manifest


def is_current(folder: str | os.PathLike[str], notebook: str, request: Mapping[str, Any]) -> bool:
    """Whether a stage was made by this very request, and its inputs, artifacts and images are unchanged."""
    folder = Path(folder)
    manifest = read_manifest(folder)
    stage = manifest.stages.get(notebook)
    if stage is None or stage.request != request or notebook in manifest.stale_stages() or not stage.artifacts:
        return False
    same_files = unchanged(folder, stage.inputs | stage.artifacts)
    return same_files and (stage.images is None or stage.images.unchanged())


def made_otherwise(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """In words, in which parameters two makings differ; empty where in none."""
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return ", ".join(f"{name}={before.get(name)!r:.80}, not {now.get(name)!r:.80}" for name in names)


def unchanged(folder: Path, digests: Mapping[str, str]) -> bool:
    """Whether the files of a run are there and have these SHA-256."""
    return all((folder / name).is_file() and sha256(folder / name) == digest for name, digest in digests.items())


@contextlib.contextmanager
def marked(folder: Path, stage: str, request: Mapping[str, Any]) -> Iterator[Mark]:
    """Mark the run as unfinished during the block; it stays where the block fails or the process dies."""
    mark = Mark(stage=stage, state="running", said="started", request=dict(request))
    mark.started, mark.host, mark.pid = time.time(), platform.node(), os.getpid()
    mark.write(folder)
    try:
        yield mark
    except BaseException as error:
        stopped = isinstance(error, KeyboardInterrupt)
        mark.state = "interrupted" if stopped else "failed"
        mark.error = None if stopped else mark.error or f"{type(error).__name__}: {error}"
        mark.write(folder)
        raise
    unmark(folder, stage)


def unmark(folder: Path, stage: str) -> None:
    """Remove the run's mark where it is of this stage, which is made now, or cannot be read."""
    mark = mark_of(folder)
    if mark is not None and mark.stage in (stage, ""):
        (folder / MARK).unlink(missing_ok=True)


def mark_of(folder: Path) -> Mark | None:
    """The mark of a run, None where it has none; a stage whose process is gone is "interrupted"."""
    try:
        mark = msgspec.convert(load_json(folder / MARK), Mark)
    except FileNotFoundError:
        return None
    except ValueError:
        return Mark(stage="", state="interrupted", said="")
    if mark.state == "running":
        try:
            with FileLock(folder / LOCK).acquire(timeout=0):
                mark.state = "interrupted"
        except Timeout:
            pass
        except OSError as error:
            # On a disk that is read only here nobody here makes a run.
            if error.errno == errno.EROFS:
                mark.state = "interrupted"
    return mark
