"""How far a sweep is: a live view on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from ..files import load_json
from ..runs.manifest import MARK

_SHOWN = 8

_QUIET_SECONDS = 60.0


@dataclass
class View:
    """What is shown while a sweep runs: runs done, failed, and running with stage and epoch, and the time left.

    steps: stages that are to be made, as (run, notebook, data set). by: the mark of this sweep's own stages.
    """

    runs: Mapping[str, Path]
    steps: set[tuple[str, str, str]]
    by: str
    jobs: int
    stream: TextIO | None = None
    done: int = 0
    failed: int = 0
    seconds: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    seen: dict[str, dict[str, Any]] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)
    said: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        from tqdm import tqdm

        self.stream = self.stream or sys.stderr
        self.live = self.stream.isatty()
        self.total = len(self.steps)
        self.ended = threading.Event()
        self.bars = [
            tqdm(total=1, position=place, file=self.stream, bar_format="{desc}", leave=False)
            for place in range(1 + min(self.jobs, _SHOWN))
            if self.live
        ]
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> View:
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.ended.set()
        self.thread.join()
        for bar in self.bars:
            bar.close()

    def line(self, text: str) -> None:
        """Show one line that stays."""
        self.said = time.monotonic()
        if self.live:
            self.bars[0].write(text, file=self.stream)
        else:
            print(text, file=self.stream, flush=True)

    def stage(self, run: str, notebook: str, seconds: float | None) -> None:
        """Note a stage that is there now; seconds: what making it took, None where it was not made."""
        for step in [step for step in list(self.steps) if step[:2] == (run, notebook)]:
            self.steps.discard(step)
            if seconds is not None:
                self.seconds.setdefault((notebook, step[2]), []).append(seconds)

    def drop(self, run: str) -> None:
        """Note that the rest of a run will not be made."""
        for step in [step for step in list(self.steps) if step[0] == run]:
            self.steps.discard(step)
            self.total -= 1

    def left(self) -> float | None:
        """Give the seconds that are left, from what like stages took so far; None before the first is done."""
        means = {kind: sum(taken) / len(taken) for kind, taken in self.seconds.items()}
        if not means:
            return None
        any_kind = sum(means.values()) / len(means)
        return sum(means.get((notebook, data), any_kind) for _, notebook, data in list(self.steps)) / self.jobs

    def summary(self) -> str:
        """Give one line: runs done of all, failed, stages left, time spent and left."""
        left = self.left()
        parts = [f"{self.done}/{len(self.runs)} runs done"]
        parts += [f"{self.failed} failed"] if self.failed else []
        parts.append(f"{self.total - len(self.steps)}/{self.total} stages")
        parts.append(clock(time.monotonic() - self.started))
        if self.steps:
            parts.append("time left unknown yet" if left is None else f"about {clock(left)} left")
        return " · ".join(parts)

    def running(self) -> list[str]:
        """Give a line for each stage that is being made: run, notebook, and the epoch or what it said last."""
        lines = []
        for run in dict.fromkeys(run for run, *_ in sorted(list(self.steps))):
            mark = _mark(self.runs[run])
            if mark and mark.get("by") == self.by and mark.get("state") == "running":
                # A task may be several stages of a run: the next one's beginning tells that one is done.
                before = self.seen.get(run)
                if before and before["stage"] != mark["stage"]:
                    self.stage(run, before["stage"], mark["started"] - before["started"])
                self.seen[run] = mark
                epoch = re.search(r"epoch \d+/\d+", mark["said"])
                said = epoch[0] if epoch else mark["said"][:40]
                lines.append(f"{run}  {mark['stage']}  {said}".rstrip())
        return lines

    def _watch(self) -> None:
        while not self.ended.wait(1.0):
            if self.live:
                running = self.running()
                if len(running) >= len(self.bars):
                    running[len(self.bars) - 2 :] = [f"and {len(running) - len(self.bars) + 2} more"]
                texts = [_bar(self.total - len(self.steps), self.total) + self.summary(), *running]
                for bar, text in zip(self.bars, texts + [""] * len(self.bars), strict=False):
                    bar.set_description_str(_fitted(text, bar.ncols), refresh=True)
            elif time.monotonic() - self.said > _QUIET_SECONDS:
                self.line(" · ".join([self.summary(), *self.running()[:_SHOWN]]))


def _mark(folder: Path) -> dict[str, Any] | None:
    try:
        return load_json(folder / MARK)
    except (FileNotFoundError, ValueError):
        return None


def _bar(done: int, total: int, width: int = 20) -> str:
    filled = width * done // max(1, total)
    return f"{'█' * filled}{'░' * (width - filled)} "


def _fitted(text: str, columns: int | None) -> str:
    import shutil

    width = (columns or shutil.get_terminal_size().columns) - 1
    return text if len(text) <= width else text[: width - 1] + "…"


def clock(seconds: float) -> str:
    """Give seconds as m:ss or h:mm:ss."""
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@dataclass
class Progress:
    """Lines of a running stage on a terminal or in a log, each with its stage and the seconds so far."""

    label: str
    stream: TextIO
    started: float = field(default_factory=time.monotonic)
    pending: str = ""

    def write(self, text: str) -> int:
        """Show the complete lines of what a notebook prints; a bar that redraws itself keeps its last state."""
        *lines, self.pending = (self.pending + text).split("\n")
        for line in lines:
            shown = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", line.rstrip("\r").rpartition("\r")[2]).rstrip()
            if shown:
                self.line(shown)
        return len(text)

    def line(self, text: str) -> None:
        """Show one line."""
        print(f"{self.label}  {time.monotonic() - self.started:6.1f} s  {text}", file=self.stream, flush=True)

    def flush(self) -> None:
        """Nothing is held back."""
