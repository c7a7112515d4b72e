"""How far a sweep is: a live view of many runs on a terminal, lines elsewhere."""

from __future__ import annotations

import re
import threading
import time
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from .plan import Plan, Step

_SHOWN = 8

_QUIET_SECONDS = 60.0


class View:
    """A sweep at work: runs done and failed, running stages with their epoch, and the time that is left.

    On a terminal it redraws itself while `live` runs; elsewhere a summary is written when nothing was for a minute.
    """

    def __init__(self, plan: Plan, jobs: int, stream: TextIO) -> None:
        self.steps = {step.key: step for step in plan.pending()}
        self.total, self.runs, self.jobs, self.failed = len(self.steps), len(plan.steps), jobs, 0
        self.done = sum(all(step.state == "done" for step in own) for own in plan.steps.values())
        self.seconds: dict[tuple[str, str], list[float]] = {}
        self.running: dict[str, TaskID] = {}
        self.started = self.last_line = time.monotonic()
        self.lock = threading.Lock()
        console = Console(file=stream, highlight=False, soft_wrap=True)
        columns = BarColumn(20), TextColumn("{task.description}", markup=False)
        self.live = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self.bar = self.live.add_task("", total=self.total)

    def line(self, text: str) -> None:
        """Write one line that stays."""
        self.last_line = time.monotonic()
        self.live.console.print(Text(text))

    def tell(self, key: str, text: str) -> None:
        """Show a line that a running stage printed."""
        with self.lock:
            if key not in self.steps:
                return
            step, epoch = self.steps[key], re.search(r"epoch \d+/\d+", text)
            shown = f"{step.run}  {step.notebook.stem}  {epoch[0] if epoch else text[:40]}"
            if key not in self.running:
                self.running[key] = self.live.add_task("", total=None)
            self.live.update(self.running[key], description=shown, visible=len(self.running) <= _SHOWN)
            self.live.update(self.bar, description=self.summary(), completed=self.total - len(self.steps))
        if self.live.disable and time.monotonic() - self.last_line > _QUIET_SECONDS:
            self.line(f"{self.summary()} · {shown}")

    def end(self, key: str, seconds: float | None = None) -> None:
        """Note that a stage is there, or will not be made; seconds: what making it took, None where it was not."""
        with self.lock:
            step = self.steps.pop(key, None)
            if step and seconds is not None:
                self.seconds.setdefault(_kind(step), []).append(seconds)
            if key in self.running:
                self.live.remove_task(self.running.pop(key))
            self.live.update(self.bar, description=self.summary(), completed=self.total - len(self.steps))

    def left(self) -> float | None:
        """The seconds that are left, from what like stages took so far; None before the first is done."""
        means = {kind: sum(taken) / len(taken) for kind, taken in self.seconds.items()}
        if not means:
            return None
        any_kind = sum(means.values()) / len(means)
        return sum(means.get(_kind(step), any_kind) for step in list(self.steps.values())) / self.jobs

    def summary(self) -> str:
        """One line: runs done of all, failed, stages done of all, time spent and left."""
        left = self.left()
        parts = [f"{self.done}/{self.runs} runs done"]
        parts += [f"{self.failed} failed"] if self.failed else []
        parts += [f"{self.total - len(self.steps)}/{self.total} stages", clock(time.monotonic() - self.started)]
        if self.steps:
            parts.append("time left unknown yet" if left is None else f"about {clock(left)} left")
        return " · ".join(parts)


def _kind(step: Step) -> tuple[str, str]:
    # All runs of a sweep are given a data set, or none is.
    return step.notebook.stem, step.parameters.get("dataset", "")


def clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
