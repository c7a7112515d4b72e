"""Vectors of integers for compiled loops: comparisons, and how the neurons that they name move on.

numba has no vectors of its own. These functions write the few instructions that the simulator lives on
straight into its code, 64 bytes of membranes at a time; the compiler then makes of them what the processor has.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

VECTOR_BYTES = 64


def lanes_of(dtype: types.Type) -> int:
    """Give how many integers of this type fill a vector."""
    return VECTOR_BYTES * 8 // dtype.bitwidth


def pointer(context, builder, array_type, array, index, vector):
    """Give the place of array[index] as that of a whole vector."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), vector.as_pointer())


def load(context, builder, array_type, array, index, lanes):
    """Read `lanes` entries from array[index] on."""
    vector = ir.VectorType(context.get_data_type(array_type.dtype), lanes)
    size = array_type.dtype.bitwidth // 8
    return builder.load(pointer(context, builder, array_type, array, index, vector), align=size)


def store(context, builder, array_type, array, index, value):
    """Write a vector to array[index] and on."""
    size = array_type.dtype.bitwidth // 8
    builder.store(value, pointer(context, builder, array_type, array, index, value.type), align=size)


def splat(builder, value, vector):
    """Give a vector of one value."""
    single = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    mask = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count)
    return builder.shuffle_vector(single, ir.Constant(vector, ir.Undefined), mask)


def _bits(builder, mask):
    return builder.zext(builder.bitcast(mask, ir.IntType(mask.type.count)), ir.IntType(64))


def _mask(builder, bits, lanes):
    return builder.bitcast(builder.trunc(bits, ir.IntType(lanes)), ir.VectorType(ir.IntType(1), lanes))


@intrinsic
def width_of(typingctx, membrane):
    """Give how many neurons one vector of membranes holds: a constant, which the array's item size is not."""

    def generate(context, builder, signature, arguments):
        return ir.Constant(ir.IntType(64), lanes_of(signature.args[0].dtype))

    return types.uint64(membrane), generate


@intrinsic
def below(typingctx, membrane, lower, at):
    """Give a bit for each neuron of one vector from `at` with membrane < lower."""

    def generate(context, builder, signature, arguments):
        lanes = lanes_of(signature.args[0].dtype)
        u, low = (
            load(context, builder, kind, array, arguments[2], lanes)
            for kind, array in zip(signature.args[:2], arguments[:2], strict=True)
        )
        return _bits(builder, builder.icmp_signed("<", u, low))

    return types.uint64(membrane, lower, types.uint64), generate


@intrinsic
def reached(typingctx, membrane, at, thresholds, threshold_at):
    """Give a bit for each neuron of one vector from `at` with membrane ≥ its threshold."""

    def generate(context, builder, signature, arguments):
        membrane, at, thresholds, threshold_at = arguments
        lanes = lanes_of(signature.args[0].dtype)
        u = load(context, builder, signature.args[0], membrane, at, lanes)
        threshold = load(context, builder, signature.args[2], thresholds, threshold_at, lanes)
        return _bits(builder, builder.icmp_signed(">=", u, threshold))

    return types.uint64(membrane, types.uint64, thresholds, types.uint64), generate


@intrinsic
def stamp(typingctx, into, at, bits, value, membrane):
    """Write `value` to into[at + b] for every set bit b of one vector of membranes."""

    def generate(context, builder, signature, arguments):
        kind, (into, at, bits, value, _) = signature.args[0], arguments
        old = load(context, builder, kind, into, at, lanes_of(signature.args[4].dtype))
        new = splat(builder, builder.trunc(value, old.type.element), old.type)
        store(context, builder, kind, into, at, builder.select(_mask(builder, bits, old.type.count), new, old))
        return context.get_dummy_value()

    return types.void(into, types.uint64, types.uint64, types.int64, membrane), generate


@intrinsic
def move(typingctx, counts, last, upper, lower, at, over, under, step):
    """Count the spikes of one vector of neurons from `at`, note their step, and move one threshold of the two.

    over, under: a bit for each neuron that sends a positive or a negative spike. The threshold just reached
    from below becomes the lower one, the one just left downwards the upper one; the other of the two is then
    to be looked up.
    """

    def generate(context, builder, signature, arguments):
        count_kind, last_kind, kind = signature.args[:3]
        counts, last, upper, lower, at, over, under, step = arguments
        lanes = lanes_of(kind.dtype)
        up, down = (_mask(builder, bits, lanes) for bits in (over, under))
        count = load(context, builder, count_kind, counts, at, lanes)
        # A set bit, extended by its sign, is −1.
        count = builder.sub(count, builder.sext(up, count.type))
        count = builder.add(count, builder.sext(down, count.type))
        store(context, builder, count_kind, counts, at, count)
        before = load(context, builder, last_kind, last, at, lanes)
        now = splat(builder, builder.trunc(step, before.type.element), before.type)
        fired = _mask(builder, builder.or_(over, under), lanes)
        store(context, builder, last_kind, last, at, builder.select(fired, now, before))
        high, low = (load(context, builder, kind, array, at, lanes) for array in (upper, lower))
        store(context, builder, kind, upper, at, builder.select(down, low, high))
        store(context, builder, kind, lower, at, builder.select(up, high, low))
        return context.get_dummy_value()

    u64 = types.uint64
    return types.void(counts, last, upper, lower, u64, u64, u64, types.int64), generate


