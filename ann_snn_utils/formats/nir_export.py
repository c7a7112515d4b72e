"""NIR, the interchange format of spiking networks, where it can say this network exactly: one level, one step.

NIR's integrate-and-fire neuron is reset by its spike and never takes one back. With one level a layer needs no
second spike, and with one step none can come too early: Conv2d → IF is then the neuron of this project.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ..ann.operations import without_groups
from ..files import atomic
from ..snn.network import SNN, SpikingLayer
from .onnx_export import check_scores
from .packages import require_packages


def write_nir(snn: SNN, path: str | Path) -> Path:
    """Write a network whose counts are 0 and 1 as a .nir file; the path. One step with the pixels gives all.

    Each layer is a Conv2d, with θ_1 in its bias, and IF neurons that fire above 1; the classifier is an Affine.
    Raises ValueError that says why another network cannot be told in NIR; ImportError that names the package.
    """
    require_packages("nir")
    import nir

    _check(snn)
    nodes: dict[str, Any] = {"input": nir.Input(input_type=np.array(snn.spec.in_shape))}
    for index, layer in enumerate(snn.layers):
        (synapses,), (gain,) = layer.synapses, layer.gains
        spec, weights = synapses.spec, synapses.weight * gain[:, None, None, None]
        nodes[f"{index}_conv"] = nir.Conv2d(
            input_shape=spec.in_shape[1:],
            # The package takes the shape of what comes in from its weights, groups or not.
            weight=without_groups(weights, spec.groups).numpy().astype(np.float32),
            stride=spec.stride,
            padding=spec.padding,
            dilation=spec.dilation,
            groups=1,
            # A sum of integers reaches θ where it lies above θ − 1/2.
            bias=(1.5 - layer.thresholds[:, 0].numpy()).astype(np.float32),
        )
        ones = np.ones(spec.out_shape, np.float32)
        nodes[f"{index}_neurons"] = nir.IF(r=ones, v_threshold=ones, v_reset=0 * ones)
    shape = snn.layers[-1].spec.out_shape
    nodes["flatten"] = nir.Flatten(input_type={"input": np.array(shape)}, start_dim=0, end_dim=-1)
    bias = np.zeros(len(snn.classifier)) if snn.bias is None else snn.bias.numpy()
    weight = snn.classifier.flatten(1).numpy().astype(np.float32)
    nodes["classifier"] = nir.Affine(weight=weight, bias=bias.astype(np.float32))
    nodes["output"] = nir.Output(output_type=np.array([len(weight)]))
    with atomic(path) as temporary:
        nir.write(str(temporary), nir.NIRGraph(nodes, list(pairwise(nodes))))
    return Path(path)


def _check(snn: SNN) -> None:
    if snn.thresholds != "exact" or not snn.integer:
        raise ValueError(f"thresholds={snn.thresholds!r}: convert the network with 'exact' ones")
    if snn.k or snn.levels > 1:
        raise ValueError(
            f"k={snn.k}, levels={snn.levels}: with more than one step spikes can come too early, and NIR's neurons "
            "never take one back; build the network with k=0, levels=1, clip=1, or use write_onnx"
        )
    for index, layer in enumerate(snn.layers):
        if reason := _reason_against(layer, index):
            raise ValueError(f"layer {index} ({layer.name}) {reason}")
    check_scores(snn)


def _reason_against(layer: SpikingLayer, index: int) -> str:
    """Why a layer cannot be told in NIR; "" where it can."""
    sources = [one.spec.source for one in layer.synapses]
    if sources != [index - 1] or layer.spec.kind != "neurons" or layer.spec.lowest:
        return (
            "is not one convolution of the layer before it, with counts from 0 on, as NIR's layers are here: use "
            "write_onnx"
        )
    rows, columns = layer.synapses[0].spec.kernel
    if rows != columns:
        return f"has a kernel of {rows}×{columns}, and nir takes square ones only: use write_onnx"
    # Below 2^23 float32 holds a whole number and a half.
    lowest, highest = layer.membrane
    if max(-lowest, highest + 2) >= 2**23:
        return "has membranes that reach 2^23, where float32 is not exact: use fewer inputs"
    if (end := layer.thresholds.shape[1]) > 1 or layer.saturates:
        return f"counts to {end}, and NIR's threshold stays: build the network with clip=1, or use write_onnx"
    return ""
