"""Training, full precision and quantized alike, that can stop at any epoch and go on as if it had not.

A checkpoint holds the state of a training between two epochs; another process can go on from it.
"""

from __future__ import annotations

import copy
import hashlib
import time
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from ..checks import RULES, check, expect, seeded_generator
from ..data.augment import AUGMENTATIONS, augment
from ..data.dataset import Dataset
from ..files import load_tensors, save_tensors
from .device import on_cpu, pick_device, precision
from .network import ANN, raw_weight
from .notation import NetworkSpec
from .optimizer import Optimizer
from .reference import evaluate

# Networks whose training was broken off, with its checkpoint and the fingerprint of the weights that it began with:
# a cell of a notebook that is run again is given what it has already changed.
_BROKEN_OFF: WeakKeyDictionary[ANN, tuple[Path, str]] = WeakKeyDictionary()


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
    metadata = {"settings": settings, "history": history, "schedules": schedules, "groups": groups}
    save_tensors(path, tensors, metadata)


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
    # What checkpoints were trained with that were written before these were settings.
    before = {"schedule": "one-cycle", "momentum": None, "freeze_encoder": False}
    before |= {name: settings[name] for name in ("data", "first_weights", "teacher") if name in settings}
    saved = before | saved
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
        moments = optimizer.state[parameter]
        if any(value.ndim and value.shape != parameter.shape for value in moments.values()):
            raise ValueError("the optimizer's state is that of another network")
        for key, value in moments.items():
            # Steps in one pass take weights and moments in one order of memory; files have another.
            moments[key] = torch.empty_like(parameter).copy_(value) if value.shape == parameter.shape else value


def fingerprint(ann: ANN) -> str:
    """Tells a network's weights from others: a digest of all its tensors."""
    digest = hashlib.sha256()
    for name, tensor in sorted(ann.state_dict().items()):
        digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def set_seed(seed: int) -> None:
    """Seed every generator of torch, so that networks built next start from the same weights."""
    torch.manual_seed(check("seed", seed))


