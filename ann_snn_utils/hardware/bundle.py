"""The hardware bundle: a folder with a network's integers, inputs and golden outputs that describes itself.

Arrays are raw little-endian bytes, and $readmemh images of the same. manifest.json says what every file holds,
layout.txt says the numbers again for readers without JSON. The readers in C and Python, which lie in the folder
too, recompute the golden outputs from its files alone.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ..ann.device import on_cpu
from ..checks import expect
from ..data.dataset import Dataset
from ..files import atomic, load_json, save_json, sha256
from ..simulator.run import simulate
from ..snn.network import SNN, Synapses
from .circuit import Hardware, LayerHardware, bytes_for, golden_records, hardware
from .cost import cost_report, cost_table

FORMAT, VERSION = "ann-snn-bundle", 2
READERS = Path(__file__).parent / "readers"
MAP = ("channel", "row", "column")
# Numbers of layout.txt in the order in which the reader in C expects them: of a run, of the classifier, of synapses
# (the last four are not of version 1), and of a layer, with its first synapses and its circuit.
OF_RUN = "samples steps levels amplitude_shift".split()
OF_CLASSIFIER = "classes score_bits score_bytes bias".split()
OF_KERNEL, LATER = "kernel stride padding weight_bits".split(), "source dilation groups gain_bytes".split()
OF_SYNAPSES = ["in_shape", *OF_KERNEL, *LATER]
OF_CIRCUIT = "largest_count saturates fraction_bits constant_bytes threshold_bits membrane_bits".split()
OF_CIRCUIT += ["membrane_bytes", "maximum", "lowest_count"]
OF_LAYER = ["in_shape", "out_shape", *OF_KERNEL, *OF_CIRCUIT, *LATER]
# Lists of the manifest, each of which is several numbers there.
AXES = {f"{side}_shape": [f"{side}_{axis}s" for axis in MAP] for side in ("in", "out")}
AXES |= {"kernel": ["kernel_rows", "kernel_columns"]}


@dataclass(frozen=True)
class MemoryFile:
    """How an array lies in `<name>.bin` and `<name>.hex`.

    shape, axes: of the values, the last axis fastest. packed: a value −1, 0 or +1 takes 2 bits of two's complement,
    not those of `dtype`; four make a byte, the first in its lowest bits. frame_axes: how many leading axes count
    frames; each frame begins at a whole byte.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    axes: tuple[str, ...]
    packed: bool = False
    frame_axes: int = 0

    def to_dict(self) -> dict[str, Any]:
        """What a reader needs to know about the file, as JSON values."""
        bits = 2 if self.packed else np.iinfo(self.dtype).bits
        described = {"dtype": self.dtype, "bits": bits, "shape": list(self.shape), "axes": list(self.axes)}
        return described | ({"frame_axes": self.frame_axes} if self.frame_axes else {})


def pack_pairs(values: np.ndarray) -> np.ndarray:
    """Values −1, 0, +1 of the last axis in two bits each: uint8 [..., ⌈n / 4⌉], the last byte filled with 0.

    A pair is two's complement, 11 for −1, 00 and 01; the first value is in the lowest bits. Raises ValueError
    for another value.

    >>> pack_pairs(np.array([1, -1, 0, 0])).tolist() == [0b00_00_11_01]
    True
    """
    if values.size and (values.min() < -1 or values.max() > 1):
        raise ValueError(f"two bits hold −1, 0 and +1 only, not {values.min()} … {values.max()}")
    bits = values.astype(np.int8)[..., None] >> np.arange(2, dtype=np.int8) & 1
    return np.packbits(bits.reshape(*values.shape[:-1], 2 * values.shape[-1]), axis=-1, bitorder="little")


