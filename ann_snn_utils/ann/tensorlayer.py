"""Networks from elsewhere: the published TensorLayer checkpoints, and int8 ends for networks without them.

A checkpoint is an .npz with a list of arrays, which NumPy keeps as a pickle, and a pickle is a program. Here it
may name NumPy's array constructors only, and even these are replaced by inert stand-ins that write down what was
asked for: NumPy's own can be made to take bytes for pointers. The arrays are made afterwards, of the bytes that
are really there.
"""

from __future__ import annotations

import io
import os
import pickle
import pickletools
import re
import zipfile
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import torch
from torch import Tensor

from ..checks import expect
from .device import on_cpu
from .network import ANN, build_ann, copy_weights, raw_weight
from .notation import NetworkSpec, Shape
from .quantize import int8_scale

LARGEST_MEMBER = 2**30
LARGEST_PROGRAM = 100_000
NUMBER_TYPES = {"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"}
# All that pickled arrays are made of; …STRING in Python 2. Dictionaries, classes and persistent ids are not among
# them.
OPCODES = set(
    "PROTO FRAME STOP MARK GLOBAL STACK_GLOBAL REDUCE BUILD NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 "
    "TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_TUPLE EMPTY_LIST APPEND APPENDS BINUNICODE SHORT_BINUNICODE BINUNICODE8 "
    "BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8 BINSTRING SHORT_BINSTRING "
    "BINPUT LONG_BINPUT MEMOIZE BINGET LONG_BINGET".split()
)


def read_object_array(path: str | os.PathLike[str]) -> list[np.ndarray]:
    """The arrays of numbers in the one-dimensional object array `params` of an .npz file, as read-only views.

    Nothing in the file is executed, and no more memory is taken than the data that it really holds needs. Raises
    FileNotFoundError, or ValueError that names the file and what was found in it.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not a file: give the path of an .npz checkpoint")
    with path.open("rb") as file:
        try:
            return _arrays(_Unpickler.read(_pickle_in(file, "params.npy")))
        # A hostile file can make the parsers of the standard library raise nearly anything.
        except Exception as error:
            reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error!s:.200}"
            raise ValueError(f"{path} is not a checkpoint of plain arrays: {reason}") from None


def _pickle_in(file: BinaryIO, name: str) -> bytes:
    """The pickle in a zip's only member, an .npy file that declares objects."""
    try:
        with zipfile.ZipFile(file) as archive:
            if archive.namelist() != [name]:
                raise ValueError(f"it holds {str(archive.namelist())[:80]}, and {name} alone is expected")
            info = archive.getinfo(name)
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"{name} is compressed by method {info.compress_type}, which NumPy never uses")
            if info.file_size > LARGEST_MEMBER:
                raise ValueError(f"{name} claims {info.file_size} bytes; at most {LARGEST_MEMBER} are read")
            content = archive.read(info)
    except zipfile.BadZipFile as error:
        raise ValueError(
            f"it is no .npz (zip) file, cut short or damaged ({error!s:.200}); copy it again"
        ) from None
    wide = content[6:7] > b"\x01"
    begin = 12 if wide else 10
    end = begin + int.from_bytes(content[8:begin], "little")
    header = content[begin : min(end, begin + 10_000)]
    if content[:6] != b"\x93NUMPY" or not re.search(rb"'descr': *'\|?O'", header):
        raise ValueError(f"{name} is not an array of objects; the published checkpoints hold a list of arrays")
    return content[end:]


@dataclass
class _Dtype:
    """Stands in for numpy.dtype."""

    name: object
    align: object = None
    copy: object = None
    order: object = "|"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]


@dataclass
class _Array:
    """Stands in for numpy.ndarray, whichever of its constructors the pickle names."""

    data: object = b""
    dtype: object = None
    shape: object = ()
    fortran: object = False

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, self.shape, self.dtype, self.fortran, self.data = state

    def made(self) -> np.ndarray:
        """The array; ValueError where bytes, type and shape do not fit each other."""
        # Python 2 kept bytes as text.
        data = self.data.encode("latin1") if isinstance(self.data, str) else self.data
        kind, shape = self.dtype, self.shape
        if not isinstance(kind, _Dtype) or not isinstance(data, bytes | bytearray):
            raise ValueError("is no array of numbers")
        if kind.name not in NUMBER_TYPES or kind.order not in ("<", ">", "|", "="):
            raise ValueError(f"holds {str(kind.name)[:20]!r} values, not numbers")
        if not isinstance(shape, tuple) or len(shape) > 8 or not all(type(n) is int and n >= 0 for n in shape):
            raise ValueError("has no usable shape")
        dtype = np.dtype(f"{kind.order}{kind.name}")
        if prod(shape) * dtype.itemsize != len(data):
            raise ValueError(f"has shape {shape} but {len(data)} bytes of {dtype.name}")
        return np.frombuffer(data, dtype).reshape(shape, order="F" if self.fortran else "C")


