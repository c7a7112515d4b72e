"""Arrays of numbers from an .npz file whose members are pickles, read without trusting the pickle.

An object array in an .npz is a pickle, and a pickle is a program. Here it may only name NumPy's array
constructors, and even these are replaced: inert stand-ins write down what was asked for, and the arrays are
made afterwards from the bytes that are really there.

Networks from elsewhere: the published TensorLayer checkpoints, and int8 ends for networks without them.
"""

from __future__ import annotations

import io
import os
import pickle
import pickletools
import re
import zipfile
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from .network import ANN, build_ann, copy_weights, raw_weight
from .notation import NetworkSpec, Shape
from .quantize import int8_scale

LARGEST_MEMBER = 2**30

LARGEST_PROGRAM = 100_000

NUMBER_TYPES = {"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"}

# All that pickled arrays are made of. Dictionaries, classes and persistent ids are not among them.
OPCODES = set(
    "PROTO FRAME STOP MARK GLOBAL STACK_GLOBAL REDUCE BUILD NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 "
    "TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_TUPLE EMPTY_LIST APPEND APPENDS BINUNICODE SHORT_BINUNICODE BINUNICODE8 "
    "BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8 BINPUT LONG_BINPUT MEMOIZE BINGET LONG_BINGET".split()
)


def read_object_array(path: str | os.PathLike[str], name: str = "params") -> list[np.ndarray]:
    """Give the arrays of numbers that the one-dimensional object array `name` of an .npz file holds.

    The arrays are read-only views. Nothing in the file is executed, and no more memory is taken than the
    data that it really holds needs. Raises FileNotFoundError, or ValueError that names the file and what
    was found in it.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not a file: give the path of an .npz checkpoint")
    with path.open("rb") as file:
        return _read(path, file, f"{name}.npy")


def _read(path: Path, file: BinaryIO, member: str) -> list[np.ndarray]:
    try:
        return _arrays(_unpickle(_member(file, member)))
    # A hostile file can make the parsers of the standard library raise nearly anything.
    except Exception as error:
        reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error!s:.200}"
        raise ValueError(f"{path} is not a checkpoint of plain arrays: {reason}") from None


def _member(file: BinaryIO, name: str) -> bytes:
    """Give the pickle in a zip's only member, an .npy file that declares objects."""
    try:
        archive = zipfile.ZipFile(file)
    except zipfile.BadZipFile:
        raise ValueError("it is no .npz (zip) file, or it is cut short; copy it again") from None
    with archive:
        names = archive.namelist()
        if names != [name]:
            raise ValueError(f"it holds {str(names)[:80]}, and {name} alone is expected")
        info = archive.getinfo(name)
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{name} is compressed by method {info.compress_type}, which NumPy never uses")
        if info.file_size > LARGEST_MEMBER:
            raise ValueError(f"{name} claims {info.file_size} bytes; at most {LARGEST_MEMBER} are read")
        try:
            content = archive.read(info)
        except zipfile.BadZipFile as error:
            raise ValueError(f"{name} is damaged ({error!s:.200}); copy the file again") from None
    if content[:6] != b"\x93NUMPY" or len(content) < 12:
        raise ValueError(f"{name} does not begin like an .npy file")
    wide = content[6] > 1
    begin = 12 if wide else 10
    end = begin + int.from_bytes(content[8:begin], "little")
    if not re.search(rb"'descr': *'\|?O'", content[begin : min(end, begin + 10_000)]):
        raise ValueError(f"{name} is not an array of objects; the published checkpoints hold a list of arrays")
    return content[end:]


def _unpickle(program: bytes) -> object:
    # First every opcode is looked at: this bounds the work, and lengths and memo places are proven sane.
    for count, (opcode, argument, _) in enumerate(pickletools.genops(program)):
        if opcode.name not in OPCODES or count == LARGEST_PROGRAM:
            raise ValueError(f"its pickle uses {opcode.name} at step {count}, which lists of arrays do not need")
        if opcode.name == "LONG_BINPUT" and argument > LARGEST_PROGRAM:
            raise ValueError(f"its pickle claims memo place {argument}")
    return _Unpickler(io.BytesIO(program)).load()


class _Dtype:
    """Stands in for numpy.dtype."""

    def __init__(self, name: str, align: object = None, copy: object = None) -> None:
        self.name, self.order = name, "|"

    def __setstate__(self, state: tuple) -> None:
        self.order = state[1]

    def resolve(self) -> np.dtype:
        if self.name not in NUMBER_TYPES or self.order not in ("<", ">", "|", "="):
            raise ValueError(f"holds {str(self.name)[:20]!r} values, not numbers")
        return np.dtype(self.order + self.name)


