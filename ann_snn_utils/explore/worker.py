"""The latest value wins: work off the page's thread, in which a newer setting replaces an older one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


class Superseded(Exception):
    """Raised inside a computation, by its progress report, when a newer value waits."""


@dataclass
class Latest:
    """Computes `compute(value, report)` for the newest value submitted, one at a time.

    deliver: takes each result, on the event loop's thread. progress: takes the share done, 0 … 1, and None at
    the end. fail: takes the ValueError of a setting that cannot be computed. A computation calls
    report(share); that raises Superseded, and so drops the stale work, as soon as a newer value was submitted.
    Without a running event loop, `submit` computes and delivers before it returns.
    """

    compute: Callable[[Any, Callable[[float], None]], Any]
    deliver: Callable[[Any], None]
    progress: Callable[[float | None], None]
    fail: Callable[[Exception], None]
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _waiting: list = field(default_factory=list)
    _busy: bool = False

    def submit(self, value: Any) -> None:
        """Ask for the result of `value`, and no longer for that of any value before."""
        with self._lock:
            self._waiting[:] = [value]
            if self._busy:
                return
            self._busy = True
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._work(lambda function, argument: function(argument))
        else:
            threading.Thread(target=self._work, args=(loop.call_soon_threadsafe,), daemon=True).start()

    def _work(self, call: Callable) -> None:
        def report(share: float) -> None:
            if self._waiting:
                raise Superseded
            call(self.progress, share)

        while True:
            with self._lock:
                if not self._waiting:
                    self._busy = False
                    break
                value = self._waiting.pop()
            try:
                result = self.compute(value, report)
            except Superseded:
                continue
            except Exception as error:  # noqa: BLE001 - a thread has nobody else to tell
                call(self.fail, error)
            else:
                call(self.deliver, result)
        call(self.progress, None)
