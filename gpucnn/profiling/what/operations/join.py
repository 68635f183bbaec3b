"""Where branches of a network meet: sums, and channels beside one another."""

from __future__ import annotations

from gpucnn.profiling.what import work
from gpucnn.profiling.what.operations.row import Arguments, Operation, Rule
from gpucnn.profiling.what.work import Work


def _copied(a: Arguments) -> Work:
    """The channels that are put or taken, read once and written once."""
    channels = a["y"].shape[1]
    count = int(a["x"].shape[1]) if "x" in a else int(a["count"])
    return work.elementwise(int(a["y"].size) // max(int(channels), 1) * count, 0, 2)


OPERATIONS = {
    "add": Operation("join", lambda a: work.elementwise(int(a["a"].size), 1, 3), Rule(("a", "b", "mask"))),
    "add_bias": Operation("join", lambda a: work.elementwise(int(a["x"].size), 1, 2), Rule(("x",))),
    "put_channels": Operation("join", _copied, Rule()),  # writes a part of y, whose rest others write: nothing that could be compared
    "take_channels": Operation("join", _copied, Rule(("y",))),
}
