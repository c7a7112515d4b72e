"""Sums of rows of weights, added to the membranes that a list of spikes reaches: compiled, in whole vectors."""

from __future__ import annotations

from contextlib import contextmanager

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .lanes import lanes_of, load, pointer, splat

# Vectors of membranes to sum at a time: the most that fit, then the most of what is left.
_ABREAST = (32, 16, 8, 4, 2, 1)
_REGISTERS = 16


@contextmanager
def _rows(context, builder, kind, channels, line, base, first, end):
    """Loop over the spikes first … end − 1; give each one's number and where its row of weights begins."""
    data = context.make_array(kind)(context, builder, channels).data
    with cgutils.for_range_slice(builder, first, end, ir.Constant(first.type, 1), first.type) as (spike, _):
        channel = builder.zext(builder.load(builder.gep(data, [spike])), first.type)
        yield spike, builder.add(base, builder.mul(channel, line))


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
def add_pixel_rows(typingctx, into, at, size, weights, base, channels, line, values, first, end):
    """into[at : at + size] += Σ values[e] · weights[base + channels[e] · line : … + size] over e = first … end − 1.

    into: int32; size: a multiple of the lanes that fill 64 bytes. weights: int8. channels: uint32. values: int16.
    No index is checked.
    """

    def generate(context, builder, signature, arguments):
        into, at, size, weights, base, channels, line, values, first, end = arguments
        kind, weight_kind, channel_kind, value_kind = (signature.args[place] for place in (0, 3, 5, 7))
        lanes = lanes_of(kind.dtype)
        vector = ir.VectorType(context.get_data_type(kind.dtype), lanes)
        value_data = context.make_array(value_kind)(context, builder, values).data

        def block(offset, abreast):
            sums = _zeros(builder, [vector] * abreast)
            with _rows(context, builder, channel_kind, channels, line, base, first, end) as (pixel, row):
                # Extended from two bytes, so that the compiler may take the faster of two multiplications.
                value = builder.sext(builder.load(builder.gep(value_data, [pixel])), vector.element)
                value = splat(builder, value, vector)
                for number, total in enumerate(sums):
                    place = builder.add(builder.add(row, offset), ir.Constant(row.type, number * lanes))
                    weight = _widened(builder, load(context, builder, weight_kind, weights, place, lanes), vector)
                    builder.store(builder.add(builder.load(total), builder.mul(weight, value)), total)
            _add(context, builder, kind, into, builder.add(at, offset), sums)

        _blocks(builder, size, lanes, _REGISTERS, block)
        return context.get_dummy_value()

    u64 = types.uint64
    return types.void(into, u64, u64, weights, u64, channels, u64, values, u64, u64), generate


@intrinsic
def add_rows(
    typingctx, into, at, size, weights, base, line, rises, rise, rises_end, falls, fall, falls_end, narrow
):  # fmt: skip
    """Add the rows of weights of listed spikes to membranes, and subtract those of negative spikes.

    into[at : at + size] += Σ weights[base + rises[e] · line : … + size] over e = rise … rises_end − 1
                          − Σ weights[base + falls[e] · line : … + size] over e = fall … falls_end − 1

    into: int16 or int32; size: a multiple of the lanes that fill 64 bytes. weights: int8 or int16. rises, falls:
    uint32, channels. narrow: a literal, 1 where no sum of the rows leaves the type of a weight, so that sums are
    formed in it, else 0. Sums wrap around, so only the final ones need to fit. No index is checked.
    """

    def generate(context, builder, signature, arguments):
        into, at, size, weights, base, line, rises, rise, rises_end, falls, fall, falls_end, _ = arguments
        kind, weight_kind, rise_kind, fall_kind = (signature.args[place] for place in (0, 3, 6, 9))
        dtype = weight_kind.dtype if signature.args[12].literal_value else kind.dtype
        # A sum in bytes holds several vectors of membranes in one register.
        lanes, full, number = lanes_of(kind.dtype), lanes_of(dtype), context.get_data_type(dtype)

        def block(offset, abreast):
            whole, rest = divmod(abreast * lanes, full)
            vectors = [ir.VectorType(number, width) for width in [full] * whole + [rest] * bool(rest)]
            sums = _zeros(builder, vectors)
            for listed_kind, listed, first, end, combine in (
                (rise_kind, rises, rise, rises_end, builder.add), (fall_kind, falls, fall, falls_end, builder.sub)
            ):  # fmt: skip
                with _rows(context, builder, listed_kind, listed, line, base, first, end) as (_, row):
                    place = builder.add(row, offset)
                    for total, vector in zip(sums, vectors, strict=True):
                        weight = load(context, builder, weight_kind, weights, place, vector.count)
                        builder.store(combine(builder.load(total), _widened(builder, weight, vector)), total)
                        place = builder.add(place, ir.Constant(place.type, vector.count))
            _add(context, builder, kind, into, builder.add(at, offset), sums)

        _blocks(builder, size, lanes, _REGISTERS * full // lanes, block)
        return context.get_dummy_value()

    u64 = types.uint64
    if isinstance(narrow, types.IntegerLiteral):
        return types.void(into, u64, u64, weights, u64, u64, rises, u64, u64, falls, u64, u64, narrow), generate
