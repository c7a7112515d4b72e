"""The state of a training between two epochs, in a file that another process can go on from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .artifacts import load_tensors, save_tensors
from .models import ANN
from .optimizers import Optimizer


def save_checkpoint(
    path: str | Path, settings: dict[str, Any], ann: ANN, optimizer: Optimizer, generator: torch.Generator,
    history: list[dict],
) -> None:  # fmt: skip
    """Write all that a training needs to go on; settings: JSON values that say which training it is."""
    tensors = {f"ann.{name}": tensor for name, tensor in ann.state_dict().items()}
    plain = (bool, int, float, str, list, tuple, type(None))
    groups, schedules = [], []
    for which, (each, schedule) in enumerate(zip(optimizer.each, optimizer.schedules, strict=True)):
        for index, state in each.state_dict()["state"].items():
            tensors |= {f"optimizer.{which}.{index}.{name}": tensor for name, tensor in state.items()}
        (group,) = each.param_groups
        groups.append({k: v for k, v in group.items() if isinstance(v, plain) and k != "params"})
        schedules.append({k: v for k, v in schedule.state_dict().items() if isinstance(v, plain)})
    tensors["generator"] = generator.get_state()
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_tensors(
        path, tensors, {"settings": settings, "history": history, "schedules": schedules, "groups": groups}
    )


def resume(
    path: str | Path, settings: dict[str, Any], ann: ANN, optimizer: Optimizer, generator: torch.Generator
) -> list[dict]:
    """Bring a training to the state that a file holds, and give the history of its epochs.

    Raises ValueError for a file of another training, or a damaged one; it is left as it is.
    """
    tensors, metadata = load_tensors(path)
    saved = metadata.get("settings")
    if not isinstance(saved, dict):
        raise ValueError(f"{path} is no checkpoint of a training: remove it to train from the start")
    # Checkpoints of before there were these settings tell nothing of them.
    saved = {"schedule": "one-cycle", "momentum": None, "freeze_encoder": False} | saved
    differing = [name for name in settings if saved.get(name) != settings[name]]
    if differing:
        pairs = ((name, saved.get(name), settings[name]) for name in differing)
        listed = ", ".join(f"{name}: {there!r:.80} there, {here!r:.80} here" for name, there, here in pairs)
        raise ValueError(f"{path} belongs to another training ({listed}); remove it, or name another run")
    try:
        return _restore(tensors, metadata, ann, optimizer, generator)
    # torch raises nearly anything for a state that is not its own.
    except Exception as error:
        raise ValueError(
            f"{path} is damaged ({type(error).__name__}: {str(error):.200}): remove it to train from the start"
        ) from None


def _restore(
    tensors: dict[str, Tensor], metadata: dict[str, Any], ann: ANN, optimizer: Optimizer, generator: torch.Generator
) -> list[dict]:
    found, epochs = metadata["history"], metadata["settings"]["epochs"]
    if not all(torch.isfinite(tensor).all() for tensor in tensors.values()):
        raise ValueError("a value is not finite")
    if [row["epoch"] for row in found] != list(range(1, len(found) + 1)):
        raise ValueError("its history is not that of whole epochs")
    ann.load_state_dict({n.removeprefix("ann."): t for n, t in tensors.items() if n.startswith("ann.")})
    generator.set_state(tensors["generator"])
    parts = zip(optimizer.each, optimizer.schedules, metadata["groups"], metadata["schedules"], strict=True)
    for which, (each, schedule, group, cycle) in enumerate(parts):
        prefix = f"optimizer.{which}."
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith(prefix):
                index, key = name.removeprefix(prefix).split(".")
                state.setdefault(int(index), {})[key] = tensor
        _restore_optimizer(each, state, group)
        schedule.load_state_dict(cycle)
        total = getattr(schedule, "total_steps", optimizer.steps)
        if total != optimizer.steps or schedule.last_epoch * epochs != len(found) * total:
            raise ValueError("its schedule is that of another training")
    return list(found)


def _restore_optimizer(
    optimizer: torch.optim.Optimizer, state: dict[int, dict[str, Tensor]], group: dict[str, Any]
) -> None:
    # How the device steps is its own matter, not the checkpoint's.
    saved = {name: value for name, value in group.items() if name not in ("fused", "foreach")}
    saved |= {name: tuple(value) for name, value in saved.items() if isinstance(value, list)}
    (own,) = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": [own | saved]})
    for parameter in optimizer.param_groups[0]["params"]:
        kept = optimizer.state[parameter]
        if any(value.ndim and value.shape != parameter.shape for value in kept.values()):
            raise ValueError("the optimizer's state is that of another network")
        for key, value in kept.items():
            # Steps in one pass take weights and moments in one order of memory; files have another.
            kept[key] = torch.empty_like(parameter).copy_(value) if value.shape == parameter.shape else value
