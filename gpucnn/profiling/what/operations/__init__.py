"""The table of operations: one row for each, with its kind, its work, its sizes in words, how its result is checked, and PyTorch's twin.

Each family of operations has a file in this folder: its rows are OPERATIONS, and its SAMPLES launch all of its kernels. A new operation is
a row there, or a file of its own, which is found; one that says beside its CPU operation what it computes needs neither (derived.py).
An operation without a row counts as elementwise, without arithmetic and without a check.
"""

from __future__ import annotations

from typing import Any

from gpucnn.names import modules_in
from gpucnn.profiling.what import work
from gpucnn.profiling.what.observe import Call
from gpucnn.profiling.what.operations.row import OTHER, Operation, first_array, times
from gpucnn.profiling.what.operations.sample import Sample
from gpucnn.profiling.what.work import Work

_FAMILIES = [module for module in modules_in(__name__) if hasattr(module, "OPERATIONS")]
OPERATIONS: dict[str, Operation] = {name: row for family in _FAMILIES for name, row in family.OPERATIONS.items()}
SAMPLES: tuple[Sample, ...] = tuple(sample for family in _FAMILIES for sample in getattr(family, "SAMPLES", ()))
KINDS = ("batch", "conv", "pool", "pad", "dense", "bias", "norm", "activation", "join", "dropout", "loss", "update")
"""The values of --op, in the order of a step."""


def kind_of(op: str) -> str:
    """The kind of an operation, one of KINDS; OTHER if there is no row for it."""
    row = OPERATIONS.get(op)
    return OTHER if row is None else row.kind


def work_of(call: Call) -> Work:
    """FLOPs and least bytes of a call, including ReLU's gradient if the call computes it too."""
    a = call.arguments
    row = OPERATIONS.get(call.op)
    if row is None:  # each array is moved once
        arrays = {id(array): int(array.nbytes) for array in a.values() if getattr(array, "ndim", 0)}
        return Work(0, sum(arrays.values()))
    relu: Any = a.get("relu")
    along = work.elementwise(int(relu.size), 1, 1) if hasattr(relu, "size") else Work(0, 0)
    return row.work(a) + along


def sizes_of(call: Call) -> str:
    """The sizes of a call: "128×32×14×14 → 64, 5×5, padding 2"."""
    row = OPERATIONS.get(call.op)
    if row is not None and row.sizes is not None:
        return row.sizes(call.arguments)
    array = first_array(call.arguments)
    return "" if array is None else times(array.shape)
