"""Sums of rows of weights, added to the membranes that spikes reach: compiled, in whole vectors."""

from __future__ import annotations

from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .vectors import data_of, lanes_of, load, pointer, splat, store

# Vectors of membranes to sum at a time: the most that fit, as often as they do, then each narrower width at most
# once. So none may be narrower than half of the one before.
_ABREAST = (32, 16, 10, 8, 6, 4, 2, 1)

# The same for sums that do not fit a byte, which are rare: each width takes seconds to compile.
_ABREAST_WIDE = (16, 8, 4, 2, 1)

_REGISTERS = 16

# Spikes to add in one turn of the loop. A processor guesses how often a loop turns: most places then need one turn.
SPIKES = 4


@contextmanager
def _turns(builder, bits, always):
    """Loop over the set bits of a word, `SPIKES` at a time: yields, for each, whether there is one and its number.

    always: the loop turns at least once.
    """
    one, nothing, boolean = ir.Constant(bits.type, 1), ir.Constant(bits.type, 0), ir.IntType(1)
    before = builder.block
    body, after = builder.append_basic_block("spike.body"), builder.append_basic_block("spike.after")
    if always:
        builder.branch(body)
    else:
        builder.cbranch(builder.icmp_unsigned("!=", bits, nothing), body, after)
    builder.position_at_end(body)
    left = builder.phi(bits.type)
    left.add_incoming(bits, before)
    found, rest = [], left
    for _ in range(SPIKES):
        found.append((builder.icmp_unsigned("!=", rest, nothing), builder.cttz(rest, ir.Constant(boolean, 0))))
        rest = builder.and_(rest, builder.sub(rest, one))
    yield found
    left.add_incoming(rest, builder.block)
    builder.cbranch(builder.icmp_unsigned("!=", rest, nothing), body, after)
    builder.position_at_end(after)


def _blocks(builder, size, lanes, abreast, block):
    """Cover `size` entries with blocks of as many vectors as `abreast` lists, the widest first."""
    wide = ir.Constant(size.type, lanes * abreast[0])
    covered = builder.mul(builder.udiv(size, wide), wide)
    with cgutils.for_range_slice(builder, ir.Constant(size.type, 0), covered, wide, size.type) as (offset, _):
        block(offset, abreast[0])
    done = cgutils.alloca_once_value(builder, covered)
    for each in abreast[1:]:
        wide, offset = ir.Constant(size.type, lanes * each), builder.load(done)
        with builder.if_then(builder.icmp_unsigned(">=", builder.sub(size, offset), wide)):
            block(offset, each)
            builder.store(builder.add(offset, wide), done)


def _widened(builder, values, vector):
    return values if values.type == vector else builder.sext(values, vector)


class Stretch(NamedTuple):
    """Neighbouring membranes that a spike reaches: the first, their number, a multiple of the lanes that fill 64
    bytes, and the weight that the first spike-sending channel has for the first of them. All uint64."""

    at: int
    size: int
    weight: int


class Rows(NamedTuple):
    """Rows of weights: those of channel c begin `line` · c behind a stretch's weight, zeros `nothing` behind it."""

    weights: np.ndarray
    line: int
    nothing: int


class Word(NamedTuple):
    """The words of 64 channels of one place: the first one of positive and of negative spikes themselves, as most
    layers have but one, and where the further ones begin and end. All uint64."""

    rise: int
    fall: int
    first: int
    end: int


class Nest(NamedTuple):
    """Sets of spikes each of which holds the next: words in a set, sets, and membranes from one set's to the next
    one's. All uint64."""

    words: int
    levels: int
    stride: int


