"""Rows that follow from what stands beside an operation in gpucnn/ops/cpu, so that a new one needs nothing here; and dropout's.

PER_NUMBER  of an activation: its floating-point operations per number. Its required arrays, all of one size, are read once, and one is
            written
WORK        of any other operation: a function of a call's arguments by name that returns (floating-point operations, numbers read and
            written, terms that each result is the sum of)
EXAMPLES    beside it: a function that returns the arguments of an example, given a function that makes arrays of a shape
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from gpucnn.names import modules_in
from gpucnn.profiling.what import work
from gpucnn.profiling.what.operations.row import OTHER, Arguments, Operation, Rule
from gpucnn.profiling.what.operations.sample import Ops, Sample, floats
from gpucnn.profiling.what.work import WORD, Work


def _row(operation: Callable[..., object], each: int) -> Operation:
    """The row of an activation, a function of arrays with `each` operations per number."""
    given = tuple(name for name, one in inspect.signature(operation).parameters.items() if one.default is one.empty)
    return Operation("activation", lambda a: work.elementwise(int(a[given[0]].size), each, len(given) + 1), Rule(given))


def _counted(count: Callable[[Arguments], tuple[int, int, int]]) -> Operation:
    """The row of an operation with an entry in WORK."""

    def of(a: Arguments) -> Work:
        operations, moved, _ = count(a)
        return Work(int(operations), WORD * int(moved))

    return Operation(OTHER, of, Rule(terms=lambda a: int(count(a)[2])))


def _beside(modules: list[ModuleType], name: str) -> dict[str, Any]:
    return {op: each for module in modules for op, each in getattr(module, name, {}).items()}


_CPU = modules_in("gpucnn.ops.cpu")
_ACTIVATIONS = {name: _row(getattr(module, name), each) for module in _CPU for name, each in getattr(module, "PER_NUMBER", {}).items()}
_OTHERS = {name: _counted(count) for name, count in _beside(_CPU, "WORK").items()}
_EXAMPLES: dict[str, Callable[[Callable[..., Any]], Arguments]] = _beside(_CPU, "EXAMPLES")


def activations(ops: Ops) -> None:
    """Every activation and its gradient; the examples; dropout."""
    x, calls = floats(128, 1024), np.empty(2, np.uint32)
    for name, row in _ACTIVATIONS.items():
        getattr(ops, name)(*(x for _ in row.rule.cut))
    for name in _OTHERS:
        getattr(ops, name)(**_EXAMPLES[name](floats))
    ops.dropout(x, calls, 0.5, 0)
    ops.next_call(calls)


OPERATIONS = {
    **_ACTIVATIONS,
    **_OTHERS,
    # One multiplication; the random words are work for the integer units.
    "dropout": Operation("dropout", lambda a: work.elementwise(int(a["x"].size), 1, 2), Rule(("x",), first=True)),
    "next_call": Operation("dropout", lambda a: work.elementwise(int(a["calls"].size), 0, 2), Rule(written=("calls",), exact=True)),
}
SAMPLES = (Sample("", activations),)
