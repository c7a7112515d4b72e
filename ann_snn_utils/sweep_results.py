"""A sweep's own files: what it asked for, and the table of its runs."""

from __future__ import annotations

from typing import Any

from .artifacts import save_json
from .run_table import run_row, with_differences, write_csv
from .runs import sweep_folder
from .sweep_cells import Sweep
from .sweep_file import SWEEP_FILE, read_sweep_file

TABLE_FILE = "results.csv"


def write_sweep(sweep: Sweep) -> None:
    """Write what a sweep asks for into its folder, sweeps/<name>/sweep.json."""
    save_json(sweep_folder(sweep.name) / SWEEP_FILE, {
        "name": sweep.name, "notebooks": [path.stem for path in sweep.notebooks], "varied": list(sweep.varied),
        "runs": {run: dict(parameters) for run, parameters in sweep.runs.items()},
    })  # fmt: skip


def read_results(name: str) -> tuple[list[str], list[dict[str, Any]]]:
    """Give the parameters that vary in a sweep, and a row for each of its runs as they are now."""
    asked = read_sweep_file(name)
    rows = [parameters | run_row(run, asked["notebooks"]) for run, parameters in asked["runs"].items()]
    return asked["varied"], with_differences(rows)


def write_results(sweep: Sweep) -> list[dict[str, Any]]:
    """Write the table of a sweep's runs, sweeps/<name>/results.csv, and give its rows."""
    rows = read_results(sweep.name)[1]
    write_csv(rows, sweep_folder(sweep.name) / TABLE_FILE)
    return rows