class _Array:
    """Stands in for numpy.ndarray, whichever of its constructors the pickle names."""

    shape: object = ()
    dtype: object = None
    fortran: object = False
    data: object = b""

    def __setstate__(self, state: tuple) -> None:
        _, self.shape, self.dtype, self.fortran, self.data = state

    @property
    def of_objects(self) -> bool:
        return isinstance(self.dtype, _Dtype) and self.dtype.name in ("O", "O8", "O4")

    def resolve(self) -> np.ndarray:
        if not isinstance(self.dtype, _Dtype) or not isinstance(self.data, bytes | bytearray):
            raise ValueError("is no array of numbers")
        shape = self.shape
        if not isinstance(shape, tuple) or len(shape) > 8 or not all(type(n) is int and n >= 0 for n in shape):
            raise ValueError("has no usable shape")
        kind = self.dtype.resolve()
        if prod(shape) * kind.itemsize != len(self.data):
            raise ValueError(f"has shape {shape} but {len(self.data)} bytes of {kind.name}")
        return np.frombuffer(self.data, kind).reshape(shape, order="F" if self.fortran else "C")


def _reconstruct(subtype: object, shape: object, kind: object) -> _Array:
    return _Array()


def _frombuffer(data: object, dtype: object, shape: object, order: object) -> _Array:
    array = _Array()
    array.shape, array.dtype, array.data = shape, dtype, data
    if order not in ("C", "F"):
        raise ValueError("its pickle holds an array in an order that is neither C nor F")
    array.fortran = order == "F"
    return array


def _scalar(dtype: object, data: object) -> _Array:
    return _frombuffer(data, dtype, (), "C")


def _encode(text: str, encoding: str) -> bytes:
    if not isinstance(text, str) or encoding != "latin1":
        raise ValueError("its pickle encodes something that is not the bytes of an array")
    return text.encode("latin1")


_ADMITTED = {
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _reconstruct for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _frombuffer for core in ("core", "_core")},
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in _ADMITTED:
            asked = f"{module}.{name}"[:80]
            raise ValueError(f"its pickle asks for {asked!r}, which arrays do not need: do not trust this file")
        return _ADMITTED[module, name]


def _arrays(top: object) -> list[np.ndarray]:
    if not isinstance(top, _Array) or not top.of_objects or not isinstance(top.data, list):
        raise ValueError("it does not hold a list of arrays")
    if top.shape != (len(top.data),):
        raise ValueError(f"its list of {len(top.data)} arrays claims another shape")
    arrays = []
    for index, item in enumerate(top.data):
        try:
            arrays.append((item if isinstance(item, _Array) else _Array()).resolve())
        except ValueError as error:
            raise ValueError(f"entry {index} {error}") from None
    return arrays


NORM_PARTS = ("β", "γ", "μ", "variance")


@torch.no_grad()
def import_tensorlayer(
    path: str | os.PathLike[str],
    network: str,
    in_shape: Shape,
    k: int,
    ternary: bool = True,
    padding: str | None = None,
    classes: int | None = None,
    levels: int = 4,
) -> ANN:
    """Give the network, in evaluation mode, whose parameters a published checkpoint (.npz) holds.

    network, in_shape (C, H, W), k, ternary, padding and levels describe it as in `build_ann`; classes: None
    takes the number from the file. The file holds `params`: for each layer W [kh, kw, in, out], β, γ, μ, σ²,
    then the classifier [in, classes] over the map flattened as (H, W, C). Encoder and classifier stay full
    precision as published; `quantize_ends` makes them int8. Only numbers are read from the file, nothing in
    it is executed. Source of the format: the code of Zou et al. 2024; its MNIST networks take pixels in
    0 … 1, as here, while its CIFAR-10 network was trained on standardised images and needs such.
    Raises FileNotFoundError, or ValueError that names the file, the array and the shape the network needs.
    """
    with torch.device("meta"):
        spec = build_ann(
            network, in_shape, 2 if classes is None else classes, k, ternary, True, levels, None, padding, False
        ).spec
    arrays = read_object_array(path)
    spec = _fitted(path, arrays, spec, classes)
    arrays = _finite(path, arrays, spec)
    ann = build_ann(**spec.to_dict())
    for index, layer in enumerate(ann.layers):
        weight, beta, gamma, mean, variance = (torch.from_numpy(a) for a in _of_layer(arrays, index))
        raw_weight(layer.conv).copy_(weight.permute(3, 2, 0, 1))
        layer.norm.bias.copy_(beta)
        layer.norm.weight.copy_(gamma)
        layer.norm.running_mean.copy_(mean)
        layer.norm.running_var.copy_(variance)
    channels, height, width = spec.layers[-1].out_shape
    read_out = torch.from_numpy(arrays[-1]).reshape(height, width, channels, spec.classes)
    raw_weight(ann.classifier).copy_(read_out.permute(3, 2, 0, 1).flatten(1))
    return ann.eval()


