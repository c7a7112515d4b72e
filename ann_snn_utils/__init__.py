"""All-integer spiking neural networks, converted from quantized networks, with dynamic thresholds.

The rooms, from the ground up: `data` → `ann` → `snn` → `simulator` → `measure` → `figures`, `formats`, `hardware` →
`runs` → `explore`, `batch`, `bench`. The names below are imported when first used, so the import costs nothing.
"""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path

_MODULES = {
    "data.dataset": ("Dataset", "load_dataset"),
    "ann.device": ("pick_device",),
    "ann.notation": ("NETWORKS", "parse"),
    "ann.network": ("ANN", "build_ann", "copy_weights"),
    "ann.calibrate": ("layer_losses", "quantize"),
    "ann.reference": ("codes", "evaluate", "predict"),
    "ann.train": ("set_seed", "train"),
    "ann.store": ("load_ann", "load_pretrained", "save_ann"),
    "ann.tensorlayer": ("import_tensorlayer", "quantize_ends"),
    "snn.network": ("SNN",),
    "snn.conversion": ("convert", "convert_module"),
    "snn.certificate": ("certify",),
    "snn.store": ("load_snn", "save_snn"),
    "simulator.record": ("Record",),
    "simulator.run": ("simulate",),
    "measure.activity": ("accuracy",),
    "measure.energy": ("energy",),
    "measure.events": ("macs",),
    "measure.equivalence": ("Equivalence", "check_equivalence"),
    "measure.logs": ("write_logs",),
    "runs.gallery": ("save_network",),
    "hardware.bundle": ("write_bundle",),
}
# Read by torch before its first tensor: large maps in large pages, on Linux, make training steps a tenth shorter.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def _granted_cores(groups: Path = Path("/sys/fs/cgroup")) -> int | None:
    """How many cores' time the control group of a container grants, rounded up; None where it sets no limit."""
    try:
        if (limit := groups / "cpu.max").is_file():
            quota, period = limit.read_text().split()
        else:
            quota, period = ((groups / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return max(1, -(-int(quota) // int(period))) if int(quota) > 0 else None
    except (OSError, ValueError):
        return None


# Also before torch, which starts a thread for each core of the machine, or of those that taskset leaves it.
if (_granted := _granted_cores()) and _granted < (os.cpu_count() or 1):
    os.environ.setdefault("OMP_NUM_THREADS", str(_granted))
_HOME = {name: module for module, names in _MODULES.items() for name in names}
__all__ = sorted(_HOME)
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
