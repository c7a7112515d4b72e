"""Vectors of integers for compiled loops: sums of weight rows, comparisons, and the neurons that they name.

numba has no vectors of its own. These functions write the few instructions that the simulator lives on
straight into its code, 64 bytes at a time; the compiler then makes of them what the processor has.
"""

from __future__ import annotations

from contextlib import contextmanager

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

BYTES = 64
# Vectors summed side by side: as many as registers hold, then what is left over.
_ABREAST = (8, 2, 1)


def _lanes(dtype: types.Type) -> int:
    return BYTES * 8 // dtype.bitwidth


def _pointer(context, builder, array_type, array, index, vector):
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), vector.as_pointer())


def _load(context, builder, array_type, array, index, lanes):
    vector = ir.VectorType(context.get_data_type(array_type.dtype), lanes)
    size = array_type.dtype.bitwidth // 8
    return builder.load(_pointer(context, builder, array_type, array, index, vector), align=size)


def _splat(builder, value, vector):
    single = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    mask = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count)
    return builder.shuffle_vector(single, ir.Constant(vector, ir.Undefined), mask)


@contextmanager
def _events(context, builder, kind, rows, base, first, end):
    """Loop over the events first … end − 1; give each one's number and where its row of weights begins."""
    data = context.make_array(kind)(context, builder, rows).data
    with cgutils.for_range_slice(builder, first, end, ir.Constant(first.type, 1), first.type) as (event, _):
        yield event, builder.add(base, builder.zext(builder.load(builder.gep(data, [event])), first.type))


def _widened(builder, values, vector):
    return values if values.type == vector else builder.sext(values, vector)


@intrinsic
def add_rows(typingctx, into, at, size, weights, base, rows, signs, first, end):
    """into[at : at + size] += Σ signs[e] · weights[base + rows[e] : … + size] over e = first … end − 1.

    into, signs: int16 or int32; size: a multiple of the lanes that fill 64 bytes. weights: int8 or int16. rows:
    uint32. Sums wrap around, so only the final ones need to fit. No index is checked.
    """

    def generate(context, builder, signature, arguments):
        into, at, size, weights, base, rows, signs, first, end = arguments
        kind, _, _, weight_kind, _, row_kind, sign_kind = signature.args[:7]
        index, align, lanes = at.type, kind.dtype.bitwidth // 8, _lanes(kind.dtype)
        vector = ir.VectorType(context.get_data_type(kind.dtype), lanes)
        sign_data = context.make_array(sign_kind)(context, builder, signs).data

        def block(offset, abreast):
            places = [builder.add(offset, ir.Constant(index, number * lanes)) for number in range(abreast)]
            targets = [_pointer(context, builder, kind, into, builder.add(at, place), vector) for place in places]
            sums = [cgutils.alloca_once_value(builder, builder.load(target, align=align)) for target in targets]
            with _events(context, builder, row_kind, rows, base, first, end) as (event, start):
                sign = _splat(builder, builder.load(builder.gep(sign_data, [event])), vector)
                for place, total in zip(places, sums, strict=True):
                    weight = _load(context, builder, weight_kind, weights, builder.add(start, place), lanes)
                    product = builder.mul(_widened(builder, weight, vector), sign)
                    builder.store(builder.add(builder.load(total), product), total)
            for target, total in zip(targets, sums, strict=True):
                builder.store(builder.load(total), target, align=align)

        _blocks(builder, size, lanes, block)
        return context.get_dummy_value()

    u64 = types.uint64
    return types.void(into, u64, u64, weights, u64, rows, signs, u64, u64), generate


