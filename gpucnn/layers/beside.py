"""Work that may run side by side: a layer's gradient of its weight, and that of its input; what a step counts, and its backward pass.

Neither needs the other, and a small one leaves most of a GPU idle. Whoever runs the steps lends a branch (training/graph.py), a second
stream on which one of the two runs; where none is lent, as on a CPU, one runs after the other.
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


_lent: ContextVar[Branch | None] = ContextVar("_lent", default=None)


@contextmanager
def lent(branch: Branch) -> Iterator[None]:
    """Lends the layers a branch while the block runs."""
    token = _lent.set(branch)
    try:
        yield
    finally:
        _lent.reset(token)


@contextmanager
def beside(wanted: bool = True) -> Iterator[AbstractContextManager[None]]:
    """Gives a context: what runs in that may overlap with the rest of this block. Both come after whatever was launched before the block,
    and before whatever is launched behind it. Neither may read what the other writes, and arrays that they share must be held by the
    block until its end, so that their memory is given to nobody else.

    Such blocks may stand within one another; there is one branch, and whichever ends first waits for all that ran apart until then.

    wanted: False where there is no rest, so that nothing can overlap.
    """
    branch = _lent.get() if wanted else None
    if branch is None:
        yield nullcontext()
        return
    try:
        yield branch.apart()
    finally:
        branch.join()
