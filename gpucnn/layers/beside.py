"""Work that may run side by side: a layer's gradient of its weight, and that of its input; what a step counts, and its backward pass.

Neither needs the other, and a small one leaves most of a GPU idle. Whoever runs the steps lends branches (training/graph.py), streams on
which one of the two runs; where none are lent, as on a CPU, one runs after the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Protocol


class Branch(Protocol):
    """What runs `apart` may overlap with what is launched after it began, until the `join`."""

    def apart(self) -> AbstractContextManager[None]: ...
    def join(self) -> None: ...


class Branches(Protocol):
    """Gives a branch for each block within another."""

    def another(self) -> AbstractContextManager[Branch]: ...


_lent: ContextVar[Branches | None] = ContextVar("_lent", default=None)


@contextmanager
def lent(branches: Branches) -> Iterator[None]:
    """Lends the layers branches while the block runs."""
    token = _lent.set(branches)
    try:
        yield
    finally:
        _lent.reset(token)


@contextmanager
def beside(wanted: bool = True) -> Iterator[AbstractContextManager[None]]:
    """Gives a context: what runs in that may overlap with the rest of this block. Both come after whatever was launched before the block,
    and before whatever is launched behind it. Neither may read what the other writes, and arrays that they share must be held by the
    block until its end, so that their memory is given to nobody else. Such a block may stand within the rest of another.

    wanted: False where there is no rest, so that nothing can overlap.
    """
    branches = _lent.get() if wanted else None
    if branches is None:
        yield nullcontext()
        return
    with branches.another() as branch:
        try:
            yield branch.apart()
        finally:
            branch.join()
