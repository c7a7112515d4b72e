"""What a result came from: versions, commit, machine, and a digest of the code that a notebook reads."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import _HOME
from .artifacts import ROOT
from .notebooks import parsed

PACKAGE = ROOT / "ann_snn_utils"
_LISTED = ("torch", "torchvision", "numpy", "scikit-learn", "safetensors", "numba", "plotly", "papermill")
# They show or record a result and cannot change it: editing them makes no finished stage outdated.
_SHOWING = {
    "figures", "explore", "provenance", "notebooks", "manifest", "runs", "report", "equations", "export",
    "execute", "batch", "commands", "bundle_command", "cli", "stage", "compare", "locks", "kernels", "unfinished",
    "stage_run", "run_table", "rehearsal", "workers", "sweep", "sweep_cells", "sweep_plan", "sweep_results",
    "sweep_view", "sweep_command", "sweep_file", "outcome", "collection", "ablation", "published_table",
    "evaluation", "pareto", "results_command",
}  # fmt: skip


@functools.cache
def versions() -> dict[str, str]:
    """Give the versions of Python, of this package and of the libraries that results depend on."""
    found = {"python": platform.python_version()}
    for name in ("ann-snn-utils", *_LISTED):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_state(root: Path = ROOT) -> dict[str, Any]:
    """Give {"commit": hash or None, "dirty": bool or None}; dirty tells of changes that are not committed.

    Both are None where `root` is not the top of a git repository, and the commit is None before the first.
    """

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=30, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    top = git("rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != root.resolve():
        return {"commit": None, "dirty": None}
    status = git("status", "--porcelain")
    commit = git("rev-parse", "--verify", "--quiet", "HEAD")
    return {"commit": commit, "dirty": None if status is None else bool(status)}


def machine() -> dict[str, Any]:
    """Give the facts of this machine that change speed or the last bits: processor, threads, accelerator."""
    import torch

    return {
        "system": platform.platform(terse=True),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def code_digest(
    notebook: str | os.PathLike[str], package: Path = PACKAGE, homes: Mapping[str, str] = _HOME
) -> str:
    """Give 16 hexadecimal digits that change with a notebook's code or the modules that it computes with.

    Text cells, figures and the machinery of runs are left out; imports are followed through the package.
    homes: the module of each name that the package itself offers.
    """
    cells = json.loads(Path(notebook).read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    files = {path.stem: path for path in package.glob("*.py") if path.stem not in _SHOWING | {"__init__"}}
    python = "\n".join(line for cell in code for line in cell.splitlines() if not line.startswith(("%", "!")))
    reached: set[str] = set()
    pending = _imported(python, package.name, set(files), homes)
    while pending:
        name = pending.pop()
        reached.add(name)
        pending |= _imported(files[name].read_text(encoding="utf-8"), package.name, set(files), homes) - reached
    digest = hashlib.sha256("\0".join(code).encode())
    for name in sorted(reached):
        digest.update(f"\0{name}\0".encode() + files[name].read_bytes())
    return digest.hexdigest()[:16]


def _imported(source: str, package: str, modules: set[str], homes: Mapping[str, str]) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(parsed(source)):
        if isinstance(node, ast.Import):
            dotted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(filter(None, [package if node.level else "", node.module]))
            dotted = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        for first, *rest in (name.split(".") for name in dotted):
            if first == package:
                # `from package import name`, and only that, goes through the package's table of names.
                named = set(rest[:1]) | ({homes[rest[0]]} if len(rest) == 1 and rest[0] in homes else set())
                # The bare package, or a name whose module is unknown, may stand for any of them.
                found |= named & modules if named & (modules | _SHOWING) else modules
    return found
