"""Batches of a data set of real size, made on a real GPU: NumPy's to the bit, but for pixels that are interpolated."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernel_harness import Output, warp_bound

from gpucnn.device import Device
from gpucnn.ops import cpu
from gpucnn.ops.augment import Augment

pytestmark = pytest.mark.gpu

RANDOM = np.random.default_rng(0)
SETS = {
    "grey": RANDOM.integers(0, 256, (10007, 1, 28, 28), dtype=np.uint8),
    "colour": RANDOM.integers(0, 256, (2003, 3, 32, 32), dtype=np.uint8),
}
AUGMENTS = {
    "none": None,
    "shift": Augment(shift=2),
    "crop-flip": Augment(shift=4, flip=True),
    "cutout": Augment(cutout=8),
    "affine": Augment(rotate_degrees=10.0, scale=0.1, translate=2.0),
    "elastic": Augment(rotate_degrees=10.0, scale=0.1, translate=1.0, elastic=2.0, elastic_grid=5),
    "all": Augment(2, 15.0, 0.2, 1.0, True, 6, 1.5, 4),
}


@pytest.mark.parametrize("size", [1, 2, 1000, 60000, 1 << 20])
def test_permutation(gpu: Device, size: int) -> None:
    for seed, epoch in ((0, 0), (2**64 - 1, 3)):
        order = Output(gpu, (size,), "int32")
        gpu.ops.permutation(order.array, seed, epoch)
        expected = np.empty(size, np.int32)
        cpu.permutation(expected, seed, epoch)
        np.testing.assert_array_equal(order.result(), expected)
        assert len(set(expected.tolist())) == size


@pytest.mark.parametrize("kind", ["bytes", "floats"])
@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("augment", AUGMENTS)
def test_gather_batch(gpu: Device, augment: str, name: str, kind: str) -> None:
    """The first batch and the last, which is a smaller one."""
    images: Any = SETS[name] if kind == "bytes" else (SETS[name] / 50).astype(np.float32)
    count, size, changes = len(images), 128, AUGMENTS[augment]
    labels, order = np.arange(count, dtype=np.int32), np.empty(count, np.int32)
    cpu.permutation(order, 5, 1)
    given = [gpu.array(array) for array in (images, labels, order)]
    for step in (0, count // size):
        n = min(size, count - step * size)
        position = np.array([step, 1], np.int32)
        x, targets = Output(gpu, (n, *images.shape[1:])), Output(gpu, (n,), "int32")
        gpu.ops.gather_batch(*given, gpu.array(position), x.array, targets.array, batch_size=size, augment=changes, seed=5)
        warped = changes is not None and changes.warps
        expected, expected_targets = np.empty((n, *images.shape[1:]), np.float64 if warped else np.float32), np.empty(n, np.int32)
        source = images.astype(np.float64) if warped and kind == "floats" else images
        cpu.gather_batch(source, labels, order, position, expected, expected_targets, batch_size=size, augment=changes, seed=5)
        np.testing.assert_array_equal(targets.result(), expected_targets)
        if warped:
            assert np.abs(x.result() - expected).max() <= warp_bound(images, changes)
        else:
            np.testing.assert_array_equal(x.result(), expected)
