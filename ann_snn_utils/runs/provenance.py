"""What a result came from: versions, commit, machine, and a digest of the code that a notebook reads."""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import _HOME
from ..files import ROOT, cpu_info
from .parameters import code_cells, parsed, python

PACKAGE = ROOT / "ann_snn_utils"

_LISTED = ("torch", "torchvision", "numpy", "scikit-learn", "safetensors", "numba", "plotly", "papermill")

# The rooms that compute, from the ground up: each imports only from those before it. The others show or record a
# result and cannot change it: editing them makes no finished stage outdated.
_COMPUTING = ("files", "checks", "data", "ann", "snn", "simulator", "measure", "hardware", "formats")
# Their files, with the test bench and the page that notebook 08 lays into a bundle.
_READ = (".py", ".c", ".h", ".v", ".md")
_SHOWING = ("figures", "explore", "runs", "batch", "bench", "tables", "cli", "__main__")


@functools.cache
def versions() -> dict[str, str]:
    """Versions of Python, of this package and of the libraries that results depend on."""
    found = {"python": platform.python_version()}
    for name in ("ann-snn-utils", *_LISTED):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def versions_line() -> str:
    """The versions that decide a result's numbers, in one line for the head of a notebook."""
    named = ("python", "ann-snn-utils", "torch", "numpy", "numba")
    return " · ".join(f"{name} {version}" for name, version in versions().items() if name in named)


def git_state(root: Path = ROOT) -> dict[str, Any]:
    """{"commit": hash or None, "dirty": bool or None}; dirty tells of changes that are not committed.

    Both are None where `root` is not the top of a git repository, and the commit is None before the first.
    """

    # All in one process, which does not look for a repository above.
    command = ["git", "-C", str(root), "status", "--porcelain=v2", "--branch", "--no-ahead-behind"]
    below = os.environ | {"GIT_CEILING_DIRECTORIES": str(root.resolve().parent)}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True, env=below)
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "dirty": None}
    first, *lines = done.stdout.splitlines()
    commit = first.removeprefix("# branch.oid ")
    return {"commit": None if commit == "(initial)" else commit, "dirty": any(line[0] != "#" for line in lines)}


def machine() -> dict[str, Any]:
    """Facts of this machine that change speed or the last bits: processor, threads, accelerator.

    Those of torch are told where this process has used it.
    """
    named = (line.partition(":")[2].strip() for line in cpu_info() if line.startswith("model name"))
    processor = next(named, "") or platform.processor() or platform.machine()
    own = {"system": platform.platform(terse=True), "processor": processor, "cores": os.cpu_count()}
    torch = sys.modules.get("torch")
    if torch is None:
        return own
    return own | {
        "torch_threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def code_digest(notebook: str | os.PathLike[str], package: Path = PACKAGE, homes: Mapping[str, str] = _HOME) -> str:
    """16 hexadecimal digits that change with a notebook's code or the rooms that it computes with.

    These are the rooms that it imports from, and all below them; text cells and the rooms that only show are left
    out. homes: the module of each name that the package itself offers.
    """
    # Not the parameters, whose values are part of what is asked of a stage.
    code = code_cells(notebook, without="parameters")
    digest = hashlib.sha256("\0".join(code).encode())
    for room in _COMPUTING[: _height(python(code), package.name, homes)]:
        for path in sorted([package / f"{room}.py", *(package / room).rglob("*")]):
            if path.suffix in _READ and path.is_file():
                digest.update(f"\0{path.relative_to(package).as_posix()}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _height(source: str, package: str, homes: Mapping[str, str]) -> int:
    """How many of the computing rooms, from the ground up, a source stands on."""
    height = 0
    for node in ast.walk(parsed(source)):
        dotted = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        if isinstance(node, ast.ImportFrom):
            dotted = [f"{node.module}.{name}" for name in dotted]
        for name in (f"{name}." for name in dotted if f"{name}.".startswith(f"{package}.")):
            own = name.split(".")[1]
            room = homes.get(own, own).split(".")[0]
            if room not in _SHOWING:
                # The bare package, or a name that it does not list, may stand for any of its rooms.
                height = max(height, 1 + _COMPUTING.index(room) if room in _COMPUTING else len(_COMPUTING))
    return height
