"""The verdict on energy of the networks that come with the project, measured once and kept in data/energy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..ann.store import BUNDLED, list_pretrained
from ..files import ROOT, load_json, save_json
from ..measure.activity import accuracy
from ..measure.verdict import MODELS, THRESHOLDS, TITLES, energy_summary
from ..simulator.run import simulate
from ..tables import markdown_table
from .gallery import Network, open_network

FILE = ROOT / "data" / "energy" / "networks.json"
# At most so many images: their events lie in memory at once, and means over more are hardly other ones.
IMAGES = 1000
# The network that the README's sentence is about.
_NAMED = "mnist-lenet-k0"

_STOPS = {"silence": "own silence", "slowest": "slowest image", "guaranteed": "guaranteed T"}

FACTORS = (
    "Each factor is that network's energy over the SNN's, as the model's authors assume; in brackets the least and "
    "greatest over all combinations of assumptions, and the share of them in which the SNN needs less."
)


def measure_energy(network: Network) -> dict[str, Any]:
    """A network's `energy_summary` on the first images of its test set, in a balanced order, and its accuracy."""
    test = network.samples.subset(range(min(IMAGES, len(network.samples))))
    record = simulate(network.snn, test)
    told = {"dataset": test.name, "network": network.snn.spec.title, "images": len(test)}
    return told | {"accuracy_over_time": accuracy(record).tolist()} | energy_summary(record, network.snn)


def measure_bundled(path: Path = FILE) -> dict[str, Any]:
    """Measure every bundled network whose images are at hand, and keep the results beside those of the others."""
    found = load_json(path) if path.is_file() else {}
    for name in list_pretrained():
        try:
            network = open_network(BUNDLED + name)
        except (OSError, ValueError) as error:
            print(f"{name}: left as it is ({error})")
            continue
        found[name] = measure_energy(network)
        save_json(path, found)
        print(f"{name}: {found[name]['images']} images", flush=True)
    return found


def kept_energy(path: Path = FILE) -> dict[str, Any]:
    """What is kept of the bundled networks, by name."""
    return load_json(path)


def _short(value: float) -> str:
    """Three digits of a number, and no exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}" if value >= 1 else f"{value:.2g}"


def verdict_table(summary: Mapping[str, Any]) -> str:
    """Who needs more, under each model: as its authors assume, and over all combinations of assumptions."""
    rows = []
    for model in MODELS:
        told = summary["models"][model]
        row = {"model": TITLES[model], "SNN, µJ": _short(told["pj"]["snn"] / 1e6)}
        for rival, spread in told["spread"].items():
            ends = f"{_short(spread['least'])} … {_short(spread['greatest'])}"
            row[summary["rivals"][rival]] = f"**{_short(told['saves'][rival])}** ({ends}; {spread['wins']:.0%})"
        rows.append(row)
    return markdown_table(rows)


def spikes_table(summary: Mapping[str, Any]) -> str:
    """Spikes that a synapse carries in an inference, and how many it may, by others and for this network."""
    carried = summary["spikes_per_synapse"]
    told = {"carried": f"{carried['all']:.3f}, at weights other than 0 {carried['nonzero']:.3f}"}
    for source, (least, most) in THRESHOLDS.items():
        told[source] = f"{least:.3g}" if least == most else f"{least} … {most}"
    for model in MODELS:
        even = summary["models"][model]["break_even"].items()
        told[f"this network, {TITLES[model]}"] = ", ".join(f"{summary['rivals'][r]} {n:.2f}" for r, n in even)
    return markdown_table([{"spikes per synapse": source, "value": value} for source, value in told.items()])


def silence_table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """What stopping at silence is worth: energy of one image by when it stops, under each model."""
    rows = []
    for name, summary in found.items():
        for model in MODELS:
            pays = summary["models"][model]["silence"]
            row = {"network": name, "model": TITLES[model]}
            for when, label in _STOPS.items():
                row[label] = f"{_short(pays[when]['pj'] / 1e6)} µJ, {_short(pays[when]['steps'])} steps"
            rows.append(row)
    return markdown_table(rows)


Curves = dict[str, dict[str, list[tuple[float, float]]]]


def energy_curves(
    found: Mapping[str, Mapping[str, Any]],
) -> tuple[Curves, dict[str, dict[str, tuple[float, float]]]]:
    """Model → network → (picojoules, accuracy) along the steps, and where each image stops at its silence."""
    curves: Curves = {}
    silence: dict[str, dict[str, tuple[float, float]]] = {}
    for model in MODELS:
        for name, summary in found.items():
            entry, accuracy_at = summary["models"][model], summary["accuracy_over_time"]
            along = list(zip(entry["until_step"], accuracy_at, strict=True))
            curves.setdefault(TITLES[model], {})[name] = along
            silence.setdefault(TITLES[model], {})[name] = entry["pj"]["snn"], accuracy_at[-1]
    return curves, silence


def energy_sentence(found: Mapping[str, Mapping[str, Any]]) -> str:
    """The README's sentence: the range of what is saved, not its best case."""
    models = found[_NAMED]["models"]
    arithmetic, lemaire, yan = (models[model]["saves"]["int8"] for model in MODELS)
    memory = [models[model]["spread"] for model in ("lemaire", "yan")]
    least, greatest = min(s["int8"]["least"] for s in memory), max(s["int8"]["greatest"] for s in memory)
    int8, ternary = ([f"{s[rival]['wins']:.0%}" for s in memory] for rival in ("int8", "ternary"))
    return (
        f"LeNet on MNIST needs {arithmetic:.1f} times less energy than the same network in int8 for arithmetic "
        f"alone, {lemaire:.1f} times less with memory as Lemaire et al. count it and {yan:.1f} times as Yan et al. "
        f"do; but from {1 / least:.1f} times more to {greatest:.1f} times less over all choices that these "
        f"leave open, less in {int8[0]} and {int8[1]} of them, and against the ternary network that it was "
        f"converted from in {ternary[0]} and {ternary[1]}."
    )


def energy_page(found: Mapping[str, Mapping[str, Any]]) -> str:
    """All of it for some networks, in Markdown: verdicts, spikes per synapse, and what silence is worth."""
    parts = ["# Who needs less energy", FACTORS]
    for name, summary in found.items():
        told = f"{summary['dataset']}, {summary['network']}, {summary['images']:,} images"
        parts += [f"## {name}", f"{told}.", verdict_table(summary), spikes_table(summary)]
    return "\n\n".join([*parts, "## What silence is worth", "One image, by when it stops.", silence_table(found)])
