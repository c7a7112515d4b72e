"""Arrays of numbers from an .npz file whose members are pickles, read without trusting the pickle.

An object array in an .npz is a pickle, and a pickle is a program. Here it may only name NumPy's array
constructors, and even these are replaced: inert stand-ins write down what was asked for, and the arrays are
made afterwards from the bytes that are really there.
"""

from __future__ import annotations

import io
import os
import pickle
import pickletools
import re
import zipfile
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np

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
