"""Kernels of this very Python: fresh ones, and warm ones that are lent to one notebook after another."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..files import ROOT

# No history file, which parallel kernels would lock; and no warnings of the kernel's own on the terminal.
_QUIET = ["--HistoryManager.hist_file=:memory:", "--log-level=ERROR"]

# What notebooks import stays loaded; what they named, seeded or changed does not.
_EMPTY = f"""
get_ipython().reset(new_session=True)
import os as _os, sys as _sys
_os.chdir({str(ROOT)!r})
if "torch" in _sys.modules:
    _sys.modules["torch"].seed()
    _sys.modules["torch"].set_default_dtype(_sys.modules["torch"].float32)
get_ipython().reset(new_session=True)
"""

_MOST_NOTEBOOKS = 60

_IDLE_SECONDS = 300.0


@dataclass(eq=False)
class Kernel:
    """A running kernel: its manager, the settings it was started with, and how many notebooks it has run."""

    manager: Any
    settings: Mapping[str, str]
    sources: int
    notebooks: int = 0
    timer: threading.Timer | None = None


_idle: list[Kernel] = []

_busy: list[Kernel] = []

_closed: list[dict[str, str]] = []


@contextlib.contextmanager
def fresh_kernel(settings: Mapping[str, str] | None = None) -> Iterator[Any]:
    """Give the manager of a new kernel, for one notebook; `settings` are added to its environment."""
    kernel = _start(settings or {})
    try:
        with _lent(kernel):
            yield kernel.manager
    finally:
        _stop(kernel)


@contextlib.contextmanager
def warm_kernel(settings: Mapping[str, str] | None = None) -> Iterator[Any]:
    """Give the manager of a kernel that this process keeps, emptied of what the last notebook left in it.

    Starts one where none is idle that has these settings and the package as it is now. After an error, and
    after many notebooks, it is not lent again. Raises KeyboardInterrupt once `close_kernels` was called for
    these settings.
    """
    settings = dict(settings or {})
    kernel = _taken(settings) or _start(settings)
    try:
        with _lent(kernel):
            if settings in _closed:
                raise KeyboardInterrupt
            yield kernel.manager
    except BaseException:
        _stop(kernel)
        if settings in _closed:
            raise KeyboardInterrupt from None
        raise
    kernel.notebooks += 1
    if kernel.notebooks < _MOST_NOTEBOOKS and _emptied(kernel):
        # A process that outlives its user, such as a cluster's worker, does not keep kernels for ever.
        kernel.timer = threading.Timer(_IDLE_SECONDS, _expire, [kernel])
        kernel.timer.daemon = True
        kernel.timer.start()
        _idle.append(kernel)
    else:
        _stop(kernel)


def close_kernels(settings: Mapping[str, str]) -> None:
    """Stop this process's idle kernels with these settings, kill the busy ones, and start no more of them."""
    _closed.append(dict(settings))
    for kernel in [*_busy, *_idle]:
        if kernel.settings == dict(settings):
            if _removed(kernel):
                _stop(kernel)
            elif kernel.manager.has_kernel:
                kernel.manager.provisioner.process.kill()


def closed(settings: Mapping[str, str]) -> bool:
    """Tell whether `close_kernels` was called for these settings in this process."""
    return dict(settings) in _closed


def _taken(settings: Mapping[str, str]) -> Kernel | None:
    for kernel in list(_idle):
        if kernel.settings == dict(settings) and _removed(kernel):
            if kernel.sources == _sources():
                return kernel
            _stop(kernel)
    return None


def _removed(kernel: Kernel) -> bool:
    # Another thread may have been first.
    try:
        _idle.remove(kernel)
    except ValueError:
        return False
    if kernel.timer is not None:
        kernel.timer.cancel()
    return True


def _expire(kernel: Kernel) -> None:
    if _removed(kernel):
        _stop(kernel)


def _sources() -> int:
    return max(path.stat().st_mtime_ns for path in (ROOT / "ann_snn_utils").rglob("*.py"))


def _start(settings: Mapping[str, str]) -> Kernel:
    # A kernel of this Python, whatever kernels are installed under the same name; its environment is its own,
    # so that notebooks can run side by side.
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from jupyter_core.utils import run_sync

    environment = os.environ | {
        "PLOTLY_RENDERER": "plotly_mimetype",
        "ANN_SNN_BATCH": "1",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }
    data = os.environ.get("ANN_SNN_DATA")
    if data and os.path.exists(os.path.expanduser(data)):
        environment["ANN_SNN_DATA"] = os.path.abspath(os.path.expanduser(data))
    manager = AsyncKernelManager(
        kernel_name="python3", kernel_spec_manager=KernelSpecManager(kernel_dirs=[], ensure_native_kernel=True)
    )
    kernel = Kernel(manager, dict(settings), _sources())
    try:
        run_sync(manager.start_kernel)(env=environment | kernel.settings, cwd=str(ROOT), extra_arguments=_QUIET)
    except BaseException:
        _stop(kernel)
        raise
    return kernel


@contextlib.contextmanager
def _lent(kernel: Kernel) -> Iterator[None]:
    from jupyter_core.utils import ensure_event_loop

    # papermill leaves the client of a kernel that it did not start open: many runs would run out of files.
    connect = type(kernel.manager).client.__get__(kernel.manager)
    opened: list[Any] = []
    kernel.manager.client = lambda **options: opened.append(connect(**options)) or opened[-1]
    _busy.append(kernel)
    try:
        yield
    except KeyboardInterrupt:
        # What still waits for the kernel would complain, after the program's last word, that it died.
        loop = ensure_event_loop()
        if not loop.is_running():
            waiting = asyncio.all_tasks(loop)
            for task in waiting:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*waiting, return_exceptions=True))
        raise
    finally:
        _busy.remove(kernel)
        for client in opened:
            client.stop_channels()


def _emptied(kernel: Kernel) -> bool:
    from jupyter_core.utils import run_sync

    try:
        with _lent(kernel):
            client = kernel.manager.client()
            client.start_channels()
            run_sync(client.wait_for_ready)(timeout=60)
            reply = run_sync(client.execute_interactive)(
                _EMPTY, silent=True, store_history=False, allow_stdin=False, timeout=60, output_hook=lambda _: None
            )
    except (RuntimeError, TimeoutError):
        return False
    return reply["content"]["status"] == "ok"


def _stop(kernel: Kernel) -> None:
    from jupyter_core.utils import run_sync

    if kernel.manager.has_kernel:
        run_sync(kernel.manager.shutdown_kernel)(now=True)
    run_sync(kernel.manager.cleanup_resources)()
