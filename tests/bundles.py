"""Small bundles, and the two readers that check them as a user would: as programs of their own."""

from __future__ import annotations

import functools
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from networks import random_ann, random_images

from ann_snn_utils.data.dataset import Dataset
from ann_snn_utils.hardware.bundle import READERS, write_bundle
from ann_snn_utils.snn.conversion import convert

FLAGS = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-O1", "-fsanitize=undefined,address", "-fno-sanitize-recover"]
# Removed when the tests end.
COMPILED = tempfile.TemporaryDirectory(prefix="ann-snn-reader-")


def dataset(images: torch.Tensor, classes: int = 3) -> Dataset:
    labels = torch.arange(len(images)) % classes
    return Dataset("random", "test", images, labels, tuple(f"class {c}" for c in range(classes)))


def small_bundle(folder: Path, seed: int = 3, samples: int = 2, **arguments) -> Path:
    ann = random_ann(seed, **arguments)
    snn = convert(ann, max_levels=512)
    return write_bundle(snn, dataset(random_images(seed, ann.spec.in_shape, samples)), folder)


@functools.cache
def c_reader() -> str:
    """The reader in C, compiled once with every warning an error and with the sanitizers on."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler is installed, so the reader in C is not tested")
    program = Path(COMPILED.name) / "run_bundle"
    command = [compiler, *FLAGS, "-o", program, READERS / "run_bundle.c"]
    done = subprocess.run(command, capture_output=True, text=True)
    if "sanitize" in done.stderr or "asan" in done.stderr:
        pytest.skip(f"this compiler has no sanitizers: {done.stderr[:200]}")
    assert done.returncode == 0, done.stderr
    return str(program)


def check_in_c(folder: Path) -> subprocess.CompletedProcess:
    return subprocess.run([c_reader(), folder], capture_output=True, text=True, timeout=300)


def check_in_python(folder: Path) -> subprocess.CompletedProcess:
    # -I and -S: no site-packages, so that nothing but the standard library can be imported.
    command = [sys.executable, "-I", "-S", folder / "run_bundle.py"]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)