@intrinsic
def alike(typingctx, counts, at, count, membrane):
    """Give a bit for each neuron of one vector of membranes from `at` with this count."""

    def generate(context, builder, signature, arguments):
        kind, (counts, at, count, _) = signature.args[0], arguments
        found = load(context, builder, kind, counts, at, lanes_of(signature.args[3].dtype))
        return _bits(builder, builder.icmp_signed("==", found, splat(builder, count, found.type)))

    return types.uint64(counts, types.uint64, counts.dtype, membrane), generate


@intrinsic
def replace(typingctx, into, at, bits, source, source_at):
    """into[at + b] = source[source_at + b], of one type, for every set bit b of one vector."""

    def generate(context, builder, signature, arguments):
        kind, source_kind, (into, at, bits, source, source_at) = signature.args[0], signature.args[3], arguments
        lanes = lanes_of(kind.dtype)
        old, new = (
            load(context, builder, each, array, index, lanes)
            for each, array, index in ((kind, into, at), (source_kind, source, source_at))
        )
        store(context, builder, kind, into, at, builder.select(_mask(builder, bits, lanes), new, old))
        return context.get_dummy_value()

    u64 = types.uint64
    return types.void(into, u64, u64, source, u64), generate


@intrinsic
def add(typingctx, into, at, values, values_at):
    """into[at …] += values[values_at …] for one vector, of one type, and set those values to 0."""

    def generate(context, builder, signature, arguments):
        kind, values_kind, (into, at, values, values_at) = signature.args[0], signature.args[2], arguments
        lanes = lanes_of(kind.dtype)
        total, more = (
            load(context, builder, each, array, index, lanes)
            for each, array, index in ((kind, into, at), (values_kind, values, values_at))
        )
        store(context, builder, kind, into, at, builder.add(total, more))
        store(context, builder, values_kind, values, values_at, ir.Constant(more.type, None))
        return context.get_dummy_value()

    u64 = types.uint64
    return types.void(into, u64, values, u64), generate


@intrinsic
def tally(typingctx, sums, at, fan, fan_at, bits, membrane):
    """sums[at + b] += fan[fan_at + b], int32, for every set bit b of one vector of membranes."""

    def generate(context, builder, signature, arguments):
        kind, _, fan_kind = signature.args[:3]
        sums, at, fan, fan_at, bits, _ = arguments
        lanes = lanes_of(signature.args[5].dtype)
        total, more = (
            load(context, builder, kind, array, index, lanes)
            for kind, array, index in ((kind, sums, at), (fan_kind, fan, fan_at))
        )
        chosen = builder.select(_mask(builder, bits, total.type.count), more, ir.Constant(more.type, None))
        store(context, builder, kind, sums, at, builder.add(total, chosen))
        return context.get_dummy_value()

    u64 = types.uint64
    return types.void(sums, u64, fan, u64, u64, membrane), generate


@intrinsic
def first_bit(typingctx, bits):
    """Give the number of the lowest set bit, of which there is one."""

    def generate(context, builder, signature, arguments):
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64), generate


@intrinsic
def ones(typingctx, bits):
    """Give the number of set bits."""

    def generate(context, builder, signature, arguments):
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), generate


@intrinsic
def number_of(typingctx, values, first, end, wanted):
    """Give how many of values[first : end], a whole number of vectors of membranes, are `wanted`."""

    def generate(context, builder, signature, arguments):
        kind, (values, first, end, wanted) = signature.args[0], arguments
        # The widest membranes have the fewest neurons in a vector: one more would be another layer's.
        lanes = lanes_of(types.int32)
        vector = ir.VectorType(context.get_data_type(kind.dtype), lanes)
        same = splat(builder, builder.trunc(wanted, vector.element), vector)
        total = cgutils.alloca_once_value(builder, ir.Constant(first.type, 0))
        with cgutils.for_range_slice(builder, first, end, ir.Constant(first.type, lanes), first.type) as (at, _):
            bits = _bits(builder, builder.icmp_signed("==", load(context, builder, kind, values, at, lanes), same))
            builder.store(builder.add(builder.load(total), builder.ctpop(bits)), total)
        return builder.load(total)

    u64 = types.uint64
    return u64(values, u64, u64, types.int64), generate
