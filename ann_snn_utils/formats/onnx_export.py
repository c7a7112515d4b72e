"""The quantized network as ONNX, which any runtime executes, and as QONNX, from which FPGA tools begin.

Both say what the spiking network says at silence: convolutions of integers, whose sums are compared with the
integer thresholds. In ONNX the comparisons are standard operators; in QONNX they are `MultiThreshold`, and every
tensor is annotated with its type, weights as TERNARY or INT8. Numbers travel as float32, in which whole numbers
below 2^24 are exact; a network with larger ones is refused, or summed in int64 where the format can.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..ann.graph import SynapseSpec
from ..files import atomic
from ..snn.certificate import signed_bits
from ..snn.network import SNN, SpikingLayer, membrane_range
from .packages import require_packages

EXACT = 2**24
OPSET = 17
CUSTOM = "qonnx.custom_op.general"
DIALECTS = ("onnx", "qonnx")


def write_onnx(
    snn: SNN, path: str | Path, dialect: str = "onnx", batch: int | None = None, codes: bool = False
) -> Path:
    """Write the network that a spiking network settles on as an .onnx file; the path.

    The input `image` is float32 [N, C, H, W], pixels 0 … 255; the output `scores` float32 [N, classes], whole
    numbers of which the largest is the class.

    dialect     "onnx" or "qonnx"
    batch       N; None leaves it open in ONNX and takes 1 in QONNX, whose executor needs it
    codes       the counts of each layer are outputs too, in order, named `count_0` … and float32 like the rest

    A layer without a clip counts to the end of its threshold table. Where some image may ask for more, which
    `simulate` would report and a file cannot, a warning names the layer, and the file's property `counts_end` says
    at which count it ends. Raises ValueError for a network that is not converted with exact thresholds, and for one
    with numbers that the format cannot hold exactly; ImportError that names the package to install.
    """
    require_packages("onnx")
    import onnx

    if dialect not in DIALECTS:
        raise ValueError(f"dialect={dialect!r:.40}: choose one of {', '.join(DIALECTS)}")
    if snn.thresholds != "exact" or not snn.integer:
        raise ValueError(f"thresholds={snn.thresholds!r}: a file holds integers only; use convert(ann, 'exact')")
    if batch is not None and (type(batch) is not int or batch < 1):
        raise ValueError(f"batch={batch!r:.40}: give a number of images from 1 on, or None for any")
    batch = 1 if batch is None and dialect == "qonnx" else batch
    if ends := counts_end(snn):
        told = ", ".join(f"{name} at {end}" for name, end in ends.items())
        remedy = "images unlike the test set may need more; convert with a larger max_levels, or train with a clip"
        warnings.warn(f"counts end with their threshold tables ({told}): {remedy}", stacklevel=2)
    writer = _Writer(snn, dialect == "qonnx", "N" if batch is None else batch)
    # QONNX needs the shape of every value.
    model = onnx.shape_inference.infer_shapes(writer.model(codes))
    onnx.checker.check_model(model)
    with atomic(path) as temporary:
        onnx.save(model, str(temporary), format="protobuf")
    return Path(path)


def counts_end(snn: SNN) -> dict[str, int]:
    """The largest count of each layer of which an image could ask more, by the layer's number and token."""
    return {f"{index} {layer.name}": layer.table_end for index, layer in enumerate(snn.layers) if layer.saturates}


def check_scores(snn: SNN) -> None:
    """Raise ValueError where class scores reach whole numbers that float32 does not hold."""
    counted = snn.spec.amplitude(len(snn.layers) - 1) * max(map(abs, snn.layers[-1].counts))
    largest = counted * int(snn.classifier.long().flatten(1).abs().sum(1).max())
    if largest + (0 if snn.bias is None else int(snn.bias.abs().max())) >= EXACT:
        raise ValueError("the scores of the classes reach 2^24, where float32 is not exact: use fewer levels")


