"""A study of three small notebooks whose stages count how often they are made, and can fail or wait."""

from __future__ import annotations

from pathlib import Path

from toy_notebooks import write_notebook

LOG = "made.log"
_OPENING = """
import os, time
from ann_snn_utils.files import atomic, save_json
from ann_snn_utils.runs.folder import require, run_folder
from ann_snn_utils.runs.manifest import record_stage
from ann_snn_utils.runs.folder import runs_root
folder = run_folder(run, create=True)
with open(runs_root() / "made.log", "a") as log:
    log.write(f"{stage} {run}\\n")
print(f"epoch 1/2 in {os.getpid()}", flush=True)
"""
_FIRST = """
stage = "01"
# %
while wait and not os.path.exists(wait):
    time.sleep(0.05)
assert seed != bad, "as asked"
with atomic(folder / "ann.safetensors") as temporary:
    temporary.write_text(f"ann {seed}")
record_stage(folder, "01_train_ann", parameters={"seed": seed}, artifacts=["ann.safetensors"], seconds=0.1)
"""
_SECOND = """
stage = "02"
# %
read = require(folder, "ann.safetensors").read_text()
with atomic(folder / "qann.safetensors") as temporary:
    temporary.write_text(read + f", k {k}")
record_stage(folder, "02_quantize", parameters={"k": k}, inputs=["ann.safetensors"], artifacts=["qann.safetensors"],
             seconds=0.1)
"""
_LAST = """
stage = "04"
# %
read = require(folder, "qann.safetensors").read_text()
save_json(folder / "results.json", {"run": run, "read": read, "accuracy": {"snn": {"silence": time_steps / 10}}})
record_stage(folder, "04_spike_analysis", parameters={"time_steps": time_steps, "seed": seed},
             inputs=["qann.safetensors"], artifacts=["results.json"], seconds=0.1)
"""


def write_study(folder: Path) -> Path:
    """Write the notebooks and give their folder; `wait` is a file to wait for, `bad` a seed that fails."""
    for name, parameters, code in (
        ("01_train_ann", 'run = ""\nseed = 0\nwait = ""\nbad = -1', _FIRST),
        ("02_quantize", 'run = ""\nk = 0', _SECOND),
        ("04_spike_analysis", 'run = ""\ntime_steps = 8\nseed = 0', _LAST),
    ):
        first, rest = code.split("# %")
        write_notebook(folder / f"{name}.ipynb", parameters, first + _OPENING, rest)
    write_notebook(folder / "05_explore.ipynb", 'run = ""', "print(run)")
    return folder


def made(runs: Path) -> list[str]:
    """Give the stages that were made, such as "01 name-of-run", each as often as that was begun."""
    return (runs / LOG).read_text().splitlines() if (runs / LOG).exists() else []


def numbers(runs: Path) -> str:
    """Give the numbers of the stages that were made, in order: "01 01 02"."""
    return " ".join(sorted(line.split()[0] for line in made(runs)))
