"""Vectors of 16 float32 numbers, with loads and stores.

Numba turns plain loops into vector code only where LLVM can prove enough, and never keeps the elements of an array in registers across a
loop. So the vector is a type of its own here, `<16 x float>`: one register of AVX-512, two of AVX2, four of NEON. It has +, -, *, / and the
few functions below; code that uses it is plain Python. Addresses are those of `_numba`: no index counts from the end, and nothing
is checked.
"""

# Numba works out the types of what it compiles.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import platform
from typing import Any

from gpucnn_loops.language import cgutils, floats, intrinsic, ir, types, vector
from gpucnn_loops.machine import FEATURES

L = 16  # lanes of a vector
ARM = platform.machine().lower() in ("arm64", "aarch64")
# x86-64 before 2013 has no fused multiply-add. There llvm.fma becomes a call of fmaf for each lane, 20 times as slow; llvm.fmuladd is two
# instructions.
FMA = "fma" if "fma" in FEATURES or ARM else "fmuladd"

F, I32, I64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)
V = ir.VectorType(F, L)
IV = ir.VectorType(I32, L)
ZERO = ir.Constant(V, [0.0] * L)


def load_at(builder: Any, pointer: Any, kind: Any = V) -> Any:
    """A vector from the address `pointer`, which need not be aligned."""
    value = builder.load(builder.bitcast(pointer, kind.as_pointer()))
    value.align = 4
    return value


def store_at(builder: Any, value: Any, pointer: Any) -> None:
    """Writes a vector to the address `pointer`."""
    builder.store(value, builder.bitcast(pointer, value.type.as_pointer())).align = 4


def splat_of(builder: Any, scalar: Any, kind: Any = V) -> Any:
    """A vector of one number in all lanes."""
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, ir.Constant(I32, 0))
    return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(I32, kind.count), [0] * kind.count))


def fma_of(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """a·b + c."""
    kind = a.type
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind] * 3), f"llvm.{FMA}.v{kind.count}f32")
    return builder.call(function, [a, b, c])


@intrinsic
def at(typing, x, i):
    """The address of x[i]."""
    return x(x, types.int64), lambda c, b, s, args: b.gep(args[0], [args[1]])


@intrinsic
def load(typing, x, i):
    """x[i] … x[i + 15]."""
    return vector(x, types.int64), lambda c, b, s, args: load_at(b, b.gep(args[0], [args[1]]))


@intrinsic
def load_even(typing, x, i):
    """x[i], x[i + 2] … x[i + 30]; x[i + 31] is read as well."""

    def code(c, b, s, args):
        low, high = (load_at(b, b.gep(args[0], [b.add(args[1], ir.Constant(I64, first))])) for first in (0, L))
        return b.shuffle_vector(low, high, ir.Constant(IV, list(range(0, 2 * L, 2))))

    return vector(x, types.int64), code


@intrinsic
def load_apart(typing, x, i, step):
    """x[i], x[i + step], x[i + 2·step] …"""

    def code(c, b, s, args):
        x, i, step = args
        place, v = b.gep(x, [i]), ir.Constant(V, ir.Undefined)
        for lane in range(L):
            v = b.insert_element(v, b.load(b.gep(place, [b.mul(step, ir.Constant(I64, lane))])), ir.Constant(I32, lane))
        return v

    return vector(x, types.int64, types.int64), code


@intrinsic
def pairs(typing, x, i):
    """x[i], x[i + 2] … x[i + 30] and x[i + 1], x[i + 3] … x[i + 31]."""

    def code(c, b, s, args):
        low, high = (load_at(b, b.gep(args[0], [b.add(args[1], ir.Constant(I64, first))])) for first in (0, L))
        parts = [b.shuffle_vector(low, high, ir.Constant(IV, list(range(first, 2 * L, 2)))) for first in (0, 1)]
        return c.make_tuple(b, s.return_type, parts)

    return types.UniTuple(vector, 2)(x, types.int64), code


