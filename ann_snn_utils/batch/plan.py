"""The plan of a sweep or a study: a graph of stages, of which some are there, some shared and some to be made."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..runs.folder import ARTIFACTS, digest_of, list_runs, runs_root
from ..runs.manifest import StageRecord, read_manifest
from ..runs.parameters import declared
from ..runs.stage import check_replaced, request_of
from .grid import Sweep
from .stage import has_stage, inputs_of


@dataclass(frozen=True)
class Step:
    """One stage of one run.

    - request: what is asked of the stage, of `request_of`
    - state: "done"; "shared" with the run that has it, or will have it, the `donor`; or "make"
    - needs: the keys of the steps that come before this one
    - after: notebook and request of the stage of its run before, on which it stands
    """

    run: str
    notebook: Path
    parameters: Mapping[str, Any]
    request: Mapping[str, Any]
    state: str
    donor: str | None
    needs: tuple[str, ...]
    after: tuple[Path, Mapping[str, Any]] | None = None

    @property
    def key(self) -> str:
        """The name of this step in the graph: run/notebook."""
        return f"{self.run}/{self.notebook.stem}"


@dataclass(frozen=True)
class Plan:
    """The steps of every run of a sweep, in the order of its notebooks; force: whether all are made anew."""

    sweep: Sweep
    steps: Mapping[str, tuple[Step, ...]]
    force: bool = False

    def pending(self) -> list[Step]:
        """The steps that are not done, each after those that it needs."""
        return [step for steps in self.steps.values() for step in steps if step.state != "done"]


def plan_sweep(sweep: Sweep, force: bool = False) -> Plan:
    """The plan of a sweep, from the runs that are there now; with `force` everything is to be made.

    A stage's content is its code, the parameters that its notebook takes, and the artifacts that it reads: their
    digests where they exist, else the content of the stages that will make them. Of the steps with equal content
    the first is made and the others share it. A run's steps follow each other: one process makes it at a time.
    Raises ValueError, unless forced, where a run has results that were made with other parameters.
    """
    found = {} if force else _recorded_stages()
    reads = {notebook: inputs_of(notebook) for notebook in sweep.notebooks}
    requests: dict[tuple[Path, str], dict[str, Any]] = {}
    makers: dict[str, Step] = {}
    planned: dict[str, tuple[Step, ...]] = {}
    for run, parameters in sweep.runs.items():
        known: dict[str, str] = {}
        own: list[Step] = []
        for notebook in sweep.notebooks:
            # Many runs ask the same of a notebook, and its code's digest takes time.
            asked = notebook, digest_of(declared(parameters, notebook))
            if asked not in requests:
                requests[asked] = request_of(notebook, parameters)
            request = requests[asked]
            inputs = {name: known.get(name, "") for name in reads[notebook]}
            content = digest_of([notebook.stem, request, inputs])
            # Of the runs that still have what they recorded, this one first.
            recorded = sorted(found.get(content, ()), key=lambda one: one[0] != run)
            having = (one for one in recorded if has_stage(runs_root() / one[0], notebook, request))
            donor, record = next(having, (None, None))
            needs = [step.key for step in own[-1:] if step.state != "done"]
            if donor is None and (maker := makers.get(content)):
                donor = maker.run
                needs.append(maker.key)
            state = "done" if donor == run else "make" if donor is None else "shared"
            other = None if state == "done" else donor
            before = next((one for one in reversed(own) if one.notebook.stem in ARTIFACTS.values()), None)
            after = (before.notebook, before.request) if before else None
            step = Step(run, notebook, parameters, request, state, other, tuple(needs), after)
            if state != "done" and not force:
                check_replaced(runs_root() / run, notebook, request["parameters"])
            if state == "make":
                makers[content] = step
            own.append(step)
            made = [name for name, stem in ARTIFACTS.items() if stem == notebook.stem]
            known |= record.artifacts if record else dict.fromkeys(made, content)
        planned[run] = tuple(own)
    return Plan(sweep, planned, force)


def _recorded_stages() -> dict[str, list[tuple[str, StageRecord]]]:
    """The recorded stages of all runs, each with the run, by their content."""
    stages: dict[str, list[tuple[str, StageRecord]]] = {}
    for run in list_runs():
        # A run whose manifest is damaged has nothing to share; whoever works in it is told.
        with contextlib.suppress(ValueError):
            for stem, record in read_manifest(runs_root() / run).stages.items():
                content = digest_of([stem, record.request, record.inputs])
                stages.setdefault(content, []).append((run, record))
    return stages
