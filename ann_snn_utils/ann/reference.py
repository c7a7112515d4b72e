"""What a network computes, exactly: the integer codes that a spiking network must reach, and the classes it names.

Claims are judged in float64, where sums of a quantized network's integers are exact.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.dataset import Dataset, as_images
from .network import ANN


def in_float64(ann: ANN) -> ANN:
    """A copy on the CPU, in evaluation mode and float64: the reference for every claim."""
    return copy.deepcopy(ann).cpu().double().eval()


@torch.no_grad()
def reference_maps(reference: ANN, images: Tensor) -> Iterator[Tensor]:
    """Each layer's activations in turn, float64 [N, C, H, W]; reference: quantized, of `in_float64`."""
    x, unit = reference.scaled(images), 0
    for index, layer in enumerate(reference.layers):
        x = layer.activation(layer.norm(_sums(layer.conv, x, unit)))
        yield x
        unit = _units(reference, index)


def _units(ann: ANN, index: int) -> int:
    # The encoder counts in units of 1.
    return 2**ann.spec.k if index else 1


def _sums(conv: nn.Conv2d, x: Tensor, unit: int) -> Tensor:
    """The convolution of x, which holds multiples of 1/unit (anything where unit is 0)."""
    # Sums of integers below 2^24 are exact in float32 too, and several times faster there.
    weight = conv.weight
    if unit and torch.equal(weight, weight.round()):
        counts = x * unit
        if float(weight.abs().sum((1, 2, 3)).max() * counts.max()) < 2**24:
            sums = F.conv2d(counts.float(), weight.float(), None, conv.stride, tuple(map(int, conv.padding)))
            return sums.double() / unit
    return conv(x)


@torch.no_grad()
def codes(ann: ANN, images: Tensor | np.ndarray | Dataset, batch_size: int = 250) -> tuple[list[Tensor], Tensor]:
    """The integer code of every activation, evaluated in float64, and the logits.

    Codes are int64 [N, C, H, W], one tensor per layer, encoder first: the activation in units of 2^-k (of 1
    for the encoder). Logits are float64 [N, classes]. Raises ValueError for a network that is not quantized.
    """
    if not ann.spec.quantized:
        raise ValueError("codes: a full-precision network has no integer codes; build it with quantized=True")
    reference = in_float64(ann)
    batches: list[list[Tensor]] = []
    for batch in as_images(images, ann.spec.in_shape).cpu().split(batch_size):
        maps = list(reference_maps(reference, batch))
        outputs = [(x * _units(ann, index)).round().long() for index, x in enumerate(maps)]
        batches.append([*outputs, reference.classifier(maps[-1])])
    *layers, logits = (torch.cat(parts) for parts in zip(*batches, strict=True))
    return layers, logits


@torch.no_grad()
def predict(
    ann: ANN, images: Tensor | np.ndarray | Dataset, dtype: torch.dtype | None = None, batch_size: int = 250
) -> Tensor:
    """The class of each uint8 image, int64 [N].

    dtype: None evaluates a quantized network in float64 on the CPU, where its codes are those that a spiking
    network must reach, and a full-precision one in float32 where it lies.
    """
    images = as_images(images, ann.spec.in_shape)
    if dtype == torch.float64 or (dtype is None and ann.spec.quantized):
        reference = in_float64(ann)
        forward = _reference_logits if ann.spec.quantized else ANN.forward
        logits = [forward(reference, batch.cpu()) for batch in images.split(batch_size)]
    else:
        mode, device = ann.training, ann.layers[0].norm.weight.device
        ann.eval()
        logits = [ann(batch.to(device)).double().cpu() for batch in images.split(batch_size)]
        ann.train(mode)
    # NumPy promises the first of equal maxima; torch does not.
    return torch.from_numpy(torch.cat(logits).numpy().argmax(1))


def _reference_logits(reference: ANN, images: Tensor) -> Tensor:
    return reference.classifier(deque(reference_maps(reference, images), maxlen=1).pop())


def evaluate(ann: ANN, dataset: Dataset, dtype: torch.dtype | None = None) -> int:
    """The number of images of a data set that the network classifies correctly; dtype as in `predict`."""
    return int((predict(ann, dataset.images, dtype) == dataset.labels).sum())
