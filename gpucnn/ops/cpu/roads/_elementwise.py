"""The choice of road for operations whose output has the shape of their first operand."""

from __future__ import annotations

from collections.abc import Callable

from gpucnn.ops.cpu import _engine
from gpucnn.ops.cpu._engine import loops
from gpucnn.ops.cpu._threads import Array, empty


def by_loops(
    module: str, reference: Callable[..., Array], *arrays: Array, out: Array | None, supported: bool = True, numbers: tuple[float, ...] = ()
) -> Array:
    """What the function of that name in a module of loops makes of arrays and `numbers`; or the reference, where loops do not compute
    these."""
    if not (loops(*arrays, out) and supported):
        return reference(*arrays, *numbers, out=out)
    y = empty(arrays[0].shape) if out is None else out
    getattr(getattr(_engine.modules(), module), reference.__name__)(*arrays, *numbers, y)
    return y