@intrinsic
def add_ternary_rows(typingctx, into, at, size, weights, base, rows, first, middle, end):
    """Add the rows of events first … middle − 1 to into[at : at + size], and subtract those of middle … end − 1.

    As `add_rows`, with a partial sum in the type of a weight, for int8 ones twice as many to a vector: no sum
    of the events' weights may leave that type.
    """

    def generate(context, builder, signature, arguments):
        into, at, size, weights, base, rows, first, middle, end = arguments
        kind, _, _, weight_kind, _, row_kind = signature.args[:6]
        align = kind.dtype.bitwidth // 8

        def block(offset, abreast):
            lanes = _lanes(kind.dtype) * abreast
            narrow, wide = (ir.VectorType(context.get_data_type(each.dtype), lanes) for each in (weight_kind, kind))
            total = cgutils.alloca_once_value(builder, ir.Constant(narrow, None))
            for start, stop, combine in ((first, middle, builder.add), (middle, end, builder.sub)):
                with _events(context, builder, row_kind, rows, base, start, stop) as (_, row):
                    weight = _load(context, builder, weight_kind, weights, builder.add(row, offset), lanes)
                    builder.store(combine(builder.load(total), weight), total)
            target = _pointer(context, builder, kind, into, builder.add(at, offset), wide)
            sums = _widened(builder, builder.load(total), wide)
            builder.store(builder.add(builder.load(target, align=align), sums), target, align=align)

        _blocks(builder, size, _lanes(kind.dtype), block)
        return context.get_dummy_value()

    u64 = types.uint64
    return types.void(into, u64, u64, weights, u64, rows, u64, u64, u64), generate


def _blocks(builder, size, lanes, block):
    """Cover `size` entries with blocks of as many vectors as fit, the widest first."""
    done = ir.Constant(size.type, 0)
    for abreast in _ABREAST:
        wide = ir.Constant(size.type, lanes * abreast)
        whole = builder.mul(builder.udiv(size, wide), wide)
        with cgutils.for_range_slice(builder, done, whole, wide, size.type) as (offset, _):
            block(offset, abreast)
        done = whole


def _bits(builder, mask):
    return builder.zext(builder.bitcast(mask, ir.IntType(mask.type.count)), ir.IntType(64))


@intrinsic
def below(typingctx, membrane, lower, at):
    """Give a bit for each neuron of one vector from `at` with membrane < lower."""

    def generate(context, builder, signature, arguments):
        lanes = _lanes(signature.args[0].dtype)
        u, low = (
            _load(context, builder, kind, array, arguments[2], lanes)
            for kind, array in zip(signature.args[:2], arguments[:2], strict=True)
        )
        return _bits(builder, builder.icmp_signed("<", u, low))

    return types.uint64(membrane, lower, types.uint64), generate


@intrinsic
def reached(typingctx, membrane, at, thresholds, threshold_at):
    """Give a bit for each neuron of one vector from `at` with membrane ≥ its threshold."""

    def generate(context, builder, signature, arguments):
        membrane, at, thresholds, threshold_at = arguments
        lanes = _lanes(signature.args[0].dtype)
        u = _load(context, builder, signature.args[0], membrane, at, lanes)
        threshold = _load(context, builder, signature.args[2], thresholds, threshold_at, lanes)
        return _bits(builder, builder.icmp_signed(">=", u, threshold))

    return types.uint64(membrane, types.uint64, thresholds, types.uint64), generate


@intrinsic
def list_bits(typingctx, into, at, bits, first, stride):
    """Write first + stride · b for every set bit b < 32 to into[at …], uint32; give where the list then ends.

    `into` needs room for 16 entries beyond its end.
    """

    def generate(context, builder, signature, arguments):
        into, at, bits, first, stride = arguments
        i32, lanes = ir.IntType(32), 16
        vector, mask_type = ir.VectorType(i32, lanes), ir.VectorType(ir.IntType(1), lanes)
        name = "llvm.experimental.vector.compress.v16i32"
        compress = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(vector, [vector, mask_type, vector]), name
        )
        first, stride = (_splat(builder, builder.trunc(value, i32), vector) for value in (first, stride))
        end = cgutils.alloca_once_value(builder, at)
        for half in range(2):
            part = builder.trunc(builder.lshr(bits, ir.Constant(bits.type, lanes * half)), ir.IntType(lanes))
            with builder.if_then(builder.icmp_unsigned("!=", part, ir.Constant(part.type, 0))):
                numbers = ir.Constant(vector, [lanes * half + lane for lane in range(lanes)])
                values = builder.add(first, builder.mul(stride, numbers))
                mask = builder.bitcast(part, mask_type)
                listed = builder.call(compress, [values, mask, ir.Constant(vector, ir.Undefined)])
                place = builder.load(end)
                builder.store(listed, _pointer(context, builder, signature.args[0], into, place, vector), align=4)
                builder.store(builder.add(place, builder.zext(builder.ctpop(part), place.type)), end)
        return builder.load(end)

    u64 = types.uint64
    return u64(into, u64, u64, u64, u64), generate
