"""What a circuit for the network costs, layer by layer, against dense int8 and FP32 networks of the same shape."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..measure.energy import ENERGY_45NM, EnergyConstants, energy_over_time
from ..measure.events import layer_events, macs, stored_weights
from ..measure.verdict import MODELS, TITLES, estimate
from ..simulator.record import Record
from ..snn.certificate import signed_bits
from ..snn.network import SNN, SpikingLayer
from ..tables import SPACE, markdown_table
from .circuit import Hardware, LayerHardware, golden_records

# Bits of a value of the dense networks, each of which keeps a scale and a bias of 32 bits for each channel.
DENSE, NORM_BITS = {"int8": 8, "fp32": 32}, 64


def cost_report(
    snn: SNN,
    circuit: Hardware,
    images: Tensor,
    record: Record,
    constants: Sequence[EnergyConstants] = (ENERGY_45NM,),
) -> dict[str, Any]:
    """The costs of one image, as JSON values: `layers`, `classifier`, `total`, `energy` and `energy_by_model`.

    record: a run of `images`, from whose spikes "measured" costs are means; "worst_case" ones hold for every
    input over as many steps. Memory is in bits. Cycles are those of one adder for each neuron, which takes
    one cycle for each arriving spike with a weight other than zero and one to compare, layer after layer
    (multiplications by the gains of branches that are added are not among them);
    a layer waits for its busiest neuron. `dense`: one multiplier-accumulator for each neuron; it stores the weights
    behind an average once, and the circuit, as its bundle, for each place of the window that is averaged.
    `break_even_steps`: steps, of this run's mean energy each, that cost as much as the dense network;
    `exceeded_at`: the step of this run after which the spiking network has cost more, None where there is none.
    `energy` is of arithmetic only. `energy_by_model` has memory too, in picojoules: for each model component →
    [layer][step] of the spiking network, each image until its own silence, and for each dense network component →
    [layer].
    """
    steps, work = record.time_steps, macs(snn.spec)
    measured = _cycles(snn, images, steps)
    layers = [_layer(i, layer, record, steps, measured[i], work[i]) for i, layer in enumerate(circuit.layers)]
    inputs, classes = circuit.layers[-1].layer.neurons, snn.spec.classes
    events = float((record.positive + record.negative)[:, -1].sum()) / record.samples
    read_out = {
        "memory_bits": {"weights": 8 * inputs * classes, "scores": circuit.score_bits * classes},
        "adders": classes,
        "adder_bits": circuit.score_bits,
        "additions": {"worst_case": inputs * steps * classes, "measured": events * classes},
        "dense": {"macs": work[-1], "memory_bits": {"int8": 8 * work[-1], "fp32": 32 * work[-1]}},
    }
    return {
        "samples": record.samples,
        "steps": steps,
        "layers": layers,
        "classifier": read_out,
        "total": _total(layers, read_out),
        "energy": [_energy(snn, record, one) for one in constants],
        "energy_by_model": _by_model(snn, record),
    }


def _layer(
    index: int, circuit: LayerHardware, record: Record, steps: int, cycles: float, work: int
) -> dict[str, Any]:
    layer = circuit.layer
    channels, neurons = len(layer.weight), layer.neurons
    # Maxima have windows in place of weights.
    kept = () if circuit.maximum else layer.synapses
    weights = stored_weights(layer)
    # Of maxima it is the window's.
    fan_in = weights // channels or layer.weight[0].numel()
    used = int(sum(((one.weight != 0).sum((1, 2, 3)) for one in layer.synapses), torch.zeros(channels)).max())
    active = steps if index else min(steps, circuit.largest_count)
    events = float((record.positive + record.negative)[:, index].sum()) / record.samples
    memory = {
        "weights": sum(bits * one.weight.numel() for bits, one in zip(circuit.weights, kept, strict=False)),
        "thresholds": 8 * circuit.constant_bytes * 2 * channels,
        "membranes": circuit.membrane_bits * neurons,
        # The encoder's neurons share the step as their count.
        "counts": circuit.count_bits * neurons if index else 0,
    }
    gains = [one.gain for one in kept if one.gain is not None]
    if gains:
        memory["gains"] = sum(signed_bits(int(gain.min()), int(gain.max())) * channels for gain in gains)
    updates = (neurons * active, events) if index else (channels * active, float(channels * active))
    worst = steps * (used + 1) if index else used + active
    sops = sum(int(one.effective_fan_out.sum()) for one in layer.synapses) * steps if index else 0
    added = float(record.effective_sops[:, index].sum()) / record.samples
    return {
        "name": layer.name,
        "neurons": neurons,
        "memory_bits": memory,
        "adders": neurons,
        "adder_bits": max(circuit.membrane_bits, circuit.threshold_bits),
        "events": {"worst_case": neurons * active, "measured": events},
        "additions": {"worst_case": sops, "measured": added},
        # What comes in by a branch that has gains is multiplied once a step.
        "multiplications": len(gains) * neurons * steps if index else work,
        "threshold_updates": {"worst_case": updates[0], "measured": updates[1]},
        "cycles": {"worst_case": worst, "measured": cycles if index else float(worst)},
        "dense": {
            "macs": work,
            "cycles": fan_in,
            "memory_bits": {
                kind: (weights + neurons) * bits + NORM_BITS * channels for kind, bits in DENSE.items()
            },
        },
    }


def _cycles(snn: SNN, images: Tensor, steps: int) -> list[float]:
    """For each layer the mean over images of Σ over steps (spikes at the busiest neuron + 1)."""
    totals = torch.zeros(len(snn.layers), dtype=torch.float64)
    for _, traces in golden_records(snn, images, steps):
        for index, layer in enumerate(snn.layers[1:], 1):
            for sample in range(traces.spikes[index].shape[1]):
                totals[index] += _busiest(layer, [spikes[:, sample] for spikes in traces.spikes]) + steps
    return (totals / len(images)).tolist()


def _busiest(layer: SpikingLayer, spikes: Sequence[Tensor]) -> int:
    """Σ over steps of the spikes that reach the busiest neuron, of the spikes [T, C, H, W] of all layers."""
    reached = sum(
        one.sums(spikes[one.spec.source].ne(0).float(), (one.weight != 0).float()) for one in layer.synapses
    )
    assert isinstance(reached, Tensor)
    return int(reached.flatten(1).amax(1).sum(dtype=torch.float64))


def _total(layers: list[dict[str, Any]], read_out: dict[str, Any]) -> dict[str, Any]:
    everything = [*layers, read_out]
    dense = {f"ann_{kind}": sum(one["dense"]["memory_bits"][kind] for one in everything) for kind in DENSE}

    def over(
        what: str, parts: list[dict[str, Any]], of: Callable[[Iterable[float]], float] = sum
    ) -> dict[str, float]:
        return {kind: of(part[what][kind] for part in parts) for kind in ("worst_case", "measured")}

    return {
        "memory_bits": {"snn": sum(sum(one["memory_bits"].values()) for one in everything)} | dense,
        "events": over("events", layers),
        "additions": over("additions", everything),
        "threshold_updates": over("threshold_updates", layers),
        "cycles": over("cycles", layers),
        "slowest_layer_cycles": over("cycles", layers, max),
        "dense_macs": sum(one["dense"]["macs"] for one in everything),
        "dense_cycles": sum(layer["dense"]["cycles"] for layer in layers),
    }


def _energy(snn: SNN, record: Record, constants: EnergyConstants) -> dict[str, Any]:
    spent = energy_over_time(record, snn, constants)
    last = spent[-1]
    growing = (last.snn.total - last.snn.encoder) / record.time_steps
    against = {}
    for kind, dense in (("ann_int8", last.ann_int8), ("ann_fp32", last.ann_fp32)):
        left = dense.total - last.snn.encoder
        exceeded = (t for t, e in enumerate(spent, 1) if e.snn.total > dense.total)
        against[kind] = {
            "picojoules": dense.total,
            "ratio": dense.total / last.snn.total,
            "break_even_steps": max(0.0, left / growing) if growing else None,
            "exceeded_at": next(exceeded, None),
        }
    return {
        "constants": constants.name,
        "source": constants.source,
        "snn_picojoules": {**asdict(last.snn), "total": last.snn.total},
        "snn_picojoules_until_step": [e.snn.total for e in spent],
        **against,
    }


def _by_model(snn: SNN, record: Record) -> dict[str, Any]:
    layers, told = layer_events(record, snn), {}
    for model, how in MODELS.items():
        found = estimate(layers, how)
        dense = {
            rival: {"name": found.names[rival], "picojoules": found.totals[rival]}
            | {"layers": {part: cost.tolist() for part, cost in parts.items()}}
            for rival, parts in found.dense.items()
        }
        told[model] = {
            "assumptions": asdict(how),
            "picojoules": found.total,
            "layers": {part: cost.tolist() for part, cost in found.spiking.items()},
            "dense": dense,
        }
    return told


def cost_table(report: Mapping[str, Any]) -> str:
    """The report of `cost_report` as Markdown tables, for a README or a notebook: memory, work, energy."""
    memory, work = [], []
    for index, layer in enumerate(report["layers"]):
        name = f"{index}{SPACE}{layer['name']}"
        memory.append(_memory_row(name, layer))
        row = {"layer": name, "neurons = adders": layer["adders"], "adder bits": layer["adder_bits"]}
        for kind in ("events", "additions", "threshold_updates", "cycles"):
            measured, worst = layer[kind]["measured"], layer[kind]["worst_case"]
            row[kind.replace("_", " ")] = f"{measured:,.0f}{SPACE}of{SPACE}{worst:,.0f}"
        work.append(row | {"dense cycles": layer["dense"]["cycles"]})
    memory.append(_memory_row("classifier", report["classifier"]))
    total = report["total"]["memory_bits"]
    sums = {"sum": total["snn"], "int8 ANN": total["ann_int8"], "FP32 ANN": total["ann_fp32"]}
    memory.append({"layer": "all", **sums})
    gains = ["gains"] * any("gains" in row for row in memory)
    kinds = ["weights", "thresholds", "membranes", "counts", *gains, "scores"]
    columns = ["layer", *kinds, "sum", "int8 ANN", "FP32 ANN"]
    parts = [
        f"Means over {report['samples']} images, {report['steps']} steps each. Memory in bits:",
        markdown_table(memory, columns),
        "Work for one image, measured and, behind the *of*, in the worst case:",
        markdown_table(work),
        "Arithmetic energy for one image, in nanojoules (memory access is counted for none):",
        markdown_table([_energy_row(one) for one in report["energy"]]),
        "Energy with memory, in nanojoules: the SNN's and, behind the *of*, the int8 ANN's:",
        markdown_table(_model_rows(report)),
    ]
    return "\n\n".join(parts)


def _memory_row(name: str, part: Mapping[str, Any]) -> dict[str, Any]:
    bits, dense = part["memory_bits"], part["dense"]["memory_bits"]
    return {"layer": name, **bits, "sum": sum(bits.values()), "int8 ANN": dense["int8"], "FP32 ANN": dense["fp32"]}


def _energy_row(one: Mapping[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {"constants": one["constants"], "SNN": one["snn_picojoules"]["total"] / 1000}
    for kind, name in (("ann_int8", "int8 ANN"), ("ann_fp32", "FP32 ANN")):
        against, step = one[kind], one[kind]["exceeded_at"]
        row |= {name: against["picojoules"] / 1000, f"{name}: break-even steps": against["break_even_steps"]}
        row[f"{name}: exceeded"] = f"at step {step}" if step else "not in this run"
    return row


def _model_rows(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    names = [*(f"{index} {layer['name']}" for index, layer in enumerate(report["layers"])), "classifier"]
    rows: list[dict[str, Any]] = [{"layer": name} for name in [*names, "all"]]
    for model, told in report["energy_by_model"].items():
        own = np.sum([np.sum(steps, 1) for steps in told["layers"].values()], 0) / 1000
        int8 = np.sum(list(told["dense"]["int8"]["layers"].values()), 0) / 1000
        for row, spent, dense in zip(rows, [*own, own.sum()], [*int8, int8.sum()], strict=True):
            row[TITLES[model]] = f"{spent:,.1f} of {dense:,.1f}"
    return rows
