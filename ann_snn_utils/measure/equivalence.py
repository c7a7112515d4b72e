"""Does the spiking network settle on the quantized network's integer codes? Every neuron, every image.

And what other forms of thresholds, another k, number of levels or clip make of the same weights.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..ann.network import ANN, build_ann, copy_weights
from ..ann.reference import Reference, codes, reference_of
from ..checks import check, expect
from ..data.dataset import Dataset, as_images
from ..simulator.record import Record, merge
from ..simulator.run import simulate
from ..snn.certificate import certify
from ..snn.conversion import convert, table_length
from ..snn.network import SNN
from .activity import accuracy

# Neurons · images that all threads compare at once: with more, layers' values in 64 bits leave the caches.
WORKING_SET = 2**23

# So many times as many images are simulated at once, whose counts are bytes.
SIMULATED = 4

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
    """Comparison of settled spike counts with integer codes, over all neurons of all layers, and of class scores.

    neurons, mismatches: values compared and values that differ, for each layer. examples: the first few
    mismatches of each layer. prediction_mismatches: images whose class differs. predictions: int64 [N], the
    quantized network's classes. record: of the spiking network's run until silence, without its counts.
    score_mismatches: images with a whole class score that differs; 0 where the classifier has real weights.
    """

    layer_names: tuple[str, ...]
    neurons: tuple[int, ...]
    mismatches: tuple[int, ...]
    examples: tuple[Mismatch, ...]
    prediction_mismatches: int
    predictions: Tensor
    record: Record
    score_mismatches: int = 0

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
        """True where no count, no class score and no prediction differs."""
        return not (any(self.mismatches) or self.score_mismatches or self.prediction_mismatches)


@torch.no_grad()
def check_equivalence(
    ann: ANN, snn: SNN, images: Tensor | np.ndarray | Dataset, batch_size: int | None = None, progress: bool = False
) -> Equivalence:
    """Run the spiking network to silence and compare every count and score with the quantized network's.

    images: uint8 [N, C, H, W] as `as_images` takes them, or a Dataset, whose labels the record then has. Codes are
    evaluated in float64. batch_size: images that a thread compares at once, of four times as many that it
    simulates; None chooses it so that memory stays below 2 GiB.
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
    with _threads() as (threads, pool):
        if batch_size is None:
            batch_size = max(1, min(500, WORKING_SET // (threads * sum(layer.neurons for layer in snn.layers))))
        batch_size = check("batch_size", batch_size)
        # Shares are of one size, and threads have equally many.
        most = SIMULATED * batch_size
        at_once = -(-len(images) // (threads * -(-len(images) // (threads * most))))
        shares = images.split(at_once)
        compare = partial(_compare, reference_of(ann), snn, batch_size)
        compared = pool.map(compare, shares, range(0, len(images), at_once))
        parts = list(tqdm(compared, "equivalence", len(shares), unit="share", disable=not progress))
    examples = [
        [one for part in parts for one in part.examples if one.layer == layer] for layer in range(len(snn.layers))
    ]
    return Equivalence(
        layer_names=parts[0].layer_names,
        neurons=tuple(map(sum, zip(*(part.neurons for part in parts), strict=True))),
        mismatches=tuple(map(sum, zip(*(part.mismatches for part in parts), strict=True))),
        examples=tuple(one for layer in examples for one in layer[:EXAMPLES_PER_LAYER]),
        prediction_mismatches=sum(part.prediction_mismatches for part in parts),
        predictions=torch.cat([part.predictions for part in parts]),
        record=merge([part.record for part in parts], None, labels),
        score_mismatches=sum(part.score_mismatches for part in parts),
    )


_ONE_AT_A_TIME = threading.Lock()


@contextmanager
def _threads() -> Iterator[tuple[int, ThreadPoolExecutor]]:
    """As many threads as torch uses here, in each of which it uses one; and how many.

    Each has batches of its own: sharing one, threads would wait for each other after every operation.
    """
    with _ONE_AT_A_TIME:
        threads = torch.get_num_threads()
        pool = ThreadPoolExecutor(threads, "compare", torch.set_num_threads, (1,))
        try:
            yield threads, pool
        finally:
            pool.shutdown(cancel_futures=True)
            # What a thread sets is the default of all threads to come.
            torch.set_num_threads(threads)


def _compare(reference: Reference, snn: SNN, batch_size: int, images: Tensor, start: int) -> Equivalence:
    """The comparison of a share of the images, batch by batch; the first one has the index `start` among all."""
    record, predicted, examples = simulate(snn, images), [], list[Mismatch]()
    mismatches, wrong_scores, settled = [0] * len(snn.layers), 0, record.logits[-1]
    for first in range(0, len(images), batch_size):
        batch = slice(first, first + batch_size)
        for index, code in enumerate(reference.counts(images[batch])):
            count = record.counts[index][batch]
            # NumPy compares numbers of different types without a copy.
            differs = code.numpy() != count.numpy()
            number = int(np.count_nonzero(differs))
            mismatches[index] += number
            for n, c, y, x in np.argwhere(differs)[:EXAMPLES_PER_LAYER].tolist() if number else []:
                values = int(code[n, c, y, x]), int(count[n, c, y, x])
                examples.append(Mismatch(index, record.layer_names[index], start + first + n, c, y, x, *values))
        predicted.append(np.argmax(reference.logits(code).numpy(), 1))
        if not settled.is_floating_point():
            wrong_scores += int((reference.scores(code) != settled[batch]).any(1).sum())
    predictions = torch.from_numpy(np.concatenate(predicted))
    return Equivalence(
        layer_names=record.layer_names,
        neurons=tuple(number * len(images) for number in record.neurons),
        mismatches=tuple(mismatches),
        examples=tuple(examples),
        prediction_mismatches=int((predictions != record.predictions[-1]).sum()),
        predictions=predictions,
        record=replace(record, counts=[]),
        score_mismatches=wrong_scores,
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
        float((logits.numpy().argmax(1) == samples.labels.numpy()).mean()),
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