def batch_sizes(spec: NetworkSpec, images: int, batch_size: int) -> list[int]:
    """Images of each step of an epoch. A last one that would be alone joins those before, where it has to.

    Batch norm of a 1×1 map has one value a channel and image, and of a single value there is no variance. Raises
    ValueError where that leaves no step.

    >>> batch_sizes(NetworkSpec("4C3-16", (1, 8, 8), 10), images=9, batch_size=4)
    [4, 5]
    """
    sizes = [batch_size] * (images // batch_size) + [images % batch_size] * (images % batch_size > 0)
    if all(layer.out_shape[1:] != (1, 1) for layer in spec.layers):
        return sizes
    if min(batch_size, images) < 2:
        name, value = ("batch_size", batch_size) if batch_size < 2 else ("images", images)
        raise ValueError(f"{name}={value}: batch norm of layers with 1×1 maps takes two images a step; give more")
    if sizes[-1] == 1:
        sizes[-2:] = [sizes[-2] + 1]
    return sizes


@on_cpu
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
    schedule: str = "one-cycle",
    momentum: float | None = None,
    freeze_encoder: bool = False,
    teacher: ANN | None = None,
    distillation: float = 0.0,
    checkpoint: str | Path | None = None,
    device: str = "auto",
    validation: Dataset | None = None,
    progress: bool = True,
) -> list[dict]:
    """Train `ann` in place and give its history: one row an epoch with loss, accuracies and seconds.

    dataset         uint8 images, kept on the device and augmented there; where they are larger than the
                    network takes, it trains on random crops of them
    augmentation    one of `AUGMENTATIONS`
    optimizer, schedule, momentum   as `Optimizer` says; `learning_rate` is the largest
    freeze_encoder  leave the first layer's filters as they are
    distillation    share of the loss, 0 … 1, that takes the class probabilities of `teacher`, a trained
                    network for the same images, for labels
    checkpoint      file written after every epoch; where it exists, training goes on from it to exactly the
                    state that an uninterrupted run would have reached
    device          where to train, as `pick_device` says; the network goes back to where it was
    validation      evaluated after every epoch: training images that were held out, never the test set
    progress        show a bar, and print a line for each epoch

    Raises ValueError that names a wrong argument, or a checkpoint that belongs to another training.
    """
    given: dict[str, Any] = {name: value for name, value in locals().items() if name in RULES}
    expect(ANN, ann=ann)
    expect(Dataset, dataset=dataset)
    given = {
        name: None if name == "momentum" and value is None else check(name, value) for name, value in given.items()
    }
    epochs, batch_size, seed, momentum = (given[name] for name in ("epochs", "batch_size", "seed", "momentum"))
    learning_rate, weight_decay = given["learning_rate"], given["weight_decay"]
    label_smoothing, distillation = given["label_smoothing"], given["distillation"]
    if (teacher is None) != (distillation == 0):
        raise ValueError(f"distillation={distillation}: give it and a teacher, or neither")
    _check_fit(ann, dataset, validation, teacher)
    sizes = batch_sizes(ann.spec, len(dataset), batch_size)
    home, target = ann.classifier.weight.device, pick_device(device)
    ann.to(target).to(memory_format=torch.channels_last).train()
    images, labels = dataset.images.to(target), dataset.labels.to(target)
    encoder = raw_weight(ann.layers[0].conv).requires_grad_(not freeze_encoder)
    mover = Optimizer(ann, optimizer, learning_rate, weight_decay, epochs * len(sizes), schedule, momentum)
    if teacher is not None:
        teacher = copy.deepcopy(teacher).to(target).to(memory_format=torch.channels_last).eval()
    generator = seeded_generator(seed)
    settings = {
        "spec": ann.spec.to_dict(),
        "dataset": dataset.name,
        "images": len(dataset),
        "data": dataset.sha256,
        "freeze_encoder": freeze_encoder,
        **given,
    }
    # Drawn before a checkpoint sets the generator, so that it is the same half again.
    alternating = AUGMENTATIONS[augmentation].flip == "alternating"
    half = torch.rand(len(dataset), generator=generator) < 0.5 if alternating else None
    history: list[dict] = []
    if checkpoint:
        path = Path(checkpoint).resolve()
        broken_off, first = _BROKEN_OFF.get(ann, (None, ""))
        if broken_off != path or not path.exists():
            first = fingerprint(ann)
        _BROKEN_OFF[ann] = path, first
        settings |= {"first_weights": first, "teacher": teacher and fingerprint(teacher)}
        if path.exists():
            history = resume(checkpoint, settings, ann, mover, generator)
    steps, done = epochs * len(sizes), len(history) * len(sizes)
    bar = tqdm(total=steps, initial=done, unit="step", leave=False, disable=not progress, mininterval=0.5)
    for epoch in range(len(history) + 1, epochs + 1):
        bar.set_description(f"epoch {epoch}/{epochs}", refresh=False)
        started, loss_sum = time.perf_counter(), torch.zeros((), device=target)
        correct = torch.zeros((), dtype=torch.int64, device=target)
        order = torch.randperm(len(dataset), generator=generator).split(sizes)
        for chosen in order:
            rows = chosen.to(target)
            mirrored = None if half is None else half[chosen] ^ (epoch % 2 == 0)
            batch = augment(images[rows], augmentation, generator, ann.spec.in_shape[1:], mirrored)
            loss, logits = training_step(ann, mover, batch, labels[rows], label_smoothing, teacher, distillation)
            loss_sum += loss * len(rows)
            correct += (logits.argmax(1) == labels[rows]).sum()
            bar.update()
        row: dict[str, float] = {
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
            tqdm.write(epoch_line(row, epochs))
    bar.close()
    _BROKEN_OFF.pop(ann, None)
    encoder.requires_grad_(True)
    ann.to(home).eval()
    return history


def _check_fit(ann: ANN, dataset: Dataset, validation: Dataset | None, teacher: ANN | None) -> None:
    """Raise ValueError where what a network is trained with has other images or classes than it takes."""
    (channels, *sides), (wanted, *size) = dataset.in_shape, ann.spec.in_shape
    too_small = any(side < needed for side, needed in zip(sides, size, strict=True))
    if channels != wanted or too_small or int(dataset.labels.max()) >= ann.spec.classes:
        raise ValueError(
            f"{dataset.name} has images {dataset.in_shape} and {len(dataset.classes)} classes, the network "
            f"takes {ann.spec.in_shape} and {ann.spec.classes}: build it for this data set"
        )
    if validation is not None and validation.in_shape != ann.spec.in_shape:
        raise ValueError(
            f"validation has images {validation.in_shape}, the network takes {ann.spec.in_shape}: crop or resize"
        )
    ours, theirs = ((one.spec.in_shape, one.spec.classes) for one in (ann, teacher or ann))
    if ours != theirs:
        raise ValueError(f"teacher is for images and classes {theirs}, the network for {ours}: give it its own")


def epoch_line(row: dict[str, float], epochs: int) -> str:
    """A row of a training's history in words; the lines of one training stand below each other as a table.

    >>> epoch_line({"epoch": 2, "loss": 0.5, "train_accuracy": 0.9, "seconds": 1.25}, 15)
    'epoch 2/15    loss 0.5000   training  90.00 %     1.2 s'
    """
    place = f"epoch {row['epoch']}/{epochs}".ljust(len(f"epoch {epochs}/{epochs}"))
    shares = {"training": row["train_accuracy"], "validation": row.get("accuracy")}
    told = "".join(f"   {name} {100 * share:6.2f} %" for name, share in shares.items() if share is not None)
    return f"{place}   loss {row['loss']:.4f}{told}   {row['seconds']:5.1f} s"


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
