"""What progressive sizes, larger batches and frozen first filters bring on CIFAR-10.

`python data/sweeps/progressive.py OUT.json` writes which share of 5,000 held-out
training images is right after equal epochs of the recipe, for three seeds. Settings
may be named behind it. `cost` in place of a file prints the milliseconds of a step of each kind on this machine.
"""

import json
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ann_snn_utils import build_ann, copy_weights, evaluate, set_seed, train
from ann_snn_utils.ann.device import pick_device
from ann_snn_utils.ann.initialise import initialise
from ann_snn_utils.ann.network import ANN, raw_weight
from ann_snn_utils.ann.optimizer import Optimizer
from ann_snn_utils.ann.recipes import recipe
from ann_snn_utils.ann.train import training_step
from ann_snn_utils.data.augment import augment
from ann_snn_utils.data.dataset import Dataset, load_splits

NETWORK = "32C3-64C3-P2-128C3-P2-256C3-256C3-P2-256"
EPOCHS, SEEDS = (8, 16), (0, 1, 2)
PLAN = recipe("cifar10").training(quantized=False)

# Name → sides of the images with their share of the epochs, the batch, whether first filters are frozen.
SETTINGS = {
    "whole images": (((32, 1.0),), 200, True),
    "first filters trained": (((32, 1.0),), 200, False),
    "half at 16 × 16": (((16, 0.5), (32, 0.5)), 200, True),
    "half at 24 × 24": (((24, 0.5), (32, 0.5)), 200, True),
    "16, 24, then 32": (((16, 0.25), (24, 0.25), (32, 0.5)), 200, True),
    "batches of 500": (((32, 1.0),), 500, True),
    "batches of 1000": (((32, 1.0),), 1000, True),
}


def network_for(side: int) -> ANN:
    return build_ann(NETWORK, (3, side, side), 10, quantized=False, padding="same")


def resized(images: Tensor, side: int) -> Tensor:
    if side == images.shape[-1]:
        return images
    smaller = F.interpolate(images.float(), size=(side, side), mode="bilinear", antialias=True, align_corners=False)
    return smaller.round().clamp(0, 255).byte()


@torch.no_grad()
def grown(ann: ANN, side: int) -> ANN:
    """The network for larger images: a weight over a whole map is spread over the larger one."""
    larger = network_for(side).to(ann.classifier.weight.device)
    own, state = larger.state_dict(), {}
    for name, tensor in ann.state_dict().items():
        if tensor.shape != own[name].shape:
            outputs, inputs, height, width = tensor.shape
            spread = F.interpolate(tensor, size=own[name].shape[2:])
            tensor = spread * (height * width / (own[name].shape[2] * own[name].shape[3]))
        state[name] = tensor
    larger.load_state_dict(state)
    return larger


def trained(training: Dataset, setting: str, epochs: int, seed: int) -> tuple[ANN, float]:
    """One training whose learning rate falls linearly over all sizes, and the seconds that it took."""
    sizes, batch_size, frozen = SETTINGS[setting]
    set_seed(seed)
    device = pick_device()
    ann = network_for(sizes[0][0])
    initialise(ann, "whitened", resized(training.images[:5000], sizes[0][0]))
    ann = ann.to(device)
    images, labels = training.images.to(device), training.labels.to(device)
    generator = torch.Generator().manual_seed(seed)
    half = torch.rand(len(training), generator=generator) < 0.5
    steps = len(training) // batch_size
    total, epoch, began = epochs * steps, 0, time.perf_counter()
    for side, share in sizes:
        if side != ann.spec.in_shape[1]:
            ann = grown(ann, side)
        ann = ann.to(memory_format=torch.channels_last).train()
        raw_weight(ann.layers[0].conv).requires_grad_(not frozen)
        left = total - epoch * steps
        rate = PLAN["learning_rate"] * left / total
        mover = Optimizer(ann, PLAN["optimizer"], rate, 1e-2, left, PLAN["schedule"], PLAN["momentum"])
        for _ in range(round(share * epochs)):
            epoch += 1
            order = torch.randperm(len(training), generator=generator)[: steps * batch_size]
            for chosen in order.split(batch_size):
                mirrored = half[chosen] ^ (epoch % 2 == 0)
                batch = augment(images[chosen.to(device)], PLAN["augmentation"], generator, (32, 32), mirrored)
                training_step(ann, mover, resized(batch, side), labels[chosen.to(device)], PLAN["label_smoothing"])
    raw_weight(ann.layers[0].conv).requires_grad_(True)
    return ann.to("cpu").eval(), time.perf_counter() - began


def frozen_ternary(ann: ANN, training: Dataset, held_out: Dataset, epochs: int, seed: int, frozen: bool) -> float:
    """Accuracy of ternary weights from a network of full precision, whose first filters move or not."""
    set_seed(seed)
    qann = build_ann(NETWORK, (3, 32, 32), 10, padding="same", levels=2, clip=3)
    copy_weights(ann, qann)
    plan = recipe("cifar10").training(quantized=True) | {"epochs": epochs, "freeze_encoder": frozen}
    train(qann, training, **plan, seed=seed, progress=False)
    return evaluate(qann, held_out) / len(held_out)


def cost() -> None:
    """Print milliseconds of a step for each size and batch: the median of seven, after two."""
    kinds = ((32, 200, True), (32, 200, False), (24, 200, True), (16, 200, True), (32, 500, True), (32, 1000, True))
    for side, batch_size, frozen in kinds:
        set_seed(0)
        ann = network_for(side).to(memory_format=torch.channels_last).train()
        raw_weight(ann.layers[0].conv).requires_grad_(not frozen)
        mover = Optimizer(ann, PLAN["optimizer"], 1e-3, 1e-2, 100, PLAN["schedule"], PLAN["momentum"])
        batch = torch.randint(0, 256, (batch_size, 3, side, side), dtype=torch.uint8)
        labels = torch.randint(0, 10, (batch_size,))
        seconds = []
        for _ in range(9):
            began = time.perf_counter()
            training_step(ann, mover, batch, labels, 0.2)
            seconds.append(time.perf_counter() - began)
        step = sorted(seconds[2:])[3]
        print(
            f"{side:3} pixels, batch {batch_size:4}, first filters {'frozen' if frozen else 'trained'}: "
            f"{1000 * step:6.0f} ms, {1e6 * step / batch_size:5.0f} µs an image"
        )


def main() -> None:
    """Run every setting and write what came out after each."""
    if sys.argv[1:] == ["cost"]:
        return cost()
    target, *only = sys.argv[1:]
    rows: list[dict] = []
    training, held_out = load_splits("cifar10", held_out=5000)
    for epochs in EPOCHS:
        for seed in SEEDS:
            for setting in only or SETTINGS:
                ann, seconds = trained(training, setting, epochs, seed)
                row = {"setting": setting, "epochs": epochs, "seed": seed, "seconds": round(seconds, 1)}
                row["accuracy"] = evaluate(ann, held_out) / len(held_out)
                if setting == "whole images":
                    for frozen in (False, True):
                        row[f"ternary, first filters {'frozen' if frozen else 'trained'}"] = frozen_ternary(
                            ann, training, held_out, epochs, seed, frozen
                        )
                rows.append(row)
                Path(target).write_text(json.dumps(rows, indent=1))
    return None


if __name__ == "__main__":
    main()