def _from_buffer(data: object, dtype: object, shape: object, order: object) -> _Array:
    if order not in ("C", "F"):
        raise ValueError("its pickle holds an array in an order that is neither C nor F")
    return _Array(data, dtype, shape, order == "F")


def _encode(text: object, encoding: object) -> bytes:
    if not isinstance(text, str) or encoding != "latin1":
        raise ValueError("its pickle encodes something that is not the bytes of an array")
    return text.encode("latin1")


_ADMITTED: dict[tuple[str, str], object] = {
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
}
for _core in ("numpy.core", "numpy._core"):
    _ADMITTED[f"{_core}.multiarray", "_reconstruct"] = lambda subtype, shape, kind: _Array()
    _ADMITTED[f"{_core}.multiarray", "scalar"] = lambda dtype, data: _Array(data, dtype)
    _ADMITTED[f"{_core}.numeric", "_frombuffer"] = _from_buffer


class _Unpickler(pickle.Unpickler):
    @classmethod
    def read(cls, program: bytes) -> object:
        # First every opcode is looked at: this bounds the work, and lengths and memo places are proven sane.
        for count, (opcode, argument, _) in enumerate(pickletools.genops(program)):
            if opcode.name not in OPCODES or count == LARGEST_PROGRAM:
                raise ValueError(
                    f"its pickle uses {opcode.name} at step {count}, which lists of arrays do not need"
                )
            if opcode.name == "LONG_BINPUT" and int(argument or 0) > LARGEST_PROGRAM:
                raise ValueError(f"its pickle claims memo place {argument}")
        return cls(io.BytesIO(program), encoding="latin1").load()

    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in _ADMITTED:
            asked = f"{module}.{name}"[:80]
            raise ValueError(f"its pickle asks for {asked!r}, which arrays do not need: do not trust this file")
        return _ADMITTED[module, name]


def _arrays(top: object) -> list[np.ndarray]:
    kind = top.dtype.name if isinstance(top, _Array) and isinstance(top.dtype, _Dtype) else None
    if not isinstance(top, _Array) or kind not in ("O", "O8", "O4") or not isinstance(top.data, list):
        raise ValueError("it does not hold a list of arrays")
    if top.shape != (len(top.data),):
        raise ValueError(f"its list of {len(top.data)} arrays claims another shape")
    arrays = []
    for index, item in enumerate(top.data):
        try:
            arrays.append((item if isinstance(item, _Array) else _Array()).made())
        except ValueError as error:
            raise ValueError(f"entry {index} {error}") from None
    return arrays


# In the order of the file, with what torch calls them.
NORM_PARTS = {"β": "bias", "γ": "weight", "μ": "running_mean", "variance": "running_var"}


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
    """The network, in evaluation mode, whose parameters a published checkpoint (.npz) holds.

    network, in_shape, k, ternary, padding and levels describe it as in `build_ann`; classes: None takes the
    number from the file. The file holds `params`: for each layer W [kh, kw, in, out], β, γ, μ, σ², then the
    classifier [in, classes] over the map flattened as (H, W, C). Encoder and classifier stay full precision as
    published; `quantize_ends` makes them int8. Only numbers are read from the file, nothing in it is executed.
    Source of the format: the code of Zou et al. 2024; its MNIST networks take pixels in 0 … 1, as here, while its
    CIFAR-10 network was trained on standardised images and needs such. Raises FileNotFoundError, or ValueError
    that names the file, the array and the shape the network needs.
    """
    number = 2 if classes is None else classes
    with torch.device("meta"):
        like = build_ann(network, in_shape, number, k, ternary, levels=levels, padding=padding, int8_ends=False)
    if not like.spec.graph.chain or like.spec.graph.read_out.average > 1:
        raise ValueError(f"network={network!r:.80}: a published checkpoint holds a chain, such as '32C5-P2-1000'")
    arrays = read_object_array(path)
    spec = _fitted(path, arrays, like, classes)
    ann = build_ann(**spec.to_dict())
    channels, height, width = spec.layers[-1].out_shape
    arrays[-1] = arrays[-1].reshape(height, width, channels, spec.classes)
    read_out = raw_weight(ann.classifier).unflatten(1, (channels, height, width)).permute(2, 3, 1, 0)
    for (what, place), array in zip([*_places(ann), ("the classifier", read_out)], arrays, strict=True):
        place.copy_(torch.from_numpy(_finite(path, what, array)))
    return ann.eval()