def _mixed(first: int) -> Any:
    def code(c, b, s, args):
        return b.shuffle_vector(*args, ir.Constant(IV, [first + i // 2 + L * (i % 2) for i in range(L)]))

    return code


@intrinsic
def low_pairs(typing, even, odd):
    """even[0], odd[0], even[1] … odd[7]."""
    return vector(vector, vector), _mixed(0)


@intrinsic
def high_pairs(typing, even, odd):
    """even[8], odd[8], even[9] … odd[15]."""
    return vector(vector, vector), _mixed(L // 2)


@intrinsic
def store(typing, x, i, v):
    """Writes v to x[i] … x[i + 15]."""

    def code(c, b, s, args):
        store_at(b, args[2], b.gep(args[0], [args[1]]))
        return c.get_dummy_value()

    return types.void(x, types.int64, v), code


@intrinsic
def lanes_before(typing, count):
    """All bits of the lanes before `count`, and none of the others."""

    def code(c, b, s, args):
        inside = b.icmp_signed("<", ir.Constant(IV, list(range(L))), splat_of(b, b.trunc(args[0], I32), IV))
        return b.bitcast(b.sext(inside, IV), V)

    return vector(types.int64), code


@intrinsic
def chosen(typing, lanes, a, b):
    """a in the lanes of which all bits are set, b in those of which none is."""

    def code(c, bl, s, args):
        return bl.select(bl.icmp_signed("<", bl.bitcast(args[0], IV), ir.Constant(IV, [0] * L)), args[1], args[2])

    return vector(vector, vector, vector), code


@intrinsic
def splat(typing, number):
    """A vector of 16 times the same number."""
    return vector(types.float32), lambda c, b, s, args: splat_of(b, args[0])


@intrinsic
def spread(typing, x, i):
    """A vector of 16 times x[i]."""
    return vector(x, types.int64), lambda c, b, s, args: splat_of(b, b.load(b.gep(args[0], [args[1]])))


@intrinsic
def fma(typing, a, b, c):
    """a·b + c, rounded once where the processor can."""
    return vector(vector, vector, vector), lambda ctx, b, s, args: fma_of(b, *args)


@intrinsic
def relu16(typing, a):
    """max(a, 0); NaN stays NaN."""
    return vector(vector), lambda c, b, s, args: b.select(b.fcmp_ordered("<=", args[0], ZERO), ZERO, args[0])


@intrinsic
def where_positive(typing, a, b):
    """b where a > 0, else 0."""
    return vector(vector, vector), lambda c, bl, s, args: bl.select(bl.fcmp_ordered(">", args[0], ZERO), args[1], ZERO)


def _wins(builder: Any, value: Any, best: Any) -> Any:
    """Where a candidate takes the place of the best so far: it is larger or NaN, and the best is a number."""
    return builder.and_(builder.fcmp_unordered(">", value, best), builder.fcmp_ordered("ord", best, best))


def _first_wins(wins: Any) -> Any:
    """(signature, code) of an intrinsic that takes a candidate, the best so far and their places, and gives the one that `wins` chooses."""

    def code(c, b, s, args):
        value, best, place, best_place = args
        taken = wins(b, value, best)
        return c.make_tuple(b, s.return_type, [b.select(taken, value, best), b.select(taken, place, best_place)])

    return types.UniTuple(vector, 2)(vector, vector, vector, vector), code


@intrinsic
def beats(typing, value, best, place, best_place):
    """(maximum, its place) of a candidate and the best so far: a later equal never wins, the first NaN does. Places are int32 bits."""
    return _first_wins(_wins)


@intrinsic
def larger_place(typing, value, best, place, best_place):
    """As `beats`, where none is NaN."""
    return _first_wins(lambda b, value, best: b.fcmp_ordered(">", value, best))


def _odd(builder: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    """Where any of them is NaN."""
    return builder.or_(builder.fcmp_unordered("uno", a, b), builder.fcmp_unordered("uno", c, d))


@intrinsic
def nan_among(typing, a, b, c, d):
    """Whether any lane of four vectors is NaN."""

    def code(ctx, bl, s, args):
        return bl.icmp_unsigned("!=", bl.bitcast(_odd(bl, *args), ir.IntType(L)), ir.Constant(ir.IntType(L), 0))

    return types.boolean(vector, vector, vector, vector), code


@intrinsic
def larger(typing, a, b):
    """The larger of each two numbers; b where one is NaN, or both are equal."""
    return vector(vector, vector), lambda c, bl, s, args: bl.select(bl.fcmp_ordered(">", *args), *args)


@intrinsic
def nan_or(typing, a, b, c, d, v):
    """NaN in the lanes where any of a, b, c and d is NaN, else v."""

    def code(ctx, bl, s, args):
        *four, v = args
        return bl.select(_odd(bl, *four), ir.Constant(V, [float("nan")] * L), v)

    return vector(vector, vector, vector, vector, vector), code


@intrinsic
def better(typing, value, best):
    """The maximum alone, as `beats` has it."""

    return vector(vector, vector), lambda c, b, s, args: b.select(_wins(b, *args), *args)


@intrinsic
def relu_first(typing, best, place, first):
    """(max(best, 0), its place): where no number is positive all are 0 after ReLU, and the first place wins. NaN stays, with its place."""

    def code(c, b, s, args):
        best, place, first = args
        nothing = b.fcmp_ordered("<=", best, ZERO)
        return c.make_tuple(b, s.return_type, [b.select(nothing, ZERO, best), b.select(nothing, first, place)])

    return types.UniTuple(vector, 2)(vector, vector, vector), code


@intrinsic
def place16(typing, number):
    """An integer 16 times, as int32 bits in a float vector."""
    return vector(types.int64), lambda c, b, s, args: b.bitcast(splat_of(b, b.trunc(args[0], I32), IV), V)


@intrinsic
def places_from(typing, first, step):
    """first, first + step, first + 2·step …, as int32 bits in a float vector."""

    def code(c, b, s, args):
        first, step = (splat_of(b, b.trunc(number, I32), IV) for number in args)
        return b.bitcast(b.add(first, b.mul(step, ir.Constant(IV, list(range(L))))), V)

    return vector(types.int64, types.int64), code


@intrinsic
def add_place(typing, places, number):
    """int32 bits in a float vector, plus an integer."""

    def code(c, b, s, args):
        return b.bitcast(b.add(b.bitcast(args[0], IV), splat_of(b, b.trunc(args[1], I32), IV)), V)

    return vector(vector, types.int64), code


@intrinsic
def where_same(typing, a, b, v):
    """v where a is bit-identical to b, else 0."""

    def code(c, bl, s, args):
        a, b, v = args
        return bl.select(bl.icmp_signed("==", bl.bitcast(a, IV), bl.bitcast(b, IV)), v, ZERO)

    return vector(vector, vector, vector), code


@intrinsic
def sum16(typing, v):
    """The sum of the lanes: upper half plus lower half, until one number is left."""

    def code(c, b, s, args):
        value, size = args[0], L
        while size > 1:
            size //= 2
            low, high = (ir.Constant(ir.VectorType(I32, size), list(range(first, first + size))) for first in (0, size))
            value = b.fadd(b.shuffle_vector(value, value, low), b.shuffle_vector(value, value, high))
        return b.extract_element(value, ir.Constant(I32, 0))

    return types.float32(vector), code


@intrinsic
def as_floats(typing, x):
    """The same address as one of float32, for numbers that are only copied."""
    return floats(x), lambda c, b, s, args: b.bitcast(args[0], F.as_pointer())
