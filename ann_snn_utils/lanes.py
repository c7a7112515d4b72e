"""Vectors of integers for compiled loops: sums of weight rows, comparisons, and the neurons that they name.

numba has no vectors of its own. These functions write the few instructions that the simulator lives on
straight into its code, 64 bytes at a time; the compiler then makes of them what the processor has.
"""

from __future__ import annotations

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


@intrinsic
def add_rows(typingctx, into, at, size, weights, base, rows, signs, first, end):
    """into[at : at + size] += Σ signs[e] · weights[base + rows[e] : … + size] over e = first … end − 1.

    into, signs: int16 or int32; size: a multiple of the lanes that fill 64 bytes. weights: int8 or int16. rows:
    uint32. Sums wrap around, so only the final ones need to fit. No index is checked.
    """

    def generate(context, builder, signature, arguments):
        into, at, size, weights, base, rows, signs, first, end = arguments
        types_ = dict(zip(("into", "at", "size", "weights", "base", "rows", "signs"), signature.args, strict=False))
        index, lanes = at.type, _lanes(types_["into"].dtype)
        vector = ir.VectorType(context.get_data_type(types_["into"].dtype), lanes)
        row_data = context.make_array(types_["rows"])(context, builder, rows).data
        sign_data = context.make_array(types_["signs"])(context, builder, signs).data

        def block(offset, vectors):
            places = [builder.add(offset, ir.Constant(index, number * lanes)) for number in range(vectors)]
            targets = [
                _pointer(context, builder, types_["into"], into, builder.add(at, place), vector) for place in places
            ]
            align = types_["into"].dtype.bitwidth // 8
            sums = [cgutils.alloca_once_value(builder, builder.load(target, align=align)) for target in targets]
            with cgutils.for_range_slice(builder, first, end, ir.Constant(index, 1), index) as (event, _):
                row = builder.zext(builder.load(builder.gep(row_data, [event])), index)
                sign = _splat(builder, builder.load(builder.gep(sign_data, [event])), vector)
                start = builder.add(base, row)
                for place, total in zip(places, sums, strict=True):
                    weight = _load(context, builder, types_["weights"], weights, builder.add(start, place), lanes)
                    if weight.type.element.width < vector.element.width:
                        weight = builder.sext(weight, vector)
                    builder.store(builder.add(builder.load(total), builder.mul(weight, sign)), total)
            for target, total in zip(targets, sums, strict=True):
                builder.store(builder.load(total), target, align=align)

        done = ir.Constant(index, 0)
        for abreast in _ABREAST:
            wide = ir.Constant(index, lanes * abreast)
            whole = builder.mul(builder.udiv(size, wide), wide)
            with cgutils.for_range_slice(builder, done, whole, wide, index) as (offset, _):
                block(offset, abreast)
            done = whole
        return context.get_dummy_value()

    u64 = types.uint64
    return types.void(into, u64, u64, weights, u64, rows, signs, u64, u64), generate


def _bits(builder, mask):
    return builder.zext(builder.bitcast(mask, ir.IntType(mask.type.count)), ir.IntType(64))


@intrinsic
def crossed(typingctx, membrane, upper, lower, at):
    """Give a bit for each neuron of one vector from `at` with membrane ≥ upper or membrane < lower."""

    def generate(context, builder, signature, arguments):
        lanes = _lanes(signature.args[0].dtype)
        u, up, low = (
            _load(context, builder, kind, array, arguments[3], lanes)
            for kind, array in zip(signature.args[:3], arguments[:3], strict=True)
        )
        return _bits(builder, builder.or_(builder.icmp_signed(">=", u, up), builder.icmp_signed("<", u, low)))

    return types.uint64(membrane, upper, lower, types.uint64), generate


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
