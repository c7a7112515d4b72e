"""All-integer spiking neural networks, converted from quantized networks, with dynamic thresholds.

Names are imported when they are first used, so that `import ann_snn_utils` costs nothing.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from types import ModuleType

_MODULES = {
    "data": ("Dataset", "load_dataset"),
    "notation": ("NETWORKS", "parse"),
    "models": ("ANN", "build_ann", "codes", "copy_weights", "load_ann", "save_ann"),
    "prediction": ("evaluate", "predict"),
    "train": ("pick_device", "set_seed", "train"),
    "convert": ("convert",),
    "snn": ("SNN", "load_snn", "save_snn"),
    "certificate": ("certify",),
    "record": ("Record",),
    "simulate": ("simulate",),
    "metrics": ("accuracy", "energy", "macs"),
    "equivalence": ("Equivalence", "check_equivalence"),
    "logs": ("write_logs",),
    "bundle": ("write_bundle",),
    "interop": ("import_tensorlayer", "quantize_ends"),
    "pretrained": ("load_pretrained",),
}
# Read by torch before its first tensor: large maps in large pages, on Linux, make training steps a tenth shorter.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
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


class _Package(ModuleType):
    """Keeps names such as `convert` functions: importing the module of that name would hide them."""

    def __setattr__(self, name: str, value: object) -> None:
        if name in _HOME and isinstance(value, ModuleType):
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