@intrinsic
def add_pixel_row(typingctx, into, stretch, weights, value):
    """into[at : at + size] += value · weights[weight : weight + size], in whole vectors.

    into: int32. stretch: a `Stretch`. weights: int8. value: int16. No index is checked.
    """

    def generate(context, builder, signature, arguments):
        into, stretch, weights, value = arguments
        at, size, weight_at = cgutils.unpack_tuple(builder, stretch)
        kind, weight_kind = signature.args[0], signature.args[2]
        lanes = lanes_of(kind.dtype)
        vector = ir.VectorType(context.get_data_type(kind.dtype), lanes)
        # Extended from two bytes, so that the compiler may take the faster of two multiplications.
        value = splat(builder, builder.sext(value, vector.element), vector)
        zero, one = ir.Constant(size.type, 0), ir.Constant(size.type, lanes)
        with cgutils.for_range_slice(builder, zero, size, one, size.type) as (offset, _):
            weight = load(context, builder, weight_kind, weights, builder.add(weight_at, offset), lanes)
            place = builder.add(at, offset)
            total = load(context, builder, kind, into, place, lanes)
            total = builder.add(total, builder.mul(_widened(builder, weight, vector), value))
            store(context, builder, kind, into, place, total)
        return context.get_dummy_value()

    return types.void(into, stretch, weights, types.int16), generate


