"""What a circuit for the network costs, layer by layer, against dense int8 and FP32 networks of the same shape."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..measure.energy import ENERGY_45NM, EnergyConstants, energy, macs
from ..simulator.record import Record
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
    """The costs of one image, as JSON values: `layers`, `classifier`, `total` and `energy`.

    record: a run of `images`, from whose spikes "measured" costs are means; "worst_case" ones hold for every
    input over as many steps. Memory is in bits. Cycles are those of one adder for each neuron, which takes
    one cycle for each arriving spike with a weight other than zero and one to compare, layer after layer;
    a layer waits for its busiest neuron. `dense`: one multiplier-accumulator for each neuron.
    `break_even_steps`: steps, of this run's mean energy each, that cost as much as the dense network;
    `exceeded_at`: the step of this run after which the spiking network has cost more, None where it falls
    silent first. Energy is of arithmetic only, by `energy`.
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
        "dense": {"macs": work[-1], "memory_bits": {"int8": 8 * inputs * classes, "fp32": 32 * inputs * classes}},
    }
    return {
        "samples": record.samples,
        "steps": steps,
        "layers": layers,
        "classifier": read_out,
        "total": _total(layers, read_out),
        "energy": [_energy(snn, record, one) for one in constants],
    }


def _layer(
    index: int, circuit: LayerHardware, record: Record, steps: int, cycles: float, work: int
) -> dict[str, Any]:
    layer = circuit.layer
    channels, neurons, weights = len(layer.weight), layer.neurons, layer.weight.numel()
    fan_in = layer.weight[0].numel()
    used = int((layer.weight != 0).sum((1, 2, 3)).max())
    active = steps if index else min(steps, circuit.largest_count)
    events = float((record.positive + record.negative)[:, index].sum()) / record.samples
    memory = {
        "weights": circuit.weight_bits * weights,
        "thresholds": 8 * circuit.constant_bytes * 2 * channels,
        "membranes": circuit.membrane_bits * neurons,
        # The encoder's neurons share the step as their count.
        "counts": circuit.count_bits * neurons if index else 0,
    }
    updates = (neurons * active, events) if index else (channels * active, float(channels * active))
    worst = steps * (used + 1) if index else used + active
    sops = int(layer.effective_fan_out.sum()) * steps if index else 0
    added = float(record.effective_sops[:, index].sum()) / record.samples
    return {
        "name": layer.name,
        "neurons": neurons,
        "memory_bits": memory,
        "adders": neurons,
        "adder_bits": max(circuit.membrane_bits, circuit.threshold_bits),
        "events": {"worst_case": neurons * active, "measured": events},
        "additions": {"worst_case": sops, "measured": added},
        "multiplications": 0 if index else work,
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
            incoming = traces.spikes[index - 1].transpose(0, 1).ne(0)
            totals[index] += sum(_busiest(layer, sample) + steps for sample in incoming)
    return (totals / len(images)).tolist()


def _busiest(layer: SpikingLayer, incoming: Tensor) -> int:
    synapses = (layer.weight != 0).float()
    reached = F.conv2d(incoming.float(), synapses, stride=layer.spec.stride, padding=layer.spec.padding)
    return int(reached.flatten(1).amax(1).sum())


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
    spent = [energy(record, snn, constants, t) for t in range(1, record.time_steps + 1)]
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


def cost_table(report: Mapping[str, Any]) -> str:
    """The report of `cost_report` as three Markdown tables, for a README or a notebook: memory, work, energy."""
    memory, work = [], []
    for index, layer in enumerate(report["layers"]):
        name, bits = f"{index}{SPACE}{layer['name']}", layer["memory_bits"]
        memory.append({"layer": name, **bits, "sum": sum(bits.values()), **_dense(layer)})
        work.append(
            {
                "layer": name,
                "neurons = adders": layer["adders"],
                "adder bits": layer["adder_bits"],
                **{
                    what: f"{{measured:,.0f}}{SPACE}of{SPACE}{{worst_case:,.0f}}".format(
                        **layer[what.replace(" ", "_")]
                    )
                    for what in ("events", "additions", "threshold updates", "cycles")
                },
                "dense cycles": layer["dense"]["cycles"],
            }
        )
    read_out = report["classifier"]
    bits = read_out["memory_bits"]
    memory.append({"layer": "classifier", **bits, "sum": sum(bits.values()), **_dense(read_out)})
    total = report["total"]["memory_bits"]
    sums = {"sum": total["snn"], "int8 ANN": total["ann_int8"], "FP32 ANN": total["ann_fp32"]}
    memory.append({"layer": "all", **sums})
    columns = ["layer", "weights", "thresholds", "membranes", "counts", "scores", "sum", "int8 ANN", "FP32 ANN"]
    parts = [
        f"Means over {report['samples']} images, {report['steps']} steps each. Memory in bits:",
        markdown_table(memory, columns),
        "Work for one image, measured and, behind the *of*, in the worst case:",
        markdown_table(work),
        "Arithmetic energy for one image, in nanojoules (memory access is counted for none):",
        markdown_table([_energy_row(one) for one in report["energy"]]),
    ]
    return "\n\n".join(parts)


def _dense(layer: Mapping[str, Any]) -> dict[str, int]:
    bits = layer["dense"]["memory_bits"]
    return {"int8 ANN": bits["int8"], "FP32 ANN": bits["fp32"]}


def _energy_row(one: Mapping[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {"constants": one["constants"], "SNN": one["snn_picojoules"]["total"] / 1000}
    for kind, name in (("ann_int8", "int8 ANN"), ("ann_fp32", "FP32 ANN")):
        against = one[kind]
        row[name] = against["picojoules"] / 1000
        row[f"{name}: break-even steps"] = against["break_even_steps"]
        row[f"{name}: exceeded"] = f"at step {against['exceeded_at']}" if against["exceeded_at"] else "never"
    return row
