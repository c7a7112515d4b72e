"""Sums of rows of weights, added to the membranes that spikes reach: compiled, in whole vectors."""

from __future__ import annotations

from contextlib import contextmanager

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .lanes import lanes_of, load, pointer, splat, store

# Vectors of membranes to sum at a time: the most that fit, then the most of what is left.
_ABREAST = (32, 16, 8, 4, 2, 1)
_REGISTERS = 16


@contextmanager
def _spikes(builder, words, first, end):
    """Loop over the set bits of the words first … end − 1; give each one's channel, counted from word `first`."""
    one = ir.Constant(first.type, 1)
    with cgutils.for_range_slice(builder, first, end, one, first.type) as (word, _):
        channel = builder.mul(builder.sub(word, first), ir.Constant(first.type, 64))
        before, head = builder.block, builder.append_basic_block("spike.head")
        body, after = builder.append_basic_block("spike.body"), builder.append_basic_block("spike.after")
        all_bits = builder.load(builder.gep(words, [word]))
        builder.branch(head)
        builder.position_at_end(head)
        bits = builder.phi(first.type)
        bits.add_incoming(all_bits, before)
        builder.cbranch(builder.icmp_unsigned("!=", bits, ir.Constant(first.type, 0)), body, after)
        builder.position_at_end(body)
        yield builder.add(channel, builder.cttz(bits, ir.Constant(ir.IntType(1), 1)))
        bits.add_incoming(builder.and_(bits, builder.sub(bits, one)), builder.block)
        builder.branch(head)
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


@intrinsic
def add_rows(typingctx, into, at, size, weights, base, line, rises, falls, first, end, narrow):
    """Add the rows of weights of positive spikes to membranes, and subtract those of negative ones.

    into[at : at + size] += Σ weights[base + c · line : … + size] over the set bits c of rises[first : end]
                          − Σ weights[base + c · line : … + size] over the set bits c of falls[first : end]

    into: int16 or int32; size: a multiple of the lanes that fill 64 bytes. weights: int8 or int16. rises, falls:
    uint64, 64 channels a word. narrow: a literal, 1 where no sum of the rows leaves the type of a weight, so that
    sums are formed in it, else 0. Sums wrap around, so only the final ones need to fit. No index is checked.
    """

    def generate(context, builder, signature, arguments):
        into, at, size, weights, base, line, rises, falls, first, end, _ = arguments
        kind, weight_kind, rise_kind, fall_kind = (signature.args[place] for place in (0, 3, 6, 7))
        dtype = weight_kind.dtype if signature.args[10].literal_value else kind.dtype
        # A sum in bytes holds several vectors of membranes in one register.
        lanes, full, number = lanes_of(kind.dtype), lanes_of(dtype), context.get_data_type(dtype)
        signs = (
            (context.make_array(rise_kind)(context, builder, rises).data, builder.add),
            (context.make_array(fall_kind)(context, builder, falls).data, builder.sub),
        )

        def block(offset, abreast):
            whole, rest = divmod(abreast * lanes, full)
            vectors = [ir.VectorType(number, width) for width in [full] * whole + [rest] * bool(rest)]
            sums = _zeros(builder, vectors)
            for words, combine in signs:
                with _spikes(builder, words, first, end) as channel:
                    place = builder.add(builder.add(base, offset), builder.mul(channel, line))
                    for total, vector in zip(sums, vectors, strict=True):
                        weight = load(context, builder, weight_kind, weights, place, vector.count)
                        builder.store(combine(builder.load(total), _widened(builder, weight, vector)), total)
                        place = builder.add(place, ir.Constant(place.type, vector.count))
            _add(context, builder, kind, into, builder.add(at, offset), sums)

        _blocks(builder, size, lanes, _REGISTERS * full // lanes, block)
        return context.get_dummy_value()

    u64 = types.uint64
    if isinstance(narrow, types.IntegerLiteral):
        return types.void(into, u64, u64, weights, u64, u64, rises, falls, u64, u64, narrow), generate
