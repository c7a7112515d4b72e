"""Imported by the process that others are forked from, before the first: all they do has been done once."""

from __future__ import annotations

import os
import sys
import tempfile
import threading

from tqdm import tqdm

# What begins to use a GPU cannot be forked.
os.environ["CUDA_VISIBLE_DEVICES"] = ""

# Threads do not live on in a forked process: torch uses one, and numba, which has its own, is left out.
sys.modules["numba"] = None

# The lock of the progress bars is one for all forked processes: who is killed holding it stops all others.
tqdm.set_lock(threading.RLock())

import fault_work  # noqa: E402
import papermill  # noqa: E402, F401

import ann_snn_utils.batch.sweep  # noqa: E402, F401

fault_work.slowly()
with tempfile.TemporaryDirectory() as place:
    fault_work.train_and_convert(f"{place}/runs")
    fault_work.bundle(f"{place}/bundle")
