"""Where networks are trained and simulated, and what that device multiplies fast."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ParamSpec, TypeVar

import torch

_Given = ParamSpec("_Given")
_Made = TypeVar("_Made")


def on_cpu(function: Callable[_Given, _Made]) -> Callable[_Given, _Made]:
    """The function, which makes its tensors on the CPU whatever `torch.set_default_device` says."""

    @functools.wraps(function)
    def called(*args: _Given.args, **named: _Given.kwargs) -> _Made:
        # The context costs a little at each operation.
        with nullcontext() if torch.get_default_device().type == "cpu" else torch.device("cpu"):
            return function(*args, **named)

    return called


def pick_device(name: str = "auto") -> torch.device:
    """The device called `name`; "auto" takes CUDA, then MPS, then the CPU. ValueError if it is absent."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device={name!r} cannot be used here ({error}); choose 'auto' or 'cpu'") from None
    return torch.device(name)


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 faster than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    has = torch.ops.mkldnn._is_mkldnn_bf16_supported() and torch.cpu._is_avx512_bf16_supported()
    return device.type == "cpu" and has


def precision(device: torch.device) -> AbstractContextManager[Any]:
    """The autocast context to train in: bfloat16 where the device multiplies it fast, else float32."""
    return torch.autocast(device.type, torch.bfloat16) if multiplies_bfloat16(device) else nullcontext()