class _Writer:
    """Collects the nodes, constants and annotations of one file."""

    def __init__(self, snn: SNN, quantized: bool, batch: int | str) -> None:
        self.snn, self.quantized, self.batch = snn, quantized, batch
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.annotations: dict[str, str] = {}

    def model(self, codes: bool) -> Any:
        from onnx import TensorProto, helper

        snn, counts = self.snn, {-1: "image"}
        self.annotations["image"] = "UINT8"
        for index, layer in enumerate(snn.layers):
            counts[index] = f"count_{index}"
            if layer.spec.kind == "maximum":
                spec = layer.synapses[0].spec
                self.node("MaxPool", [counts[spec.source]], counts[index], **_geometry(spec))
                self.annotations[counts[index]] = self.annotations[counts[spec.source]]
            else:
                self.neurons(layer, counts, index)
        self.read_out(counts[len(snn.layers) - 1])
        shapes: dict[str, tuple[int, ...]] = {"image": snn.spec.in_shape, "scores": (len(snn.classifier),)}
        shapes |= {f"count_{index}": layer.spec.out_shape for index, layer in enumerate(snn.layers)}
        described = {
            name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [self.batch, *shape])
            for name, shape in shapes.items()
        }
        outputs = ["scores", *(f"count_{index}" for index in range(len(snn.layers)) if codes)]
        inner = [one for name, one in described.items() if name not in ("image", *outputs)]
        graph = helper.make_graph(
            self.nodes,
            "quantized_network",
            [described["image"]],
            [described[name] for name in outputs],
            self.constants,
            value_info=inner,
        )
        for name, datatype in self.annotations.items() if self.quantized else ():
            entry = graph.quantization_annotation.add(tensor_name=name)
            entry.quant_parameter_tensor_names.add(key="finn_datatype", value=datatype)
        opsets = [helper.make_opsetid("", OPSET)]
        opsets += [helper.make_opsetid(CUSTOM, 1)] if self.quantized else []
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="ann_snn_utils")
        about = {"spec": snn.spec.to_dict(), "counts_end": counts_end(snn)}
        helper.set_model_props(model, {name: json.dumps(value) for name, value in about.items()})
        return model

    def node(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        from onnx import helper

        self.nodes.append(helper.make_node(operator, inputs, [output], name=f"{operator}_{output}", **attributes))
        return output

    def constant(self, name: str, value: np.ndarray, datatype: str | None = None) -> str:
        from onnx import numpy_helper

        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        if datatype:
            self.annotations[name] = datatype
        return name

    def neurons(self, layer: SpikingLayer, counts: dict[int, str], index: int) -> None:
        lowest, highest = layer.membrane
        exact = max(-lowest, highest + 1) < EXACT
        if self.quantized and not exact:
            raise ValueError(
                f"layer {index} ({layer.name}): membranes from {lowest} to {highest}, but QONNX is exact "
                "below 2^24 only: use fewer levels, or dialect='onnx'"
            )
        membrane, *others = (
            self.sums(layer, number, counts, index, exact) for number in range(len(layer.synapses))
        )
        for number, part in enumerate(others, 1):
            membrane = self.node("Add", [membrane, part], f"membrane_{index}_{number}")
            self.annotations[membrane] = _integers(lowest, highest)
        self.compare(layer, membrane, counts[index], index, exact)

    def sums(self, layer: SpikingLayer, number: int, counts: dict[int, str], index: int, exact: bool) -> str:
        """What one layer sends to another: the convolution of its counts, times the gain."""
        synapses, name = layer.synapses[number], f"sum_{index}_{number}"
        spec, gain = synapses.spec, layer.gains[number]
        amplitude = self.snn.spec.amplitude(spec.source)
        low, high = membrane_range([replace(synapses, gain=None)], self.snn.layers, self.snn.spec)
        if max(-int(low.min()), int(high.max())) >= EXACT:
            raise ValueError(
                f"layer {index} ({layer.name}): its sums reach 2^24, where float32 is not exact: use fewer levels"
            )
        weight = synapses.weight.numpy().astype(np.float32)
        datatype = "TERNARY" if abs(weight).max() <= 1 else "INT8"
        inputs = [counts[spec.source], self.constant(f"weight_{name}", weight, datatype)]
        made = self.node("Conv", inputs, name, group=spec.groups, **_geometry(spec))
        unit = amplitude * gain.numpy()[:, None, None]
        self.annotations[made] = _integers(int(low.min()), int(high.max()))
        if not exact:
            made = self.node("Cast", [made], f"{name}_whole", to=7)
        if (unit != 1).any():
            factor = unit.astype(np.float32 if exact else np.int64)
            times = self.constant(f"gain_{name}", factor, _integers(int(unit.min()), int(unit.max())))
            made = self.node("Mul", [made, times], f"{name}_scaled")
            ends = torch.stack([gain * low, gain * high])
            self.annotations[made] = _integers(int(ends.min()), int(ends.max()))
        return made

    def compare(self, layer: SpikingLayer, membrane: str, count: str, index: int, exact: bool) -> None:
        """The count: the least one, and how many thresholds the membrane reaches."""
        lowest, table = layer.spec.lowest, layer.thresholds.numpy()
        self.annotations[count] = _integers(lowest, lowest + table.shape[1])
        if self.quantized:
            datatype = _integers(int(table.min()), int(table.max()))
            thresholds = self.constant(f"thresholds_{index}", table.astype(np.float32), datatype)
            out = {"out_dtype": self.annotations[count], "out_bias": float(lowest), "data_layout": "NCHW"}
            self.node("MultiThreshold", [membrane, thresholds], count, domain=CUSTOM, **out)
            return
        table = table.T[:, None, :, None, None].astype(np.float32 if exact else np.int64)
        axis = self.constant(f"axis_{index}", np.array([0], np.int64))
        one, thresholds = self.node("Unsqueeze", [membrane, axis], f"one_{index}"), f"thresholds_{index}"
        reached = self.node("GreaterOrEqual", [one, self.constant(thresholds, table)], f"reached_{index}")
        counted = self.node("Cast", [reached], f"counted_{index}", to=1)
        total = self.node("ReduceSum", [counted, axis], count if lowest == 0 else f"total_{index}", keepdims=0)
        if lowest:
            self.node("Add", [total, self.constant(f"lowest_{index}", np.array([lowest], np.float32))], count)

    def read_out(self, count: str) -> None:
        snn = self.snn
        check_scores(snn)
        amplitude = snn.spec.amplitude(len(snn.layers) - 1)
        weight = snn.classifier.flatten(1).numpy().astype(np.float32) * amplitude
        flat = self.node("Flatten", [count], "flat")
        self.annotations[flat] = self.annotations[count]
        classifier = self.constant("classifier", weight.T, _integers(int(weight.min()), int(weight.max())))
        product = self.node("MatMul", [flat, classifier], "scores" if snn.bias is None else "products")
        if snn.bias is not None:
            self.annotations[product] = "INT32"
            bias = snn.bias.numpy().astype(np.float32)
            self.node("Add", [product, self.constant("bias", bias, "INT32")], "scores")
        self.annotations["scores"] = "INT32"


def _geometry(spec: SynapseSpec) -> dict[str, Any]:
    return {
        "kernel_shape": spec.kernel,
        "strides": [spec.stride] * 2,
        "pads": [spec.padding] * 4,
        "dilations": [spec.dilation] * 2,
    }


def _integers(lowest: int, highest: int) -> str:
    """The name of the smallest type that holds lowest … highest."""
    return f"UINT{max(1, highest.bit_length())}" if lowest >= 0 else f"INT{max(2, signed_bits(lowest, highest))}"
