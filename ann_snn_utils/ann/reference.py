"""What a network computes, exactly: the integer codes that a spiking network must reach, and the classes it names.

Claims are judged in float64, where sums of a quantized network's integers are exact.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checks import check, expect
from ..data.dataset import Dataset, as_images
from .device import pick_device
from .exact_sums import Sums, exact_sums
from .graph import Branch
from .network import ANN, Layer, MaxPool, Part, check_finite
from .notation import LARGEST_PIXEL

# What follows a layer's sums is formed in float64 of so many neurons · images at a time, which caches hold.
AT_ONCE = 2**17


def in_float64(ann: ANN) -> ANN:
    """A copy on the CPU, in evaluation mode and float64: the reference for every claim."""
    return copy.deepcopy(ann).cpu().double().eval()


@dataclass(frozen=True, eq=False)
class Reference:
    """A quantized network as it is judged: `network` in float64, and how the sums of each convolution are made."""

    network: ANN
    sums: dict[nn.Conv2d, Sums]

    @torch.no_grad()
    def counts(self, images: Tensor) -> Iterator[Tensor]:
        """Each layer's integer codes in turn, [N, C, H, W], of uint8 images [N, C, H, W].

        In int8 or int16 where that holds all codes that the layer can have, else in float64.
        """
        # Channels last, as sums of bytes are.
        values = {-1: images.cpu().contiguous(memory_format=torch.channels_last)}
        for index, layer in enumerate(self.network.layers):
            if isinstance(layer, MaxPool):
                before = values[layer.spec.sources[0]]
                # torch takes no maxima of maps with more places than their type can number; float32 holds bytes.
                values[index] = layer(before.float() if before.dtype == torch.int8 else before.double()).to(before)
            else:
                values[index] = self._codes(index, layer, values)
            yield values[index]
            for source in self.network.spec.graph.last_read[index]:
                del values[source]

    def _codes(self, index: int, layer: Layer, counts: dict[int, Tensor]) -> Tensor:
        """A layer's codes, of the counts of those before it."""
        branches = list(zip(layer.branch_modules, layer.spec.branches, strict=True))
        sums = [self._sums(*branch, counts) for branch in branches]
        step, dtype = self.network.spec.step(index), self._type(index)
        at_once = max(1, AT_ONCE // prod(layer.spec.out_shape))
        codes = []
        for start in range(0, len(counts[layer.spec.sources[0]]), at_once):
            some = [{s: one[start : start + at_once] for s, one in of_branch.items()} for of_branch in sums]
            first, *more = (self._added(*branch, own) for branch, own in zip(branches, some, strict=True))
            value = layer.activation(sum(more, first))
            codes.append((value if step == 1 else value.div_(step).round_()).to(dtype))
        return torch.cat(codes)

    def _sums(self, part: Part | None, branch: Branch, counts: dict[int, Tensor]) -> dict[float, Tensor]:
        """What a branch sums up of its sources' counts, by the step of these: whole numbers, if weights are.

        part: what holds the branch's weights; None for the identity.
        """
        spec = self.network.spec
        if branch.sources == (-1,) and not spec.has_whole_weights(0):
            assert part is not None
            return {1.0: part.conv(counts[-1].double() / LARGEST_PIXEL)}
        steps, sums = dict.fromkeys(map(spec.step, branch.sources)), {}
        for step in steps:
            # Of maps that are concatenated, those of another step are left out.
            maps = [counts[s] * (spec.step(s) == step) if len(steps) > 1 else counts[s] for s in branch.sources]
            whole = _window_sums(maps[0] if len(maps) == 1 else torch.cat(maps, 1), branch.average)
            sums[step] = whole if part is None else self.sums[part.conv](whole)
        return sums

    def _added(self, part: Part | None, branch: Branch, sums: dict[float, Tensor]) -> Tensor:
        """What a branch adds to a layer, float64, of its sums."""
        if branch.sources == (-1,):
            (total,) = sums.values()
            total = total.double() / LARGEST_PIXEL if self.network.spec.has_whole_weights(0) else total
        else:
            # What a count is worth comes last: sums over windows, and of integers, are exact.
            area = branch.average**2
            pairs = sums.items()
            first, *more = (one.double() if step == area else one.double() * (step / area) for step, one in pairs)
            total = sum(more, first)
        return total if part is None else part.norm(total)

    def _type(self, index: int) -> torch.dtype:
        least, largest = self.network.spec.counts(index)
        for dtype in (torch.int8, torch.int16):
            if largest is not None and torch.iinfo(dtype).min <= least and largest <= torch.iinfo(dtype).max:
                return dtype
        return torch.float64

    @torch.no_grad()
    def scores(self, counts: Tensor) -> Tensor:
        """Class scores [N, classes], whole numbers if weights are, of the last layer's counts [N, C, H, W]."""
        classifier, average = self.network.classifier, self.network.spec.graph.read_out.average
        sums = F.linear(_window_sums(counts, average).double().flatten(1), classifier.weight)
        return sums if classifier.bias is None else sums + classifier.whole_bias

    @torch.no_grad()
    def logits(self, counts: Tensor) -> Tensor:
        """Logits [N, classes] of the last layer's counts [N, C, H, W]."""
        return self.scores(counts) * self.network.classifier.count * self.network.classifier.scale


def _window_sums(counts: Tensor, size: int) -> Tensor:
    """Sums of counts [N, C, H, W] over windows of size × size."""
    return counts if size == 1 else F.avg_pool2d(counts.double(), size, divisor_override=1)


@torch.no_grad()
def reference_of(ann: ANN) -> Reference:
    """The reference for every claim about a quantized network; ValueError for another one, or values not finite."""
    expect(ANN, ann=ann)
    if not ann.spec.quantized:
        raise ValueError("codes: a full-precision network has no integer codes; build it with quantized=True")
    check_finite(ann, "network")
    network = in_float64(ann)
    return Reference(network, {part.conv: exact_sums(part.conv) for part in network.parts})


@torch.no_grad()
def codes(ann: ANN, images: Tensor | np.ndarray | Dataset, batch_size: int = 250) -> tuple[list[Tensor], Tensor]:
    """The integer code of every activation, evaluated in float64, and the logits.

    Codes are int64 [N, C, H, W], one tensor per layer, encoder first: the activation in units of 2^-k (of 1 for the
    encoder), or of the layer's own step in a given graph. Logits are float64 [N, classes]. Raises ValueError for a
    network that is not quantized.
    """
    reference = reference_of(ann)
    batches: list[list[Tensor]] = []
    for batch in as_images(images, ann.spec.in_shape).split(check("batch_size", batch_size)):
        counts = list(reference.counts(batch))
        batches.append([*(count.long() for count in counts), reference.logits(counts[-1])])
    *layers, logits = (torch.cat(parts) for parts in zip(*batches, strict=True))
    return layers, logits


@torch.no_grad()
def predict(
    ann: ANN, images: Tensor | np.ndarray | Dataset, dtype: torch.dtype | None = None, batch_size: int = 250
) -> Tensor:
    """The class of each uint8 image, int64 [N].

    dtype: None evaluates a quantized network in float64 on the CPU, where its codes are those that a spiking
    network must reach, and a full-precision one in float32, on the accelerator where there is one.
    """
    expect(ANN, ann=ann)
    images, batch_size = as_images(images, ann.spec.in_shape), check("batch_size", batch_size)
    if ann.spec.quantized and dtype in (None, torch.float64):
        reference = reference_of(ann)
        # Of all layers' counts only the last one's are needed.
        logits = [
            reference.logits(deque(reference.counts(some), maxlen=1).pop()) for some in images.split(batch_size)
        ]
    elif dtype == torch.float64:
        network = in_float64(ann)
        logits = [network(batch.cpu()) for batch in images.split(batch_size)]
    else:
        device = pick_device()
        network = copy.deepcopy(ann).to(device).eval()
        # By default, convolutions on CUDA round what they multiply to 10 bits.
        with torch.backends.cudnn.flags(allow_tf32=False), torch.autocast(device.type, enabled=False):
            logits = [network(batch.to(device)).cpu().double() for batch in images.split(batch_size)]
    # NumPy promises the first of equal maxima; torch does not.
    return torch.from_numpy(torch.cat(logits).numpy().argmax(1))


def evaluate(ann: ANN, dataset: Dataset, dtype: torch.dtype | None = None) -> int:
    """The number of images of a data set that the network classifies correctly; dtype as in `predict`."""
    expect(Dataset, dataset=dataset)
    return int((predict(ann, dataset.images, dtype) == dataset.labels).sum())
