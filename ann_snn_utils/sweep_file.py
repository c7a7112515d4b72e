"""The file that a sweep leaves, sweeps/<name>/sweep.json: its notebooks, what varied, and its runs."""

from __future__ import annotations

import difflib
from typing import Any

from .artifacts import load_json
from .runs import SWEEPS, check_run_name, list_runs, run_folder, runs_root, sweep_folder

SWEEP_FILE = "sweep.json"


def list_sweeps() -> list[str]:
    """Give the names of all sweeps, in alphabetical order."""
    return sorted(path.parent.name for path in (runs_root() / SWEEPS).glob(f"*/{SWEEP_FILE}"))


def read_sweep_file(name: str) -> dict[str, Any]:
    """Give what a sweep asked for: name, notebooks, varied, and the parameters of each run.

    Raises FileNotFoundError, with the nearest names, where there is none of this name; ValueError for a damaged
    file.
    """
    path = sweep_folder(name) / SWEEP_FILE
    if not path.is_file():
        sweeps = list_sweeps()
        near = ", ".join(difflib.get_close_matches(name, sweeps, cutoff=0.3) or sweeps[:5]) or "none yet"
        raise FileNotFoundError(f"there is no sweep {name!r} in {runs_root()}: choose one that is there ({near})")
    asked = load_json(path)
    if not _is_sweep(asked):
        raise ValueError(f"{path} is not the file of a sweep: give the sweep's command again, which writes it anew")
    try:
        for run in asked["runs"]:
            check_run_name(run)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return asked


def _is_sweep(asked: Any) -> bool:
    if not isinstance(asked, dict):
        return False
    runs, *lists = (asked.get(name) for name in ("runs", "notebooks", "varied"))
    return (
        isinstance(runs, dict) and all(isinstance(parameters, dict) for parameters in runs.values())
        and all(isinstance(names, list) and all(isinstance(name, str) for name in names) for names in lists)
    )  # fmt: skip


def chosen_runs(selection: str) -> list[str]:
    """Give the runs of a sweep, or the runs whose names, separated by commas, are given; all for empty text.

    Raises FileNotFoundError for a name that is neither a sweep nor a run.
    """
    if not selection:
        return list_runs()
    if selection in list_sweeps():
        return list(read_sweep_file(selection)["runs"])
    names = [name.strip() for name in selection.split(",") if name.strip()]
    if len(names) == 1 and names[0] not in list_runs():
        read_sweep_file(names[0])
    return [run_folder(name).name for name in names]
