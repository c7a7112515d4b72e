"""What a result came from: versions, commit, machine, and a digest of the code that a notebook reads."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import _HOME
from ..files import ROOT
from .parameters import code_cells, parsed, python

PACKAGE = ROOT / "ann_snn_utils"

_LISTED = ("torch", "torchvision", "numpy", "scikit-learn", "safetensors", "numba", "plotly", "papermill")

# Rooms that show or record a result and cannot change it: editing them makes no finished stage outdated.
_SHOWING = ("figures", "explore", "runs", "batch", "bench", "tables", "cli", "__main__")


@functools.cache
def versions() -> dict[str, str]:
    """Versions of Python, of this package and of the libraries that results depend on."""
    found = {"python": platform.python_version()}
    for name in ("ann-snn-utils", *_LISTED):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def versions_line() -> str:
    """The versions that decide a result's numbers, in one line for the head of a notebook."""
    named = ("python", "ann-snn-utils", "torch", "numpy", "numba")
    return " · ".join(f"{name} {version}" for name, version in versions().items() if name in named)


def git_state(root: Path = ROOT) -> dict[str, Any]:
    """{"commit": hash or None, "dirty": bool or None}; dirty tells of changes that are not committed.

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
    """Facts of this machine that change speed or the last bits: processor, threads, accelerator.

    Those of torch are told where this process has used it.
    """
    own = {"system": platform.platform(terse=True), "processor": _processor(), "cores": os.cpu_count()}
    torch = sys.modules.get("torch")
    if torch is None:
        return own
    return own | {
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


def code_digest(notebook: str | os.PathLike[str], package: Path = PACKAGE, homes: Mapping[str, str] = _HOME) -> str:
    """16 hexadecimal digits that change with a notebook's code or the modules that it computes with.

    Text cells, figures and the machinery of runs are left out; imports are followed through all other rooms.
    homes: the module of each name that the package itself offers.
    """
    # Not the parameters, whose values are part of what is asked of a stage.
    code = code_cells(notebook, without="parameters")
    files = _modules(package)
    reached: set[str] = set()
    pending = _imported(python(code), package.name, files, homes)
    while pending:
        module = pending.pop()
        reached.add(module)
        source = files[module].read_text(encoding="utf-8")
        own = module.split(".") if files[module].name == "__init__.py" else module.split(".")[:-1]
        pending |= _imported(source, package.name, files, homes, own) - reached
    digest = hashlib.sha256("\0".join(code).encode())
    for module in sorted(reached):
        digest.update(f"\0{module}\0".encode() + files[module].read_bytes())
    # What a module compiles lies beside it.
    for path in sorted({path for module in reached for path in files[module].parent.glob("*.[ch]")}):
        digest.update(f"\0{path.name}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _modules(package: Path) -> dict[str, Path]:
    """The file of every module below the package that can change a result, by its dotted name."""
    found = {}
    for path in package.rglob("*.py"):
        parts = path.relative_to(package).with_suffix("").parts
        if parts[0] not in (*_SHOWING, "__init__"):
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def _imported(
    source: str, package: str, files: Mapping[str, Path], homes: Mapping[str, str], own: Sequence[str] = ()
) -> set[str]:
    """The modules of `files` that a source imports; own: the room it lies in, for relative imports."""
    found: set[str] = set()
    for node in ast.walk(parsed(source)):
        if isinstance(node, ast.Import):
            dotted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = [package, *own[: len(own) - node.level + 1]] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            dotted = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        for first, *rest in (name.split(".") for name in dotted):
            if first == package and (not rest or rest[0] not in _SHOWING):
                # `from package import name`, and only that, goes through the package's table of names.
                path = homes[rest[0]].split(".") if len(rest) == 1 and rest[0] in homes else rest
                known = (".".join(path[:end]) for end in range(len(path), 0, -1))
                module = next((name for name in known if name in files), None)
                # The bare package, or a name whose module is unknown, may stand for any of them.
                found |= set(files) if module is None else {module}
    return found
