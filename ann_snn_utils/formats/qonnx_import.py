"""A QONNX file, as Brevitas and QKeras write it, becomes a quantized network of this project.

In such a file `Quant` nodes round weights and activations. It is read as a torch model, with whole weights and a
factor behind each layer, and with `Counts` of the same steps, which `quantize` then takes as it is.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, fx, nn

from ..ann.calibrate import quantize
from ..ann.network import ANN
from ..ann.quantize import Counts
from ..ann.quantized import Scaled
from .packages import require_packages

_INSTEAD = {
    "MultiThreshold": "export the network before its activations become thresholds",
    "BipolarQuant": "train with unsigned activations and weights of at least 2 bits",
    "Trunc": "let a Quant node follow the pooling",
    "Transpose": "export it channels-first",
}


_PLAIN: dict[str, Callable[[], nn.Module]] = {
    "Relu": nn.ReLU,
    "GlobalAveragePool": lambda: nn.AdaptiveAvgPool2d(1),
    "Squeeze": nn.Flatten,
}
_ARITHMETIC = {"Add": operator.add, "Sub": operator.sub, "Mul": operator.mul, "Div": operator.truediv}


def import_qonnx(path: str | Path, images: Tensor, white: float = 1.0) -> ANN:
    """The quantized network of a QONNX file, for images of the shape of `images`, uint8 [N, C, H, W].

    white: what the file's network sees for a white pixel, 255; its images may be 0 … 1 or 0 … 255.

    Weights, steps and batch norms are real numbers here, where an executor rounds each sum to float32. Raises
    FileNotFoundError, or ValueError that names the file, the node and the remedy for what a network of whole
    numbers cannot be; ImportError that names the package to install.
    """
    model = _Importer(str(path), _loaded(path), white).model()
    try:
        return quantize(model, images)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _loaded(path: str | Path) -> Any:
    require_packages("onnx")
    import onnx

    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} is not a file: give the path of a QONNX file")
    try:
        return onnx.load(str(path)).graph
    except Exception as error:
        raise ValueError(f"{path} is no ONNX file ({error!s:.200}); export it again") from None


class _Importer:
    def __init__(self, path: str, graph: Any, white: float) -> None:
        from onnx import numpy_helper

        self.path, self.graph = path, graph
        self.constants: dict[str, Any] = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
        self.white = white
        self.module = nn.Module()
        self.made = fx.Graph()
        self.maps: dict[str, fx.Node] = {}
        self.current: Any = None

    def model(self) -> fx.GraphModule:
        images = [one.name for one in self.graph.input if one.name not in self.constants]
        if len(images) != 1 or len(self.graph.output) != 1:
            raise ValueError(
                f"{self.path} has inputs {', '.join(images)}: a network sees one image and gives one output"
            )
        self.image = self.made.placeholder("image")
        if self.white != 1:
            self.image = self.made.call_function(operator.mul, (self.image, self.white))
        self.maps[images[0]] = self.image
        for node in self.graph.node:
            self.current = node
            (output,) = node.output[:1]
            made = self.node(node)
            if isinstance(made, fx.Node):
                self.maps[output] = made
            else:
                self.constants[output] = made
        self.made.output(self.value(self.graph.output[0].name))
        return fx.GraphModule(self.module, self.made)

    def refuse(self, what: str) -> NoReturn:
        raise ValueError(
            f"{self.path}: {self.current.op_type} {self.current.name or self.current.output[0]}: {what}"
        )

    def value(self, name: str) -> fx.Node:
        if name not in self.maps:
            self.refuse(f"{name} is made by no node before it: nodes must come in order, without cycles")
        return self.maps[name]

    def constant(self, name: str) -> Any:
        if name not in self.constants:
            self.refuse(f"{name} is no constant: fold constants first (qonnx-cleanup)")
        return self.constants[name]

    def node(self, node: Any) -> Any:
        from onnx import helper, numpy_helper

        settings = {one.name: helper.get_attribute_value(one) for one in node.attribute}
        if node.op_type == "Constant":
            # A tensor, or plain numbers under another name.
            (value,) = settings.values()
            return numpy_helper.to_array(value) if "value" in settings else np.asarray(value)
        kind, inputs = node.op_type, [name for name in node.input if name]
        if kind in ("Identity", "Dropout"):
            return self.constants[inputs[0]] if inputs[0] in self.constants else self.value(inputs[0])
        if kind in _PLAIN:
            return self.call(_PLAIN[kind](), inputs[0])
        if kind in _ARITHMETIC:
            return self.made.call_function(_ARITHMETIC[kind], tuple(map(self.operand, inputs)))
        method = getattr(self, f"read_{kind.lower()}", None)
        if method is None:
            self.refuse(_INSTEAD.get(kind, "cannot be converted; compute it with Conv, Gemm, Relu and pooling"))
        return method(inputs, settings)

    def call(self, module: nn.Module, source: str | fx.Node) -> fx.Node:
        name = f"{self.current.op_type.lower()}_{len(self.made.nodes)}"
        self.module.add_module(name, module)
        return self.made.call_module(name, (self.value(source) if isinstance(source, str) else source,))

    # Rounding

    def read_quant(self, inputs: list[str], settings: Mapping[str, Any]) -> Any:
        source = inputs[0]
        scale, zero, bits = map(self.constant, inputs[1:])
        bits = float(bits.item())
        if np.any(zero != 0):
            self.refuse("a zero point other than 0: a count of 0 is no spike; quantize symmetrically or unsigned")
        if bits != int(bits) or bits < 1 + settings.get("signed", 1):
            self.refuse(f"{bits:g} bits: give whole bits, and at least 2 where values are signed")
        signed, narrow = settings.get("signed", 1), settings.get("narrow", 0)
        mode = settings.get("rounding_mode", b"ROUND").decode().upper()
        if mode not in ("ROUND", "HALF_EVEN", "HALF_UP"):
            self.refuse(f"rounding_mode={mode}: round to the nearest")
        lowest = -(2 ** (bits - 1)) + narrow if signed else 0
        highest = 2 ** (bits - 1) - 1 if signed else 2**bits - 1 - narrow
        if source in self.constants:
            units = self.constants[source].astype(np.float64) / scale
            # HALF_UP of QONNX is away from 0; the others round a half to the even number.
            rounded = np.sign(units) * np.floor(np.abs(units) + 0.5) if mode == "HALF_UP" else np.rint(units)
            return np.clip(rounded, lowest, highest), np.asarray(scale, np.float64)
        if scale.size != 1:
            self.refuse("steps of activations that differ between channels: use one for the layer")
        value = self.value(source)
        if value is self.image:
            if signed or bits != 8 or not np.isclose(scale.item() * 255, self.white, rtol=1e-5):
                self.refuse("the image is rounded to something else than its 256 values: take the node out")
            return value
        halves = "away" if mode == "HALF_UP" else "even"
        counts = Counts(float(scale.item()), int(lowest), int(highest), halves)
        if value.op == "call_module" and isinstance(self.module.get_submodule(str(value.target)), nn.ReLU):
            # A ReLU and what rounds it are one activation.
            counts.lowest, value = 0, value.args[0]  # type: ignore[assignment]
        return self.call(counts, value)

    # Layers with weights

    def weights(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Weights as a Quant node makes them: whole numbers, and what 1 of them is worth."""
        found = self.constant(name)
        if isinstance(found, tuple):
            weight, scale = found
            # NumPy lines shapes up from the last axis.
            return weight, scale.reshape((1,) * (weight.ndim - scale.ndim) + scale.shape)
        if not np.array_equal(found, np.rint(found)):
            self.refuse("weights that no Quant node rounds: quantize all layers")
        return found.astype(np.float64), np.ones((1,) * found.ndim)

    def scaled(self, layer: nn.Conv2d | nn.Linear, inputs: list[str], scale: np.ndarray) -> fx.Node:
        """The layer of whole weights, times what 1 of them is worth, plus the bias, the third input."""
        if scale.shape[0] != scale.size:
            self.refuse(f"scales of shape {scale.shape}: give weights one scale, or one for each output")
        bias = self.real(inputs[2]) if len(inputs) > 2 else None
        return self.call(Scaled(layer, torch.from_numpy(scale.reshape(-1).copy()), bias), inputs[0])

    def real(self, name: str) -> Tensor:
        """A constant as real numbers."""
        found = self.constant(name)
        return torch.tensor(found[0] * found[1] if isinstance(found, tuple) else found, dtype=torch.float64)

    def read_conv(self, inputs: list[str], settings: Mapping[str, Any]) -> fx.Node:
        weight, scale = self.weights(inputs[1])
        if weight.ndim != 4:
            self.refuse("only two-dimensional convolutions")
        (outputs, size, *kernel), groups = weight.shape, settings.get("group", 1)
        conv = nn.Conv2d(size * groups, outputs, tuple(kernel), *self.geometry(settings), groups, bias=False)
        conv.weight = nn.Parameter(torch.from_numpy(weight))
        return self.scaled(conv, inputs, scale)

    def read_gemm(self, inputs: list[str], settings: Mapping[str, Any]) -> fx.Node:
        if settings.get("transA", 0) or settings.get("alpha", 1) != 1 or settings.get("beta", 1) != 1:
            self.refuse("transA, alpha and beta: leave them out")
        weight, scale = self.weights(inputs[1])
        weight, scale = (weight, scale) if settings.get("transB", 0) else (weight.T, scale.T)
        linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        linear.weight = nn.Parameter(torch.from_numpy(np.ascontiguousarray(weight)))
        return self.scaled(linear, inputs, scale)

    read_matmul = read_gemm

    def read_batchnormalization(self, inputs: list[str], settings: Mapping[str, Any]) -> fx.Node:
        weight, bias, mean, variance = (self.real(name) for name in inputs[1:5])
        source = self.value(inputs[0])
        kind = nn.BatchNorm1d if self.is_flat(source) else nn.BatchNorm2d
        norm = kind(len(weight), eps=round(settings.get("epsilon", 1e-5), 12))
        state = {"weight": weight, "bias": bias, "running_mean": mean, "running_var": variance}
        norm.load_state_dict(state, strict=False)
        return self.call(norm, source)

    def is_flat(self, value: fx.Node) -> bool:
        """Whether a value has one number for each channel: it comes from a linear layer or was flattened."""
        while value.op != "placeholder":
            module = self.module.get_submodule(str(value.target)) if value.op == "call_module" else None
            module = module.layer if isinstance(module, Scaled) else module
            if isinstance(module, nn.Linear | nn.Flatten):
                return True
            if isinstance(module, nn.Conv2d):
                return False
            value = value.all_input_nodes[0]
        return False

    # The rest

    def read_maxpool(self, inputs: list[str], settings: Mapping[str, Any]) -> fx.Node:
        return self.call(nn.MaxPool2d(tuple(settings["kernel_shape"]), *self.geometry(settings)), inputs[0])

    def read_averagepool(self, inputs: list[str], settings: Mapping[str, Any]) -> fx.Node:
        kernel, (stride, padding, dilation) = tuple(settings["kernel_shape"]), self.geometry(settings)
        if dilation != (1, 1):
            self.refuse(f"dilations={dilation}: average values that lie side by side")
        included = bool(settings.get("count_include_pad", 0))
        return self.call(nn.AvgPool2d(kernel, stride, padding, count_include_pad=included), inputs[0])

    def geometry(self, settings: Mapping[str, Any]) -> tuple[Any, int, Any]:
        """Stride, padding and dilation of a convolution or of pooling."""
        pads, automatic = settings.get("pads", [0, 0, 0, 0]), settings.get("auto_pad", b"NOTSET")
        if len(set(pads)) != 1 or settings.get("ceil_mode", 0) or automatic not in (b"NOTSET", b"VALID"):
            self.refuse(f"pads={pads}, ceil_mode or auto_pad: pad all sides alike, by numbers")
        stride, dilation = (tuple(settings.get(name, (1, 1))) for name in ("strides", "dilations"))
        return stride, pads[0], dilation

    def read_flatten(self, inputs: list[str], settings: Mapping[str, Any]) -> fx.Node:
        # The second input of Reshape is the shape.
        if settings.get("axis", 1) != 1 or any(self.constant(shape).size != 2 for shape in inputs[1:]):
            self.refuse("only whole maps can be flattened, to [N, C · H · W]")
        return self.call(nn.Flatten(), inputs[0])

    read_reshape = read_flatten

    def read_concat(self, inputs: list[str], settings: Mapping[str, Any]) -> fx.Node:
        return self.made.call_function(torch.cat, ([self.value(name) for name in inputs], settings["axis"]))

    def operand(self, name: str) -> fx.Node:
        """Maps, or a constant as the model holds it."""
        if name in self.maps:
            return self.maps[name]
        made = f"constant_{len(self.made.nodes)}"
        self.module.register_buffer(made, self.real(name))
        return self.made.get_attr(made)
