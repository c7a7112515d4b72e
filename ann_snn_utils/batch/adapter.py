"""Today's sweep under the names that the command line calls; goes when the engine has them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from .sweep_grid import build_sweep, parse_settings, read_sweep, rehearse
from .sweep_plan import Plan, plan_sweep
from .sweep_report import _make, plan_text, sweep_report
from .sweep_report import _summary as plan_summary

__all__ = ["make_sweep", "plan_summary", "plan_text", "run_sweep", "sweep_report"]


def make_sweep(
    file: str | None,
    settings: Sequence[str],
    zipped: Sequence[str],
    notebooks: str | None,
    name: str | None,
    folder: Path,
) -> Plan:
    """The plan of the sweep that a file and the texts of --set and --zip ask for."""
    content: dict[str, Any] = read_sweep(file) if file else {}
    filed = {**content.get("set", {}), **content.get("zip", {})}
    for key, given in (("set", settings), ("zip", zipped)):
        extra = parse_settings(given, f"--{key}")
        twice = [name for name in extra if name in filed]
        if twice:
            raise ValueError(f"{twice[0]} is given in {file} and by --{key}: give it once")
        content[key] = {**content.get(key, {}), **extra}
    if not content["set"] and not content["zip"]:
        raise ValueError("a sweep needs a YAML file, or --set name=value,value,…")
    asked = build_sweep(
        content, folder, notebooks, name or content.get("name") or (Path(file).stem if file else None)
    )
    rehearse(asked.runs, asked.notebooks)
    return plan_sweep(asked)


def run_sweep(plan: Plan, folder: Path, **how: Any) -> int:
    """Make what is missing of a plan, and return the exit code."""
    return _make(plan, SimpleNamespace(**how), folder)  # type: ignore[arg-type]
