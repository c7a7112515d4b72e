"""The command `ann-snn sweep`, and the report of a sweep: what they take, check, show and write."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from .sweep import Failure, Outcome
from .sweep_grid import Sweep
from .sweep_plan import Plan

# Modules that import torch or papermill are imported by the functions that need them: --help answers at once.
_REPORT = "06_compare_runs"


def _summary(plan: Plan) -> str:
    make, shared, done = (plan.count(state) for state in ("make", "shared", "done"))
    runs = f"{len(plan.steps)} run{'s' * (len(plan.steps) > 1)}"
    return f"sweep {plan.sweep.name}: {runs}; {make} stages to make, {shared} to share, {done} done already"


def plan_text(plan: Plan) -> str:
    """Give a plan as text: a line for each run, with the state of each of its stages."""
    from ..tables import aligned

    numbers = {run: f"as {number}" for number, run in enumerate(plan.steps, 1)}
    rows = [("", "run", *(notebook.stem for notebook in plan.sweep.notebooks))]
    width = max(map(len, numbers))
    for number, (run, steps) in enumerate(plan.steps.items(), 1):
        said = (numbers.get(step.donor, f"as {step.donor}") if step.donor else step.state for step in steps)
        rows.append((str(number), f"{run:{width}}", *said))
    return "\n".join([_summary(plan), *aligned(rows), "nothing was run: leave out --dry-run to run it"])


def _make(plan: Plan, options: argparse.Namespace, folder: Path) -> int:
    import joblib

    from ..runs.folder import runs_root, sweep_folder
    from .kernels import fresh_kernel, warm_kernel
    from .progress import View
    from .sweep import await_marks, data_of, make_sweep, workers, write_results, write_sweep

    write_sweep(plan.sweep)
    # Not fewer where less is left to make: the number of threads changes the last digits of a training.
    jobs = options.jobs or joblib.cpu_count()
    steps = {
        (run, step.notebook.stem, data_of(plan, run))
        for run, own in plan.steps.items()
        for step in own
        if step.state != "done"
    }
    started, seconds, outcomes = time.monotonic(), 0.0, []
    try:
        if steps:
            with (
                workers(jobs, options.dask, options.threads) as chosen,
                View(
                    {run: runs_root() / run for run in plan.steps},
                    steps,
                    chosen.settings["ANN_SNN_SWEEP"],
                    chosen.jobs,
                ) as view,
            ):
                jobs = chosen.jobs
                view.done = sum(all(step.state == "done" for step in own) for own in plan.steps.values())
                for outcome in make_sweep(plan, chosen, view, options.pages):
                    outcomes.append(outcome)
                    _show(outcome, plan, view)
                seconds = time.monotonic() - started
                page = _page(plan.sweep, folder, lambda: warm_kernel(chosen.settings))
        else:
            page = _page(plan.sweep, folder, fresh_kernel)
    except KeyboardInterrupt as interrupt:
        await_marks(plan)
        rows = write_results(plan.sweep)
        done = sum(row["state"] == "done" for row in rows)
        interrupt.add_note(f"{done} of {len(rows)} runs are whole; the same command goes on")
        raise
    rows = write_results(plan.sweep)
    print("\n" + sweep_report(plan.sweep.name))
    if outcomes:
        print(_spent(outcomes, seconds, jobs))
    for label, path in (("table", sweep_folder(plan.sweep.name) / "results.csv"), ("page", page)):
        if path:
            print(f"{label:<6} {path}")
    failures = [outcome.failure for outcome in outcomes if outcome.failure]
    if failures:
        print(_listed(failures), file=sys.stderr)
    return int(bool(failures) or any(row["state"] != "done" for row in rows))


def _show(outcome: Outcome, plan: Plan, view: Any) -> None:
    for made in outcome.made:
        view.stage(outcome.run, made.notebook, made.seconds if made.how == "made" else None)
    last = plan.steps[outcome.run][-1].notebook.stem
    if outcome.failure:
        view.failed += 1
        view.drop(outcome.run)
        view.line(f"{outcome.run}  FAILED in {outcome.failure.notebook}: {outcome.failure.error[:200]}")
        return
    if any(made.notebook == last for made in outcome.made):
        view.done += 1
    parts = [
        f"{made.notebook} {made.seconds:.1f} s" if made.how == "made" else f"{made.notebook} {made.how}"
        for made in outcome.made
        if made.how != "kept"
    ]
    if any(made.how == "made" for made in outcome.made) or any(made.notebook == last for made in outcome.made):
        view.line(f"[{view.done}/{len(view.runs)}] {outcome.run}  {', '.join(parts)}")


def _spent(outcomes: Iterable[Outcome], seconds: float, jobs: int) -> str:
    made = [made for outcome in outcomes for made in outcome.made if made.how == "made"]
    shared = [made for outcome in outcomes for made in outcome.made if made.how == "shared"]
    compute, spent = sum(stage.compute for stage in made), sum(stage.seconds for stage in made)
    if not made:
        return f"{len(shared)} stages shared, none made, in {seconds:.0f} s"
    return (
        f"{len(made)} stages made and {len(shared)} shared in {seconds:.0f} s, {jobs} at a time; computing "
        f"{compute:.0f} s, overhead {spent - compute:.0f} s ({(spent - compute) / max(compute, 0.1):.0%}), "
        f"{(spent - compute) / len(made):.1f} s a stage"
    )


def _listed(failures: Sequence[Failure]) -> str:
    lines = [f"\n{len(failures)} runs failed or were left out:"]
    for failure in failures:
        cell = "" if failure.cell is None else f", cell {failure.cell}"
        lines.append(f"  {failure.run}: {failure.notebook}{cell}: {failure.error}")
        if failure.path:
            lines.append(f"    executed notebook: {failure.path}")
    return "\n".join(lines)


def _page(asked: Sweep, folder: Path, kernel: Callable[[], AbstractContextManager[Any]]) -> Path | None:
    from ..runs.folder import sweep_folder
    from .execute import NotebookFailed, execute
    from .pages import export_html

    notebook = folder / f"{_REPORT}.ipynb"
    target = sweep_folder(asked.name)
    results = (target.parents[1] / run / "results.json" for run in asked.runs)
    if not notebook.is_file() or not any(path.is_file() for path in results):
        return None
    page = target / "html" / f"{_REPORT}.html"
    try:
        return export_html(execute(notebook, target, {"sweep": asked.name}, kernel=kernel), page)
    except (NotebookFailed, ValueError) as error:
        print(f"ann-snn: the sweep's page could not be made: {error}", file=sys.stderr)
        return None


def sweep_report(name: str) -> str:
    """Give the results of a sweep as text: a line for each run, and what of it differs from the others."""
    from ..tables import aligned
    from .sweep import read_results

    varied, rows = read_results(name)
    shown = {
        "ANN %": "accuracy.ann",
        "QANN %": "accuracy.qann",
        "SNN %": "accuracy.snn.silence",
        "silent at": "silence_step",
        "mismatches": "mismatches",
        "spikes/image": "spikes_per_sample",
    }
    present = {label: column for label, column in shown.items() if any(column in row for row in rows)}
    lines = [("run", *varied, *present, "state")]
    for row in rows:
        cells = (_cell(label, row.get(column)) for label, column in present.items())
        lines.append((row["run"], *(str(row.get(parameter, "–")) for parameter in varied), *cells, row["state"]))
    notes: dict[str, list[str]] = {}
    for row in rows:
        if row["mixed"]:
            note = f"other {row['mixed']} than most runs; do not mix their results"
            notes.setdefault(note, []).append(row["run"])
        if row["around"]:
            notes.setdefault(row["around"], []).append(row["run"])
    said = [f"  {_some(runs)}: {note}" for note, runs in notes.items()]
    return "\n".join([f"sweep {name}", *aligned(lines), *said])


def _some(names: Sequence[str], most: int = 2) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _cell(label: str, value: Any) -> str:
    if not isinstance(value, int | float):
        return "–"
    if label.endswith("%"):
        return f"{100 * value:.2f}"
    return f"{value:,.0f}" if isinstance(value, float) else f"{value:,}"
