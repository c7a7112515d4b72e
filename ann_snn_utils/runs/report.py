"""Results of runs as plain tables for a terminal.

Does a network that comes with the project still reach what was recorded with it? Measured anew, side by side.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..data.dataset import Dataset
from ..files import load_json
from ..measure.activity import SILENCE, reached
from ..measure.equivalence import check_equivalence
from ..simulator.record import Record, merge
from ..simulator.run import simulate
from ..snn.network import SNN
from ..tables import aligned
from .folder import require, run_folder
from .gallery import BUNDLED, Network, open_network
from .manifest import MANIFEST, mark_of, read_manifest, stale_stages


def results_table(folder: str | os.PathLike[str]) -> str:
    """Give a run's results.json as an aligned table: accuracy of each network, mismatches, spikes, SOPs.

    Raises FileNotFoundError that names the notebook to run where the file is missing, ValueError where it
    lacks an entry.
    """
    path = require(folder, "results.json")
    results = load_json(path)
    try:
        rows = list(outcome_rows(results).values())
        title = f"{results['run']}: {results['dataset']}, {results['network']}, k = {results['k']}"
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise ValueError(f"{path} is not complete ({error!r:.200}): run notebook 04_spike_analysis again") from None
    notes = [
        f"outdated: {name} read files that have been made anew; run the study again"
        for name in stale_stages(read_manifest(folder))
    ]
    return "\n".join([title, *aligned(rows), *notes])


def outcome_rows(results: Mapping[str, Any]) -> dict[str, tuple[str, str, str]]:
    """Give what results tell as rows of label, value and count or comment, by the names ann, qann, 1 …, sops, macs.

    Where networks or time steps are left out, or spikes, SOPs, energy or MACs, their rows are; raises
    LookupError, TypeError or ValueError for the rest.
    """
    correct, samples, shares = results["correct"], results["samples"], results.get("accuracy", {})

    def scored(label: str, right: int, share: float | None) -> tuple[str, str, str]:
        # The spiking network may have seen fewer images than the networks that it was made from.
        images = round(right / share) if share else samples
        share = right / samples if share is None else share
        return label, f"{100 * share:.2f} %", f"{right:,} of {images:,}"

    networks = {"ann": "full-precision ANN", "qann": "quantized ANN"}
    there = {name: label for name, label in networks.items() if name in correct}
    rows = {name: scored(label, correct[name], shares.get(name)) for name, label in there.items()}
    within = f", T ≤ {results['silence_step']}" if "silence_step" in results else ""
    for step, right in correct["snn"].items():
        label = f"integer SNN at silence{within}" if step == SILENCE else f"integer SNN, T = {step}"
        rows[step] = scored(label, right, shares.get("snn", {}).get(step))
    rows["mismatches"] = ("code mismatches", f"{results['mismatches']:,}", f"of {results['neurons']:,} codes")
    macs, spikes, sops = (results.get(f"{name}_per_sample") for name in ("macs", "spikes", "sops"))
    if spikes is not None:
        rows["spikes"] = ("spikes per image", f"{spikes:,.0f}", "")
    if sops is not None:
        rows["sops"] = ("SOPs per image", f"{sops:,.0f}", f"{sops / macs:.3f} per MAC of the ANN" if macs else "")
    if energy := results.get("energy_pj"):
        ours, int8, fp32 = (f"{energy[name] / 1e6:,.3f} µJ" for name in ("snn", "int8", "fp32"))
        rows["energy"] = ("arithmetic energy per image", ours, f"ANN: int8 {int8}, FP32 {fp32}")
    if macs is not None:
        rows["macs"] = ("MACs per image (ANN)", f"{macs:,}", "")
    return rows


def runs_table(runs: Sequence[str]) -> str:
    """Give one line for each run: accuracy of its networks, mismatches and spikes, or what is missing."""
    rows: list[tuple[str, ...]] = [("run", "ANN %", "QANN %", "SNN %", "silent at", "mismatches", "spikes/image")]
    for run in runs:
        path = Path(run_folder(run)) / "results.json"
        try:
            results = load_json(path)
            accuracy = results["accuracy"]
            shares = (accuracy["ann"], accuracy["qann"], accuracy["snn"]["silence"])
            rows.append(
                (
                    run,
                    *(f"{100 * share:.2f}" for share in shares),
                    str(results["silence_step"]),
                    f"{results['mismatches']:,}",
                    f"{results['spikes_per_sample']:,.0f}",
                )
            )
        except (FileNotFoundError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError):
            try:
                done = ", ".join(read_manifest(path.parent)["stages"]) or "nothing"
            except ValueError:
                done = f"unknown, its {MANIFEST} is damaged"
            mark = mark_of(path.parent)
            now = f"; {mark['state']} in {mark['stage']}" if mark else ""
            rows.append((run, f"no results yet; done: {done}{now}"))
    return "\n".join(aligned(rows))


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
        "dataset": test.name,
        "network": snn.spec.network,
        "k": snn.k,
        "accuracy": found["accuracy"] | {"qann": right / len(test)},
        "correct": {"qann": right} | found["correct"],
        "mismatches": sum(exact.mismatches),
        "neurons": sum(exact.neurons),
    }


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
    title = (
        f"{evaluation.name}: {measured['dataset']}, {measured['network']}, k = {measured['k']}, "
        f"{measured['samples']:,} test images"
    )
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
