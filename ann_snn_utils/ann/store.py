"""Networks on disk: those of a run, and the small trained ones that come with the project.

The latter are packed and checked by their SHA-256: hidden ternary weights in two bits, int8 ends in one byte,
batch norm in float32, the classifier's scale in float64. From such a quantized network `convert` makes any spiking
form; index.json says how each was made.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor

from ..checks import expect
from ..files import ROOT, load_json, load_tensors, save_json, save_tensors, sha256
from .network import ANN, Part, raw_weight, set_lowest, set_unit
from .notation import spec_of
from .reference import in_float64

PRETRAINED = ROOT / "data" / "pretrained"
INDEX = "index.json"
# Before the name of a bundled network, where a run could be named instead.
BUNDLED = "bundled:"

_NORM = ("weight", "bias", "running_mean", "running_var")


def _described(tensor: Tensor | None) -> str:
    return "missing" if tensor is None else f"{tensor.dtype} {list(tensor.shape)}"


def save_ann(ann: ANN, path: str | Path, **metadata: object) -> None:
    """Write the network to a safetensors file, with its spec and `metadata` (JSON values) inside.

    Raises ValueError for a network in another type than float32, which files hold.
    """
    expect(ANN, ann=ann)
    state = ann.state_dict()
    for name, tensor in state.items():
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise ValueError(
                f"{name} is {tensor.dtype}, and files hold float32: call .float() of the network first"
            )
    save_tensors(path, state, {"spec": ann.spec.to_dict(), **metadata})


def load_ann(path: str | Path) -> ANN:
    """Read the network that `save_ann` wrote; `.metadata` holds what was saved beside it.

    Raises FileNotFoundError or ValueError that names the file and what is wrong with it.
    """
    tensors, metadata = load_tensors(path)
    spec = spec_of(path, metadata)
    # Shapes are compared first: no memory is taken for a network that the file only names.
    with torch.device("meta"):
        needed = ANN(spec).state_dict()
    for name in sorted(set(needed) | set(tensors)):
        there, wanted = tensors.get(name), needed.get(name)
        # Older files leave it out, and it is known.
        if there is None and name.endswith(".weight.0.lowest"):
            continue
        if there is None or wanted is None or there.shape != wanted.shape or there.dtype != wanted.dtype:
            raise ValueError(
                f"{path} does not fit the network it names: {name} is {_described(there)}, and {spec.title:.80} "
                f"needs {_described(wanted)}; make it again"
            )
        if not torch.isfinite(there).all():
            raise ValueError(f"{path}: {name} holds a value that is not finite; train the network again")
    ann = ANN(spec)
    ann.load_state_dict(tensors)
    ann.metadata = {key: value for key, value in metadata.items() if key != "spec"}
    return ann


def pack_ternary(weight: Tensor) -> Tensor:
    """Weights −1, 0, +1 of any shape in two bits each, uint8 [⌈n / 4⌉]; the first is the lowest pair."""
    codes = (weight.flatten().to(torch.int16) + 1).to(torch.uint8)
    codes = torch.cat([codes, codes.new_zeros(-len(codes) % 4)]).view(-1, 4)
    return codes[:, 0] | codes[:, 1] << 2 | codes[:, 2] << 4 | codes[:, 3] << 6


def unpack_ternary(packed: Tensor, shape: tuple[int, ...]) -> Tensor:
    """What `pack_ternary` packed, int8 of the given shape; ValueError where the lengths differ."""
    number = prod(shape)
    if len(packed) != -(-number // 4):
        raise ValueError(f"{len(packed)} bytes of ternary weights do not make shape {tuple(shape)}")
    codes = torch.stack([packed >> shift & 3 for shift in (0, 2, 4, 6)], 1).flatten()[:number]
    if (codes == 3).any():
        raise ValueError("ternary weights hold a code that is none of −1, 0, +1")
    return (codes.to(torch.int8) - 1).reshape(shape)


class Listed(msgspec.Struct, frozen=True):
    """What the index must say of a network; what it says beside that, such as its accuracy, is free."""

    file: str
    sha256: str


def list_pretrained(folder: Path = PRETRAINED) -> dict[str, dict[str, Any]]:
    """Name → description of every network in the folder's index; none where there is no index."""
    path = Path(folder) / INDEX
    index = load_json(path) if path.is_file() else {}
    try:
        msgspec.convert(index, dict[str, Listed])
    except msgspec.ValidationError as error:
        raise ValueError(f"{path} is not an index of networks ({error}): restore it from git") from None
    return index


