"""Checkpoints in the published form, written by this or an older NumPy; and files that are not what they seem."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import numpy as np
import torch
from networks import random_ann

from ann_snn_utils.ann.network import ANN, build_ann, copy_weights, raw_weight

HEADER = b"{'descr': '|O', 'fortran_order': False, 'shape': (3,), }"


def float_ends_ann(seed: int = 0, **arguments) -> ANN:
    """A random network with full-precision ends: the encoder's weights and statistics in real units."""
    source = random_ann(seed, **arguments)
    ann = build_ann(**source.spec.to_dict() | {"int8_ends": False})
    copy_weights(source, ann)
    with torch.no_grad():
        for index, layer in enumerate(ann.layers):
            if index == 0 or not ann.spec.ternary:
                layer.norm.running_mean /= 40
                layer.norm.running_var /= 1600
    return ann.eval()


def parameters(ann: ANN) -> np.ndarray:
    """The published list: W (HWIO), β, γ, μ, σ² of each layer, and the classifier over (H, W, C)."""
    arrays = []
    for layer in ann.layers:
        arrays.append(raw_weight(layer.conv).permute(2, 3, 1, 0))
        arrays += [layer.norm.bias, layer.norm.weight, layer.norm.running_mean, layer.norm.running_var]
    channels, height, width = ann.spec.layers[-1].out_shape
    read_out = raw_weight(ann.classifier).reshape(ann.spec.classes, channels, height, width)
    arrays.append(read_out.permute(2, 3, 1, 0).flatten(0, 2))
    listed = np.empty(len(arrays), dtype=object)
    for index, array in enumerate(arrays):
        listed[index] = array.detach().numpy().copy()
    return listed


def pack(path: Path, program: bytes, header: bytes = HEADER, member: str = "params.npy", **options) -> Path:
    """An .npz whose only member is an .npy with this header and this pickle."""
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + program
    with zipfile.ZipFile(path, "w", **options) as archive:
        archive.writestr(member, content)
    return path


def save_by_protocol(path: Path, listed: np.ndarray, protocol: int, old_numpy: bool = False) -> Path:
    """As NumPy writes it with that pickle protocol; old_numpy: with the module names of NumPy 1."""
    program = pickle.dumps(listed, protocol=protocol)
    if old_numpy:
        assert protocol < 4, "the names are plain text only in the older protocols"
        program = program.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
    return pack(path, program)


def python_2(*arrays: np.ndarray) -> bytes:
    """The pickle of a list of arrays as NumPy wrote it under Python 2, whose bytes are text."""

    def text(value: bytes) -> bytes:
        short = len(value) < 256
        return b"U" + bytes([len(value)]) + value if short else b"T" + len(value).to_bytes(4, "little") + value

    def number(value: int) -> bytes:
        return b"K" + bytes([value]) if value < 256 else b"J" + value.to_bytes(4, "little")

    def array(shape: tuple[int, ...], kind: bytes, order: bytes, flags: int, fortran: bool, data: bytes) -> bytes:
        made = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00t" + text(b"b") + b"tR(K\x01"
        made += b"(" + b"".join(map(number, shape)) + b"tcnumpy\ndtype\n(" + text(kind) + b"K\x00K\x01tR(K\x03"
        return (
            made
            + text(order)
            + b"NNN"
            + 2 * b"J\xff\xff\xff\xff"
            + number(flags)
            + b"tb"
            + (b"\x88" if fortran else b"\x89")
            + data
            + b"tb"
        )

    listed = b""
    for one in arrays:
        fortran = one.flags.f_contiguous and not one.flags.c_contiguous
        kind, order = one.dtype.str[1:].encode(), one.dtype.str[:1].encode()
        listed += array(one.shape, kind, order, 0, fortran, text(one.tobytes(order="F" if fortran else "C")))
    return b"\x80\x02" + array((len(arrays),), b"O8", b"|", 63, False, b"](" + listed + b"e") + b"."
