"""What a network computes, exactly: the integer codes that a spiking network must reach, and the classes it names.

Claims are judged in float64, where sums of a quantized network's integers are exact.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.dataset import Dataset, as_images
from .graph import Branch
from .network import ANN, Layer, MaxPool, Shortcut, averaged, taken
from .notation import NetworkSpec


def in_float64(ann: ANN) -> ANN:
    """A copy on the CPU, in evaluation mode and float64: the reference for every claim."""
    return copy.deepcopy(ann).cpu().double().eval()


@torch.no_grad()
def reference_counts(reference: ANN, images: Tensor) -> Iterator[Tensor]:
    """Each layer's integer codes in turn, float64 [N, C, H, W]; reference: quantized, of `in_float64`."""
    graph, values = reference.spec.graph, {-1: reference.scaled(images)}
    for index, layer in enumerate(reference.layers):
        if isinstance(layer, MaxPool):
            values[index] = layer(values[layer.spec.sources[0]])
        else:
            parts = [layer, layer.shortcut][: len(layer.spec.branches)]
            pairs = zip(parts, layer.spec.branches, strict=True)
            total = torch.stack([_branch(part, branch, values, reference.spec) for part, branch in pairs]).sum(0)
            values[index] = (layer.activation(total) / reference.spec.step(index)).round()
        yield values[index]
        for source in graph.read_last_by(index):
            del values[source]


def _branch(part: Layer | Shortcut | None, branch: Branch, counts: dict[int, Tensor], spec: NetworkSpec) -> Tensor:
    """What a branch of a layer adds, of the counts of its sources; part: None for the identity."""
    if branch.sources == (-1,):
        assert part is not None
        return part.norm(part.conv(counts[-1]))
    area, total = branch.average**2, torch.zeros(())
    for step in dict.fromkeys(map(spec.step, branch.sources)):
        # Sums over windows, and of integers, are exact; what a count is worth comes last.
        of_step = {s: counts[s] * (spec.step(s) == step) for s in branch.sources}
        sums = (taken(branch, of_step) * area).round()
        total = total + (sums if part is None else _sums(part.conv, sums)) * (step / area)
    return total if part is None else part.norm(total)


def _sums(conv: nn.Conv2d, counts: Tensor) -> Tensor:
    """The convolution of whole numbers."""
    # Sums of integers below 2^24 are exact in float32 too, and several times faster there.
    weight = conv.weight
    if torch.equal(weight, weight.round()):
        if float(weight.abs().sum((1, 2, 3)).max() * counts.abs().max()) < 2**24:
            geometry: Any = conv.stride, conv.padding, conv.dilation, conv.groups
            return F.conv2d(counts.float(), weight.float(), None, *geometry).double()
    return conv(counts)


def _logits(reference: ANN, counts: Tensor) -> Tensor:
    """Logits of the last layer's counts."""
    classifier, average = reference.classifier, reference.spec.graph.read_out.average
    sums = F.linear((averaged(counts, average) * average**2).round().flatten(1), classifier.weight)
    return (sums if classifier.bias is None else sums + classifier.whole_bias) * classifier.count * classifier.scale


@torch.no_grad()
def codes(ann: ANN, images: Tensor | np.ndarray | Dataset, batch_size: int = 250) -> tuple[list[Tensor], Tensor]:
    """The integer code of every activation, evaluated in float64, and the logits.

    Codes are int64 [N, C, H, W], one tensor per layer, encoder first: the activation in units of 2^-k (of 1 for the
    encoder), or of the layer's own step in a given graph. Logits are float64 [N, classes]. Raises ValueError for a
    network that is not quantized.
    """
    if not ann.spec.quantized:
        raise ValueError("codes: a full-precision network has no integer codes; build it with quantized=True")
    reference = in_float64(ann)
    batches: list[list[Tensor]] = []
    for batch in as_images(images, ann.spec.in_shape).cpu().split(batch_size):
        counts = list(reference_counts(reference, batch))
        batches.append([*(count.long() for count in counts), _logits(reference, counts[-1])])
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
    return _logits(reference, deque(reference_counts(reference, images), maxlen=1).pop())


def evaluate(ann: ANN, dataset: Dataset, dtype: torch.dtype | None = None) -> int:
    """The number of images of a data set that the network classifies correctly; dtype as in `predict`."""
    return int((predict(ann, dataset.images, dtype) == dataset.labels).sum())
