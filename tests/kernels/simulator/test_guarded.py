"""Reads that happen only where a condition holds: what is read is given, elsewhere 0, and nothing outside of the array is touched."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernel_harness import Output

from gpucnn.device import Device
from gpucnn_kernels.core import launch
from gpucnn_kernels.core._numba import cuda, uint32, uint64
from gpucnn_kernels.core.compile import kernel
from gpucnn_kernels.core.guarded import load_4_if, load_if

FAR = 1 << 20
"""An index outside of the arrays here: the virtual GPU reports whoever reads there."""


@kernel
def ones_kernel(x, y, far):  # type: ignore[no-untyped-def]
    i = uint32(cuda.grid(1))
    there = i < uint32(x.size)
    y[i] = load_if(x, uint64(i if there else uint32(far)), there)


@kernel
def fours_kernel(x, y, far):  # type: ignore[no-untyped-def]
    i = uint32(uint32(4) * uint32(cuda.grid(1)))
    there = i < uint32(x.size)
    y[i], y[i + 1], y[i + 2], y[i + 3] = load_4_if(x, uint64(i if there else uint32(far)), there)


@pytest.mark.parametrize(("kernel_of", "width"), [(ones_kernel, 1), (fours_kernel, 4)])
def test_a_guarded_read_gives_the_number_or_zero(device: Device, kernel_of: Any, width: int) -> None:
    x = np.arange(1, 1 + 20 * width, dtype=np.float32)
    x[3], x[7] = np.nan, np.inf
    y = Output(device, (32 * width,))
    launch.run(kernel_of, 1, 32, 0, device.xp.asarray(x), y.array, np.uint32(FAR))
    np.testing.assert_array_equal(y.result(nan=True), np.concatenate([x, np.zeros(12 * width, np.float32)]))
