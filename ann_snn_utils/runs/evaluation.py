"""A network on its test set anew: step by step, with the published logs, or beside what was recorded of it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..ann.notation import title_of
from ..data.dataset import load_recorded
from ..measure.activity import SILENCE, correct, results_at_silence
from ..measure.equivalence import check_equivalence
from ..measure.logs import log_folder, write_logs
from ..simulator.disturb import noisy
from ..simulator.record import Record
from ..simulator.run import simulate
from ..snn.store import load_snn
from ..tables import aligned
from .folder import RESULTS_FILE, SNN_FILE, TRIALS, require, runs_root
from .gallery import Network, bundled_name, is_path, network_folder, open_network
from .published import recorded_in
from .report import as_text, card, step_label
from .results import is_altered, local_result


def simulate_run(
    run: str,
    time_steps: int | None = None,
    samples: int | None = None,
    logs: bool = False,
    dataset: str | None = None,
    **disturbance: Any,
) -> tuple[str, Path | None]:
    """Simulate a run: its table of accuracy, spikes and SOPs over time, and the folder of its six logs if wanted.

    time_steps: None runs until every image is silent. disturbance: noise_ratio, seed, fault and fault_rate of
    `simulate`. dataset: where the run's images lie now. logs: written in batches of 200 images (50 for CIFAR-10),
    as published, into figs/, or that of a folder in trials/ where the network is disturbed, samples are left out or
    time_steps are given.
    """
    folder = network_folder(run)
    snn = load_snn(require(folder, SNN_FILE))
    test = load_recorded(snn.metadata, dataset=dataset)
    test = test if samples is None else test.subset(samples)
    record = simulate(snn, test, time_steps, progress=True, **disturbance)
    if not logs:
        return over_time(record), None
    size = 50 if "cifar" in test.name.lower() else 200
    asked = disturbance | {"samples": samples, "time_steps": time_steps}
    told = {name: value for name, value in asked.items() if value}
    if told.keys() - {"seed"}:
        folder = folder / TRIALS / "-".join(f"{name}={value}" for name, value in sorted(told.items()))
    target = log_folder(snn, folder / "figs")
    # The same run in parts: noise is drawn over all images, and faults by the number of each.
    images = noisy(test.images, disturbance.pop("noise_ratio", 0.0), disturbance.get("seed", 0))
    batches = zip(range(0, len(test), size), images.split(size), test.labels.split(size), strict=True)
    records = [
        simulate(snn, batch, record.time_steps, labels=labels, first_sample=start, **disturbance)
        for start, batch, labels in batches
    ]
    write_logs(records, target)
    return over_time(record), target


def over_time(record: Record) -> str:
    """A record of labelled images as a table with one line for each step."""
    rows, images = [("T", "correct", "accuracy", "silent", "spikes/image", "SOPs/image")], record.samples
    # Once: each of them adds up all steps.
    columns = correct(record), record.silent.sum(1).numpy(), record.spike_num / images, record.sop_num / images
    for step, (right, silent, spikes, sops) in enumerate(zip(*columns, strict=True), 1):
        share = f"{100 * right / images:.2f} %"
        rows.append((str(step), f"{right:,}", share, f"{silent:,}", f"{spikes:,.1f}", f"{sops:,.0f}"))
    return "\n".join(aligned(rows))


@dataclass(frozen=True)
class Evaluation:
    """A network's results, measured anew, beside those recorded of it; both in the form of results.json.

    recorded: None where nothing is. differences: a line for each recorded number that is not reproduced; none where
    only some of the recorded images were measured.
    """

    name: str
    measured: dict[str, Any]
    recorded: dict[str, Any] | None
    differences: tuple[str, ...]


def evaluate_network(name: str, samples: int | None = None, progress: bool = False) -> Evaluation:
    """Measure a network on its test set, or on the first `samples` images of it in a balanced order.

    The quantized network is evaluated in float64, the spiking one until silence, and every count is compared
    with its code. name: as of `open_network`. Recorded is what a bundled network's file tells, or the results of a
    run that nothing disturbed. Raises ValueError for samples that the test set does not have.
    """
    network = open_network(name)
    recorded, images = _recorded(network), len(network.samples)
    if samples is not None and not 1 <= samples <= images:
        named = repr(network.samples.name)
        raise ValueError(f"samples={samples}: the test set of {named} has 1 to {images} images to give")
    test = network.samples if samples is None else network.samples.subset(range(samples))
    steps = recorded["accuracy"]["snn"] if recorded else ()
    also = [int(step) for step in steps if step != SILENCE]
    measured = measure(replace(network, samples=test), also, progress)
    differences: tuple[str, ...] = ()
    if recorded and len(test) == recorded["samples"]:
        differences = differing(measured, recorded)
    elif recorded and samples is None:
        differences = (f"the test set has {len(test):,} images, recorded are results on {recorded['samples']:,}",)
    return Evaluation(network.name, measured, recorded, differences)


def _recorded(network: Network) -> dict[str, Any] | None:
    if bundled_name(network.name):
        return recorded_in(network.ann.metadata)
    found = None
    if not is_path(network.name):
        found = local_result(network.name)
    elif (folder := network_folder(network.name).resolve()).parent == runs_root().resolve():
        found = local_result(folder.name)
    if found:
        if is_altered(runs_root() / found.run, found):
            raise ValueError(
                f"{RESULTS_FILE} of {found.run} is not the file that was recorded: run the study again"
            )
        return found.results if found.results["undisturbed"] else None
    # What `save_network` found, and no other network of a pair has.
    return recorded_in(network.ann.metadata) if "mismatches" in network.ann.metadata else None


def measure(network: Network, also: Iterable[int] = (), progress: bool = False) -> dict[str, Any]:
    """A network's results on its samples, in the form of results.json; `also` as of `reached`."""
    test, snn = network.samples, network.snn
    exact = check_equivalence(network.ann, snn, test, progress=progress)
    found = results_at_silence(exact.record, snn, also)
    right = int((exact.predictions == test.labels).sum())
    found["accuracy"]["qann"], found["correct"]["qann"] = right / len(test), right
    found |= {"dataset": test.name, "network": snn.spec.network, "k": snn.k}
    return found | {"mismatches": sum(exact.mismatches), "neurons": sum(exact.neurons)}


