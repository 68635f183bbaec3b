"""Samples: named cases that run operations as users do, on arrays that are never filled, for the catalogue of all kernels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np

Ops: TypeAlias = ModuleType  # the operations of a device


ROUNDED = {"tf32": 11, "bf16": 8}
"""The kinds of factors that kernels on tensor cores may round to, and the bits that these keep."""


@dataclass(frozen=True)
class Sample:
    """A case: its name, and the operations that it runs. `variants`: run each operation with all its variants, not only with the
    selected one."""

    name: str
    run: Callable[[Ops], object]
    variants: bool = True


def floats(*shape: int) -> Any:
    """An uninitialized float32 array: memory that is never touched is not allocated."""
    return np.empty(shape, np.float32)


def ints(*shape: int) -> Any:
    """The same in int32."""
    return np.empty(shape, np.int32)
