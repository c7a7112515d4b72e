"""The three threshold forms side by side, for another k, number of levels or clip of the same weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from .certificate import certify
from .convert import FORMS, convert, table_length
from .data import Dataset
from .metrics import accuracy
from .models import ANN, build_ann, codes, copy_weights
from .simulate import simulate


@dataclass(frozen=True, eq=False)
class Comparison:
    """What each form ("exact", "published", "float") makes of one quantized network.

    mismatches: form → codes that differ at silence, for each layer; compared: codes compared for each layer.
    accuracy: form → fractions [T]; ann_accuracy: the quantized network's. fractional_bits: how the one-adder
    form is made → bits for each layer (an empty dict where there is no integer form).
    """

    layer_names: tuple[str, ...]
    mismatches: dict[str, list[int]]
    compared: list[int]
    accuracy: dict[str, np.ndarray]
    ann_accuracy: float
    fractional_bits: dict[str, list[int]]


def requantize(ann: ANN, k: int, levels: int, clip: int | None) -> ANN:
    """Give a network with the same weights and batch norms, and other activations; it is not trained again."""
    spec = replace(ann.spec, k=k, levels=levels, clip=clip)
    return copy_weights(ann, build_ann(**spec.to_dict())).eval()


def compare_forms(
    ann: ANN, samples: Dataset, time_steps: int, report: Callable[[float], None] = lambda share: None
) -> Comparison:
    """Give the comparison of the three forms over all `samples`; report is told the share done, and may raise.

    Raises ValueError for a network that is not quantized or has no exact form.
    """
    report(0.0)
    expected, logits = codes(ann, samples.images)
    longest = table_length(max((int(code.max()) for code in expected[1:]), default=0))
    nets, mismatches, accuracies = {}, {}, {}
    for number, form in enumerate(FORMS):
        report((number + 0.5) / (len(FORMS) + 1))
        nets[form] = convert(ann, form, longest)
        record = simulate(nets[form], samples)
        report((number + 1) / (len(FORMS) + 1))
        pairs = zip(record.counts, expected, strict=True)
        mismatches[form] = [int((count != code).sum()) for count, code in pairs]
        curve = accuracy(record)
        # After silence nothing changes.
        accuracies[form] = np.pad(curve, (0, max(0, time_steps - len(curve))), mode="edge")[:time_steps]
    bits: dict[str, list[int]] = {}
    if nets["exact"].integer:
        proofs = certify(nets["exact"], nets["float"])
        bits["integers that fit all decisions"] = [proof.fractional_bits for proof in proofs]
        if all(proof.naive_bits is not None for proof in proofs):
            bits["by rounding"] = [proof.naive_bits for proof in proofs]
    report(1.0)
    return Comparison(
        tuple(layer.name for layer in nets["exact"].layers),
        mismatches,
        [code.numel() for code in expected],
        accuracies,
        float((logits.argmax(1) == samples.labels).double().mean()),
        bits,
    )