# Numbers of results.json that are compared, by what they are called.
_COMPARED = {
    "last step with a spike": "silence_step",
    "mean of the last steps": "mean_settling_step",
    "spikes per image": "spikes_per_sample",
    "SOPs per image": "sops_per_sample",
    "effective SOPs per image": "effective_sops_per_sample",
    "MACs per image": "macs_per_sample",
}
# Those of which results.json has one for each step.
_CURVES = {"accuracy": "accuracy_over_time", "SOPs per image": "sops_over_time", "energy, pJ": "energy_over_time"}
# What takes a study long, and is told as not compared.
_NOT_MEASURED = {
    "noise": "noise",
    "deleted": "deleted spikes",
    "flipped": "flipped spikes",
    "accuracy_by_thresholds": "other thresholds",
    "accuracy_without_negative_spikes": "neurons without negative spikes",
    "spikes_per_synapse": "spikes of a synapse",
    "energy_spread": "the spread of energies",
}


def _energies(results: Mapping[str, Any]) -> dict[str, float]:
    """Picojoules of one image, by model and network."""
    by_model = {"energy": results.get("energy_pj") or {}} | (results.get("energy_by_model") or {})
    return {f"{model} of {name}, pJ": pj for model, spent in by_model.items() for name, pj in spent.items()}


def differing(measured: Mapping[str, Any], recorded: Mapping[str, Any]) -> tuple[str, ...]:
    """A line for each recorded number that the measured ones do not reproduce; counts to the last one.

    Not compared are the full-precision network, a dense one that skips zeros, and `_NOT_MEASURED`: none of them is
    measured here.
    """
    shares, right, images = recorded["accuracy"], measured["correct"], recorded["samples"]
    pairs = {
        "quantized ANN": (right["qann"], round(shares["qann"] * images)),
        "code mismatches": (measured["mismatches"], recorded["mismatches"]),
    }
    for step, share in shares["snn"].items():
        pairs[step_label(step)] = right["snn"][step], round(share * images)
    if "neurons" in recorded:
        pairs["codes compared"] = measured["neurons"], recorded["neurons"]
    for label, name in _COMPARED.items():
        if name in recorded:
            # Sums of whole numbers over the images, written as fractions.
            pairs[label] = round(measured[name], 6), round(recorded[name], 6)
    for label, name in _CURVES.items():
        steps = enumerate(zip(measured[name], recorded.get(name) or (), strict=False), 1)
        # The first step that differs tells enough.
        wrong = ((step, both) for step, both in steps if not math.isclose(*both, rel_tol=1e-9))
        pairs |= {f"{label} after step {step}": both for step, both in itertools.islice(wrong, 1)}
    spent, known = _energies(measured), _energies(recorded)
    for label in (label for label in spent if label in known):
        # Sums of real numbers, which another order of adding may round otherwise.
        same = math.isclose(spent[label], known[label], rel_tol=1e-9)
        pairs[label] = known[label] if same else spent[label], known[label]
    return tuple(
        f"{label}: {found:,}, recorded {wanted:,}" for label, (found, wanted) in pairs.items() if found != wanted
    )


def evaluation_table(evaluation: Evaluation) -> str:
    """The evaluation as an aligned table, and below it whether the recorded numbers are reproduced."""
    measured, recorded = evaluation.measured, evaluation.recorded
    title = f"{evaluation.name}: {measured['dataset']}, {title_of(measured['network'])}, k = {measured['k']}"
    frame = card({"measured": measured} | ({"recorded": recorded} if recorded else {}), counts=True)
    verdict = [f"NOT REPRODUCED  {line}" for line in evaluation.differences]
    if recorded is None:
        verdict = ["no results are recorded to compare these with"]
    elif measured["samples"] != recorded["samples"]:
        verdict = verdict or [
            f"the recorded numbers are those of {recorded['samples']:,} images: nothing was checked"
        ]
    else:
        over_time = ", and those over time" * bool(recorded.get("accuracy_over_time"))
        left = ["the full-precision network", *(said for key, said in _NOT_MEASURED.items() if recorded.get(key))]
        verdict = verdict or [f"reproduced: every recorded number above{over_time}"]
        verdict.append(f"not measured: {', '.join(left)}")
    return "\n".join([f"{title}, {measured['samples']:,} test images", *as_text(frame), *verdict])