@torch.no_grad()
def save_pretrained(ann: ANN, name: str, folder: Path = PRETRAINED, **metadata: object) -> Path:
    """Write a quantized network with int8 ends as <folder>/<name>.safetensors and list it in index.json.

    metadata: JSON values beside `ann.metadata`: data set, command, seed, accuracy. Raises ValueError for a
    network whose weights are not all integers.
    """
    spec = ann.spec
    if not (spec.quantized and spec.int8_ends):
        raise ValueError(f"{name}: only networks with integer weights throughout are kept; set int8_ends=True")
    tensors: dict[str, Tensor] = {}
    # A weight next to the threshold of ternary weights is on the side where conversion, in float64, sees it.
    reference = in_float64(ann)
    for prefix, part, ternary in _kept_parts(reference):
        weight = part.conv.weight.round()
        tensors[f"{prefix}.weight"] = pack_ternary(weight) if ternary else weight.to(torch.int8)
        for name_of in _NORM:
            tensors[f"{prefix}.norm.{name_of}"] = getattr(part.norm, name_of).float()
    tensors["classifier"] = reference.classifier.weight.round().to(torch.int8)
    # In float64, so that the largest weight comes back as it was, and with it every score.
    tensors["scale"] = torch.as_tensor(reference.classifier.scale, dtype=torch.float64).reshape(1)
    if reference.classifier.bias is not None:
        tensors["bias"] = reference.classifier.whole_bias.long()
    description = {**ann.metadata, **metadata}
    path = Path(folder) / f"{name}.safetensors"
    save_tensors(path, tensors, {"spec": spec.to_dict(), **description})
    entry = {"file": path.name, "sha256": sha256(path), "bytes": path.stat().st_size, "spec": spec.to_dict()}
    save_json(Path(folder) / INDEX, list_pretrained(folder) | {name: entry | description})
    return path


def pretrained_file(name: str, folder: Path = PRETRAINED) -> Path:
    """The path of a network's file, checked by its SHA-256; "bundled:" before its name may be left out.

    Raises ValueError for a name that is not in the index, or for a file that is not the one listed there.
    """
    name = name.removeprefix(BUNDLED).strip()
    index, path = list_pretrained(folder), Path(folder) / f"{name}.safetensors"
    if not index:
        raise ValueError(f"pretrained network {name!r}: {folder} lists none; work in a checkout of the project")
    if name not in index:
        raise ValueError(f"pretrained network {name!r}: choose one of {', '.join(index)}")
    if index[name]["file"] != path.name:
        raise ValueError(f"{INDEX} lists another file than {path}: restore it from git")
    found, listed = sha256(path), index[name]["sha256"]
    if found != listed:
        raise ValueError(f"{path} has SHA-256 {found[:16]}…, {INDEX} lists {listed[:16]}…: restore it from git")
    return path


@torch.no_grad()
def load_pretrained(name: str, folder: Path = PRETRAINED) -> ANN:
    """The quantized network of that name, in evaluation mode; `.metadata` holds its description.

    Raises ValueError as `pretrained_file` does.
    """
    path = pretrained_file(name, folder)
    tensors, metadata = load_tensors(path)
    ann = ANN(spec_of(path, metadata))
    try:
        _restore(ann, tensors)
    except (KeyError, RuntimeError, ValueError) as error:
        raise ValueError(f"{path} does not fit its network ({error!s:.200}): restore it from git") from None
    ann.metadata = {key: value for key, value in metadata.items() if key != "spec"}
    return ann.eval()


def _kept_parts(ann: ANN) -> Iterator[tuple[str, Part, bool]]:
    """Everything that has weights, by its name, and whether these are ternary."""
    for name, part in ann.named_modules():
        if isinstance(part, Part):
            yield name, part, ann.spec.ternary and name != "layers.0"


def _restore(ann: ANN, tensors: dict[str, Tensor]) -> None:
    for prefix, part, ternary in _kept_parts(ann):
        weight = tensors[f"{prefix}.weight"]
        if ternary:
            weight = unpack_ternary(weight, tuple(part.conv.weight.shape))
        raw_weight(part.conv).copy_(weight)
        if ann.spec.is_graph and not ternary:
            set_lowest(part.conv, weight)
        for name in _NORM:
            getattr(part.norm, name).copy_(tensors[f"{prefix}.norm.{name}"])
    raw_weight(ann.classifier).copy_(tensors["classifier"].float() * tensors["scale"])
    if ann.spec.is_graph:
        set_unit(ann.classifier, tensors["scale"])
        set_lowest(ann.classifier, tensors["classifier"])
    if ann.classifier.bias is not None:
        ann.classifier.bias.copy_(tensors["bias"])
