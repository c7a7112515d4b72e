"""What a network computes, exactly: the integer codes that a spiking network must reach, and the classes it names.

Claims are judged in float64, where sums of a quantized network's integers are exact.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checks import expect
from ..data.dataset import Dataset, as_images
from .device import pick_device
from .exact_sums import Sums, exact_sums
from .graph import Branch
from .network import ANN, Layer, MaxPool, Shortcut, averaged, taken
from .notation import LARGEST_PIXEL, NetworkSpec


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
        """Each layer's integer codes in turn, float64 [N, C, H, W], of uint8 images [N, C, H, W]."""
        # Channels last, as sums of bytes are.
        pixels = images.cpu().double().contiguous(memory_format=torch.channels_last)
        spec, values = self.network.spec, {-1: pixels}
        for index, layer in enumerate(self.network.layers):
            if isinstance(layer, MaxPool):
                values[index] = layer(values[layer.spec.sources[0]])
            else:
                parts = zip(layer.branch_modules, layer.spec.branches, strict=True)
                first, *added = (self._branch(part, branch, values) for part, branch in parts)
                values[index] = layer.activation(sum(added, first))
                if (step := spec.step(index)) != 1:
                    values[index].div_(step).round_()
            yield values[index]
            for source in spec.graph.last_read[index]:
                del values[source]

    def _branch(self, part: Layer | Shortcut | None, branch: Branch, counts: dict[int, Tensor]) -> Tensor:
        """What a branch of a layer adds, of the counts of its sources; part: None for the identity."""
        spec = self.network.spec
        if branch.sources == (-1,):
            assert part is not None
            if not spec.has_whole_weights(0):
                return part.norm(part.conv(counts[-1] / LARGEST_PIXEL))
            return part.norm(self.sums[part.conv](counts[-1]) / LARGEST_PIXEL)
        area, worth = branch.average**2, []
        steps = dict.fromkeys(map(spec.step, branch.sources))
        for step in steps:
            # Sums over windows, and of integers, are exact; what a count is worth comes last.
            alone = len(steps) == 1
            of_step = {s: counts[s] if alone else counts[s] * (spec.step(s) == step) for s in branch.sources}
            whole = taken(branch, of_step)
            whole = whole if area == 1 else (whole * area).round()
            whole = whole if part is None else self.sums[part.conv](whole)
            worth.append(whole if step == area else whole * (step / area))
        total = sum(worth[1:], worth[0])
        return total if part is None else part.norm(total)

    @torch.no_grad()
    def logits(self, counts: Tensor) -> Tensor:
        """Logits [N, classes] of the last layer's counts [N, C, H, W]."""
        classifier, average = self.network.classifier, self.network.spec.graph.read_out.average
        sums = F.linear((averaged(counts, average) * average**2).round().flatten(1), classifier.weight)
        sums = sums if classifier.bias is None else sums + classifier.whole_bias
        return sums * classifier.count * classifier.scale


@torch.no_grad()
def reference_of(ann: ANN) -> Reference:
    """The reference for every claim about a quantized network; ValueError for one of full precision."""
    expect(ANN, ann=ann)
    if not ann.spec.quantized:
        raise ValueError("codes: a full-precision network has no integer codes; build it with quantized=True")
    network, sums = in_float64(ann), {}
    for part in network.parts:
        branch = part.spec.branches[0] if isinstance(part, Layer) else part.branch
        sums[part.conv] = exact_sums(part.conv, _range_of(branch, ann.spec))
    return Reference(network, sums)


def _range_of(branch: Branch, spec: NetworkSpec) -> tuple[int, int] | None:
    """The least and the greatest whole number that a branch convolves.

    None where nothing limits them, or where they may exceed a byte, and need not.
    """
    low, high = zip(*((0, LARGEST_PIXEL) if one == -1 else spec.counts(one) for one in branch.sources), strict=True)
    if None in high:
        return None
    # Of sums over windows, in place of averages; beyond the border, and of other steps, are zeros.
    area = branch.average**2
    least, largest = min(0, *low) * area, max(0, *high) * area
    return None if largest > LARGEST_PIXEL else (least, largest)


@torch.no_grad()
def codes(ann: ANN, images: Tensor | np.ndarray | Dataset, batch_size: int = 250) -> tuple[list[Tensor], Tensor]:
    """The integer code of every activation, evaluated in float64, and the logits.

    Codes are int64 [N, C, H, W], one tensor per layer, encoder first: the activation in units of 2^-k (of 1 for the
    encoder), or of the layer's own step in a given graph. Logits are float64 [N, classes]. Raises ValueError for a
    network that is not quantized.
    """
    reference = reference_of(ann)
    batches: list[list[Tensor]] = []
    for batch in as_images(images, ann.spec.in_shape).split(batch_size):
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
    images = as_images(images, ann.spec.in_shape)
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
