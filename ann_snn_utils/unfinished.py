"""The mark that a run carries while a stage of it is being made, and keeps where that was stopped or failed."""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .artifacts import load_json, save_json
from .locks import LOCK

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
    mark = Mark(folder / MARK, {
        "stage": stage, "state": "running", "said": "", "started": time.time(), "host": platform.node(),
        "pid": os.getpid(), "by": by, "request": dict(request),
    })  # fmt: skip
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