def write_memory(folder: Path, file: MemoryFile, values: np.ndarray, append: bool = False) -> None:
    """Write (or continue) `<name>.bin` and `<name>.hex` in a folder.

    values: integers of the file's shape, or of some of its frames where they are appended. The .hex file holds
    one word a line, most significant digit first, and a comment above; the word of packed pairs is a byte.
    Raises ValueError for a value that the file's type does not hold.
    """
    if file.packed:
        frames = values.shape[: file.frame_axes]
        words = pack_pairs(values.reshape(*frames, -1)).reshape(-1)
    else:
        ends = np.iinfo(file.dtype)
        if values.size and not (ends.min <= values.min() and values.max() <= ends.max):
            raise ValueError(f"{file.name}: {file.dtype} does not hold {values.min()} … {values.max()}")
        words = values.reshape(-1).astype(np.dtype(file.dtype).newbyteorder("<"))
    data = words.tobytes()
    path = folder / file.name
    path.parent.mkdir(parents=True, exist_ok=True)
    with Path(f"{path}.bin").open("ab" if append else "wb") as raw:
        raw.write(data)
    lines = words.astype(words.dtype.newbyteorder(">")).tobytes().hex("\n", words.dtype.itemsize)
    with Path(f"{path}.hex").open("a" if append else "w", encoding="ascii") as text:
        if not append:
            packed = ", four 2-bit values a byte, the first in bits 1:0" if file.packed else ""
            text.write(f"// {file.name}: {file.dtype} {list(file.shape)} ({', '.join(file.axes)}){packed}\n")
        text.write(lines + "\n")


@on_cpu
def write_bundle(
    snn: SNN,
    dataset: Dataset,
    out: str | os.PathLike[str],
    provenance: Mapping[str, Any] | None = None,
    time_steps: int | None = None,
    replace_old: bool = False,
) -> Path:
    """Write the bundle of an integer network and a data set's samples as the folder `out`, and return its path.

    The folder appears complete or not at all. time_steps: None runs until every sample is silent. provenance:
    JSON values that say where the network comes from. The same arguments make the same bytes. replace_old: a
    bundle that lies there already is replaced; where it holds a file that is not as it was written, it is kept
    under another name, which a warning tells. Raises ValueError for a network that is not all integers,
    FileExistsError for a folder that holds something else, OSError where it cannot be written.
    """
    expect(SNN, snn=snn)
    expect(Dataset, dataset=dataset)
    out = Path(out)
    check_target(out, replace_old)
    circuit = hardware(snn)
    record = simulate(snn, dataset, time_steps)
    steps = record.time_steps
    with atomic(out) as folder:
        folder.mkdir()
        files = _given(folder, snn, circuit, dataset) + _golden(folder, snn, circuit, dataset, steps)
        described = description(snn, circuit, dataset, steps)
        report = cost_report(snn, circuit, dataset.images, record)
        save_json(folder / "cost.json", report)
        (folder / "layout.txt").write_text(layout_text(described), encoding="ascii")
        for index in range(len(circuit.layers)):
            if _for_test_bench(circuit, index):
                (folder / f"network/layer{index}.vh").write_text(verilog_header(described, index), encoding="ascii")
        for name in sorted(path.name for path in READERS.iterdir() if path.is_file()):
            shutil.copyfile(READERS / name, folder / name)
        with (folder / "README.md").open("a", encoding="utf-8") as readme:
            readme.write("\n" + cost_table(report) + "\n")
        listed = {file.name: file.to_dict() for file in files}
        names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        sums = {name: {"bytes": (folder / name).stat().st_size, "sha256": sha256(folder / name)} for name in names}
        origin = {"provenance": dict(provenance or {}), "training": snn.metadata}
        save_json(folder / "manifest.json", described | {"tensors": listed, "files": sums} | origin)
        # Someone may have put something there meanwhile.
        check_target(out, replace_old)
        old = None
        if out.is_dir():
            # A folder cannot be renamed onto one that is not empty.
            beside = (out.with_name(f"{out.name}-old-{number}") for number in count(1))
            old = out.rename(next(path for path in beside if not path.exists()))
    if old and (others := _others(old)):
        warnings.warn(
            f"{out} held {others[0]}, which is not as its bundle was written: the old folder is {old}", stacklevel=3
        )
    elif old:
        shutil.rmtree(old)
    return out


def _others(folder: Path) -> list[str]:
    """Files in the folder of a bundle that were put there, or changed, since it was written."""
    manifest = folder / "manifest.json"
    paths = [path for path in sorted(folder.rglob("*")) if path != manifest and not path.is_dir()]
    written = load_json(manifest).get("files", {}) if paths else {}
    names = {path.relative_to(folder).as_posix(): path for path in paths}
    return [name for name, path in names.items() if written.get(name, {}).get("sha256") != sha256(path)]


