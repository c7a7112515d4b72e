"""How long a training step takes: quantized, full precision, and the convolutions of both alone."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .augment import augment
from .convolution import convolve
from .models import ANN, build_ann
from .notation import LayerSpec
from .optimizers import Optimizer
from .timing import interleaved, ratios, spread
from .train import pick_device, precision, training_step
from .workload import textures


def training_times(network: str, side: int, batch_size: int, repeats: int) -> dict[str, object]:
    """Give seconds per step, quantized, in full precision and of the convolutions alone, and their ratios.

    A step is what `train` does with a batch: augmentation, forward, loss, backward, optimizer. The convolutions
    run forward and backward, in the form that training gives them, on tensors that lie ready in its layout and
    precision.
    """
    device = pick_device("cpu")
    images, labels = textures(batch_size, side), torch.arange(batch_size) % 10
    jobs = {
        name: _step(build_ann(network, (3, side, side), 10, padding="same", quantized=name == "quantized"),
                    images, labels)
        for name in ("quantized", "full precision")
    }  # fmt: skip
    with precision(device):
        reduced = torch.is_autocast_enabled("cpu")
    dtype = torch.bfloat16 if reduced else torch.float32
    layers = build_ann(network, (3, side, side), 10, padding="same").spec.layers
    jobs["convolutions"] = _convolutions(layers, batch_size, dtype)
    seconds = interleaved(jobs, repeats)
    return {
        "network": network,
        "side": side,
        "batch_size": batch_size,
        "precision": str(dtype).removeprefix("torch."),
        "seconds": {name: spread(values) for name, values in seconds.items()},
        "quantized_to_convolutions": ratios(seconds["quantized"], seconds["convolutions"]),
        "quantized_to_full_precision": ratios(seconds["quantized"], seconds["full precision"]),
    }


def _step(ann: ANN, images: Tensor, labels: Tensor) -> Callable[[], None]:
    ann.to(memory_format=torch.channels_last).train()
    optimizer = Optimizer(ann, "adamw", 3e-3, 1e-2, steps=10**6)
    generator = torch.Generator().manual_seed(0)

    def step() -> None:
        training_step(ann, optimizer, augment(images, "shift-flip", generator), labels)

    return step


def _convolutions(layers: list[LayerSpec], batch_size: int, dtype: torch.dtype) -> Callable[[], None]:
    made = []
    for index, layer in enumerate(layers):
        channels, *kernel = layer.in_shape[0], *layer.kernel
        x = torch.randn(batch_size, *layer.in_shape, dtype=dtype).to(memory_format=torch.channels_last)
        weight = torch.randn(layer.out_shape[0], channels, *kernel, dtype=dtype)
        weight = weight.to(memory_format=torch.channels_last).requires_grad_()
        gradient = torch.randn(batch_size, *layer.out_shape, dtype=dtype).to(memory_format=torch.channels_last)
        made.append((x.requires_grad_(index > 0), weight, gradient, layer))

    def run() -> None:
        for x, weight, gradient, layer in made:
            y = convolve(x, weight, layer)
            torch.autograd.grad(y, [t for t in (x, weight) if t.requires_grad], gradient)

    return run
