"""What the profiler knows of an operation: a row of the table in gpucnn.profiling.what.operations."""

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


@dataclass(frozen=True)
class Rule:
    """The comparison of a result with the same operation on the CPU in float64 (gpucnn.profiling.what.correct).

    cut: the arguments that are cut along `axis`, where looking at all of them would take long; at `most` so many elements of it.
    first: the first elements are taken and no others, because a result depends on its place.
    terms: how many products a result is the sum of; None for what is not a sum.
    room: arguments that results are written to, and that the reference makes for itself.
    written: arguments that hold the results, for an operation that changes them in place.
    planes: on the CPU an error may be as large as the largest sum in a plane, or in a filter, has: Winograd's convolution adds up tiles.
    near: with `planes`, arguments of which the largest number that a tile reaches counts for each.
    exact: whole numbers must be the same; without it near-equals may have changed places, and they are passed over.
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

    kind: what --op takes.
    work: FLOPs and least bytes, without ReLU's gradient that may be taken along.
    rule: how its result is checked.
    twin: PyTorch's function that does as much, ready to be called on the same memory, given torch as well; None where it has none.
    sizes: in words; where that is None, the first array's.
    problem: what kernels are chosen for; None where there is one way to do it.
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
    """Stride, padding and dilation, where they are not the usual ones."""

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
    """The products in a result of a filter, or of a row of weights."""
    return int(math.prod(a["weight"].shape[1:]))


# PyTorch's side.


def torch_window(window: Any) -> tuple[list[int], list[int], list[int], list[int]]:
    """Stride, padding, dilation and kernel, as PyTorch wants them."""
    return list(window.stride), [begin for begin, _ in window.padding], list(window.dilation), list(window.kernel)


def with_relu(run: Run, relu: bool) -> Run:
    """`run`, and ReLU after it."""
    return (lambda: run().relu_()) if relu else run


def with_relu_grad(run: Run, relu: Any, torch: Any) -> Run:
    """`run`, and ReLU's gradient after it, where `relu` is what ReLU made."""
    backward = torch.ops.aten.threshold_backward
    return run if relu is None else lambda: backward(run(), relu, 0)
