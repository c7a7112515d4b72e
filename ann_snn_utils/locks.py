"""One process at a time: in a run folder for long, and in a manifest for as long as a change of it takes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

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
