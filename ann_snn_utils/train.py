"""Training, full precision and quantized alike, that can stop at any epoch and go on as if it had not."""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from .artifacts import load_tensors, save_tensors
from .augment import RECIPES, augment
from .data import Dataset
from .models import ANN
from .prediction import evaluate
from .seeds import checked_seed
from .seeds import generator as seeded


@dataclass(frozen=True)
class Recipe:
    """Epochs of the full-precision and the quantized training of a data set, and its augmentation."""

    ann_epochs: int
    qann_epochs: int
    augmentation: str


DEFAULTS = {
    "digits": Recipe(15, 25, "shift"),
    "mnist": Recipe(6, 14, "shift"),
    "fashion_mnist": Recipe(8, 16, "shift"),
    "cifar10": Recipe(30, 30, "shift-flip"),
}


def recipe(dataset: str) -> Recipe:
    """Give the default recipe of a data set by name; image folders and unknown names train like CIFAR-10."""
    return DEFAULTS.get(dataset, DEFAULTS["cifar10"])


def pick_device(name: str = "auto") -> torch.device:
    """Give the device called `name`; "auto" takes CUDA, then MPS, then the CPU. ValueError if it is absent."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device={name!r} cannot be used here ({error}); choose 'auto' or 'cpu'") from None
    return torch.device(name)


def precision(device: torch.device):
    """Give the autocast context to train in: bfloat16 where the device multiplies it fast, else float32."""
    fast = {
        "cuda": lambda: torch.cuda.is_bf16_supported(including_emulation=False),
        "cpu": lambda: torch.ops.mkldnn._is_mkldnn_bf16_supported() and torch.cpu._is_avx512_bf16_supported(),
    }
    if fast.get(device.type, lambda: False)():
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()


def set_seed(seed: int) -> None:
    """Seed every generator of torch, so that networks built next start from the same weights."""
    torch.manual_seed(checked_seed(seed))


def train(
    ann: ANN,
    dataset: Dataset,
    *,
    epochs: int,
    batch_size: int = 200,
    learning_rate: float = 3e-3,
    weight_decay: float = 1e-2,
    seed: int = 0,
    augmentation: str = "none",
    label_smoothing: float = 0.0,
    checkpoint: str | Path | None = None,
    device: str = "auto",
    validation: Dataset | None = None,
    progress: bool = True,
) -> list[dict]:
    """Train `ann` in place and give its history: one row an epoch with loss, accuracies and seconds.

    AdamW with a one-cycle schedule. dataset: uint8 images, kept on the device and augmented there; where they
    are larger than the network takes, it trains on random crops of them.
    checkpoint: file written after every epoch; where it exists, training goes on from it to exactly the
    state that an uninterrupted run would have reached. validation: evaluated after every epoch.
    Raises ValueError that names a wrong argument, or a checkpoint that belongs to another training.
    """
    for name, value in (("epochs", epochs), ("batch_size", batch_size)):
        if not isinstance(value, Integral) or value < 1:
            raise ValueError(f"{name}={value!r:.40}: give a whole number above 0")
    for name, value, lowest in (("learning_rate", learning_rate, 1e-12), ("weight_decay", weight_decay, 0.0)):
        if not isinstance(value, Real) or not lowest <= value <= 1e6:
            raise ValueError(f"{name}={value!r:.40}: give a number from {lowest:g} to 1e6")
    if not isinstance(label_smoothing, Real) or not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing={label_smoothing!r:.40}: give a number from 0 to less than 1")
    if augmentation not in RECIPES:
        raise ValueError(f"augmentation={augmentation!r}: choose one of {', '.join(RECIPES)}")
    (channels, *sides), (wanted, *size) = dataset.in_shape, ann.spec.in_shape
    too_small = any(side < needed for side, needed in zip(sides, size, strict=True))
    if channels != wanted or too_small or int(dataset.labels.max()) >= ann.spec.classes:
        raise ValueError(
            f"{dataset.name} has images {dataset.in_shape} and {len(dataset.classes)} classes, the network "
            f"takes {ann.spec.in_shape} and {ann.spec.classes}: build it for this data set"
        )
    target = pick_device(device)
    ann.to(target, memory_format=torch.channels_last).train()
    images, labels = dataset.images.to(target), dataset.labels.to(target)
    steps = -(-len(dataset) // batch_size)
    optimizer = optimizer_of(ann, learning_rate, weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, epochs * steps, pct_start=0.2)
    generator = seeded(seed)
    settings = {
        "spec": ann.spec.to_dict(), "dataset": dataset.name, "images": len(dataset), "epochs": epochs,
        "batch_size": batch_size, "learning_rate": learning_rate, "weight_decay": weight_decay, "seed": seed,
        "augmentation": augmentation, "label_smoothing": label_smoothing,
    }  # fmt: skip
    history: list[dict] = []
    if checkpoint and Path(checkpoint).exists():
        history = _resume(checkpoint, settings, ann, optimizer, schedule, generator)
    for epoch in range(len(history) + 1, epochs + 1):
        started, loss_sum = time.perf_counter(), torch.zeros((), device=target)
        correct = torch.zeros((), dtype=torch.int64, device=target)
        order = torch.randperm(len(dataset), generator=generator).to(target).split(batch_size)
        for rows in tqdm(order, f"epoch {epoch}/{epochs}", leave=False, disable=not progress, mininterval=0.5):
            batch = augment(images[rows], augmentation, generator, tuple(size))
            loss, logits = training_step(ann, optimizer, batch, labels[rows], label_smoothing)
            schedule.step()
            loss_sum += loss * len(rows)
            correct += (logits.argmax(1) == labels[rows]).sum()
        row = {
            "epoch": epoch,
            "loss": float(loss_sum) / len(dataset),
            "train_accuracy": int(correct) / len(dataset),
            "seconds": round(time.perf_counter() - started, 2),
        }
        if not row["loss"] < float("inf"):
            raise ValueError(f"the loss is {row['loss']} in epoch {epoch}: choose a smaller learning_rate")
        if validation is not None:
            row["accuracy"] = evaluate(ann, validation, torch.float32) / len(validation)
        history.append(row)
        if checkpoint:
            _save(checkpoint, settings, ann, optimizer, schedule, generator, history)
        if progress:
            tqdm.write(" ".join(f"{k} {v:.4g}" if k != "epoch" else f"epoch {v}/{epochs}" for k, v in row.items()))
    ann.eval()
    return history


def optimizer_of(ann: ANN, learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """Give AdamW over the network's weights where they lie, each updated in one pass where the device can."""
    fused = ann.layers[0].norm.weight.device.type in ("cpu", "cuda")
    return torch.optim.AdamW(ann.parameters(), learning_rate, weight_decay=weight_decay, fused=fused)


