"""Operations on each number by itself, or on each row of numbers: activations, dropout."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gpucnn.profiling.what import work
from gpucnn.profiling.what.operations.row import Arguments, Operation, Rule
from gpucnn.profiling.what.operations.sample import Ops, Sample, floats
from gpucnn.profiling.what.work import Work


def _on(array: str, operations: int, arrays: int) -> Callable[[Arguments], Work]:
    """The work of `operations` for each number of an argument, with `arrays` of its size read or written."""
    return lambda a: work.elementwise(int(a[array].size), operations, arrays)


def activations(ops: Ops) -> None:
    """Every activation that has a row here, and its gradient; dropout."""
    x, calls = floats(128, 1024), np.empty(2, np.uint32)
    for name in (name for name, row in OPERATIONS.items() if row.kind == "activation"):
        getattr(ops, name)(*(x, x) if name.endswith("_grad") else (x,))
    ops.dropout(x, calls, 0.5, 0)
    ops.next_call(calls)


OPERATIONS = {
    "relu": Operation("activation", _on("x", 1, 2), Rule(("x",))),
    "relu_grad": Operation("activation", _on("dy", 1, 3), Rule(("dy", "y"))),
    # e⁻ᶻ, a sum, a quotient: three operations, however many instructions the exponential takes.
    "sigmoid": Operation("activation", _on("x", 3, 2), Rule(("x",))),
    "sigmoid_grad": Operation("activation", _on("dy", 3, 3), Rule(("dy", "y"))),
    # Maximum, difference, exponential, sum and quotient; backward a sum of products, then a difference and a product.
    "softmax": Operation("activation", _on("x", 5, 2), Rule(("x",))),
    "softmax_grad": Operation("activation", _on("dy", 4, 3), Rule(("dy", "y"))),
    # A comparison and a product; an exponential counts as one operation, and the normal distribution as three.
    "leaky_relu": Operation("activation", _on("x", 2, 2), Rule(("x",))),
    "leaky_relu_grad": Operation("activation", _on("dy", 2, 3), Rule(("dy", "y"))),
    # Two comparisons; before them a sum and a product, and behind them another product.
    "relu6": Operation("activation", _on("x", 2, 2), Rule(("x",))),
    "relu6_grad": Operation("activation", _on("dy", 2, 3), Rule(("dy", "y"))),
    "hard_sigmoid": Operation("activation", _on("x", 4, 2), Rule(("x",))),
    "hard_sigmoid_grad": Operation("activation", _on("dy", 3, 3), Rule(("dy", "y"))),
    "hard_swish": Operation("activation", _on("x", 5, 2), Rule(("x",))),
    "hard_swish_grad": Operation("activation", _on("dy", 5, 3), Rule(("dy", "x"))),
    "elu": Operation("activation", _on("x", 3, 2), Rule(("x",))),
    "elu_grad": Operation("activation", _on("dy", 3, 3), Rule(("dy", "y"))),
    "tanh": Operation("activation", _on("x", 1, 2), Rule(("x",))),
    "tanh_grad": Operation("activation", _on("dy", 4, 3), Rule(("dy", "y"))),
    "silu": Operation("activation", _on("x", 4, 2), Rule(("x",))),
    "silu_grad": Operation("activation", _on("dy", 8, 3), Rule(("dy", "x"))),
    "gelu": Operation("activation", _on("x", 4, 2), Rule(("x",))),
    "gelu_grad": Operation("activation", _on("dy", 8, 3), Rule(("dy", "x"))),
    # One multiplication; the random words are work for the integer units.
    "dropout": Operation("dropout", _on("x", 1, 2), Rule(("x",), first=True)),
    "next_call": Operation("dropout", _on("calls", 0, 2), Rule(written=("calls",), exact=True)),
}
SAMPLES = (Sample("", activations),)
