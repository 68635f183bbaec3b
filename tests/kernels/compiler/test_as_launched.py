"""What is compiled for a chip that is not here is what a launch there would compile: the same bounds, the same registers, wherever they are
shown."""

from __future__ import annotations

import dataclasses
import importlib
import re
from pathlib import Path
from typing import Any

import pytest
from compile_harness import H100, VIRTUAL, kernels, launched, needs_compilers

from gpucnn.device import Device
from gpucnn.profiling.chip import bounds, compiled, static
from gpucnn.profiling.chip.chips import ARCHITECTURES
from gpucnn.profiling.what import workload
from gpucnn.profiling.what.observe import Observer
from gpucnn.profiling.what.workload import Selection
from gpucnn_kernels.core._numba import without_ptx
from gpucnn_kernels.core.launch import Launch, recording

pytestmark = needs_compilers

CAPABILITY = (9, 0, "a")
# With bounds for threads and blocks, for threads alone, and without any.
SAMPLES = (
    "conv2d_depthwise_weight_grad_slices 3x3-stride-2",
    pytest.param("dense-tile64x64 even", marks=pytest.mark.slow),
    pytest.param("conv2d_direct_forward k1", marks=pytest.mark.slow),
    pytest.param("conv2d_relu_max_pool_weight_grad_slices k1", marks=pytest.mark.slow),
    "softmax_cross_entropy_in_one_block 512x10",
    pytest.param("conv2d_depthwise_forward 3x3", marks=pytest.mark.slow),
    "relu",
)


def as_numba_does(launch: Launch, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The kernel as its launch on an H100 would have it. The chip is made up, and binding, which needs a driver, is left out."""
    dispatcher, codegen = (importlib.import_module(f"numba.cuda.{name}") for name in ("dispatcher", "codegen"))
    monkeypatch.setattr(codegen.CUDACodeLibrary, "_ensure_cc", lambda self, cc: CAPABILITY)
    with static.as_if_present(ARCHITECTURES["sm_90"]), without_ptx():
        return dispatcher._Kernel(launch.kernel.py_func, launch.signature, **launch.kernel.targetoptions)


def bounds_in(ptx: str) -> list[str]:
    """Threads and blocks that the code is made for."""
    return sorted(re.findall(r"\.(?:maxntid|minnctapersm|reqntid)\s[\d, ]+", ptx))


@pytest.mark.parametrize("name", SAMPLES)
def test_the_code_is_the_launchs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    launch = kernels()[name].launch
    library = as_numba_does(launch, monkeypatch)._codelibrary
    theirs, own = library.get_lto_ptx(cc=CAPABILITY), static.ptx(launch, "sm_90")
    assert bounds_in(own) == bounds_in(theirs)
    assert bool(bounds_in(own)) == (launch.kernel.targetoptions["launch_bounds"] is not None)
    # The letters differ: names hold how often Numba has compiled, and functions that are inlined stand in the order of their names. So do
    # registers, by less than the eight that a chip gives at a time.
    found = static.compile_launch(launch, "sm_90")
    code = library.get_ltoir(cc=CAPABILITY)
    monkeypatch.setattr(static, "_intermediate", lambda *arguments: code)
    static._machine_code.cache_clear()
    try:
        made = static.compile_launch(launch, "sm_90")
    finally:
        static._machine_code.cache_clear()
    assert abs(made.registers - found.registers) < 8
    assert dataclasses.replace(made, registers=0, occupancy=0) == dataclasses.replace(found, registers=0, occupancy=0)


def test_what_was_launched_is_not_compiled_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels of the virtual GPU's tests, as they are on the disk: the same source, types and chip, or nothing."""
    from gpucnn_kernels.core.disk_cache import KernelCache

    launch = kernels()["relu"].launch
    kernel, signature = launch.kernel, launch.signature
    monkeypatch.delenv("GPUCNN_LAUNCHED_KERNELS", raising=False)
    static._intermediate.cache_clear()
    static._machine_code.cache_clear()
    compiled_here = static.compile_launch(launch, "sm_90")
    caching, codegen, runtime = (importlib.import_module(f"numba.cuda.{name}") for name in ("core.caching", "codegen", "cudadrv.runtime"))
    monkeypatch.setattr(codegen.JITCUDACodegen, "magic_tuple", lambda self: (runtime.runtime.get_version(), VIRTUAL[1]))
    monkeypatch.setattr(caching.config, "CACHE_DIR", str(tmp_path))
    KernelCache(kernel.py_func, kernel._cache.mark).save_overload(signature, as_numba_does(launch, monkeypatch))
    monkeypatch.setattr(caching.config, "CACHE_DIR", "")
    monkeypatch.setenv("GPUCNN_LAUNCHED_KERNELS", str(tmp_path))
    monkeypatch.setattr(static.cuda, "compile", None)
    static._intermediate.cache_clear()
    static._machine_code.cache_clear()
    assert static.compile_launch(launch, "sm_90") == compiled_here
    assert launched(kernel, signature, "sm_80") is None and launched(kernel, signature[:1], "sm_90") is None
    assert launched(kernels()["relu_grad"].launch.kernel, signature, "sm_90") is None
    for file in tmp_path.rglob("*.nbc"):
        file.write_bytes(file.read_bytes()[:100])
    assert launched(kernel, signature, "sm_90") is None


def test_the_command_shows_the_same_registers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fused gradient of k1, which masks dy by ReLU's result: in a step, in the list of kernels, and as these tests have it."""
    monkeypatch.setattr(compiled, "folder", lambda: None)
    monkeypatch.setattr(static, "main_loop", lambda launch, arch: None)  # takes seconds, and is not asked about
    with bounds.as_if_there(H100):
        work = workload.of_model("keras", 128, bounds.device_of(H100), Observer())
    name, sample = "conv2d_relu_max_pool_weight_grad_slices", "k1"
    step = bounds.profile(work, Selection(op="conv", layer="1"), H100, lambda text: None)
    listed = bounds.catalogue(f"{name} {sample}", H100, lambda text: None)
    (in_step,) = (row.registers for row in step.rows if row.kernel == name)
    (in_list,) = (row.registers for row in listed.rows if row.layer == sample)
    assert in_step == in_list == static.compile_launch(kernels()[f"{name} {sample}"].launch, "sm_90").registers


def test_a_real_launch_has_the_samples_types_and_bounds(gpu: Device) -> None:
    """On arrays of a GPU, real or virtual."""
    xp, ops = gpu.xp, gpu.ops
    with recording() as launches:
        ops.relu(xp.zeros((128, 1024), "float32"))
        ops.softmax_cross_entropy(xp.zeros((512, 10), "float32"), xp.zeros(512, "int32"))
    for launch, name in zip(launches, ("relu", "softmax_cross_entropy_in_one_block 512x10"), strict=True):
        sample = kernels()[name].launch
        made = launch.kernel.overloads[launch.signature]
        assert launch.kernel is sample.kernel and launch.signature == sample.signature
        assert (launch.threads, launch.shared) == (sample.threads, sample.shared)
        assert made.launch_bounds == sample.kernel.targetoptions["launch_bounds"]