def check_target(out: Path, replace_old: bool = False) -> None:
    """Raise FileExistsError where `out` holds what a bundle may not take the place of."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not out.is_dir():
        raise FileExistsError(f"{out} is a file: give the path of a new folder")
    if not replace_old:
        raise FileExistsError(f"{out} is not empty: give the path of a new folder, or remove this one")
    if not is_bundle(out):
        raise FileExistsError(f"{out} holds something else than a bundle: give the path of a new folder")


def is_bundle(folder: Path) -> bool:
    """True where a folder holds a bundle of any version."""
    try:
        return bool(json.loads((folder / "manifest.json").read_text(encoding="utf-8")).get("format") == FORMAT)
    except (OSError, ValueError, AttributeError, RecursionError):
        return False


def description(snn: SNN, circuit: Hardware, dataset: Dataset, steps: int) -> dict[str, Any]:
    """The manifest without its lists of files."""
    spec = snn.spec
    return {
        "format": FORMAT,
        "version": VERSION,
        "byte_order": "little",
        "order": "the last axis fastest",
        "network": {
            "notation": spec.network,
            "padding": spec.padding,
            "classes": list(dataset.classes),
            "k": spec.k,
            "clip": spec.clip,
            "ternary": spec.ternary,
            "thresholds": snn.thresholds,
        },
        "samples": len(dataset),
        "steps": steps,
        "levels": snn.levels,
        "amplitude_shift": spec.k,
        "threshold_form": "(U << fraction_bits) >= A + j * D",
        "layers": [_layer_entry(index, layer) for index, layer in enumerate(circuit.layers)],
        "classifier": {
            "classes": spec.classes,
            "inputs": snn.layers[-1].neurons,
            "weight_bits": 8,
            "score_lowest": circuit.score[0],
            "score_highest": circuit.score[1],
            "score_bits": circuit.score_bits,
            "score_bytes": circuit.score_bytes,
            "bias": snn.bias is not None,
        },
    }


def _layer_entry(index: int, circuit: LayerHardware) -> dict[str, Any]:
    spec, (lowest, highest) = circuit.layer.spec, circuit.membrane
    first, *others = map(_synapses_entry, circuit.layer.synapses, circuit.weights)
    return {
        "name": spec.token,
        "role": "hidden" if index else "encoder",
        "out_shape": list(spec.out_shape),
        **first,
        **{name: getattr(circuit, name) for name in OF_CIRCUIT},
        "count_bits": circuit.count_bits,
        "membrane_lowest": lowest,
        "membrane_highest": highest,
        "more_synapses": others,
    }


def _synapses_entry(one: Synapses, bits: int) -> dict[str, Any]:
    spec = one.spec
    return {
        "source": spec.source,
        "in_shape": list(spec.in_shape),
        "kernel": list(spec.kernel),
        **{name: getattr(spec, name) for name in ("stride", "padding", "dilation", "groups")},
        "weight_bits": bits,
        "gain_bytes": _gain_bytes(one),
    }


def _gain_bytes(one: Synapses) -> int:
    return 0 if one.gain is None else bytes_for(int(one.gain.min()), int(one.gain.max()))


def _for_test_bench(circuit: Hardware, index: int) -> bool:
    """Whether layer_tb.v can run a layer: a convolution of the layer before it."""
    own = circuit.layers[index]
    one, *others = own.layer.synapses
    plain = not (own.maximum or own.lowest_count or others) and one.gain is None
    next_to = (one.spec.source, one.spec.dilation, one.spec.groups) == (index - 1, 1, 1)
    # Its input has the encoder's amplitude in layer 1 only.
    return plain and next_to and not (index > 1 and circuit.layers[index - 1].maximum)


def verilog_header(described: Mapping[str, Any], index: int) -> str:
    """The numbers of one layer as Verilog's local parameters, named as in layout.txt."""
    rows = _rows(described, OF_RUN) + _layer_rows(index, described["layers"][index])
    return "".join(f"localparam {name} = {value};\n" for name, value in rows)


