"""Work that may run side by side: a layer's gradients of weight and of input; a step's counters and its backward pass.

Neither depends on the other, and a small kernel leaves most of a GPU idle. The code that runs the steps lends branches (training/graph.py),
which are streams for one of the two. Without branches, as on a CPU, one runs after the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any, Protocol


class Branch(Protocol):
    """Work that runs `apart` may overlap with later launches until the `join`."""

    def apart(self) -> AbstractContextManager[None]: ...
    def join(self) -> None: ...


class Branches(Protocol):
    """Provides a branch for each nested block."""

    def another(self) -> AbstractContextManager[Branch]: ...


class Apart:
    """A context that can be entered again and again: work inside may overlap with what follows it, up to a `join` or the end of the block.
    Without a branch it runs in turn."""

    def __init__(self, branch: Branch | None) -> None:
        self._branch, self._entered = branch, ExitStack()
        self._held: list[Any] = []

    def __enter__(self) -> None:
        if self._branch is not None:
            self._entered.enter_context(self._branch.apart())

    def __exit__(self, *error: object) -> None:
        self._entered.close()

    def hold(self, *arrays: Any) -> None:
        """Keeps arrays until the next `join`, so that their memory is not reused."""
        if self._branch is not None:
            self._held += arrays

    def join(self) -> None:
        """Orders what follows after all work that ran apart."""
        if self._branch is not None:
            self._branch.join()
            self._held.clear()


_lent: ContextVar[Branches | None] = ContextVar("_lent", default=None)
_outermost: ContextVar[Apart | None] = ContextVar("_outermost", default=None)


@contextmanager
def lent(branches: Branches) -> Iterator[None]:
    """Lends the layers branches while the block runs."""
    token = _lent.set(branches)
    try:
        yield
    finally:
        _lent.reset(token)


def forks() -> bool:
    """Whether work that is said to run apart does so here."""
    return _lent.get() is not None


@contextmanager
def beside(wanted: bool = True) -> Iterator[Apart]:
    """Yields a context; work inside that context may overlap with the rest of this block. Both come after everything launched before the
    block, and before everything launched after it. Neither may read what the other writes, and the block must hold arrays that they share
    until its end, so that their memory is not reused. Such a block may be nested in the rest of another one.

    wanted: False if there is no rest, so that nothing can overlap.
    """
    branches = _lent.get() if wanted else None
    if branches is None:
        yield Apart(None)
        return
    with branches.another() as branch:
        apart = Apart(branch)
        token = _outermost.set(_outermost.get() or apart)
        try:
            yield apart
        finally:
            _outermost.reset(token)
            apart.join()


def later(*held: Any) -> Apart:
    """A context for work whose results nothing in the rest of the outermost block of `beside` needs: it may overlap with all of it.
    Nothing there may write the arrays `held`, which the work reads, and which are kept. Outside of any such block, it runs in turn."""
    apart = _outermost.get() or Apart(None)
    apart.hold(*held)
    return apart
