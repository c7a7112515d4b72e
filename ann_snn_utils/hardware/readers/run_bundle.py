"""Recompute a bundle's golden outputs from its files alone: Python's standard library, integers only.

    python run_bundle.py [folder] [samples]

Exit code 0: every spike, membrane, score and prediction is reproduced and every file is the one listed.
1: the first difference is printed. 2: the bundle cannot be read.
"""

from __future__ import annotations

import hashlib
import json
import sys
from array import array
from collections.abc import Iterable, Sequence
from itertools import pairwise
from math import prod
from pathlib import Path

CODES = {1: "b", 2: "h", 4: "i", 8: "q"}
# What two bits stand for; 10 for nothing.
NO_PAIR = 2
PAIRS = (0, 1, NO_PAIR, -1)
LARGEST, MOST_THRESHOLDS = 2**31, 2**24


class Unreadable(Exception):
    """The bundle is not what its manifest says."""


class Different(Exception):
    """A recomputed value is not the golden one, or leaves its stated width."""


def integer(entry: object, name: str, low: int, high: int) -> int:
    """The integer that a part of the manifest holds under a name."""
    value = entry.get(name) if isinstance(entry, dict) else None
    if not isinstance(value, int) or not low <= value <= high:
        raise Unreadable(f"manifest.json: {name} is {str(value)[:40]!r}, not a whole number from {low} to {high}")
    return int(value)


def sizes(entry: dict, name: str, number: int) -> list[int]:
    """The list of sizes that a part of the manifest holds under a name."""
    values = entry.get(name)
    if not isinstance(values, list) or len(values) != number:
        raise Unreadable(f"manifest.json: {name} is {str(values)[:40]!r}, not {number} sizes")
    return [integer({name: value}, name, 1, 65536) for value in values]


def product(*values: int) -> int:
    """A product that can be the size of a file of a bundle."""
    if prod(values) > LARGEST:
        raise Unreadable(f"manifest.json: {prod(values)} values are more than a bundle holds")
    return prod(values)


def read_bytes(folder: Path, name: str, expected: int) -> bytes:
    """The bytes of a file of the expected length."""
    try:
        found = (folder / name).stat().st_size
        if found == expected:
            return (folder / name).read_bytes()
    except OSError as error:
        raise Unreadable(f"{name} cannot be read ({error}): copy the bundle again") from None
    raise Unreadable(f"{name} has {found} bytes, not {expected}: copy the bundle again")


def read_integers(folder: Path, name: str, number: int, size: int, unsigned: bool = False) -> array:
    """The little-endian integers of a file."""
    values = array(CODES[size].upper() if unsigned else CODES[size])
    values.frombytes(read_bytes(folder, f"{name}.bin", number * size))
    if sys.byteorder == "big":
        values.byteswap()
    return values


def unpack(data: bytes, number: int, name: str) -> list[int]:
    """The first values of bytes with four 2-bit values each, the first in the lowest bits."""
    values = [PAIRS[byte >> shift & 3] for byte in data for shift in (0, 2, 4, 6)][:number]
    if NO_PAIR in values:
        raise Unreadable(f"{name}.bin holds the pair 10, which is none of −1, 0, +1")
    return values


def check_width(values: Iterable[int], bits: int, what: str) -> None:
    """Raise unless every value fits a signed integer of that many bits."""
    least, most = min(values), max(values)
    if not -(1 << bits - 1) <= least <= most < 1 << bits - 1:
        raise Different(f"{what} reaches {least} … {most} and leaves its {bits} bits")