def layout_text(described: Mapping[str, Any]) -> str:
    """The manifest's numbers as lines `word number`, in the order in which the reader in C expects them."""
    rows = [("bundle_version", described["version"]), *_rows(described, OF_RUN)]
    rows += [*_rows(described["classifier"], OF_CLASSIFIER), ("layers", len(described["layers"]))]
    for index, layer in enumerate(described["layers"]):
        rows += _layer_rows(index, layer)
    return "".join(f"{name} {value}\n" for name, value in rows)


def _layer_rows(index: int, layer: Mapping[str, Any]) -> list[tuple[str, int]]:
    others = layer["more_synapses"]
    rows = [("layer", index), *_rows(layer, OF_LAYER), ("more_synapses", len(others))]
    return rows + [row for one in others for row in _rows(one, OF_SYNAPSES)]


def _rows(entry: Mapping[str, Any], names: Iterable[str]) -> list[tuple[str, int]]:
    """The numbers that a part of the manifest holds under these names."""
    several = [zip(AXES[n], entry[n], strict=True) if n in AXES else [(n, int(entry[n]))] for n in names]
    return [row for rows in several for row in rows]


def _given(folder: Path, snn: SNN, circuit: Hardware, dataset: Dataset) -> list[MemoryFile]:
    """Write the network and the inputs."""
    files: list[MemoryFile] = []

    def write(name: str, dtype: str, axes: tuple[str, ...], values: Tensor, packed: bool = False) -> None:
        files.append(MemoryFile(name, dtype, tuple(values.shape), axes, packed))
        write_memory(folder, files[-1], values.numpy())

    for index, layer in enumerate(circuit.layers):
        start, kept = f"network/layer{index}", zip(layer.layer.synapses, layer.weights, strict=True)
        for number, (one, bits) in enumerate(kept if not layer.maximum else ()):
            also, axes = number or "", ("out_channel", "in_channel", "kernel_row", "kernel_column")
            write(f"{start}_weight{also}", "int8", axes, one.weight, bits == 2)
            if one.gain is not None:
                write(f"{start}_gain{also}", f"int{8 * _gain_bytes(one)}", ("out_channel",), one.gain)
        for part, values in (("offset", layer.offset), ("step", layer.step)):
            write(f"{start}_{part}", f"int{8 * layer.constant_bytes}", ("out_channel",), values)
    write("network/classifier", "int8", ("class", *MAP), snn.classifier)
    if snn.bias is not None:
        write("network/bias", f"int{8 * circuit.score_bytes}", ("class",), snn.bias)
    write("vectors/images", "uint8", ("sample", *MAP), dataset.images)
    write("vectors/labels", "int32", ("sample",), dataset.labels)
    return files


def _golden(folder: Path, snn: SNN, circuit: Hardware, dataset: Dataset, steps: int) -> list[MemoryFile]:
    samples, times, over_time, files = len(dataset), (len(dataset), steps), ("sample", "step"), []
    for index, layer in enumerate(circuit.layers):
        name, shape, dtype = f"golden/layer{index}", layer.layer.spec.out_shape, f"int{8 * layer.membrane_bytes}"
        files += [
            MemoryFile(f"{name}_spikes", "int8", (*times, *shape), (*over_time, *MAP), packed=True, frame_axes=2),
            MemoryFile(f"{name}_membranes", dtype, (samples, *shape), ("sample", *MAP)),
        ]
    dtype = f"int{8 * circuit.score_bytes}"
    files += [
        MemoryFile("golden/scores", dtype, (*times, snn.spec.classes), (*over_time, "class")),
        MemoryFile("golden/predictions", "int32", times, over_time),
    ]
    for number, (record, traces) in enumerate(golden_records(snn, dataset.images, steps)):
        layers = zip(traces.spikes, traces.membranes, strict=True)
        arrays = [array for spikes, membranes in layers for array in (spikes.transpose(0, 1), membranes[-1])]
        arrays += [record.logits.transpose(0, 1), record.predictions.T]
        for file, values in zip(files, arrays, strict=True):
            write_memory(folder, file, values.numpy(), append=number > 0)
    return files
