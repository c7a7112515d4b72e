"""The cost report as Markdown tables, for a bundle's README, a terminal and a notebook."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .compare import markdown_table


def cost_table(report: Mapping[str, Any]) -> str:
    """Give the report of `cost_report` as three Markdown tables: memory, work, energy."""
    memory, work = [], []
    for index, layer in enumerate(report["layers"]):
        name, bits = f"{index} {layer['name']}", layer["memory_bits"]
        memory.append({"layer": name, **bits, "sum": sum(bits.values()), **_dense(layer)})
        work.append({"layer": name, "neurons = adders": layer["adders"], "adder bits": layer["adder_bits"],
                     **{f"{what}, {kind}": layer[what.replace(" ", "_")][key]
                        for what in ("events", "additions", "threshold updates", "cycles")
                        for key, kind in (("worst_case", "worst"), ("measured", "measured"))},
                     "dense cycles": layer["dense"]["cycles"]})  # fmt: skip
    read_out = report["classifier"]
    bits = read_out["memory_bits"]
    memory.append({"layer": "classifier", "weights": bits["weights"], "scores": bits["scores"],
                   "sum": sum(bits.values()), **_dense(read_out)})  # fmt: skip
    total = report["total"]["memory_bits"]
    sums = {"sum": total["snn"], "int8 ANN": total["ann_int8"], "FP32 ANN": total["ann_fp32"]}
    memory.append({"layer": "all", **sums})
    columns = ["layer", "weights", "thresholds", "membranes", "counts", "scores", "sum", "int8 ANN", "FP32 ANN"]
    parts = [
        f"Means over {report['samples']} images, {report['steps']} steps each. Memory in bits:",
        markdown_table(memory, columns),
        "Work for one image, in the worst case and as measured:",
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
