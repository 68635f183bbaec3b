"""Support for NVIDIA's own tools: named ranges on their timeline, names for kernels, and the commands that examine the slowest one.

Nsight Systems shows what runs when, Nsight Compute what a kernel waits for. Both are told to watch a single step.
"""

from __future__ import annotations

import importlib
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from gpucnn.profiling.what.launches import Part
from gpucnn_kernels.core.launch import Launch


def ranges() -> Callable[[str, str], Any] | None:
    """A context that is an NVTX range for each layer and phase; None where the package nvtx is not installed."""
    try:
        nvtx: Any = importlib.import_module("nvtx")
    except ImportError:
        return None
    return lambda layer, phase: nvtx.annotate(f"{layer} {phase}", domain="gpucnn")


@contextmanager
def region(runtime: Any) -> Iterator[None]:
    """The region that the tools watch: from cudaProfilerStart to cudaProfilerStop. `runtime` is CuPy's module of that name."""
    runtime.profilerStart()
    try:
        yield
    finally:
        runtime.profilerStop()


def name_kernels(parts: Iterable[Part]) -> None:
    """Gives kernels that share one function names of their own, each that of the first launch of it. To be called before they are
    compiled: the name that a tool shows is that of the Python function, with its module and the types of its arguments."""
    named: set[int] = set()
    for part in parts:
        if part.launch.role == "engine" and id(part.launch.kernel) not in named:
            named.add(id(part.launch.kernel))
            part.launch.kernel.py_func.__qualname__ = re.sub(r"\W", "_", part.name)


def function_name(launch: Launch) -> str:
    """The name of its kernel in the tools: that of the Python function."""
    return str(launch.kernel.py_func.__qualname__).rpartition(".")[2]


def commands(launches: Sequence[Launch], slowest: int, arguments: Sequence[str]) -> dict[str, str]:
    """The commands that examine one launch of a step closely; `arguments` are those of the gpucnn profile command that found it."""
    again = shlex.join(["gpucnn", "profile", *arguments, *([] if "--lineinfo" in arguments else ["--lineinfo"])])
    name = function_name(launches[slowest])
    before = sum(name in function_name(launch) for launch in launches[:slowest])  # the tool looks for the name anywhere in a kernel's
    return {
        "Nsight Compute": f"ncu --profile-from-start off --set full --import-source yes --kernel-name regex:{name} "
        f"--launch-skip {before} --launch-count 1 --export {name} {again}",
        "Nsight Systems": f"nsys profile --capture-range=cudaProfilerApi --capture-range-end=stop --trace=cuda,nvtx --output step {again}",
    }