class _Sums:
    """Vectors of sums of rows of weights: what `add_rows` and `add_nested_rows` have in common."""

    def __init__(self, context, builder, signature, arguments) -> None:
        # Both are called with (into, stretch, rows, …, narrow).
        into, stretch, rows = arguments[:3]
        self.context, self.builder = context, builder
        self.kind, self.weight_kind = signature.args[0], signature.args[2][0]
        self.into = into
        self.at, self.size, self.base = cgutils.unpack_tuple(builder, stretch)
        self.weights, self.line, self.nothing = cgutils.unpack_tuple(builder, rows)
        dtype = self.weight_kind.dtype if signature.args[-1].literal_value else self.kind.dtype
        # A sum in bytes holds several vectors of membranes in one register.
        self.lanes, self.full = lanes_of(self.kind.dtype), lanes_of(dtype)
        self.number = context.get_data_type(dtype)

    @property
    def abreast(self) -> list[int]:
        """Vectors of membranes in a block, for every width of blocks."""
        widths = _ABREAST if self.full > self.lanes else _ABREAST_WIDE
        return [each for each in widths if each <= _REGISTERS * self.full // self.lanes]

    def zeros(self, abreast):
        """Places for the sums of a block, set to 0."""
        number, rest = divmod(abreast * self.lanes, self.full)
        widths = [self.full] * number + [rest] * bool(rest)
        zeros = [ir.Constant(ir.VectorType(self.number, width), None) for width in widths]
        return [cgutils.alloca_once_value(self.builder, zero) for zero in zeros]

    def combine(self, sums, offset, word, bits, operation, always=False):
        """Combine the rows of the spikes of a word with the sums. word: its number among those of the place."""
        builder, start = self.builder, self.builder.add(self.base, offset)
        before = builder.mul(builder.mul(word, ir.Constant(word.type, 64)), self.line)
        with _turns(builder, bits, always) as found:
            rows = [
                builder.select(there, builder.add(before, builder.mul(channel, self.line)), self.nothing)
                for there, channel in found
            ]
            self._add(sums, [builder.add(start, row) for row in rows], operation)

    def add_to(self, at, sums):
        """Add vectors of sums to into[at …], one behind the other."""
        context, builder, kind = self.context, self.builder, self.kind
        align = kind.dtype.bitwidth // 8
        for total in sums:
            value = builder.load(total)
            wide = ir.VectorType(context.get_data_type(kind.dtype), value.type.count)
            target = pointer(context, builder, kind, self.into, at, wide)
            more = _widened(builder, value, wide)
            builder.store(builder.add(builder.load(target, align=align), more), target, align)
            at = builder.add(at, ir.Constant(at.type, wide.count))

    def _add(self, sums, places, operation):
        builder = self.builder
        for total in sums:
            vector = total.type.pointee
            rows = [
                load(self.context, builder, self.weight_kind, self.weights, place, vector.count) for place in places
            ]
            row = _sum(builder, [_widened(builder, row, vector) for row in rows])
            builder.store(operation(builder.load(total), row), total)
            places = [builder.add(place, ir.Constant(place.type, vector.count)) for place in places]


def _sum(builder, values):
    while len(values) > 1:
        values = [builder.add(*pair) for pair in zip(values[::2], values[1::2], strict=True)]
    return values[0]


@intrinsic
def add_rows(typingctx, into, stretch, rows, rises, falls, word, narrow):
    """Add the rows of weights of positive spikes to membranes, and subtract those of negative ones.

    into[at : at + size] += Σ weights[weight + c · line : … + size] over the set bits c of rise, rises[first : end]
                          − Σ weights[weight + c · line : … + size] over the set bits c of fall, falls[first : end]

    into: int16 or int32. stretch, rows, word: `Stretch`, `Rows` and `Word`. rises, falls: the words that are not
    in `word`. narrow: a literal, 1 where no sum of the rows leaves the type of a weight, so that sums are formed
    in it, else 0. Sums wrap around, so only the final ones need to fit. No index is checked.
    """

    def generate(context, builder, signature, arguments):
        rise, fall, first, end = cgutils.unpack_tuple(builder, arguments[5])
        sums = _Sums(context, builder, signature, arguments)
        signs = (
            (rise, data_of(context, builder, signature.args[3], arguments[3]), builder.add),
            (fall, data_of(context, builder, signature.args[4], arguments[4]), builder.sub),
        )
        zero, one = ir.Constant(first.type, 0), ir.Constant(first.type, 1)

        def block(offset, abreast):
            totals = sums.zeros(abreast)
            for bits, words, operation in signs:
                sums.combine(totals, offset, zero, bits, operation)
                with cgutils.for_range_slice(builder, first, end, one, first.type) as (at, _):
                    number = builder.add(builder.sub(at, first), one)
                    sums.combine(totals, offset, number, builder.load(builder.gep(words, [at])), operation)
            sums.add_to(builder.add(sums.at, offset), totals)

        _blocks(builder, sums.size, sums.lanes, sums.abreast, block)
        return context.get_dummy_value()

    if isinstance(narrow, types.IntegerLiteral):
        return types.void(into, stretch, rows, rises, falls, word, narrow), generate


@intrinsic
def add_nested_rows(typingctx, into, stretch, rows, masks, nest, narrow):
    """Add the rows of weights of sets of spikes, each of which holds the next, to membranes of each.

    For every level l: into[l · stride + at : … + size] += Σ weights[weight + c · line : … + size] over the set
    bits c of masks[l · words :], those of the higher levels among them, which are set there and nowhere else.
    nest: a `Nest`. The rest is as in `add_rows`.
    """

    def generate(context, builder, signature, arguments):
        words, levels, stride = cgutils.unpack_tuple(builder, arguments[4])
        sums = _Sums(context, builder, signature, arguments)
        data = data_of(context, builder, signature.args[3], arguments[3])
        zero, one = (ir.Constant(words.type, number) for number in (0, 1))

        def block(offset, abreast):
            totals = sums.zeros(abreast)
            start = builder.add(sums.at, offset)
            with cgutils.for_range_slice(builder, zero, levels, one, levels.type) as (done, _):
                level = builder.sub(builder.sub(levels, one), done)
                first = builder.mul(level, words)
                with cgutils.for_range_slice(builder, zero, words, one, words.type) as (word, _):
                    bits = builder.load(builder.gep(data, [builder.add(first, word)]))
                    # Most levels have a few spikes of their own: none is no case to tell apart.
                    sums.combine(totals, offset, word, bits, builder.add, always=True)
                sums.add_to(builder.add(builder.mul(level, stride), start), totals)

        _blocks(builder, sums.size, sums.lanes, sums.abreast, block)
        return context.get_dummy_value()

    if isinstance(narrow, types.IntegerLiteral):
        return types.void(into, stretch, rows, masks, nest, narrow), generate
