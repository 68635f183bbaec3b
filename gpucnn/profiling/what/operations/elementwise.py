"""Operations on single numbers or on rows of numbers: activations, dropout.

An activation's row follows from `PER_NUMBER` beside its CPU operation, the number of floating-point operations per number.
Its required arrays, all of one size, are read once, and one is written.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable

import numpy as np

from gpucnn.names import modules_in
from gpucnn.profiling.what import work
from gpucnn.profiling.what.operations.row import Operation, Rule
from gpucnn.profiling.what.operations.sample import Ops, Sample, floats


def _row(operation: Callable[..., object], each: int) -> Operation:
    """The row of an activation, a function of arrays with `each` operations per number."""
    given = tuple(name for name, one in inspect.signature(operation).parameters.items() if one.default is one.empty)
    return Operation("activation", lambda a: work.elementwise(int(a[given[0]].size), each, len(given) + 1), Rule(given))


_ACTIVATIONS = {
    name: _row(getattr(module, name), each)
    for module in modules_in("gpucnn.ops.cpu")
    for name, each in getattr(module, "PER_NUMBER", {}).items()
}


def activations(ops: Ops) -> None:
    """Every activation and its gradient; dropout."""
    x, calls = floats(128, 1024), np.empty(2, np.uint32)
    for name, row in _ACTIVATIONS.items():
        getattr(ops, name)(*(x for _ in row.rule.cut))
    ops.dropout(x, calls, 0.5, 0)
    ops.next_call(calls)


OPERATIONS = {
    **_ACTIVATIONS,
    # One multiplication; the random words are work for the integer units.
    "dropout": Operation("dropout", lambda a: work.elementwise(int(a["x"].size), 1, 2), Rule(("x",), first=True)),
    "next_call": Operation("dropout", lambda a: work.elementwise(int(a["calls"].size), 0, 2), Rule(written=("calls",), exact=True)),
}
SAMPLES = (Sample("", activations),)
