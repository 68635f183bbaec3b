"""What the tests of the compiler share: every kernel by name, the registers that it was planned for, and what must be true of each."""

from __future__ import annotations

import functools
import importlib
import os
import re
from collections import namedtuple
from collections.abc import Callable, Iterable
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

from gpucnn.device import simulated
from gpucnn.ops.shapes import Window
from gpucnn.profiling.chip import samples, static
from gpucnn.profiling.chip.chips import ARCHITECTURES, CHIPS, Chip, find
from gpucnn.profiling.chip.compiled import Compiler
from gpucnn.profiling.chip.samples import Kernel
from gpucnn.profiling.chip.static import Compiled
from gpucnn.profiling.what.operations.sample import Sample
from gpucnn_kernels.core.launch import Launch

ARCHS = ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120")  # the rest of ARCHITECTURES lie between these
IN_TURN = [pytest.param(arch, marks=[] if arch == "sm_90" else [pytest.mark.slow]) for arch in ARCHS]
"""The same; make slow has all but one."""
H100 = CHIPS["H100"]

# Registers per thread, planned and not measured, by the names of kernels: the first that fits. 64 lets an SM of 65 536 registers hold 1024
# threads, and 40 as many as most chips can schedule (1536): what is bound by memory wants the latter.
MOST_REGISTERS = {
    "*-tile128x128": 128,  # two blocks of 256 threads
    "*-tile128x64": 170,  # three of 128
    "*-tile128x64-cut": 170,
    "*-tile64x64": 170,  # six of 64
    "*-tile64x64-cut": 170,
    "*-tile128x32": 170,
    "*-tile128x32-cut": 170,
    "*-tile32x64": 128,  # eight of 64
    "*-tile64x32": 128,  # eight of 64
    "conv2d_weight_grad-tensor*": 128,
    "*-mma*": 255,  # two blocks of 128
    "pack_winograd": 64,  # nine weights, made into 16
    "*-wide*": 255,  # two blocks of 128; 128 sums and 48 factors
    "*-winograd": 255,  # a block of 256, of which 128 are sums
    "*-tensor*": 168,  # before they are shared out among the warpgroups
    "conv2d_direct_forward": 80,
    "conv2d_direct_input_grad": 255,  # up to 32 sums and 121 weights; for MNIST 80
    "conv2d_direct_weight_grad_slices": 168,  # 112 sums and what they are made of: three blocks
    "conv2d_relu_max_pool": 80,
    "conv2d_relu_max_pool_weight_grad_slices": 168,  # 112 sums, four reads' addresses and what the next position needs: three blocks
    "conv2d_depthwise_*": 128,  # of which the taps are 9 to 49, and a strip's results 8 to 32
    "conv2d_input_grad": 96,  # NVVM unrolls the loop over filters
    "conv2d": 64,
    "conv2d_weight_grad": 64,
    "gemm": 64,
    "adam": 48,  # four numbers of each of four arrays, all on their way at once
    "dense_narrow*": 128,  # one or a few blocks of up to 256 threads to a multiprocessor: what counts is what they have on its way
    "locally_connected2d*": 64,  # 48 on Turing and Ampere, and 40 later on
    "max_pool2d_2x2*": 40,
    "*_pool2d*": 64,
    "softmax_cross_entropy_in_one_block": 64,
    "sum_slices": 48,  # eight reads on their way: up to 40, and 44 on Turing, which has registers for 48 in each of all its threads
    "gather_batch": 64,  # where images are changed: on Blackwell the channels are written out by fours
    "ladder*": 128,
    "*": 40,
}

HELD_BY_SHARED_MEMORY = ("conv2d_depthwise_weight_grad_slices", "conv2d_relu_max_pool_weight_grad_slices")
"""Kernels whose shared memory lets so few blocks be at once on some chips that registers beyond the plan cost none of them there."""


def missing() -> str | None:
    """Why nothing can be compiled here; None where it can."""
    if simulated():
        return "the simulator compiles nothing"
    try:
        static.check_compilers()
    except static.ToolchainError as error:
        return str(error)
    return None


needs_compilers = pytest.mark.skipif(missing() is not None, reason=f"cannot compile kernels: {missing()}")


@functools.cache
def kernels(chip: str = "H100") -> dict[str, Kernel]:
    """Every kernel for a chip, by its name: an H100 has those of all others as well."""
    return {} if simulated() else {each.name: each for each in samples.kernels(find(chip))}


def of(*runs: Callable[[Any], object], chip: Chip = H100) -> list[Kernel]:
    """The kernels of some operations, each in every way that there is."""
    found = [each for run in runs for each in samples.launched(Sample("here", run), chip)]
    return list({(id(each.launch.kernel), each.launch.signature): each for each in found}.values())


def names(*parts: str, without: Iterable[str] = ()) -> list[str]:
    """Of the kernels whose names hold one of these, and none of `without`."""
    return [name for name in kernels() if any(part in name for part in parts) and not any(part in name for part in without)]


