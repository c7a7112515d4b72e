"""Training, full precision and quantized alike, that can stop at any epoch and go on as if it had not.

The state of a training between two epochs, in a file that another process can go on from.

What moves the weights in training: AdamW, or Muon for the weights of the layers and AdamW for all else.

Muon (K. Jordan et al., 2024) steps in orthogonal matrices, and learns in fewer epochs.
"""

from __future__ import annotations

import copy
import time
from contextlib import nullcontext
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR
from tqdm.auto import tqdm

from ..checks import checked_seed
from ..checks import generator as seeded
from ..data.augment import RECIPES, augment
from ..data.dataset import Dataset
from ..files import load_tensors, save_tensors
from .network import ANN, raw_weight
from .reference import evaluate

OPTIMIZERS = ("adamw", "muon")

# AdamW steps by so much, Muon by a share of the weights: where the one takes 0.003, the other takes 0.05.
_MUON_RATE = 50 / 3

# Of the iteration that makes a matrix orthogonal. More take time, and bring nothing.
_ITERATIONS = 3


class Optimizer:
    """The optimizers of one training, each with a one-cycle schedule over `steps` steps, as one.

    With name "muon", batch norm must follow every weight that it moves: weights keep a norm of 1 an output
    channel, on average, and steps are relative to that.
    """

    def __init__(self, ann: ANN, name: str, learning_rate: float, weight_decay: float, steps: int) -> None:
        weights = [raw_weight(layer.conv) for layer in ann.layers] if name == "muon" else []
        self._matrices = [(weight, _as_matrix(weight)) for weight in weights]
        moved = {id(weight) for weight in weights}
        others = [parameter for parameter in ann.parameters() if id(parameter) not in moved]
        # In one pass over the weights where they lie, where the device can.
        fused = others[0].device.type in ("cpu", "cuda")
        self.each: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(others, learning_rate, weight_decay=weight_decay, fused=fused)
        ]
        if weights:
            matrices = [matrix for _, matrix in self._matrices]
            rate = learning_rate * _MUON_RATE
            self.each.append(torch.optim.Muon(matrices, rate, weight_decay=0.0, ns_steps=_ITERATIONS))
        self.schedules = [OneCycleLR(each, each.defaults["lr"], steps, pct_start=0.2) for each in self.each]

    @torch.no_grad()
    def step(self) -> None:
        """Move the weights along their gradients, the schedules by one step, and forget the gradients."""
        for weight, matrix in self._matrices:
            matrix.grad = weight.grad.permute(0, 2, 3, 1).reshape(matrix.shape)
        for each, schedule in zip(self.each, self.schedules, strict=True):
            each.step()
            schedule.step()
            each.zero_grad(set_to_none=True)
        for weight, matrix in self._matrices:
            weight.grad = None
            matrix.mul_(len(matrix) ** 0.5 / matrix.norm().clamp(min=1e-12))


def _as_matrix(weight: nn.Parameter) -> nn.Parameter:
    """Give [outputs, all else] over the memory of a weight [O, I, H, W], which from now on lies channels last."""
    outputs, inputs, height, width = weight.shape
    rows: Tensor = weight.detach().permute(0, 2, 3, 1).reshape(outputs, -1).clone()
    weight.data = rows.view(outputs, height, width, inputs).permute(0, 3, 1, 2)
    return nn.Parameter(rows)


