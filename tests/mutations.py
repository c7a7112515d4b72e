"""Hostile versions of good files: bytes changed, cut or added, and values of their JSON replaced."""

from __future__ import annotations

import copy
import json
import struct
from typing import Any

from hypothesis import strategies as st

# What a field of a JSON document may become.
HOSTILE = st.one_of(
    st.sampled_from(
        [
            None,
            True,
            False,
            0,
            -1,
            1,
            3,
            255,
            10**6,
            2**31,
            2**63,
            -(2**63),
            10**30,
            0.5,
            -0.0,
            1e308,
            float("nan"),
            float("inf"),
            "",
            "x",
            "0",
            "../../etc/passwd",
            "/etc/passwd",
            "\0",
            "1" * 5000,
            "9" * 30 + "C3",
            "-".join(["1"] * 3000),
            [],
            {},
            [[]],
            [None],
            [0, 0, 0],
            [-1, 8, 8],
            [2**40] * 3,
            {"x": {}},
            [1e9, 1, 1],
            "__class__",
            "__import__('os').system('true')",
        ]
    ),
    st.integers(),
    st.text(max_size=8),
    st.lists(st.integers(-5, 300), max_size=5),
).map(copy.deepcopy)

INTEGERS = st.one_of(st.sampled_from([-1, 0, 1, 2, 9, 255, 2**15, 2**31, 2**63, -(2**64), 10**30]), st.integers())
NUMBERS = st.one_of(INTEGERS, st.floats())


def _paths(value: Any, path: tuple = ()) -> list[tuple]:
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found += _paths(inner, (*path, key))
    return found


@st.composite
def changed_json(draw, document: Any) -> Any:
    """The document with one to three of its values replaced, removed, or added to."""
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        paths = _paths(document)
        if not paths:
            return draw(HOSTILE)
        *outer, last = draw(st.sampled_from(paths))
        inner = document
        for key in outer:
            inner = inner[key]
        match draw(st.sampled_from(["replace", "replace", "replace", "remove", "add"])):
            case "replace":
                inner[last] = draw(HOSTILE)
            case "remove":
                del inner[last]
            case "add" if isinstance(inner, list):
                inner.append(draw(HOSTILE))
            case "add":
                inner[draw(st.text(max_size=5))] = draw(HOSTILE)
    return document


@st.composite
def changed_bytes(draw, data: bytes) -> bytes:
    """The data with bytes flipped, cut off, cut out, inserted or repeated."""
    data = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        if not data:
            break
        place = draw(st.integers(0, len(data) - 1))
        match draw(st.sampled_from(["flip", "flip", "set", "cut", "remove", "insert", "repeat"])):
            case "flip":
                data[place] ^= 1 << draw(st.integers(0, 7))
            case "set":
                data[place] = draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF, 0x22, 0x2C]))
            case "cut":
                del data[place:]
            case "remove":
                del data[place : place + draw(st.integers(1, 16))]
            case "insert":
                data[place:place] = draw(st.binary(max_size=16))
            case "repeat":
                data[place:place] = data[place : place + 64]
    return bytes(data)


def header_of(data: bytes) -> tuple[dict, bytes]:
    """The header of a safetensors file, its metadata read too, and the bytes behind it."""
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"]["json"] = json.loads(header["__metadata__"]["json"])
    return header, data[8 + length :]


def with_header(header: Any, rest: bytes) -> bytes:
    """A safetensors file of this header, whose metadata are written as text again where they still are JSON."""
    header = copy.deepcopy(header)
    if isinstance(header, dict) and isinstance(header.get("__metadata__"), dict):
        header["__metadata__"] = {
            key: value if isinstance(value, str) else json.dumps(value)
            for key, value in header["__metadata__"].items()
        }
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + rest


@st.composite
def changed_tensors(draw, data: bytes) -> bytes:
    """A safetensors file with other bytes, another header, other metadata, or other numbers."""
    header, rest = header_of(data)
    match draw(st.sampled_from(["bytes", "header", "metadata", "numbers", "length"])):
        case "bytes":
            return draw(changed_bytes(data))
        case "header":
            return with_header(draw(changed_json(header)), rest)
        case "metadata":
            header["__metadata__"]["json"] = draw(changed_json(header["__metadata__"]["json"]))
            return with_header(header, rest)
        case "length":
            return struct.pack("<Q", draw(st.sampled_from([0, 1, 2**20, 2**31, 2**63, 2**64 - 1]))) + data[8:]
        case _:
            changed = bytearray(rest)
            for _ in range(draw(st.integers(1, 4))):
                place = draw(st.integers(0, max(0, len(changed) - 8)))
                changed[place : place + 4] = draw(
                    st.sampled_from([b"\x00\x00\xc0\x7f", b"\x00\x00\x80\x7f", b"\xff\xff\xff\x7f", b"\x00" * 4])
                )
            return with_header(header, bytes(changed[: len(rest)]))
