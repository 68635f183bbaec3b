"""A kernel that fails says which it is and what it was given."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpucnn.device import simulated
from gpucnn_kernels.core import launch


class Broken:
    """A kernel whose launch fails."""

    @staticmethod
    def py_func() -> None: ...

    def __getitem__(self, grid: Any) -> Any:
        def call(*arguments: Any) -> None:
            raise ValueError("out of resources\nwith details")

        return call


Broken.py_func.__name__ = "conv2d_kernel"


@pytest.mark.skipif(simulated(), reason="the simulator's errors are the kernel's own")
def test_a_kernel_that_fails_is_named_with_its_grid_and_arrays() -> None:
    x, y = np.zeros(6, np.float32), np.zeros(3, np.int32)
    words = r"the kernel conv2d failed \(out of resources\): 7 blocks of 128 threads, arrays of 6 float32, 3 int32$"
    with pytest.raises(launch.LaunchError, match=words) as caught:
        launch.run(Broken(), 7, 128, 0, x, y, np.int32(4))
    assert isinstance(caught.value.__cause__, ValueError)


def test_nothing_to_do_is_no_launch() -> None:
    launch.run(Broken(), 0, 128, 0)
