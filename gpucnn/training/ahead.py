"""Compiles a GPU's kernels before the step that launches them, all at once (ops/cuda/_ahead.py), and lets the last batch of an epoch use
those of the others."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from gpucnn.precision import bits


def compile_ahead(model: Any, key: Hashable, step: Callable[[], object]) -> None:
    """Compiles what `step` launches on a GPU; does nothing elsewhere. key: the same for steps of the model with the same launches."""
    if model.device.xp.__name__ == "cupy":
        from gpucnn.ops.cuda._ahead import compile_for  # not at the top: it needs Numba

        compile_for(model, (key, bits(), id(model.buffers)), step)


def as_in_batches_of(size: int, model: Any) -> AbstractContextManager[None]:
    """Inside, smaller batches on a GPU use the kernels of a batch of `size` examples."""
    if model.device.xp.__name__ == "cupy":
        from gpucnn.ops.cuda._ahead import batches_of

        return batches_of(size)
    return nullcontext()
