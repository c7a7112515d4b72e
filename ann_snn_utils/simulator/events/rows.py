"""Sums of rows of weights, added to the membranes that spikes reach: compiled, in whole vectors."""

from __future__ import annotations

from contextlib import contextmanager

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .vectors import lanes_of, load, pointer, splat, store

# Vectors of membranes to sum at a time: the most that fit, then the most of what is left.
_ABREAST = (32, 16, 10, 8, 6, 4, 2, 1)

_REGISTERS = 16

# Spikes to add in one turn of the loop. A processor guesses how often a loop turns: most places then need one turn.
SPIKES = 4


@contextmanager
def _turns(builder, bits, always):
    """Loop over the set bits of a word, `SPIKES` at a time: give, for each of these, whether there is one, and its
    number. always: the loop turns at least once."""
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


def _blocks(builder, size, lanes, most, block):
    """Cover `size` entries with blocks of at most `most` vectors, the widest first."""
    abreast = [each for each in _ABREAST if each <= most]
    wide = ir.Constant(size.type, lanes * abreast[0])
    whole = builder.mul(builder.udiv(size, wide), wide)
    with cgutils.for_range_slice(builder, ir.Constant(size.type, 0), whole, wide, size.type) as (offset, _):
        block(offset, abreast[0])
    done = cgutils.alloca_once_value(builder, whole)
    for each in abreast[1:]:
        wide, offset = ir.Constant(size.type, lanes * each), builder.load(done)
        with builder.if_then(builder.icmp_unsigned(">=", builder.sub(size, offset), wide)):
            block(offset, each)
            builder.store(builder.add(offset, wide), done)


def _widened(builder, values, vector):
    return values if values.type == vector else builder.sext(values, vector)


def _zeros(builder, vectors):
    sums = [cgutils.alloca_once(builder, vector) for vector in vectors]
    for total, vector in zip(sums, vectors, strict=True):
        builder.store(ir.Constant(vector, None), total)
    return sums


def _add(context, builder, kind, into, at, sums):
    """Add vectors of sums to into[at …], one behind the other."""
    align = kind.dtype.bitwidth // 8
    for total in sums:
        value = builder.load(total)
        wide = ir.VectorType(context.get_data_type(kind.dtype), value.type.count)
        target = pointer(context, builder, kind, into, at, wide)
        builder.store(builder.add(builder.load(target, align=align), _widened(builder, value, wide)), target, align)
        at = builder.add(at, ir.Constant(at.type, wide.count))


@intrinsic
def add_pixel_row(typingctx, into, at, size, weights, weight_at, value):
    """into[at : at + size] += value · weights[weight_at : weight_at + size], in whole vectors.

    into: int32; size: a multiple of the lanes that fill 64 bytes. weights: int8. value: int16. No index is checked.
    """

    def generate(context, builder, signature, arguments):
        into, at, size, weights, weight_at, value = arguments
        kind, weight_kind = signature.args[0], signature.args[3]
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

    u64 = types.uint64
    return types.void(into, u64, u64, weights, u64, types.int16), generate


class _Rows:
    """Rows of weights, and vectors of their sums: what `add_rows` and `add_nested_rows` have in common."""

    def __init__(self, context, builder, kind, weight_kind, weights, base, line, nothing, narrow) -> None:
        self.context, self.builder, self.weight_kind, self.weights = context, builder, weight_kind, weights
        self.base, self.line, self.nothing = base, line, nothing
        dtype = weight_kind.dtype if narrow else kind.dtype
        # A sum in bytes holds several vectors of membranes in one register.
        self.lanes, self.full = lanes_of(kind.dtype), lanes_of(dtype)
        self.number = context.get_data_type(dtype)

    @property
    def most(self) -> int:
        """Vectors of membranes that fit a block."""
        return _REGISTERS * self.full // self.lanes

    def sums(self, abreast):
        """Give places for the sums of a block, set to 0."""
        whole, rest = divmod(abreast * self.lanes, self.full)
        widths = [self.full] * whole + [rest] * bool(rest)
        return _zeros(self.builder, [ir.VectorType(self.number, width) for width in widths])

    def combine(self, sums, offset, word, bits, operation, always=False):
        """Combine the rows of the spikes of a word, the number of which is given, with the sums."""
        builder, start = self.builder, self.builder.add(self.base, offset)
        before = builder.mul(builder.mul(word, ir.Constant(word.type, 64)), self.line)
        with _turns(builder, bits, always) as found:
            rows = [
                builder.select(there, builder.add(before, builder.mul(channel, self.line)), self.nothing)
                for there, channel in found
            ]
            self._add(sums, [builder.add(start, row) for row in rows], operation)

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