def once(names: Iterable[str]) -> list[Any]:
    """The names as parameters: one sample of each kernel, and the others marked slow."""
    seen: set[str] = set()
    found = []
    for name in names:
        part = kernels()[name].part.name
        found.append(pytest.param(name, marks=pytest.mark.slow if part in seen else ()))
        seen.add(part)
    return found


def most_registers(kernel: Kernel) -> int:
    """What was planned."""
    return next(most for pattern, most in MOST_REGISTERS.items() if fnmatch(kernel.part.name, pattern))


# The chip of the virtual GPU, as Numba writes it into the names of its files.
VIRTUAL = "sm_90", namedtuple("ComputeCapability", ("major", "minor"))(9, 0)


def launched(kernel: Any, signature: tuple[Any, ...], arch: str) -> Any:
    """What Numba made of the kernel where the tests on the virtual GPU have launched it, of the same source for the same types and chip, if
    GPUCNN_LAUNCHED_KERNELS names the folder in which it is. test_as_launched.py has that it is what would be compiled here."""
    folder, mark = os.environ.get("GPUCNN_LAUNCHED_KERNELS"), getattr(getattr(kernel, "_cache", None), "mark", None)
    if not folder or mark is None or arch != VIRTUAL[0]:
        return None
    from gpucnn_kernels.core.disk_cache import KernelCache  # not in the simulator

    caching, runtime = (importlib.import_module(f"numba.cuda.{name}") for name in ("core.caching", "cudadrv.runtime"))
    with mock.patch.object(caching.config, "CACHE_DIR", folder):
        cache = KernelCache(kernel.py_func, mark)
    codegen = SimpleNamespace(magic_tuple=lambda: (runtime.runtime.get_version(), VIRTUAL[1]))
    key = cache._index_key(signature, codegen)  # which also says the file
    try:
        found = cache._cache_file.load(key)
    except Exception:  # cut short, or of another version
        return None
    return None if found is None else found["codelibrary"]


def _or_launched(compile_it: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *what: launched(*what) or compile_it(*what)


static._library = _or_launched(static._library)


def _compiler(arch: str) -> Compiler:
    """Keeps its results in the folder that GPUCNN_COMPILED_CACHE names, if it names one: a kernel takes seconds. The processes of one run
    share them as well."""
    folder = os.environ.get("GPUCNN_COMPILED_CACHE")
    return Compiler(arch, lambda line: None, Path(folder) if folder else None, loops=False)


def compiled(launch: Launch, arch: str) -> Compiled:
    """What the compilers say of a launch's kernel on a chip."""
    return _compiler(arch).compiled(launch)


def machine_code(launch: Launch, arch: str) -> bytes:
    """The kernel of a launch as a cubin."""
    return _compiler(arch).machine_code(launch)


def check(kernel: Kernel, arch: str) -> Compiled:
    """Compiles it for a chip: nothing spilled, no memory of a thread's own, no float64, no more registers than planned."""
    found = compiled(kernel.launch, arch)
    assert found.spill_stores == found.spill_loads == 0, (kernel.name, found)
    assert found.stack == 0, "a local array, or something else indexed at run time, went to memory"
    assert found.float64 == 0, "a float64 instruction: write float32(0), pass np.float32"
    most, chip = most_registers(kernel), ARCHITECTURES[arch]
    if kernel.part.name in HELD_BY_SHARED_MEMORY and found.occupancy == static.occupancy(chip, kernel.launch.threads, most, found.shared):
        most = 255
    assert 0 < found.registers <= most, (kernel.name, found)
    limit = chip.shared - chip.reserved if kernel.launch.shared else 48 << 10
    assert found.shared <= limit, (kernel.name, found)
    assert found.occupancy > 0, (kernel.name, found)
    return found


def params(quick: Iterable[tuple[str, str]], everything: Iterable[tuple[str, str]]) -> list[Any]:
    """(kernel, chip): the quick ones, and the others marked slow."""
    quick = list(quick)
    return [*quick, *(pytest.param(*case, marks=pytest.mark.slow) for case in everything if case not in quick)]


def window_of(name: str) -> Window:
    """The window of one of the named convolutions."""
    from gpucnn.profiling.what.shapes import CONV_SHAPES

    return next(shape.window for shape in CONV_SHAPES if shape.name == name)


def loop_of(text: str, opcode: str) -> list[str]:
    """The instructions between a label and the jump back to it: the smallest loop that has some with this opcode."""
    found: list[str] = []
    labels: dict[str, int] = {}
    loops = []
    for line in text.splitlines():
        if label := re.match(r"\s*(\.L_x_\d+):", line):
            labels[label.group(1)] = len(found)
        if one := re.match(r"\s*/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+ )?(.*?)\s*;", line):
            found.append(one.group(1))
            target = re.match(r"BRA.*?(\.L_x_\d+)", one.group(1))
            if target and target.group(1) in labels:
                loops.append(found[labels[target.group(1)] :])
    return min((loop for loop in loops if any(each.startswith(opcode) for each in loop)), key=len)
