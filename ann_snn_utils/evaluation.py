"""Does a network that comes with the project still reach what was recorded with it? Measured anew, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from .data import Dataset
from .equivalence import check_equivalence
from .gallery import BUNDLED, Network, open_network
from .record import Record, merge
from .report import aligned, outcome_rows
from .simulate import simulate
from .snn import SNN
from .summary import reached

# Images at a time: the counts of a large network on a whole test set would fill the memory.
_PART = 1000


@dataclass(frozen=True)
class Evaluation:
    """A network's results, measured anew, beside those recorded with it; both in the form of results.json.

    whole: whether all images that were recorded are measured. differences: a line for each recorded number
    that is not reproduced.
    """

    name: str
    measured: dict[str, Any]
    recorded: dict[str, Any]
    whole: bool
    differences: tuple[str, ...]


def evaluate_pretrained(name: str, samples: int | None = None, progress: bool = False) -> Evaluation:
    """Measure a bundled network on its test set, or on the first `samples` images of it in a balanced order.

    The quantized network is evaluated in float64, the spiking one until silence, and every count is compared
    with its code. Raises ValueError for a name that is not bundled, or samples that the test set does not have.
    """
    network = open_network(BUNDLED + name)
    recorded = recorded_in(network.ann.metadata)
    test = network.samples if samples is None else network.samples.subset(range(_checked(samples, network.samples)))
    measured = measure(replace(network, samples=test), progress)
    whole = len(test) == recorded["samples"]
    differences = ()
    if samples is None and not whole:
        differences = (f"the test set has {len(test):,} images, recorded are results on {recorded['samples']:,}",)
    elif whole:
        differences = differing(measured, recorded)
    return Evaluation(name, measured, recorded, whole, differences)


def _checked(samples: int, test: Dataset) -> int:
    if not 1 <= samples <= len(test):
        raise ValueError(f"samples={samples}: the test set of {test.name!r} has 1 to {len(test)} images to give")
    return samples


def measure(network: Network, progress: bool = False) -> dict[str, Any]:
    """Give a network's results on its samples, in the form of results.json."""
    test, snn = network.samples, network.snn
    exact = check_equivalence(network.ann, snn, test.images, progress=progress)
    found = reached(_run(snn, test), snn)
    right = int((exact.predictions == test.labels).sum())
    return found | {
        "dataset": test.name, "network": snn.spec.network, "k": snn.k,
        "accuracy": found["accuracy"] | {"qann": right / len(test)},
        "correct": {"qann": right} | found["correct"],
        "mismatches": sum(exact.mismatches), "neurons": sum(exact.neurons),
    }  # fmt: skip


def _run(snn: SNN, test: Dataset) -> Record:
    parts = [
        replace(simulate(snn, test.subset(range(start, min(start + _PART, len(test))))), counts=[])
        for start in range(0, len(test), _PART)
    ]
    return merge(parts, max(part.time_steps for part in parts))


def recorded_in(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Give what a network's metadata record, in the form of results.json.

    They must hold samples, correct, mismatches and neurons, and may hold ann_correct, snn_correct (by time step
    and "silence"), spikes_per_sample and sops_per_sample. ValueError where they do not.
    """
    try:
        correct = {"ann": metadata["ann_correct"]} if "ann_correct" in metadata else {}
        correct |= {"qann": metadata["correct"], "snn": metadata.get("snn_correct", {})}
        found = {"correct": correct} | {name: metadata[name] for name in ("samples", "mismatches", "neurons")}
        found |= {name: metadata[name] for name in ("spikes_per_sample", "sops_per_sample") if name in metadata}
        outcome_rows(found)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        said = f"{error!r:.200}"
        raise ValueError(f"the network's metadata record no results ({said}): restore it from git") from None
    return found


def differing(measured: Mapping[str, Any], recorded: Mapping[str, Any]) -> tuple[str, ...]:
    """Give a line for each recorded number that the measured ones do not reproduce; counts to the last one."""
    ours, theirs = outcome_rows(measured), outcome_rows(recorded)
    right = measured["correct"]["snn"]
    pairs = {name: (right.get(name), count) for name, count in recorded["correct"]["snn"].items()}
    pairs["qann"] = measured["correct"]["qann"], recorded["correct"]["qann"]
    pairs["mismatches"] = measured["mismatches"], recorded["mismatches"]
    for name in ("spikes", "sops"):
        number = recorded.get(f"{name}_per_sample")
        if number is not None:
            # Sums of whole numbers over the images, written as fractions.
            pairs[name] = round(measured[f"{name}_per_sample"], 6), round(number, 6)
    lines = []
    for name, (found, wanted) in pairs.items():
        if found != wanted:
            label = (ours.get(name) or theirs[name])[0]
            lines.append(f"{label}: {_text(found)}, recorded {_text(wanted)}")
    if measured["neurons"] != recorded["neurons"]:
        lines.append(f"codes compared: {measured['neurons']:,}, recorded {recorded['neurons']:,}")
    return tuple(lines)


def _text(number: Any) -> str:
    return "not measured" if number is None else f"{number:,}"


def evaluation_table(evaluation: Evaluation) -> str:
    """Give the evaluation as an aligned table, and below it whether the recorded numbers are reproduced."""
    measured, recorded = evaluation.measured, evaluation.recorded
    ours, theirs = outcome_rows(measured), outcome_rows(recorded)
    title = (f"{evaluation.name}: {measured['dataset']}, {measured['network']}, k = {measured['k']}, "
             f"{measured['samples']:,} test images")  # fmt: skip
    rows = [("", "measured", "", "recorded", "")]
    for name in dict.fromkeys(["ann", *ours, *theirs]):
        if name in ours or name in theirs:
            label, *shown = ours.get(name) or (theirs[name][0], "–", "")
            rows.append((label, *shown, *(theirs[name][1:] if name in theirs else ("–", ""))))
    return "\n".join([title, *aligned(rows), *_verdict(evaluation)])


def _verdict(evaluation: Evaluation) -> list[str]:
    if evaluation.differences:
        return [f"NOT REPRODUCED  {line}" for line in evaluation.differences]
    if not evaluation.whole:
        return [f"the recorded numbers are those of {evaluation.recorded['samples']:,} images: nothing was checked"]
    return ["every recorded number is reproduced, but that of the full-precision network, which is not kept"]