def save_checkpoint(
    path: str | Path,
    settings: dict[str, Any],
    ann: ANN,
    optimizer: Optimizer,
    generator: torch.Generator,
    history: list[dict],
) -> None:
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
    # Checkpoints of earlier versions do not say which images they saw.
    saved = {"data": settings["data"]} | saved
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
        prefix, total = f"optimizer.{which}.", schedule.total_steps
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith(prefix):
                index, key = name.removeprefix(prefix).split(".")
                state.setdefault(int(index), {})[key] = tensor
        _restore_optimizer(each, state, group)
        schedule.load_state_dict(cycle)
        if (schedule.total_steps, schedule.last_epoch * epochs) != (total, len(found) * total):
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
    optimizer: str = "adamw",
    teacher: ANN | None = None,
    distillation: float = 0.0,
    checkpoint: str | Path | None = None,
    device: str = "auto",
    validation: Dataset | None = None,
    progress: bool = True,
) -> list[dict]:
    """Train `ann` in place and give its history: one row an epoch with loss, accuracies and seconds.

    One-cycle schedule up to `learning_rate`. dataset: uint8 images, kept on the device and augmented there;
    where they are larger than the network takes, it trains on random crops of them. optimizer: "adamw" or
    "muon", see `Optimizer`. distillation: share of the loss, 0 … 1, that takes the class probabilities of
    `teacher`, a trained network for the same images, for labels.
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
    for name, value, known in (("augmentation", augmentation, RECIPES), ("optimizer", optimizer, OPTIMIZERS)):
        if value not in known:
            raise ValueError(f"{name}={value!r}: choose one of {', '.join(known)}")
    if not isinstance(distillation, Real) or not 0 <= distillation <= 1:
        raise ValueError(f"distillation={distillation!r:.40}: give a number from 0 to 1")
    if (teacher is None) != (distillation == 0):
        raise ValueError(f"distillation={distillation}: give it and a teacher, or neither")
    if not isinstance(label_smoothing, Real) or not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing={label_smoothing!r:.40}: give a number from 0 to less than 1")
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
    mover = Optimizer(ann, optimizer, learning_rate, weight_decay, epochs * steps)
    if teacher is not None:
        teacher = copy.deepcopy(teacher).to(target, memory_format=torch.channels_last).eval()
    generator = seeded(seed)
    settings = {
        "spec": ann.spec.to_dict(),
        "dataset": dataset.name,
        "images": len(dataset),
        "data": dataset.sha256,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "weight_decay": weight_decay,
        "seed": seed,
        "augmentation": augmentation,
        "label_smoothing": label_smoothing,
        "optimizer": optimizer,
        "distillation": distillation,
    }
    history: list[dict] = []
    if checkpoint and Path(checkpoint).exists():
        history = resume(checkpoint, settings, ann, mover, generator)
    for epoch in range(len(history) + 1, epochs + 1):
        started, loss_sum = time.perf_counter(), torch.zeros((), device=target)
        correct = torch.zeros((), dtype=torch.int64, device=target)
        order = torch.randperm(len(dataset), generator=generator).to(target).split(batch_size)
        for rows in tqdm(order, f"epoch {epoch}/{epochs}", leave=False, disable=not progress, mininterval=0.5):
            batch = augment(images[rows], augmentation, generator, tuple(size))
            loss, logits = training_step(ann, mover, batch, labels[rows], label_smoothing, teacher, distillation)
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
            save_checkpoint(checkpoint, settings, ann, mover, generator, history)
        if progress:
            tqdm.write(" ".join(f"{k} {v:.4g}" if k != "epoch" else f"epoch {v}/{epochs}" for k, v in row.items()))
    ann.eval()
    return history


def training_step(
    ann: ANN,
    optimizer: Optimizer,
    batch: Tensor,
    labels: Tensor,
    label_smoothing: float = 0.0,
    teacher: ANN | None = None,
    distillation: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Move the weights by one batch of uint8 images and give its loss and its logits [N, classes]."""
    with precision(batch.device):
        batch = batch.to(memory_format=torch.channels_last)
        logits = ann(batch)
        loss = F.cross_entropy(logits.float(), labels, label_smoothing=label_smoothing)
        if teacher is not None:
            with torch.no_grad():
                wanted = teacher(batch).float().softmax(1)
            loss = (1 - distillation) * loss + distillation * F.cross_entropy(logits.float(), wanted)
    loss.backward()
    optimizer.step()
    return loss.detach(), logits.detach()
