"""The profiler's description of an operation: a row of the table in gpucnn.profiling.what.operations."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from gpucnn.profiling.what.work import Work
from gpucnn_kernels.core.problem import Problem

Arguments: TypeAlias = dict[str, Any]  # of a call, by name
Run: TypeAlias = Callable[[], Any]

ROOM = ("out", "dbias")
OTHER = "other"  # the kind of an operation that belongs to no family


@dataclass(frozen=True)
class Rule:
    """The comparison of a result with the same operation on the CPU in float64 (gpucnn.profiling.what.correct).

    cut: the arguments that are cut along `axis`, to at `most` this many elements, if checking all of them would take long.
    first: only the first elements are used, because a result depends on its position.
    terms: the number of products in a result; None if it is not a sum.
    room: arguments for results, which the reference allocates itself.
    written: arguments that hold the results, for an operation that changes them in place.
    planes: on the CPU an error may be as large as that of the largest sum in a plane or filter, because Winograd's algorithm adds up tiles.
    near: with `planes`, arguments in which the largest number within a tile's reach counts for each.
    exact: integers must be equal; without it they are not compared, because nearly equal values may have changed places.
    """

    cut: tuple[str, ...] = ()
    axis: int = 0
    terms: Callable[[Arguments], int] | None = None
    first: bool = False
    most: int | None = None
    room: tuple[str, ...] = ROOM
    written: tuple[str, ...] = ()
    planes: bool = False
    near: tuple[str, ...] = ()
    exact: bool = False


@dataclass(frozen=True)
class Operation:
    """The profiler's knowledge of one operation, from the arguments of a call.

    kind: the value of --op.
    work: FLOPs and least bytes, not counting a ReLU gradient that it may include.
    rule: how its result is checked.
    twin: makes PyTorch's equivalent function, on the same memory, given torch; None if there is none.
    sizes: the sizes in words; if None, those of the first array.
    problem: the problem for which kernels are selected; None if there is only one way to do it.
    product: for an operation that may be done in parts, the operation among them that is a product.
    """

    kind: str
    work: Callable[[Arguments], Work]
    rule: Rule
    twin: Callable[[Arguments, Any], Run] | None = None
    sizes: Callable[[Arguments], str] | None = None
    problem: Callable[[Arguments], Problem] | None = None
    product: str | None = None


def times(sides: Any) -> str:
    """3×4×5"""
    return "×".join(map(str, sides))


def first_array(a: Arguments) -> Any:
    """The first array among the arguments, or None."""
    return next((value for value in a.values() if getattr(value, "ndim", 0)), None)


def window_words(window: Any, usual_stride: tuple[int, int]) -> str:
    """Stride, padding and dilation, unless they have their defaults."""

    def pair(sides: tuple[int, int]) -> str:
        return str(sides[0]) if sides[0] == sides[1] else times(sides)

    text = "" if window.stride == usual_stride else f", stride {pair(window.stride)}"
    sides = {side for sides in window.padding for side in sides}
    if sides != {0}:
        text += f", padding {sides.pop() if len(sides) == 1 else 'same' if window.same else window.padding}"
    return text + ("" if window.dilation == (1, 1) else f", dilation {pair(window.dilation)}")


def taps(a: Arguments) -> int:
    """R·S"""
    return int(math.prod(a["window"].kernel))


def filter_terms(a: Arguments) -> int:
    """The number of products in a result of a filter, or of a row of weights."""
    return int(math.prod(a["weight"].shape[1:]))


# PyTorch's side.


def torch_window(window: Any) -> tuple[list[int], list[int], list[int], list[int]]:
    """Stride, padding, dilation and kernel in PyTorch's form."""
    return list(window.stride), [begin for begin, _ in window.padding], list(window.dilation), list(window.kernel)


def with_relu(run: Run, relu: bool) -> Run:
    """`run`, and ReLU after it."""
    return (lambda: run().relu_()) if relu else run


def with_relu_grad(run: Run, relu: Any, torch: Any) -> Run:
    """`run`, and ReLU's gradient after it, given ReLU's output `relu`."""
    backward = torch.ops.aten.threshold_backward
    return run if relu is None else lambda: backward(run(), relu, 0)
