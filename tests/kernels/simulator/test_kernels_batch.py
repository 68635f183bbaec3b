"""Batches made on the device: the same draws as NumPy's, the same bits where pixels are only copied or moved."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernel_harness import Output, warp_bound

from gpucnn.device import Device
from gpucnn.ops import cpu
from gpucnn.ops.augment import Augment
from gpucnn_kernels.augment import cos_sin
from tolerances import ROUNDOFF

LAST = 2**64 - 1
BYTES = np.random.default_rng(0).integers(0, 256, (7, 2, 3, 5), dtype=np.uint8)
CLASSES = np.arange(7, dtype=np.int32) + 50
ROWS = np.random.default_rng(1).random((7, 3)).astype(np.float32)
ORDER = np.array([3, 0, 6, 2, 5, 1, 4], np.int32)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 16, 131])
def test_permutation(device: Device, size: int) -> None:
    for seed, epoch in ((0, 0), (LAST, 3), (1 << 32, LAST)):
        order = Output(device, (size,), "int32")
        device.ops.permutation(order.array, seed, epoch)
        expected = np.empty(size, np.int32)
        cpu.permutation(expected, seed, epoch)
        np.testing.assert_array_equal(order.result(), expected)


def gather(
    device: Device, images: Any, labels: Any, order: Any, step: int, epoch: int, n: int, *, batch_size: int, **options: Any
) -> tuple[Any, Any]:
    """x and targets of the device, held against NumPy's where images are not interpolated; then float64 x of the latter."""
    x, targets = Output(device, (n, *images.shape[1:])), Output(device, (n, *labels.shape[1:]), str(labels.dtype))
    position = np.array([step, epoch], np.int32)
    given = [device.array(array) for array in (images, labels, order, position)]
    device.ops.gather_batch(*given, x.array, targets.array, batch_size=batch_size, **options)
    expected, expected_targets = np.empty(x.array.shape, np.float64), np.empty(targets.array.shape, labels.dtype)
    exact = np.empty(x.array.shape, np.float32)
    for out in (expected, exact):
        source = images if images.dtype == np.uint8 else images.astype(out.dtype)
        cpu.gather_batch(source, labels, order, position, out, expected_targets, batch_size=batch_size, **options)
    np.testing.assert_array_equal(targets.result(), expected_targets)
    if not (options.get("augment") and options["augment"].warps):
        np.testing.assert_array_equal(x.result(), exact)
    return x.result(), expected


@pytest.mark.parametrize("labels", [CLASSES, ROWS], ids=["classes", "rows"])
@pytest.mark.parametrize("kind", ["bytes", "floats"])
@pytest.mark.parametrize("shape", [(2, 3, 5), (2, 2, 3), (1, 1, 1), (13,), (8,), (1,)])
def test_plain(device: Device, shape: tuple[int, ...], kind: str, labels: Any) -> None:
    images = np.random.default_rng(2).integers(0, 256, (7, *shape), dtype=np.uint8)
    if kind == "floats":
        images = (images / 3).astype(np.float32)
    for step, n in ((0, 3), (1, 3), (2, 1), (2, 3)):  # the last of them reads past the end
        gather(device, images, labels, ORDER, step, 0, n, batch_size=3)


def test_every_byte_is_divided_to_the_bit(device: Device) -> None:
    """By fours and, in rows of 255, one by one."""
    for row in (256, 255):
        images = np.arange(256, dtype=np.uint8)[None, :row]
        x, _ = gather(device, images, CLASSES[:1], ORDER[1:2], 0, 0, 1, batch_size=1)
        assert x.dtype == np.float32 and x[0, 255 % row] == (1 if row == 256 else 0)


def test_images_off_the_vectors_edge_are_read_one_by_one(device: Device) -> None:
    for dtype in ("uint8", "float32"):
        longer = device.xp.zeros(1 + 7 * 8, dtype)
        images = longer[1:].reshape(7, 8)
        images[...] = device.array(np.arange(56).reshape(7, 8).astype(dtype))
        x, targets = Output(device, (2, 8)), Output(device, (2,), "int32")
        given = [device.array(array) for array in (CLASSES, ORDER, np.array([1, 0], np.int32))]
        device.ops.gather_batch(images, *given, x.array, targets.array, batch_size=2)
        expected = np.arange(56, dtype=np.float32).reshape(7, 8)[ORDER[2:4]]
        np.testing.assert_array_equal(x.result(), expected / np.float32(255) if dtype == "uint8" else expected)


