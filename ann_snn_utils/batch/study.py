"""The whole study in one call: a sweep of one run, its notebooks one after another, pages for all of them."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from ..data.place import absolute_dataset
from ..runs.folder import ARTIFACTS, check_run_name, default_run_name, require, run_folder, runs_root
from ..runs.gallery import bundled_name, run_named
from ..runs.parameters import NOTEBOOKS, check_parameters, ordered_notebooks, select_notebooks
from .engine import Failure, engine
from .execute import NotebookFailed
from .grid import Sweep, rehearse
from .pages import check_site, write_site
from .plan import Plan, plan_sweep
from .stage import inputs_of

_HOW = {"kept": "kept: already made with these parameters", "made": "done"}


def study(
    parameters: Mapping[str, Any],
    notebooks: str = "00-06",
    run: str | None = None,
    progress: bool = True,
    force: bool = False,
    folder: str | os.PathLike[str] = NOTEBOOKS,
    site: Path | None = None,
) -> Path:
    """Run the notebooks in order with these parameters; the run's folder.

    - parameters: each notebook is given those that it takes, and the run
    - notebooks: a selection such as "00-04,06"
    - run: its name; otherwise the run is named after the parameters
    - progress: write stages and what they print on standard error
    - force: make even the stages that are there, made with the same parameters, inputs, images and code
    - folder: of the notebooks
    - site: write the pages there too

    A stage that another run has is shared with it. Executed notebooks lie in <run>/notebooks, and a site of their
    pages in <run>/html, of a study too in which a notebook failed. Of two processes that make stages of one run,
    one waits for the other. Raises ValueError, or FileNotFoundError for missing data, before anything runs or is
    written; NotebookFailed.
    """
    if site:
        check_site(site)
    chosen = select_notebooks(notebooks, folder)
    given = check_parameters(dict(parameters), chosen)
    named = given.pop("run", "")
    if run and named and run != named:
        raise ValueError(f"two names for the run, {run!r} and {named!r}: give one")
    run = run or named
    if run and not bundled_name(run):
        check_run_name(run)
    if bundled_name(run) and any(path.stem in ARTIFACTS.values() and path.stem < "04" for path in chosen):
        raise ValueError(f"run={run!r}: notebooks 01 to 03 make another network; give --notebooks 04-08")
    # First, as the name of a run tells two folders of images apart by their paths.
    if "dataset" in given:
        given["dataset"] = absolute_dataset(given["dataset"])
    run = run or default_run_name(given, ordered_notebooks(folder))
    rehearse({run: given}, chosen)
    run = run_named(run)  # which writes a bundled network into a run of its own
    made = [path.stem for path in chosen]
    for place, path in enumerate(chosen):
        for artifact in inputs_of(path):
            if ARTIFACTS.get(artifact) not in made[:place]:
                require(runs_root() / run, artifact)
    target = run_folder(run, create=True)
    plan = plan_sweep(Sweep(run, tuple(chosen), (), {run: given}), force)
    failed = None
    try:
        _work(plan, sys.stderr if progress else None)
    except NotebookFailed as error:
        failed = error
    for pages in filter(None, (target / "html", site)):
        write_site(target, pages, folder)
    if failed:
        raise failed
    return target


def _work(plan: Plan, stream: TextIO | None) -> None:
    (steps,) = plan.steps.values()
    width, total = max(len(step.notebook.stem) for step in steps), len(steps)
    labels = {step.key: f"[{place}/{total}] {step.notebook.stem:{width}}" for place, step in enumerate(steps, 1)}
    began, finished = dict[str, float](), list[str]()

    def tell(key: str, text: str) -> None:
        now = time.monotonic()
        if stream:
            print(f"{labels[key]}  {now - began.setdefault(key, now):6.1f} s  {text}", file=stream, flush=True)

    try:
        with engine(1) as running:
            outcomes = running.work(plan.pending(), tell, force=plan.force)
            for step in steps:
                outcome = None if step.state == "done" else next(outcomes)
                if isinstance(outcome, Failure):
                    raise outcome.error
                tell(step.key, _HOW.get(outcome.how if outcome else "kept", f"shared: made by {step.donor}"))
                finished.append(step.notebook.stem)
    except KeyboardInterrupt as interrupt:
        stage = next((step.notebook.stem for step in steps if step.notebook.stem not in finished), "the end")
        done = ", ".join(finished) or "none"
        interrupt.add_note(f"stopped in {stage}; finished stages: {done}; the same command goes on")
        raise