def training_step(
    ann: ANN, optimizer: torch.optim.Optimizer, batch: Tensor, labels: Tensor, label_smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Move the weights by one batch of uint8 images and give its loss and its logits [N, classes]."""
    with precision(batch.device):
        logits = ann(batch.to(memory_format=torch.channels_last))
        loss = F.cross_entropy(logits.float(), labels, label_smoothing=label_smoothing)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return loss.detach(), logits.detach()


def _save(path, settings, ann, optimizer, schedule, generator, history) -> None:
    tensors = {f"ann.{name}": tensor for name, tensor in ann.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": tensor for name, tensor in state.items()}
    tensors["generator"] = generator.get_state()
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    plain = (bool, int, float, str, list, tuple, type(None))
    cycle = {name: value for name, value in schedule.state_dict().items() if isinstance(value, plain)}
    groups = [{k: v for k, v in group.items() if isinstance(v, plain)} for group in optimizer.param_groups]
    groups = [{k: v for k, v in group.items() if k != "params"} for group in groups]
    save_tensors(path, tensors, {"settings": settings, "history": history, "schedule": cycle, "groups": groups})


def _resume(path, settings, ann, optimizer, schedule, generator) -> list[dict]:
    tensors, metadata = load_tensors(path)
    saved = metadata.get("settings")
    if not isinstance(saved, dict):
        raise ValueError(f"{path} is no checkpoint of a training: remove it to train from the start")
    differing = [name for name in settings if saved.get(name) != settings[name]]
    if differing:
        pairs = ((name, saved.get(name), settings[name]) for name in differing)
        listed = ", ".join(f"{name}: {there!r:.80} there, {here!r:.80} here" for name, there, here in pairs)
        raise ValueError(f"{path} belongs to another training ({listed}); remove it, or name another run")
    try:
        return _restore(tensors, metadata, ann, optimizer, schedule, generator)
    # torch raises nearly anything for a state that is not its own.
    except Exception as error:
        raise ValueError(
            f"{path} is damaged ({type(error).__name__}: {str(error):.200}): remove it to train from the start"
        ) from None


def _restore(tensors, metadata, ann, optimizer, schedule, generator) -> list[dict]:
    needed, found = optimizer.param_groups[0]["params"], metadata["history"]
    total, epochs = schedule.total_steps, metadata["settings"]["epochs"]
    if not all(torch.isfinite(tensor).all() for tensor in tensors.values()):
        raise ValueError("a value is not finite")
    if [row["epoch"] for row in found] != list(range(1, len(found) + 1)):
        raise ValueError("its history is not that of whole epochs")
    ann.load_state_dict({n.removeprefix("ann."): t for n, t in tensors.items() if n.startswith("ann.")})
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            state.setdefault(int(index), {})[key] = tensor
    # How the device steps is its own matter, not the checkpoint's.
    saved = [{k: v for k, v in g.items() if k not in ("fused", "foreach")} for g in metadata["groups"]]
    groups = [g | new for g, new in zip(optimizer.state_dict()["param_groups"], saved, strict=True)]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    for group in optimizer.param_groups:
        group["betas"] = tuple(group["betas"])
    for parameter, kept in optimizer.state.items():
        # Steps in one pass take weights and moments in one order of memory; files have another.
        for key, value in kept.items():
            kept[key] = torch.empty_like(parameter).copy_(value) if value.shape == parameter.shape else value
    schedule.load_state_dict(metadata["schedule"])
    if (schedule.total_steps, schedule.last_epoch * epochs) != (total, len(found) * total):
        raise ValueError("its schedule is that of another training")
    generator.set_state(tensors["generator"])
    for parameter in needed:
        if any(value.ndim and value.shape != parameter.shape for value in optimizer.state[parameter].values()):
            raise ValueError("the optimizer's state is that of another network")
    return list(found)
