"""The two decorators of this package: `kernel` for functions that a grid of threads runs, `device` for functions that kernels call."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

from gpucnn_kernels.core import disk_cache, early
from gpucnn_kernels.core._numba import MLIR, PLAIN, SIMULATED, beginning, cuda, quickly, without_ptx

# Line numbers in the machine code, for Nsight Compute to show the Python beside it. They change no instruction.
LINEINFO = os.environ.get("GPUCNN_LINEINFO", "0") not in ("", "0")

Role: TypeAlias = Literal["", "product", "engine", "adder"]
"""The part of a kernel in an operation of several launches, by which profiles divide the work among them. A "product" does the arithmetic,
while the others prepare operands, add up parts, sum a bias's gradient or pool. An "engine" is a product that several operations use, so its
name does not tell which. An "adder" adds up parts in an operation that has no product."""
_ROLE = "gpucnn_role"

if early.ENABLED and not PLAIN:
    beginning(_ROLE, early.CAPABILITY, early.begin)

_REFUSED_BY_SIMULATOR = {"forceinline", "launch_bounds", "lineinfo", "lto", "max_registers"}
_REFUSED_BY_MLIR: set[str] = set()

# Without a signature Numba compiles at the first launch, for the types of that launch and the chip that is there. With one it would
# compile while this package is being imported, and fail where there is no driver.


def kernel(function: Callable[..., None] | None = None, *, role: Role = "", **options: Any) -> Any:
    """Makes `function` a kernel, which every thread of a grid runs. `options` are those of `numba.cuda.jit`."""
    if function is None:
        return functools.partial(kernel, role=role, **options)
    setattr(function, _ROLE, role)
    made = _jit(function, options)
    if PLAIN:
        return made
    made.compile = _compiling(made.compile)
    return disk_cache.keep(made, {**options, "lineinfo": LINEINFO})


def role_of(made: Any) -> Role:
    """The role of a kernel."""
    return getattr(function_of(made), _ROLE, "")


def _compiling(compile_for: Callable[..., Any]) -> Callable[..., Any]:
    def compile_quickly(signature: Any) -> Any:
        with quickly(), without_ptx():
            return compile_for(signature)

    return compile_quickly


def device(function: Callable[..., Any] | None = None, *, lines: bool = True, **options: Any) -> Any:
    """Makes `function` a device function, which kernels can call. Without `lines` it has no line numbers where others have them."""
    return _jit(function, {**options, "device": True}, lines=lines)


def function_of(made: Any) -> Callable[..., Any]:
    """The Python function that a kernel or a device function was made of, under the simulator as well."""
    function: Callable[..., Any] = getattr(made, "py_func", getattr(made, "fn", made))
    return function


def _jit(function: Callable[..., Any] | None, options: dict[str, Any], *, lines: bool = True) -> Any:
    if LINEINFO and lines:
        options = {**options, "lineinfo": True}
    refused = _REFUSED_BY_SIMULATOR if SIMULATED else _REFUSED_BY_MLIR if MLIR else set()
    options = {name: value for name, value in options.items() if name not in refused}
    decorate = cuda.jit(**{"fastmath": False, **options})  # fast maths would lose NaN, infinity and the last bits of division
    return decorate if function is None else decorate(function)