def _data(context, builder, kind, array):
    return context.make_array(kind)(context, builder, array).data


@intrinsic
def add_rows(typingctx, into, at, size, weights, base, line, nothing, rise, fall, rises, falls, first, end, narrow):
    """Add the rows of weights of positive spikes to membranes, and subtract those of negative ones.

    into[at : at + size] += Σ weights[base + c · line : … + size] over the set bits c of rise, rises[first : end]
                          − Σ weights[base + c · line : … + size] over the set bits c of fall, falls[first : end]

    into: int16 or int32; size: a multiple of the lanes that fill 64 bytes. weights: integers, with zeros from
    base + nothing on. rise, fall: the first word of 64 channels; rises, falls: the further ones. narrow: a
    literal, 1 where no sum of the rows leaves the type of a weight, so that sums are formed in it, else 0. Sums
    wrap around, so only the final ones need to fit. No index is checked.
    """

    def generate(context, builder, signature, arguments):
        into, at, size, weights, base, line, nothing, rise, fall, rises, falls, first, end, _ = arguments
        kind, weight_kind, rise_kind, fall_kind = (signature.args[place] for place in (0, 3, 9, 10))
        narrow = signature.args[13].literal_value
        rows = _Rows(context, builder, kind, weight_kind, weights, base, line, nothing, narrow)
        signs = (
            (rise, _data(context, builder, rise_kind, rises), builder.add),
            (fall, _data(context, builder, fall_kind, falls), builder.sub),
        )
        zero, one = ir.Constant(first.type, 0), ir.Constant(first.type, 1)

        def block(offset, abreast):
            sums = rows.sums(abreast)
            for bits, words, operation in signs:
                rows.combine(sums, offset, zero, bits, operation)
                with cgutils.for_range_slice(builder, first, end, one, first.type) as (word, _):
                    number = builder.add(builder.sub(word, first), one)
                    rows.combine(sums, offset, number, builder.load(builder.gep(words, [word])), operation)
            _add(context, builder, kind, into, builder.add(at, offset), sums)

        _blocks(builder, size, rows.lanes, rows.most, block)
        return context.get_dummy_value()

    u64 = types.uint64
    if isinstance(narrow, types.IntegerLiteral):
        signature = (into, u64, u64, weights, u64, u64, u64, u64, u64, rises, falls, u64, u64, narrow)
        return types.void(*signature), generate


@intrinsic
def add_nested_rows(typingctx, into, at, size, stride, weights, base, line, nothing, masks, words, levels, narrow):
    """Add the rows of weights of `levels` sets of spikes, each of which holds the next, to membranes of each.

    For every level l: into[l · stride + at : … + size] += Σ weights[base + c · line : … + size] over the set bits
    c of masks[l · words :], those of the higher levels among them, which are set there and nowhere else. The
    rest is as in `add_rows`.
    """

    def generate(context, builder, signature, arguments):
        into, at, size, stride, weights, base, line, nothing, masks, words, levels, _ = arguments
        kind, weight_kind, mask_kind = (signature.args[place] for place in (0, 4, 8))
        narrow = signature.args[11].literal_value
        rows = _Rows(context, builder, kind, weight_kind, weights, base, line, nothing, narrow)
        data = _data(context, builder, mask_kind, masks)
        zero, one = (ir.Constant(words.type, number) for number in (0, 1))

        def block(offset, abreast):
            sums = rows.sums(abreast)
            start = builder.add(at, offset)
            with cgutils.for_range_slice(builder, zero, levels, one, levels.type) as (done, _):
                level = builder.sub(builder.sub(levels, one), done)
                first = builder.mul(level, words)
                with cgutils.for_range_slice(builder, zero, words, one, words.type) as (word, _):
                    bits = builder.load(builder.gep(data, [builder.add(first, word)]))
                    # Most levels have a few spikes of their own: none is no case to tell apart.
                    rows.combine(sums, offset, word, bits, builder.add, always=True)
                _add(context, builder, kind, into, builder.add(builder.mul(level, stride), start), sums)

        _blocks(builder, size, rows.lanes, rows.most, block)
        return context.get_dummy_value()

    u64 = types.uint64
    if isinstance(narrow, types.IntegerLiteral):
        return types.void(into, u64, u64, u64, weights, u64, u64, u64, masks, u64, u64, narrow), generate
