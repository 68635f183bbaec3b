"""Where branches of a network meet: sums, and channels beside one another."""

from __future__ import annotations

from gpucnn.profiling.what import work
from gpucnn.profiling.what.operations.row import Operation, Rule

OPERATIONS = {
    "add": Operation("join", lambda a: work.elementwise(int(a["a"].size), 1, 3), Rule(("a", "b", "mask"))),
    "add_bias": Operation("join", lambda a: work.elementwise(int(a["x"].size), 1, 2), Rule(("x",))),
    "copied": Operation("join", lambda a: work.elementwise(int(a["x"].size), 0, 2), Rule(("x",))),
}