class Layer:
    """One layer: geometry, weights and thresholds."""

    def __init__(self, folder: Path, entry: dict, index: int) -> None:
        self.index = index
        self.in_shape, self.out_shape = sizes(entry, "in_shape", 3), sizes(entry, "out_shape", 3)
        self.kernel = sizes(entry, "kernel", 2)
        self.stride, self.padding = integer(entry, "stride", 1, 65536), integer(entry, "padding", 0, 65536)
        for into, out, kernel in zip(self.in_shape[1:], self.out_shape[1:], self.kernel, strict=True):
            if (into + 2 * self.padding - kernel) // self.stride + 1 != out:
                raise Unreadable(f"manifest.json: layer {index} does not make a map of {out} from {into}")
        self.size = product(*self.out_shape)
        self.most, self.saturates = integer(entry, "largest_count", 1, 65536), integer(entry, "saturates", 0, 1)
        self.fraction, self.bits = integer(entry, "fraction_bits", 0, 61), integer(entry, "membrane_bits", 1, 62)
        self.threshold_bits = integer(entry, "threshold_bits", 1, 62)
        self.bytes, constant = integer(entry, "membrane_bytes", 1, 8), integer(entry, "constant_bytes", 1, 8)
        if self.bytes not in CODES or constant not in CODES or integer(entry, "weight_bits", 2, 8) not in (2, 8):
            raise Unreadable(f"manifest.json: layer {index} has a width that no file of a bundle has")
        channels, places = self.out_shape[0], product(*self.kernel)
        fan_in = product(self.in_shape[0], places)
        weight = self._weights(folder, entry["weight_bits"], product(channels, fan_in))
        offset = read_integers(folder, f"network/layer{index}_offset", channels, constant)
        step = read_integers(folder, f"network/layer{index}_step", channels, constant)
        if channels * (self.most + 2) > MOST_THRESHOLDS:
            raise Unreadable(f"manifest.json: layer {index} counts to {self.most}, more than a bundle's layers do")
        self.thresholds = [[a + j * d for j in range(self.most + 2)] for a, d in zip(offset, step, strict=True)]
        for row in self.thresholds:
            check_width(row, self.threshold_bits, f"layer {index}: A + j·D")
        # For each input channel and place in the kernel: the channels that it reaches, with their weights.
        self.taps = [
            [[(o, w) for o, w in enumerate(weight[i * places + place :: fan_in]) if w] for place in range(places)]
            for i in range(self.in_shape[0])
        ]

    def _weights(self, folder: Path, bits: int, number: int) -> Sequence[int]:
        name = f"network/layer{self.index}_weight"
        if bits == 8:
            return read_integers(folder, name, number, 1)
        return unpack(read_bytes(folder, f"{name}.bin", -(-number // 4)), number, name)

    def add(self, membrane: list[int], inputs: Iterable[int], amplitude: int) -> None:
        """Add every input's weights to the membranes that it reaches."""
        (_, rows, columns), (high, wide) = self.out_shape, self.kernel
        for place, value in enumerate(inputs):
            if not value:
                continue
            y, x = divmod(place % (self.in_shape[1] * self.in_shape[2]), self.in_shape[2])
            taps = self.taps[place // (self.in_shape[1] * self.in_shape[2])]
            for ky in range(high):
                row, off = divmod(y + self.padding - ky, self.stride)
                if off or not 0 <= row < rows:
                    continue
                for kx in range(wide):
                    column, off = divmod(x + self.padding - kx, self.stride)
                    if not off and 0 <= column < columns:
                        for out, weight in taps[ky * wide + kx]:
                            membrane[(out * rows + row) * columns + column] += weight * value * amplitude
        check_width(membrane, self.bits, f"layer {self.index}: a membrane")
        ends = [min(membrane) << self.fraction, max(membrane) << self.fraction]
        check_width(ends, self.threshold_bits, f"layer {self.index}: U << {self.fraction}")

    def fire(self, membrane: list[int], counts: list[int], step: int) -> list[int]:
        """The spikes of one step, which it counts."""
        place = self.out_shape[1] * self.out_shape[2]
        spikes = [0] * self.size
        for at, u in enumerate(membrane):
            row, n, u = self.thresholds[at // place], counts[at], u << self.fraction
            if self.index == 0:
                spikes[at] = int(step <= self.most and u >= row[step])
            elif n < self.most and u >= row[n + 1]:
                spikes[at] = 1
            elif n > 0 and u < row[n]:
                spikes[at] = -1
            counts[at] += spikes[at]
        return spikes


def load(folder: Path) -> tuple[dict, list[Layer]]:
    """The manifest and the layers."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise Unreadable(f"manifest.json cannot be read: {error}") from None
    if not isinstance(manifest, dict) or manifest.get("format") != "ann-snn-bundle":
        raise Unreadable("manifest.json is not that of a bundle")
    integer(manifest, "version", 1, 1)
    entries = manifest.get("layers")
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise Unreadable("manifest.json: layers is no list of layers")
    layers = [Layer(folder, entry, index) for index, entry in enumerate(entries)]
    for before, after in pairwise(layers):
        if before.out_shape != after.in_shape:
            raise Unreadable(f"manifest.json: layer {after.index} does not take what layer {before.index} gives")
    if layers[0].most != integer(manifest, "levels", 1, 65536):
        raise Unreadable("manifest.json: the encoder counts to another number than levels")
    return manifest, layers


def same(found: list[int], golden: list[int], what: str) -> None:
    """Raise at the first place where two lists differ."""
    if found != golden:
        place = next(i for i, (a, b) in enumerate(zip(found, golden, strict=True)) if a != b)
        raise Different(f"{what}, place {place}: {found[place]} recomputed, {golden[place]} in the golden file")


def run(folder: Path, limit: int | None = None) -> tuple[int, int, int]:
    """Recompute the samples of a bundle; how many samples, steps and right predictions there were."""
    manifest, layers = load(folder)
    samples, steps = integer(manifest, "samples", 1, 10**7), integer(manifest, "steps", 1, 65536)
    amplitude, entry = 1 << integer(manifest, "amplitude_shift", 0, 16), manifest.get("classifier")
    inputs, last, classes = product(*layers[0].in_shape), layers[-1].size, integer(entry, "classes", 1, 65536)
    score_bits, score_bytes = integer(entry, "score_bits", 1, 62), integer(entry, "score_bytes", 1, 8)
    if score_bytes not in CODES:
        raise Unreadable(f"manifest.json: score_bytes is {score_bytes}, which no integer type has")
    weight = read_integers(folder, "network/classifier", product(classes, last), 1)
    images = read_integers(folder, "vectors/images", product(samples, inputs), 1, unsigned=True)
    labels = read_integers(folder, "vectors/labels", samples, 4)
    frames = [-(-layer.size // 4) for layer in layers]
    golden = [
        read_bytes(folder, f"golden/layer{i}_spikes.bin", product(samples, steps, frame))
        for i, frame in enumerate(frames)
    ]
    membranes = [
        read_integers(folder, f"golden/layer{i}_membranes", product(samples, layer.size), layer.bytes)
        for i, layer in enumerate(layers)
    ]
    scores = read_integers(folder, "golden/scores", product(samples, steps, classes), score_bytes)
    predictions = read_integers(folder, "golden/predictions", product(samples, steps), 4)
    right, used = 0, min(samples, limit or samples)
    for sample in range(used):
        state, counts = ([[0] * layer.size for layer in layers] for _ in range(2))
        layers[0].add(state[0], images[sample * inputs : (sample + 1) * inputs], 1)
        score, spikes = [0] * classes, [0]
        for step in range(1, steps + 1):
            at, where = sample * steps + step - 1, f"sample {sample}, step {step}"
            for i, (layer, frame) in enumerate(zip(layers, frames, strict=True)):
                if i > 0:
                    layer.add(state[i], spikes, amplitude if i == 1 else 1)
                spikes = layer.fire(state[i], counts[i], step)
                packed = golden[i][at * frame : (at + 1) * frame]
                same(spikes, unpack(packed, layer.size, f"golden/layer{i}_spikes"), f"{where}, layer {i} spikes")
            for neuron, spike in enumerate(spikes):
                if spike:
                    score = [sum + spike * w for sum, w in zip(score, weight[neuron::last], strict=True)]
            check_width(score, score_bits, f"{where}: a class score")
            same(score, list(scores[at * classes : (at + 1) * classes]), f"{where}, scores")
            same([score.index(max(score))], [predictions[at]], f"{where}, prediction")
        for i, layer in enumerate(layers):
            expected = list(membranes[i][sample * layer.size : (sample + 1) * layer.size])
            same(state[i], expected, f"sample {sample}, layer {i} membranes")
            if layer.saturates and max(counts[i]) >= layer.most:
                raise Different(f"sample {sample}, layer {i}: a neuron reached its limit of {layer.most} spikes")
        right += predictions[(sample + 1) * steps - 1] == labels[sample]
    check_files(folder, manifest)
    return used, steps, right


def check_files(folder: Path, manifest: dict) -> None:
    """Raise for a file that is not the listed one, or a .hex file that says other than its .bin."""
    files, tensors = manifest.get("files"), manifest.get("tensors")
    if not isinstance(files, dict) or not isinstance(tensors, dict):
        raise Unreadable("manifest.json lists no files")
    for name, entry in files.items():
        if Path(name).is_absolute() or ".." in Path(name).parts or not isinstance(entry, dict):
            raise Unreadable(f"manifest.json lists {name[:80]!r}, which is no file of this folder")
        data = read_bytes(folder, name, integer(entry, "bytes", 0, LARGEST * 16))
        if hashlib.sha256(data).hexdigest() != entry.get("sha256"):
            raise Different(f"{name} is not the file that manifest.json lists")
    for name, entry in tensors.items():
        if f"{name}.bin" not in files or f"{name}.hex" not in files:
            raise Unreadable(f"manifest.json describes {name[:80]!r}, which is not among its files")
        size, data = max(1, integer(entry, "bits", 2, 64) // 8), (folder / f"{name}.bin").read_bytes()
        lines = (folder / f"{name}.hex").read_text(encoding="ascii").splitlines()[1:]
        if lines != [data[i : i + size][::-1].hex() for i in range(0, len(data), size)]:
            raise Different(f"{name}.hex does not hold the words of {name}.bin")


def main(arguments: list[str]) -> int:
    """Check the bundle beside this file, or the one named; the exit code."""
    try:
        folder = Path(arguments[0]) if arguments else Path(__file__).resolve().parent
        samples, steps, right = run(folder, int(arguments[1]) if len(arguments) > 1 else None)
    except Different as difference:
        print(f"DIFFERENT: {difference}", file=sys.stderr)
        return 1
    except (Unreadable, ValueError, OSError, MemoryError) as error:
        print(f"cannot check the bundle: {error}", file=sys.stderr)
        return 2
    print(f"OK: {samples} samples, {steps} steps: every spike, membrane, score and prediction is reproduced")
    print(f"{right} of {samples} predictions are the label; every file is the one that manifest.json lists")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
