"""The plan of a sweep: which stages are there, which are shared, which are to be made, and in which waves."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..runs.folder import ARTIFACTS, list_runs, runs_root
from ..runs.manifest import is_current, read_manifest
from .stage import inputs_of, request_of
from .sweep_grid import Sweep


@dataclass(frozen=True)
class Step:
    """One stage of one run.

    state: "done"; "shared" with a run that has it, or will have it, the `donor`; or "make". key: equal for equal
    stages. wave: the steps of a wave need only what earlier waves, and earlier steps of their run, have made.
    """

    notebook: Path
    request: Mapping[str, Any]
    state: str
    donor: str | None
    key: str
    wave: int = 0


@dataclass(frozen=True)
class Plan:
    """The steps of every run of a sweep, in the order of its notebooks."""

    sweep: Sweep
    steps: Mapping[str, tuple[Step, ...]]

    @property
    def waves(self) -> int:
        """The number of waves."""
        return max((step.wave + 1 for steps in self.steps.values() for step in steps), default=0)

    def count(self, state: str) -> int:
        """The number of steps in a state."""
        return sum(step.state == state for steps in self.steps.values() for step in steps)


def plan_sweep(sweep: Sweep) -> Plan:
    """Give the plan of a sweep, from the runs that are there now.

    A stage's key is made of its code, the parameters that its notebook takes, and the artifacts that it reads:
    their digests where they exist, else the keys of the stages that will make them. Of the steps with equal
    keys the first is made and the others share it.
    """
    found = _Found.read()
    reads = {notebook: inputs_of(notebook) for notebook in sweep.notebooks}
    requests: dict[tuple[Path, str], dict[str, Any]] = {}
    makers: dict[str, str] = {}
    planned: dict[str, list[Step]] = {}
    for run, parameters in sweep.runs.items():
        known: dict[str, str] = {}
        planned[run] = []
        for notebook in sweep.notebooks:
            request = _request(notebook, parameters, requests)
            inputs = {name: known.get(name, "") for name in reads[notebook]}
            state, donor, record = found.look(run, notebook, request, inputs)
            key = _key(notebook.stem, request, inputs)
            if state == "make" and key in makers:
                state, donor = "shared", makers[key]
            elif state == "make":
                makers[key] = run
            planned[run].append(Step(notebook, request, state, donor, key))
            known |= record or {}
            if record is None:
                known |= dict.fromkeys(_artifacts(notebook), key)
    return Plan(sweep, _in_waves(planned, makers))


@dataclass(frozen=True)
class _Found:
    """The stages of all runs by what was asked of them."""

    stages: Mapping[str, list[tuple[str, Mapping[str, Any]]]]

    @classmethod
    def read(cls) -> _Found:
        stages: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
        for run in list_runs():
            for stem, record in read_manifest(runs_root() / run)["stages"].items():
                stages.setdefault(_key(stem, record.get("request"), {}), []).append((run, record))
        return cls(stages)

    def look(
        self, run: str, notebook: Path, request: Mapping[str, Any], inputs: Mapping[str, str]
    ) -> tuple[str, str | None, dict[str, str] | None]:
        """Give the state of a step, the run that has it, and the digests of its artifacts."""
        candidates = self.stages.get(_key(notebook.stem, request, {}), [])
        # Its own stage first, then those of the others.
        for donor, record in sorted(candidates, key=lambda found: found[0] != run):
            folder = runs_root() / donor
            if record["inputs"] != dict(inputs) or not (folder / "notebooks" / notebook.name).is_file():
                continue
            if is_current(folder, notebook.stem, request):
                own = donor == run
                return ("done" if own else "shared"), (None if own else donor), dict(record["artifacts"])
        return "make", None, None


def _request(
    notebook: Path, parameters: Mapping[str, Any], known: dict[tuple[Path, str], dict[str, Any]]
) -> dict[str, Any]:
    # Many runs ask the same of a notebook, and its code's digest takes time.
    text = json.dumps(parameters, sort_keys=True)
    if (notebook, text) not in known:
        known[notebook, text] = request_of(notebook, parameters)
    return known[notebook, text]


def _key(stem: str, request: Mapping[str, Any] | None, inputs: Mapping[str, str]) -> str:
    text = json.dumps([stem, request, dict(inputs)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _artifacts(notebook: Path) -> Iterable[str]:
    return [name for name, maker in ARTIFACTS.items() if maker == notebook.stem]


def _in_waves(planned: Mapping[str, list[Step]], makers: Mapping[str, str]) -> dict[str, tuple[Step, ...]]:
    waiting: dict[str, set[str]] = {}
    for run, steps in planned.items():
        for step in steps:
            if step.state == "shared" and makers.get(step.key) == step.donor:
                waiting.setdefault(step.key, set()).add(run)
    made_in: dict[str, int] = {}
    waved: dict[str, tuple[Step, ...]] = {}
    for run, steps in planned.items():
        wave, own = 0, []
        for step, following in zip(steps, [*steps[1:], None], strict=True):
            if run in waiting.get(step.key, ()):
                wave = max(wave, made_in[step.key] + 1)
            own.append(replace(step, wave=wave))
            if step.state == "make":
                made_in[step.key] = wave
                # Those that go their own way from here need not wait for the rest of this run.
                wave += bool(waiting.get(step.key, set()) - waiting.get(following.key if following else "", set()))
        waved[run] = tuple(own)
    return waved
