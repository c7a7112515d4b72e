"""The kernel as a shared library: compiled for this processor at its first use, within a second, and kept.

The compiler is the clang of the package `ziglang`, which pip installs and which needs nothing of the system.
"""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import tempfile
from collections.abc import Iterator
from functools import lru_cache
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

from ...files import cpu_info

_SOURCE = Path(__file__).with_name("kernel.c")

# Sums wrap around while they are formed, and arrays are read as vectors. There may be no C library: none is used.
_FLAGS = ("-std=c11", "-O3", "-fwrapv", "-fno-strict-aliasing", "-ffreestanding", "-fno-builtin")

# The processor to compile for.
_PROCESSOR = "native"

_Pointer, _Integer = ctypes.c_void_p, ctypes.c_int64


def compiler() -> str | None:
    """The path of the compiler, or None where there is none."""
    package = find_spec("ziglang")
    if not package or not package.submodule_search_locations:
        return None
    return str(Path(package.submodule_search_locations[0]) / ("zig.exe" if os.name == "nt" else "zig"))


@lru_cache(maxsize=1)
def hindrance() -> str | None:
    """Why there can be no kernel here, or None where there is one."""
    if compiler() is None:
        return "there is no compiler for it (pip install ziglang)"
    try:
        kernel(16)
    except (OSError, RuntimeError) as error:
        return str(error)
    return None


@lru_cache(maxsize=3)
def kernel(membrane_bits: int) -> ctypes.CDLL:
    """The kernel for membranes of 16, 32 or 64 bits. RuntimeError that shows why it cannot be had."""
    path = next(filter(None, (_compiled(folder, membrane_bits) for folder in _folders())))
    library = ctypes.CDLL(str(path))
    library.simulate.argtypes = [_Pointer, _Integer, _Pointer, _Integer, _Pointer, _Pointer]
    library.join.argtypes = [_Pointer, _Integer, _Integer, _Pointer, _Pointer]
    library.begin.argtypes = [_Pointer] * 2
    for nothing in (library.simulate, library.join, library.begin):
        nothing.restype = None
    library.room_of.argtypes, library.room_of.restype = [_Pointer], _Integer
    library.close_call.argtypes, library.close_call.restype = [_Pointer], _Integer
    library.group.argtypes, library.group.restype = [], _Integer
    return library


def group() -> int:
    """The number of pixels whose products the encoder adds in one instruction."""
    return kernel(16).group()


def _folders() -> Iterator[Path]:
    """Where the library may lie, until one folder can be written to: it is code, so none that others write to."""
    yield _SOURCE.parent / "__pycache__"
    yield Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ann-snn-utils"
    yield Path(tempfile.mkdtemp(prefix="ann-snn-"))


def _compiled(folder: Path, membrane_bits: int) -> Path | None:
    """The library in this folder, compiled where it is not there yet; None where nothing can be written there."""
    sources = [path.read_text(encoding="utf-8") for path in sorted(_SOURCE.parent.glob("*.[ch]"))]
    what = (sources, _FLAGS, _PROCESSOR, _processor(), compiler(), membrane_bits)
    digest = sha256(repr(what).encode()).hexdigest()[:16]
    path = folder / f"kernel-{digest}{'.dll' if os.name == 'nt' else '.so'}"
    if path.exists():
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(dir=folder)
    except OSError:
        return None
    with scratch:
        made = Path(scratch.name) / path.name
        _compile(made, membrane_bits)
        # Other processes find it whole or not at all.
        made.replace(path)
    return path


def _compile(target: Path, membrane_bits: int) -> None:
    # On Windows, large functions ask for their stack in code of the compiler's own, which takes seconds to build.
    bare = [] if os.name == "nt" else ["-fno-compiler-rt"]
    options = ["-dynamic", "-O", "ReleaseFast", f"-mcpu={_PROCESSOR}", *bare, "--name", "kernel"]
    flags = ["-cflags", *_FLAGS, f"-DMEMBRANE={membrane_bits}", "--"]
    command = [str(compiler()), "build-lib", *options, f"-femit-bin={target}", *flags, str(_SOURCE)]
    caches = {f"ZIG_{which}_CACHE_DIR": str(target.parent) for which in ("LOCAL", "GLOBAL")}
    done = subprocess.run(command, env=os.environ | caches, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"compiling {_SOURCE.name} failed:\n{done.stderr[-2000:]}")


def _processor() -> str:
    """What tells processors apart whose machine code differs: homes are shared between machines."""
    told = ("model name", "flags", "Features", "CPU part")
    lines = sorted({line for line in cpu_info() if line.startswith(told)})
    return "".join(lines) or f"{platform.machine()} {platform.processor()}"
