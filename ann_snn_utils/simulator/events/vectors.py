"""Vectors of integers as values of compiled loops: read from arrays, compared, added, chosen from, written back.

numba has no vectors. Here they are a type of their own: as many integers as 64 bytes of membranes hold, or as many
yes-or-no answers about them. They stay in registers, and the compiler makes of each operation what the processor
has. No index is checked.
"""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model

from .layout import VECTOR_BYTES as VECTOR_BYTES


class Lanes(types.Type):
    """A vector of `count` integers of one type, or of booleans."""

    def __init__(self, dtype: Any, count: int) -> None:
        self.dtype, self.count = dtype, count
        super().__init__(f"Lanes({dtype}, {count})")

    @property
    def vector(self) -> ir.VectorType:
        """Its type for the compiler."""
        return ir.VectorType(ir.IntType(1 if self.dtype is types.boolean else self.dtype.bitwidth), self.count)


@register_model(Lanes)
class _Model(models.PrimitiveModel):
    def __init__(self, manager, lanes: Lanes) -> None:
        super().__init__(manager, lanes, lanes.vector)


def lanes_of(dtype: Any) -> int:
    """How many integers of this type fill a vector."""
    return VECTOR_BYTES * 8 // dtype.bitwidth


def data_of(context, builder, array_type, array):
    """Where an array's entries begin."""
    return context.make_array(array_type)(context, builder, array).data


def pointer(context, builder, array_type, array, index, vector):
    """The place of array[index] as that of a vector."""
    place = builder.gep(data_of(context, builder, array_type, array), [index])
    return builder.bitcast(place, vector.as_pointer())


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
    """A vector of one value."""
    single = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    mask = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count)
    return builder.shuffle_vector(single, ir.Constant(vector, ir.Undefined), mask)


def _by(make):
    """The generator of an intrinsic from what makes its value of a builder and the arguments."""
    return lambda context, builder, signature, arguments: make(builder, *arguments)


@intrinsic
def width_of(typingctx, membrane):
    """How many neurons one vector of membranes holds: a constant, which the array's item size is not."""
    return types.uint64(membrane), _by(lambda builder, _: ir.Constant(ir.IntType(64), lanes_of(membrane.dtype)))


@intrinsic
def read(typingctx, array, at, membrane):
    """array[at …], for as many neurons as a vector of membranes holds."""
    lanes = Lanes(array.dtype, lanes_of(membrane.dtype))

    def generate(context, builder, signature, arguments):
        return load(context, builder, signature.args[0], arguments[0], arguments[1], lanes.count)

    return lanes(array, types.uint64, membrane), generate


@intrinsic
def write(typingctx, array, at, values):
    """Set array[at …] to a vector of the array's type."""

    def generate(context, builder, signature, arguments):
        store(context, builder, signature.args[0], *arguments)
        return context.get_dummy_value()

    return types.void(array, types.uint64, values), generate


@intrinsic
def filled(typingctx, value, array, membrane):
    """A vector of one value, of the array's type, as wide as one of membranes."""
    lanes = Lanes(array.dtype, lanes_of(membrane.dtype))

    def fill(builder, value, array, membrane):
        element = lanes.vector.element
        return splat(builder, builder.trunc(value, element) if element.width < 64 else value, lanes.vector)

    return lanes(types.int64, array, membrane), _by(fill)


@intrinsic
def where(typingctx, mask, values, others):
    """`values` where the mask is set, and `others` elsewhere."""
    return values(mask, values, others), _by(ir.IRBuilder.select)


@intrinsic
def bits(typingctx, mask):
    """A mask as a number, the first neuron's bit the lowest."""
    word = ir.IntType(mask.count)
    return types.uint64(mask), _by(lambda builder, mask: builder.zext(builder.bitcast(mask, word), ir.IntType(64)))


@intrinsic
def total(typingctx, values):
    """The sum of a vector, as int64."""

    def generate(context, builder, signature, arguments):
        wide = ir.VectorType(ir.IntType(64), values.count)
        kind = ir.FunctionType(wide.element, [wide])
        function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.vector.reduce.add.v{wide.count}i64")
        return builder.call(function, [builder.sext(arguments[0], wide)])

    return types.int64(values), generate


def _operation(function, result, make) -> None:
    """Let `function`, of the module operator, take two vectors."""

    @intrinsic
    def apply(typingctx, one, other):
        return result(one)(one, other), _by(make)

    def implementation(one, other):
        if isinstance(one, Lanes) and isinstance(other, Lanes) and one.count == other.count:
            return lambda one, other: apply(one, other)
        return None

    overload(function)(implementation)


def _answers(lanes: Lanes) -> Lanes:
    return Lanes(types.boolean, lanes.count)


def _added(operation):
    def make(builder, values, other):
        if other.type == values.type:
            return getattr(builder, operation)(values, other)
        # A set answer counts one; the choice between two sums becomes one masked addition.
        one = ir.Constant(values.type, [1] * values.type.count)
        return builder.select(other, getattr(builder, operation)(values, one), values)

    return make


for _function, _sign in ((operator.ge, ">="), (operator.gt, ">"), (operator.lt, "<"), (operator.eq, "==")):
    _operation(_function, _answers, lambda builder, one, other, sign=_sign: builder.icmp_signed(sign, one, other))

_operation(operator.or_, lambda lanes: lanes, lambda builder, one, other: builder.or_(one, other))

for _function, _name in ((operator.add, "add"), (operator.iadd, "add"), (operator.sub, "sub")):
    _operation(_function, lambda lanes: lanes, _added(_name))


@intrinsic
def first_bit(typingctx, bits):
    """The number of the lowest set bit, 64 where there is none."""
    return types.uint64(types.uint64), _by(lambda builder, bits: builder.cttz(bits, ir.IntType(1)(0)))


@intrinsic
def ones(typingctx, bits):
    """The number of set bits."""
    return types.uint64(types.uint64), _by(ir.IRBuilder.ctpop)