def _places(ann: ANN) -> list[tuple[str, Tensor]]:
    """What each array of a file is, in its order, and the view of the network that it belongs in."""
    places: list[tuple[str, Tensor]] = []
    for index, layer in enumerate(ann.layers):
        where = f"layer {index} ({layer.spec.token})"
        places.append((f"{where} weights", raw_weight(layer.conv).permute(2, 3, 1, 0)))
        places += [(f"{where} {part}", getattr(layer.norm, name)) for part, name in NORM_PARTS.items()]
    return places


def _fitted(path: object, arrays: list[np.ndarray], like: ANN, classes: int | None) -> NetworkSpec:
    """The spec with the file's number of classes, once every array has the shape it needs."""
    spec, places = like.spec, _places(like)
    for position, ((what, place), array) in enumerate(zip(places, arrays, strict=False)):
        if array.shape != place.shape:
            raise ValueError(
                f"{path}: array {position} has shape {array.shape}, and {what} of {spec.network} on "
                f"{spec.in_shape} images need {tuple(place.shape)}: check network, in_shape and padding"
            )
    if len(arrays) != len(places) + 1:
        raise ValueError(
            f"{path} holds {len(arrays)} arrays, and {spec.network} needs {len(places) + 1}: "
            f"W, β, γ, μ, variance for each of {len(spec.layers)} layers, and the classifier"
        )
    inputs, shape = prod(spec.layers[-1].out_shape), arrays[-1].shape
    found = shape[1] if len(shape) == 2 and shape[0] == inputs else 0
    if found < 2 or found != (classes or found):
        wanted = (inputs, "2 or more" if classes is None else classes)
        raise ValueError(f"{path}: the classifier has shape {shape}, and {spec.network} needs {wanted}")
    return replace(spec, classes=found)


def _finite(path: object, what: str, array: np.ndarray) -> np.ndarray:
    """The array as float32; ValueError where a value is not finite, or a variance negative."""
    with np.errstate(over="ignore"):
        array = array.astype(np.float32)
    bad = ~np.isfinite(array) | ((array < 0) & what.endswith("variance"))
    if bad.any():
        raise ValueError(f"{path}: {what} holds {array[bad][0]}, which no trained network does: take another one")
    return array


@on_cpu
@torch.no_grad()
def quantize_ends(ann: ANN) -> ANN:
    """The network with int8 encoder and classifier, rounded after training; nothing else changes.

    Weights become round(w / s), s = max|w| / 127 for each channel, and batch norm absorbs the scale:
    γ·(s·z − μ)/σ = (γ·s)·(z − μ/s)/σ, so thresholds are those of the rounded weights s·round(w / s). Hidden
    layers with full-precision weights are rounded likewise; ternary ones stay as they are. A network with
    int8 ends is copied. Raises ValueError for a network that is not quantized.
    """
    expect(ANN, ann=ann)
    if not ann.spec.quantized:
        raise ValueError("quantize_ends: this network is full precision; build it with quantized=True first")
    result = build_ann(**replace(ann.spec, int8_ends=True).to_dict()).to(ann.layers[0].norm.weight)
    copy_weights(ann, result).train(ann.training)
    result.metadata = dict(ann.metadata)
    if ann.spec.int8_ends:
        return result
    for part in result.parts:
        if part is result.layers[0] or not ann.spec.ternary:
            raw = raw_weight(part.conv)
            scale = int8_scale(raw.double())
            # Stored as integers their own scale is 1: no later rounding, in any precision, moves a weight.
            raw.copy_((raw.double() / scale).round())
            scale, mean = scale.flatten(), cast(Tensor, part.norm.running_mean)
            part.norm.weight.copy_(part.norm.weight.double() * scale)
            mean.copy_(mean.double() / scale)
    return result