def _of_layer(arrays: list[np.ndarray], index: int) -> list[np.ndarray]:
    size = 1 + len(NORM_PARTS)
    return arrays[size * index : size * (index + 1)]


def _needed(spec: NetworkSpec) -> dict[str, tuple[int, ...]]:
    """Give the name and shape of each array that the layers need, in the order of the file."""
    needed: dict[str, tuple[int, ...]] = {}
    for index, layer in enumerate(spec.layers):
        where, out = f"layer {index} ({layer.token})", layer.out_shape[0]
        needed[f"{where} weights"] = (*layer.kernel, layer.in_shape[0], out)
        needed |= {f"{where} {part}": (out,) for part in NORM_PARTS}
    return needed


def _fitted(path: object, arrays: list[np.ndarray], spec: NetworkSpec, classes: int | None) -> NetworkSpec:
    """Give the spec with the file's number of classes, once every array has the shape it needs."""
    needed = _needed(spec)
    for position, ((what, shape), array) in enumerate(zip(needed.items(), arrays, strict=False)):
        if array.shape != shape:
            raise ValueError(
                f"{path}: array {position} has shape {array.shape}, and {what} of {spec.network} on "
                f"{spec.in_shape} images need {shape}: check network, in_shape and padding"
            )
    if len(arrays) != len(needed) + 1:
        raise ValueError(
            f"{path} holds {len(arrays)} arrays, and {spec.network} needs {len(needed) + 1}: "
            f"W, β, γ, μ, variance for each of {len(spec.layers)} layers, and the classifier"
        )
    inputs, shape = prod(spec.layers[-1].out_shape), arrays[-1].shape
    found = shape[1] if len(shape) == 2 and shape[0] == inputs else 0
    if found < 2 or found != (classes or found):
        wanted = (inputs, "2 or more" if classes is None else classes)
        raise ValueError(f"{path}: the classifier has shape {shape}, and {spec.network} needs {wanted}")
    return replace(spec, classes=found)


def _finite(path: object, arrays: list[np.ndarray], spec: NetworkSpec) -> list[np.ndarray]:
    """Give the arrays as float32, once every value is finite and no variance is negative."""
    with np.errstate(over="ignore"):
        arrays = [array.astype(np.float32) for array in arrays]
    for what, array in zip([*_needed(spec), "the classifier"], arrays, strict=True):
        bad = ~np.isfinite(array) | ((array < 0) & what.endswith("variance"))
        if bad.any():
            raise ValueError(
                f"{path}: {what} holds {array[bad][0]}, which no trained network does: take another checkpoint"
            )
    return arrays


@torch.no_grad()
def quantize_ends(ann: ANN) -> ANN:
    """Give the network with int8 encoder and classifier, rounded after training; nothing else changes.

    Weights become round(w / s), s = max|w| / 127 for each channel, and batch norm absorbs the scale:
    γ·(s·z − μ)/σ = (γ·s)·(z − μ/s)/σ, so thresholds are those of the rounded weights s·round(w / s). Hidden
    layers with full-precision weights are rounded likewise; ternary ones stay as they are. A network with
    int8 ends is copied. Raises ValueError for a network that is not quantized.
    """
    if not ann.spec.quantized:
        raise ValueError("quantize_ends: this network is full precision; build it with quantized=True first")
    like = ann.layers[0].norm.weight
    result = build_ann(**replace(ann.spec, int8_ends=True).to_dict()).to(like)
    copy_weights(ann, result).train(ann.training)
    result.metadata = dict(ann.metadata)
    if ann.spec.int8_ends:
        return result
    for index, layer in enumerate(result.layers):
        if index == 0 or not ann.spec.ternary:
            raw = raw_weight(layer.conv)
            scale = int8_scale(raw.double())
            # Stored as integers their own scale is 1: no later rounding, in any precision, moves a weight.
            raw.copy_((raw.double() / scale).round())
            _absorb(layer.norm, scale.flatten())
    return result


def _absorb(norm: torch.nn.BatchNorm2d, scale: Tensor) -> None:
    norm.weight.copy_(norm.weight.double() * scale)
    norm.running_mean.copy_(norm.running_mean.double() / scale)
