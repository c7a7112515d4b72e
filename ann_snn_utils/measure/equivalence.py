"""Does the spiking network settle on the quantized network's integer codes? Every neuron, every image.

And what other forms of thresholds, another k, number of levels or clip make of the same weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..ann.network import ANN, build_ann, copy_weights
from ..ann.reference import codes, reference_of
from ..checks import check, expect
from ..data.dataset import Dataset, as_images
from ..simulator.record import Record, merge
from ..simulator.run import simulate
from ..snn.certificate import certify
from ..snn.conversion import convert, table_length
from ..snn.network import SNN
from .activity import accuracy

# Neurons · images compared at once: a layer's counts in 64 bits then take memory that was used before.
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
    quantized network's classes. record: of the spiking network's run until silence, without its counts.
    """

    layer_names: tuple[str, ...]
    neurons: tuple[int, ...]
    mismatches: tuple[int, ...]
    examples: tuple[Mismatch, ...]
    prediction_mismatches: int
    predictions: Tensor
    record: Record

    @property
    def samples(self) -> int:
        """Number of images N."""
        return self.record.samples

    @property
    def settled_at(self) -> Tensor:
        """int64 [N], the step after which each image was silent."""
        return self.record.settled_at

    @property
    def exact(self) -> bool:
        """True where no count and no prediction differs."""
        return not any(self.mismatches) and not self.prediction_mismatches


@torch.no_grad()
def check_equivalence(
    ann: ANN, snn: SNN, images: Tensor | np.ndarray | Dataset, batch_size: int | None = None, progress: bool = False
) -> Equivalence:
    """Run the spiking network to silence and compare every spike count with the quantized network's code.

    images: uint8 [N, C, H, W] as `as_images` takes them, or a Dataset, whose labels the record then has. Codes are
    evaluated in float64. batch_size: images compared at once; None chooses it so that memory stays below 2 GiB.
    A network converted with "published" thresholds is allowed: its mismatches are what the rounding costs.
    Raises ValueError where the two networks differ in their spec, or the image type or shape is not theirs.
    """
    expect(ANN, ann=ann)
    expect(SNN, snn=snn)
    ours, theirs = asdict(ann.spec), asdict(snn.spec)
    if different := [f"{name} {ours[name]!r} ≠ {theirs[name]!r}" for name in ours if ours[name] != theirs[name]]:
        raise ValueError(f"the ANN and the SNN are different networks ({', '.join(different)}): convert this ANN")
    labels = images.labels if isinstance(images, Dataset) else None
    images = as_images(images, snn.spec.in_shape)
    if batch_size is None:
        batch_size = min(500, max(1, WORKING_SET // sum(layer.neurons for layer in snn.layers)))
    starts = range(0, len(images), check("batch_size", batch_size))
    names = tuple(layer.name for layer in snn.layers)
    mismatches, predictions, records = [0] * len(names), [], []
    reference, wrong = reference_of(ann), 0
    examples: list[list[Mismatch]] = [[] for _ in names]
    for start in tqdm(starts, "equivalence", unit="batch", disable=not progress):
        batch = images[start : start + batch_size]
        record = simulate(snn, batch)
        for index, code in enumerate(reference.counts(batch)):
            count = record.counts[index]
            differs = code != count
            if not (found := int(differs.count_nonzero())):
                continue
            mismatches[index] += found
            wanted = EXAMPLES_PER_LAYER - len(examples[index])
            for sample, channel, y, x in differs.nonzero()[:wanted].tolist():
                both = int(code[sample, channel, y, x]), int(count[sample, channel, y, x])
                examples[index].append(Mismatch(index, names[index], start + sample, channel, y, x, *both))
        predictions.append(torch.from_numpy(np.argmax(reference.logits(code).numpy(), 1)))
        wrong += int((predictions[-1] != record.predictions[-1]).sum())
        records.append(replace(record, counts=[]))
    return Equivalence(
        layer_names=names,
        neurons=tuple(layer.neurons * len(images) for layer in snn.layers),
        mismatches=tuple(mismatches),
        examples=tuple(mismatch for layer in examples for mismatch in layer),
        prediction_mismatches=wrong,
        predictions=torch.cat(predictions),
        record=merge(records, None, labels),
    )


@dataclass(frozen=True, eq=False)
class FormComparison:
    """What each form ("exact", "published", "float") makes of one quantized network.

    mismatches: form → codes that differ at silence, for each layer; compared: how many were, for each layer.
    accuracy: form → fractions [T]; ann_accuracy: the quantized network's. networks: form → the converted network.
    """

    layer_names: tuple[str, ...]
    mismatches: dict[str, list[int]]
    compared: list[int]
    accuracy: dict[str, np.ndarray]
    ann_accuracy: float
    networks: dict[str, SNN]


def requantize(ann: ANN, k: int, levels: int, clip: int | None) -> ANN:
    """A network with the same weights and batch norms, and other activations; it is not trained again."""
    spec = replace(ann.spec, k=k, levels=levels, clip=clip)
    return copy_weights(ann, build_ann(**spec.to_dict())).eval()


def compare_forms(
    ann: ANN, samples: Dataset, time_steps: int | None, report: Callable[[float], None] = lambda share: None
) -> FormComparison:
    """The comparison of the three forms over all `samples`; report is told the share done, and may raise.

    time_steps: of the accuracies; None goes on until every image is silent in every form. Raises ValueError for a
    network that is not quantized or has no exact form.
    """
    report(0.0)
    expected, logits = codes(ann, samples.images)
    longest = table_length(max((int(code.max()) for code in expected[1:]), default=0))
    nets, mismatches, accuracies, forms = {}, {}, {}, ("exact", "published", "float")
    for number, form in enumerate(forms):
        report((number + 0.5) / len(forms))
        nets[form] = convert(ann, form, longest)
        record = simulate(nets[form], samples)
        pairs = zip(record.counts, expected, strict=True)
        mismatches[form] = [int((count != code).sum()) for count, code in pairs]
        accuracies[form] = accuracy(record)
    steps = time_steps or max(map(len, accuracies.values()))
    for form, curve in accuracies.items():
        # After silence nothing changes.
        accuracies[form] = np.pad(curve, (0, max(0, steps - len(curve))), mode="edge")[:steps]
    report(1.0)
    return FormComparison(
        tuple(layer.name for layer in nets["exact"].layers),
        mismatches,
        [code.numel() for code in expected],
        accuracies,
        float((logits.argmax(1) == samples.labels).double().mean()),
        nets,
    )


def adder_bits(exact: SNN, real: SNN) -> dict[str, list[int]]:
    """Fractional bits of the one-adder form of each layer, by how it is made; empty without an integer form.

    exact, real: one network with "exact" and with "float" thresholds.
    """
    if not exact.integer:
        return {}
    proofs = certify(exact, real)
    bits = {"integers that fit all decisions": [proof.fractional_bits for proof in proofs]}
    naive = [proof.naive_bits for proof in proofs if proof.naive_bits is not None]
    return bits | ({"by rounding": naive} if len(naive) == len(proofs) else {})
