"""No more threads than a process was granted: by taskset, by a container's control group, by OMP_NUM_THREADS."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import dask.system
import pytest

from ann_snn_utils import _granted_cores
from ann_snn_utils.batch import engine

COUNTS = """
import json, torch
from numba import get_num_threads
from dask.system import CPU_COUNT
from ann_snn_utils.data.folder import _THREADS
from ann_snn_utils.ann.fused import compiled_loops
with compiled_loops():
    print(json.dumps([torch.get_num_threads(), get_num_threads(), _THREADS, CPU_COUNT]))
"""


def counts(cores: set[int], **environment: str) -> list[int]:
    """Threads of torch, of compiled loops and of decoding, and stages at a time, of a process on these cores."""
    done = subprocess.run(
        [sys.executable, "-c", COUNTS],
        env={name: value for name, value in os.environ.items() if "NUM_THREADS" not in name} | environment,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no process to cores")
def test_a_process_bound_to_one_core_uses_one_thread_and_one_job() -> None:
    assert engine.CPU_COUNT is dask.system.CPU_COUNT
    assert counts({min(os.sched_getaffinity(0))}) == [1, 1, 1, 1]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no process to cores")
def test_the_number_of_threads_that_a_user_sets_is_kept_everywhere() -> None:
    assert counts(os.sched_getaffinity(0), OMP_NUM_THREADS="1")[:3] == [1, 1, 1]


@pytest.mark.parametrize(
    ("files", "granted"),
    [
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({}, None),
    ],
)
def test_a_container_grants_its_share_of_the_cores(tmp_path: Path, files: dict[str, str], granted: int | None):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert _granted_cores(tmp_path) == granted