@pytest.mark.parametrize("labels", [CLASSES, ROWS], ids=["classes", "rows"])
@pytest.mark.parametrize("kind", ["bytes", "floats"])
@pytest.mark.parametrize(
    "augment",
    [Augment(shift=1), Augment(flip=True), Augment(shift=2, flip=True), Augment(cutout=2), Augment(shift=9, cutout=1), Augment()],
    ids=["shift", "flip", "crop-flip", "cutout", "far", "none"],
)
def test_moves_to_the_bit(device: Device, augment: Augment, kind: str, labels: Any) -> None:
    images = BYTES if kind == "bytes" else (BYTES / 7).astype(np.float32)
    for step, epoch, seed in ((0, 0, 0), (2, 5, LAST)):
        gather(device, images, labels, ORDER, step, epoch, 3, batch_size=3, augment=augment, seed=seed)


WARPS = {
    "affine": Augment(rotate_degrees=30.0, scale=0.2, translate=1.5),
    "turn": Augment(rotate_degrees=360.0),
    "grow": Augment(scale=0.75),
    "move": Augment(translate=9.0),
    "elastic": Augment(elastic=1.5, elastic_grid=4),
    "coarse": Augment(elastic=2.0, elastic_grid=2, rotate_degrees=15.0),
    "all": Augment(1, 20.0, 0.1, 1.0, True, 2, 1.0, 3),
}


@pytest.mark.parametrize("kind", ["bytes", "floats"])
@pytest.mark.parametrize("shape", [(7, 2, 3, 5), (7, 1, 1, 1), (7, 1, 8, 7), (7, 3, 1, 4)], ids=str)
@pytest.mark.parametrize("name", WARPS)
def test_warps(device: Device, name: str, shape: tuple[int, ...], kind: str) -> None:
    images = np.random.default_rng(4).integers(1, 256, shape, dtype=np.uint8)
    if kind == "floats":
        images = (images / 50).astype(np.float32)
    augment = WARPS[name]
    x, expected = gather(device, images, CLASSES, ORDER, 1, 3, 3, batch_size=3, augment=augment, seed=LAST - 5)
    error = np.abs(x - expected).max()
    assert error <= warp_bound(images, augment), (error, warp_bound(images, augment))


def test_cosine_and_sine(device: Device) -> None:
    """What the bound of warps takes them for: within two roundings of the polynomials and two of the reduced angle, at any quarter."""
    if device.xp is not np:
        pytest.skip("a device function is called by itself in the simulator alone")
    quarters = np.concatenate([np.linspace(-4, 4, 161), [0.5, -0.5, 1.4999999, 3.5, -3.5]]).astype(np.float32)
    for each in quarters:
        got = np.array(cos_sin(each), np.float64)
        angle = float(each) * np.pi / 2
        np.testing.assert_allclose(got, [np.cos(angle), np.sin(angle)], rtol=0, atol=4 * ROUNDOFF["float32"])
    assert [float(value) for value in cos_sin(np.float32(0))] == [1.0, 0.0]


def test_what_is_wrong_is_said(device: Device) -> None:
    zeros = device.xp.zeros
    images, labels, order, position = zeros((4, 1, 2, 2), "uint8"), zeros(4, "int32"), zeros(4, "int32"), zeros(2, "int32")
    x, targets = zeros((2, 1, 2, 2), "float32"), zeros(2, "int32")

    def call(**other: Any) -> None:
        arrays = {"images": images, "labels": labels, "order": order, "position": position, "x": x, "targets": targets}
        options = {name: other.pop(name) for name in ("augment", "batch_size") if name in other}
        device.ops.gather_batch(*(arrays | other).values(), **{"batch_size": 2, **options})

    call()
    for error, text, other in (
        (ValueError, "x holds 2 examples, and a batch 1", {"batch_size": 1}),
        (TypeError, "images is float64, and the kernel takes float32", {"images": zeros((4, 1, 2, 2), "float64")}),
        (ValueError, "labels has shape", {"labels": zeros(3, "int32")}),
        (TypeError, "targets is float32, and the kernel takes int32", {"targets": zeros(2, "float32")}),
        (ValueError, "x has shape", {"x": zeros((2, 1, 2, 3), "float32")}),
        (ValueError, r"position has shape \(3,\), expected \(2,\)", {"position": zeros(3, "int32")}),
        (TypeError, "order is int64", {"order": zeros(4, "int64")}),
        (
            ValueError,
            r"only images \(M, C, H, W\) can be changed",
            {"images": zeros((4, 4), "uint8"), "x": zeros((2, 4), "float32"), "augment": Augment(shift=1)},
        ),
    ):
        with pytest.raises(error, match=text):
            call(**other)
