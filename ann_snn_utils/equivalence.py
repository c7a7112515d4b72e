"""Does the spiking network settle on the quantized network's integer codes? Every neuron, every image."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from .data import Dataset
from .models import ANN, codes
from .simulate import simulate
from .snn import SNN

# Neurons · images compared at once: some hundred MiB of 64-bit codes and counts.
WORKING_SET = 2**23
EXAMPLES_PER_LAYER = 3


@dataclass(frozen=True)
class Mismatch:
    """One neuron that settled on `count` where the quantized network's code is `code`.

    layer: index, the encoder is 0. sample: index of the image. channel, y, x: place in the layer's map.
    """

    layer: int
    name: str
    sample: int
    channel: int
    y: int
    x: int
    code: int
    count: int


@dataclass(frozen=True, eq=False)
class Equivalence:
    """Comparison of settled spike counts with integer codes, over all neurons of all layers.

    neurons, mismatches: values compared and values that differ, for each layer. examples: the first few
    mismatches of each layer. prediction_mismatches: images whose class differs. predictions: int64 [N], the
    quantized network's classes. settled_at: int64 [N], the step after which each image was silent.
    """

    samples: int
    layer_names: tuple[str, ...]
    neurons: tuple[int, ...]
    mismatches: tuple[int, ...]
    examples: tuple[Mismatch, ...]
    prediction_mismatches: int
    predictions: Tensor
    settled_at: Tensor

    @property
    def exact(self) -> bool:
        """True where no count and no prediction differs."""
        return not any(self.mismatches) and not self.prediction_mismatches


@torch.no_grad()
def check_equivalence(
    ann: ANN, snn: SNN, images: Tensor | Dataset, batch_size: int | None = None, progress: bool = False
) -> Equivalence:
    """Run the spiking network to silence and compare every spike count with the quantized network's code.

    images: uint8 [N, C, H, W] or a Dataset. Codes are evaluated in float64. batch_size: images compared at
    once; None chooses it so that memory stays below 2 GiB. A network converted with "published" thresholds
    is allowed: its mismatches are then what the rounding costs.
    Raises ValueError where the two networks differ in their spec, or the image type or shape is not theirs.
    """
    if isinstance(images, Dataset):
        images = images.images
    ours, theirs = asdict(ann.spec), asdict(snn.spec)
    if different := [f"{name} {ours[name]!r} ≠ {theirs[name]!r}" for name in ours if ours[name] != theirs[name]]:
        raise ValueError(f"the ANN and the SNN are different networks ({', '.join(different)}): convert this ANN")
    if images.dtype != torch.uint8 or tuple(images.shape[1:]) != snn.spec.in_shape or not len(images):
        raise ValueError(
            f"images are {images.dtype} of shape {tuple(images.shape)}: "
            f"these networks take uint8 [N, {', '.join(map(str, snn.spec.in_shape))}] with N ≥ 1"
        )
    if batch_size is None:
        batch_size = min(500, max(1, WORKING_SET // sum(layer.neurons for layer in snn.layers)))
    elif batch_size < 1:
        raise ValueError(f"batch_size={batch_size!r}: give at least 1")
    starts = range(0, len(images), batch_size)
    if progress:
        from tqdm.auto import tqdm

        starts = tqdm(starts, desc="equivalence", unit="batch")

    names = tuple(layer.name for layer in snn.layers)
    mismatches, predictions, settled = [0] * len(names), [], []
    wrong = 0
    examples: list[list[Mismatch]] = [[] for _ in names]
    for start in starts:
        batch = images[start : start + batch_size]
        record = simulate(snn, batch)
        expected, logits = codes(ann, batch, batch_size)
        for index, (code, count) in enumerate(zip(expected, record.counts, strict=True)):
            differs = code != count
            mismatches[index] += int(differs.sum())
            wanted = EXAMPLES_PER_LAYER - len(examples[index])
            for place in differs.nonzero()[:wanted].tolist():
                sample, *where = place
                values = int(code[tuple(place)]), int(count[tuple(place)])
                examples[index].append(Mismatch(index, names[index], start + sample, *where, *values))
        predictions.append(torch.from_numpy(np.argmax(logits.numpy(), 1)))
        wrong += int((predictions[-1] != record.predictions[-1]).sum())
        settled.append(record.settled_at)
    return Equivalence(
        samples=len(images),
        layer_names=names,
        neurons=tuple(layer.neurons * len(images) for layer in snn.layers),
        mismatches=tuple(mismatches),
        examples=tuple(mismatch for layer in examples for mismatch in layer),
        prediction_mismatches=wrong,
        predictions=torch.cat(predictions),
        settled_at=torch.cat(settled),
    )
