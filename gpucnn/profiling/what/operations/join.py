"""Operations that join the branches of a network: sums, and concatenation of channels."""

from __future__ import annotations

from gpucnn.profiling.what import work
from gpucnn.profiling.what.operations.row import Operation, Rule
from gpucnn.profiling.what.operations.sample import Ops, Sample, floats


def joined(ops: Ops) -> None:
    """A sum of two branches, and a branch that is copied to the array of both."""
    x, other = floats(64, 32, 28, 28), floats(64, 32, 28, 28)
    ops.add(x, other, relu=True)
    ops.add_bias(x, floats(32))
    ops.copied(x, out=floats(64, 96, 28, 28)[:, 32:64])


OPERATIONS = {
    "add": Operation("join", lambda a: work.elementwise(int(a["a"].size), 1, 3), Rule(("a", "b", "mask"))),
    "add_bias": Operation("join", lambda a: work.elementwise(int(a["x"].size), 1, 2), Rule(("x",))),
    "copied": Operation("join", lambda a: work.elementwise(int(a["x"].size), 0, 2), Rule(("x",))),
}
SAMPLES = (Sample("", joined),)
