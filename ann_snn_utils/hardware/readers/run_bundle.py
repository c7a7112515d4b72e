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
from collections.abc import Iterable, Iterator, Sequence
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


def integer(entry: object, name: str, low: int, high: int, before: int | None = None) -> int:
    """The integer that a part of the manifest holds under a name; before: what version 1, without it, meant."""
    value = entry.get(name, before) if isinstance(entry, dict) else None
    if not isinstance(value, int) or not low <= value <= high:
        raise Unreadable(f"manifest.json: {name} is {str(value)[:40]!r}, not a whole number from {low} to {high}")
    return int(value)


def sizes(entry: object, name: str, number: int) -> list[int]:
    """The list of sizes that a part of the manifest holds under a name."""
    values = entry.get(name) if isinstance(entry, dict) else None
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


class Synapses:
    """A convolution from a layer, or from the images: geometry, weights and a factor for each channel."""

    def __init__(self, folder: Path, entry: object, index: int, number: int, out: list[int]) -> None:
        self.in_shape, self.kernel = sizes(entry, "in_shape", 3), sizes(entry, "kernel", 2)
        self.stride, self.padding = integer(entry, "stride", 1, 65536), integer(entry, "padding", 0, 65536)
        self.source = integer(entry, "source", -1, index - 1, index - 1)
        self.dilation, self.groups = (integer(entry, name, 1, 65536, 1) for name in ("dilation", "groups"))
        bits, gain_bytes = integer(entry, "weight_bits", 2, 8), integer(entry, "gain_bytes", 0, 8, 0)
        self.gain = [1] * out[0]
        if bits not in (2, 8) or (gain_bytes and gain_bytes not in CODES):
            raise Unreadable(f"manifest.json: layer {index} has a width that no file of a bundle has")
        if self.in_shape[0] % self.groups or out[0] % self.groups:
            raise Unreadable(
                f"manifest.json: the channels of layer {index} do not divide into {self.groups} groups"
            )
        for into, size, kernel in zip(self.in_shape[1:], out[1:], self.kernel, strict=True):
            if (into + 2 * self.padding - (kernel - 1) * self.dilation - 1) // self.stride + 1 != size:
                raise Unreadable(f"manifest.json: layer {index} does not make a map of {size} from {into}")
        self.index, self.out, self.inputs = index, out, product(*self.in_shape)
        self.taps: list[list[list[tuple[int, int]]]] = []
        if number < 0:
            return
        also = str(number or "")
        if gain_bytes:
            self.gain = list(read_integers(folder, f"network/layer{index}_gain{also}", out[0], gain_bytes))
        places, each = product(*self.kernel), self.in_shape[0] // self.groups
        fan_in, name = product(each, places), f"network/layer{index}_weight{also}"
        many, of_group = product(out[0], fan_in), out[0] // self.groups
        weight: Sequence[int]
        if bits == 8:
            weight = read_integers(folder, name, many, 1)
        else:
            weight = unpack(read_bytes(folder, f"{name}.bin", -(-many // 4)), many, name)
        # For each input channel and place in the kernel: the channels that it reaches, with their weights.
        for i in range(self.in_shape[0]):
            group, inside = divmod(i, each)
            first = group * of_group
            reached = [
                weight[inside * places + place :: fan_in][first : first + of_group] for place in range(places)
            ]
            self.taps.append([[(o, w * self.gain[o]) for o, w in enumerate(row, first) if w] for row in reached])

    def reached(self, place: int) -> Iterator[tuple[int, int]]:
        """Each output place that an input reaches, and the place of the kernel between them."""
        y, x = divmod(place % (self.in_shape[1] * self.in_shape[2]), self.in_shape[2])
        (_, rows, columns), (high, wide) = self.out, self.kernel
        for ky in range(high):
            row, off = divmod(y + self.padding - ky * self.dilation, self.stride)
            if off or not 0 <= row < rows:
                continue
            for kx in range(wide):
                column, off = divmod(x + self.padding - kx * self.dilation, self.stride)
                if not off and 0 <= column < columns:
                    yield row * columns + column, ky * wide + kx

    def add(self, membrane: list[int], inputs: Iterable[int], amplitude: int) -> None:
        """Add every input's weights to the membranes that it reaches."""
        size, area = self.in_shape[1] * self.in_shape[2], self.out[1] * self.out[2]
        for place, value in enumerate(inputs):
            if value:
                taps = self.taps[place // size]
                for at, tap in self.reached(place):
                    for out, weight in taps[tap]:
                        membrane[out * area + at] += weight * value * amplitude

    def largest(self, counts: list[int]) -> list[int]:
        """The largest count in each window."""
        size, area = self.in_shape[1] * self.in_shape[2], self.out[1] * self.out[2]
        found = [-LARGEST] * product(*self.out)
        for place, count in enumerate(counts):
            for at, _ in self.reached(place):
                at += place // size * area
                found[at] = max(found[at], count)
        return found


class Layer:
    """One layer: its synapses, or windows, and its thresholds."""

    def __init__(self, folder: Path, entry: dict, index: int) -> None:
        self.index, self.out_shape = index, sizes(entry, "out_shape", 3)
        self.maximum, self.lowest = integer(entry, "maximum", 0, 1, 0), integer(entry, "lowest_count", -65536, 0, 0)
        others = entry.get("more_synapses", [])
        if not isinstance(others, list):
            raise Unreadable(f"manifest.json: more_synapses of layer {index} is no list")
        entries = [entry, *others]
        self.synapses = [
            Synapses(folder, one, index, -1 if self.maximum else number, self.out_shape)
            for number, one in enumerate(entries)
        ]
        if index == 0 and (self.maximum or self.lowest or others or self.synapses[0].source != -1):
            raise Unreadable("manifest.json: layer 0 does not encode the images")
        if index > 0 and any(one.source < 0 for one in self.synapses):
            raise Unreadable(f"manifest.json: layer {index} reads the images, which only layer 0 does")
        self.size = product(*self.out_shape)
        self.most, self.saturates = integer(entry, "largest_count", 1, 65536), integer(entry, "saturates", 0, 1)
        self.fraction, self.bits = integer(entry, "fraction_bits", 0, 61), integer(entry, "membrane_bits", 1, 62)
        self.threshold_bits = integer(entry, "threshold_bits", 1, 62)
        self.bytes, constant = integer(entry, "membrane_bytes", 1, 8), integer(entry, "constant_bytes", 1, 8)
        if self.bytes not in CODES or constant not in CODES:
            raise Unreadable(f"manifest.json: layer {index} has a width that no file of a bundle has")
        channels = self.out_shape[0]
        offset = read_integers(folder, f"network/layer{index}_offset", channels, constant)
        step = read_integers(folder, f"network/layer{index}_step", channels, constant)
        if channels * (self.most + 2) > MOST_THRESHOLDS:
            raise Unreadable(f"manifest.json: layer {index} counts to {self.most}, more than a bundle's layers do")
        levels = range(self.lowest, self.lowest + self.most + 2)
        self.thresholds = [[a + j * d for j in levels] for a, d in zip(offset, step, strict=True)]
        for row in self.thresholds:
            check_width(row, self.threshold_bits, f"layer {index}: A + j·D")

    def check(self, membrane: list[int]) -> None:
        """Raise where a membrane leaves its width."""
        check_width(membrane, self.bits, f"layer {self.index}: a membrane")
        ends = [min(membrane) << self.fraction, max(membrane) << self.fraction]
        check_width(ends, self.threshold_bits, f"layer {self.index}: U << {self.fraction}")

    def fire(self, membrane: list[int], counts: list[int], step: int) -> list[int]:
        """The spikes of one step, which it counts."""
        place = self.out_shape[1] * self.out_shape[2]
        spikes = [0] * self.size
        for at, u in enumerate(membrane):
            row, n, u = self.thresholds[at // place], counts[at] - self.lowest, u << self.fraction
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
    integer(manifest, "version", 1, 2)
    entries = manifest.get("layers")
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise Unreadable("manifest.json: layers is no list of layers")
    layers = [Layer(folder, entry, index) for index, entry in enumerate(entries)]
    for layer in layers[1:]:
        for one in layer.synapses:
            if layers[one.source].out_shape != one.in_shape:
                raise Unreadable(f"manifest.json: layer {layer.index} does not take what layer {one.source} gives")
            if layer.maximum and (layer.out_shape[0] != one.in_shape[0] or 2 * one.padding > min(one.kernel)):
                raise Unreadable(f"manifest.json: layer {layer.index} takes no maxima of layer {one.source}")
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
    inputs, last, classes = layers[0].synapses[0].inputs, layers[-1].size, integer(entry, "classes", 1, 65536)
    score_bits, score_bytes = integer(entry, "score_bits", 1, 62), integer(entry, "score_bytes", 1, 8)
    if score_bytes not in CODES:
        raise Unreadable(f"manifest.json: score_bytes is {score_bytes}, which no integer type has")
    weight = read_integers(folder, "network/classifier", product(classes, last), 1)
    begin = [0] * classes
    if isinstance(entry, dict) and entry.get("bias"):
        begin = list(read_integers(folder, "network/bias", classes, score_bytes))
    carried: list[int] = []
    for layer in layers:
        # A spike of the encoder, or of maxima of it, carries 2^amplitude_shift counts.
        source = layer.synapses[0].source
        carried.append(amplitude if source < 0 else carried[source] if layer.maximum else 1)
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
        layers[0].synapses[0].add(state[0], images[sample * inputs : (sample + 1) * inputs], 1)
        score, sent = list(begin), [[0] * layer.size for layer in layers]
        for step in range(1, steps + 1):
            at, where = sample * steps + step - 1, f"sample {sample}, step {step}"
            for i, (layer, frame) in enumerate(zip(layers, frames, strict=True)):
                if layer.maximum:
                    state[i] = layer.synapses[0].largest(counts[layer.synapses[0].source])
                for one in layer.synapses if i > 0 and not layer.maximum else ():
                    one.add(state[i], sent[one.source], carried[one.source])
                layer.check(state[i])
                sent[i] = spikes = layer.fire(state[i], counts[i], step)
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
            if layer.saturates and max(counts[i]) - layer.lowest >= layer.most:
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
        limit = int(arguments[1]) if len(arguments) > 1 else None
        if limit is not None and limit < 1:
            raise ValueError(f"{limit} samples: name how many to recompute, at least 1, or none for all")
        samples, steps, right = run(folder, limit)
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
