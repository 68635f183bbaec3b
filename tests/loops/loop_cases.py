"""Convolutions that take every road, and what the roads must give for them."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpucnn.ops.cpu import conv as reference
from gpucnn.ops.cpu import roads
from gpucnn.ops.shapes import Window, conv_window
from gpucnn_loops.transforms import matrices
from gpucnn_loops.winograd_plan import Winograd
from tolerances import check, winograd, winograd_weight_grad

# n, c, h, w, k, r, s, stride, padding, dilation, groups
DIRECT: list[tuple[Any, ...]] = [
    (1, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1),
    (1, 3, 17, 13, 10, 3, 3, 2, 1, 1, 1),
    (7, 20, 14, 15, 48, 3, 3, 2, ((0, 1), (0, 1)), 1, 1),
    (3, 3, 23, 29, 20, 5, 5, 1, 2, 1, 1),
    (7, 20, 9, 9, 20, 3, 2, 1, ((1, 0), (1, 0)), 1, 1),
    (5, 16, 15, 15, 20, 3, 3, 2, 2, 2, 1),
    (2, 17, 15, 11, 13, 3, 3, 1, 2, 2, 1),
    (1, 64, 14, 14, 128, 1, 1, 2, 0, 1, 1),
    (17, 31, 7, 5, 33, 1, 1, 1, 0, 1, 1),
    (7, 48, 8, 8, 96, 3, 3, 1, 1, 1, 3),
    (3, 20, 11, 11, 40, 3, 3, 2, 1, 1, 20),
    (7, 3, 30, 30, 16, 7, 7, 3, ((3, 2), (3, 2)), 1, 1),
    (7, 16, 2, 2, 16, 2, 2, 2, 0, 1, 1),
    (3, 2, 6, 6, 2, 2, 2, 3, 0, 1, 1),  # stride over size: pixels that no window reads
    (1, 2, 7, 8, 3, 3, 2, (2, 3), (1, 2), (1, 2), 1),
    (1, 1, 2, 2, 1, 2, 2, 1, 3, 1, 1),  # padding over the kernel: outputs of padding alone
    (1, 1, 3, 3, 2, 2, 2, 1, 2, 3, 1),  # dilation over the image: taps that never touch it
    (2, 2, 40, 40, 3, 3, 3, 1, 1, 1, 1),  # several bands of outputs
    (19, 2, 4, 4, 3, 3, 3, 1, 1, 1, 1),
    (2, 130, 7, 7, 200, 1, 1, 1, 0, 1, 1),  # several blocks of lanes, forward and back
    (3, 80, 9, 9, 150, 3, 3, 2, 1, 1, 1),
]
WHOLE: list[tuple[Any, ...]] = [
    (1, 70, 1, 1, 20, 1, 1, 1, 0, 1, 1),
    (3, 33, 1, 1, 17, 1, 1, (2, 3), 0, 4, 1),
    (1, 9, 5, 7, 35, 5, 7, 1, 0, 1, 1),
    (11, 3, 4, 4, 530, 4, 4, 1, "valid", 1, 1),
]
DEPTHWISE: list[tuple[Any, ...]] = [
    (1, 2, 1, 1, 2, 1, 1, 1, 0, 1, 2),
    (7, 24, 12, 12, 24, 3, 3, 1, 1, 1, 24),
    (3, 5, 11, 20, 5, 3, 5, (2, 1), ((1, 0), (2, 3)), 1, 5),
    (17, 3, 9, 8, 3, 2, 3, (1, 3), 2, (3, 2), 3),
    (2, 7, 23, 41, 7, 5, 5, 2, "same", 1, 7),
    (2, 3, 19, 12, 3, 2, 3, (9, 8), 1, 1, 3),
    (1, 17, 70, 61, 17, 3, 3, 1, ((3, 0), (1, 2)), 2, 17),  # bands of rows
    (1, 2, 140, 70, 2, 3, 1, (2, 1), ((0, 3), (0, 0)), 1, 2),
    (2, 3, 19, 80, 3, 5, 3, 1, (1, 2), 1, 3),  # few planes
]
FIRST: list[tuple[Any, ...]] = [  # pooled by halves, their lanes are windows: about as many in a plane as whole vectors have lanes
    (3, 3, 32, 32, 33, 3, 3, 1, 1, 1, 1),
    (2, 1, 9, 67, 2, 3, 4, 1, (2, 1), 1, 1),  # three vectors in a row, and an odd number of columns
    (19, 2, 8, 29, 5, 5, 3, 1, 1, (1, 2), 1),  # taps with a pixel between them
    (1, 1, 3, 33, 1, 2, 2, 1, 0, 1, 1),  # one row of windows
    (2, 3, 16, 16, 6, 5, 5, 1, 0, 1, 1),  # LeNet's on images with colours: 75 taps
]
PIXELS: list[tuple[Any, ...]] = [
    (1, 1, 1, 2, 1, 1, 1, 1, 0, 1, 1),
    (3, 1, 28, 28, 6, 5, 5, 1, 2, 1, 1),
    (7, 6, 14, 14, 16, 5, 5, 1, 0, 1, 1),  # its gradient of the input
    (2, 16, 14, 14, 33, 1, 1, 1, 0, 1, 1),  # no gaps between rows
    (5, 3, 9, 31, 11, 3, 2, 1, ((2, 0), (0, 1)), (1, 3), 1),
    (1, 12, 12, 13, 6, 4, 1, 1, ((1, 3), (0, 0)), (2, 1), 3),
    (2, 3, 3, 3, 3, 2, 3, 1, ((0, 0), (1, 1)), 1, 1),  # fewer outputs than lanes
    (2, 17, 61, 53, 47, 1, 1, 1, 0, 1, 1),  # by blocks, the last of which is half full and one more
    (1, 130, 65, 17, 20, 1, 1, 1, 0, 1, 1),  # several strips of blocks, and two vectors at the end
    (2, 3, 41, 33, 7, 3, 5, (2, 1), ((1, 2), (2, 1)), (1, 2), 1),  # its gradient of the weight
    (17, 6, 12, 32, 8, 3, 3, 1, 1, 1, 2),
    (1, 2, 70, 60, 13, 3, 3, 1, 1, 1, 1),  # several bands of dy's rows
]
POINTWISE: list[tuple[Any, ...]] = [
    (3, 20, 9, 7, 37, 1, 1, 2, 0, 1, 1),  # every second pixel
    (2, 17, 5, 11, 34, 1, 1, (1, 3), 0, (2, 2), 1),
    (7, 150, 7, 7, 70, 1, 1, 1, 0, 1, 1),  # blocks with pixels of two images, and sums in two pieces
    (5, 40, 2, 3, 24, 1, 1, 1, 0, 1, 4),  # blocks with pixels of many images
    (1, 33, 3, 3, 130, 1, 1, 1, 0, 1, 1),  # fewer pixels than lanes
    (2, 130, 24, 25, 64, 1, 1, 1, 0, 1, 1),  # several strips of blocks
]
WINOGRAD: list[tuple[Any, ...]] = [
    (1, 16, 12, 12, 16, 3, 3, 1, 1, 1, 1),
    (3, 20, 13, 11, 37, 3, 3, 1, 0, 1, 1),
    (17, 17, 8, 8, 16, 5, 5, 1, 2, 1, 1),
    (2, 64, 13, 13, 64, 3, 3, 1, ((0, 1), (2, 0)), 1, 1),
    (33, 33, 16, 9, 50, 5, 5, 1, ((0, 1), (4, 2)), 1, 1),
    (5, 16, 4, 4, 16, 3, 3, 1, 1, 1, 1),
    (1, 19, 31, 47, 80, 3, 3, 1, 2, 1, 1),
    (2, 130, 8, 8, 16, 3, 3, 1, 1, 1, 1),
    (1, 150, 7, 7, 133, 3, 3, 1, 1, 1, 1),  # few tiles of many channels
]


def window_of(case: tuple[Any, ...]) -> Window:
    _n, _c, h, w, _k, r, s, stride, padding, dilation, _groups = case
    return conv_window((h, w), (r, s), stride, padding, dilation)


def arrays(case: tuple[Any, ...], rng: np.random.Generator) -> dict[str, Any]:
    """Random float32 arrays of a case, and its window and groups."""
    n, c, h, w, k, r, s, _stride, _padding, _dilation, groups = case
    window = window_of(case)

    def draw(*shape: int) -> Any:
        return rng.standard_normal(shape, dtype=np.float32)

    x, weight, bias, dy = draw(n, c, h, w), draw(k, c // groups, r, s), draw(k), draw(n, k, *window.output)
    return {"x": x, "weight": weight, "bias": bias, "dy": dy, "window": window, "groups": groups}


def exact(given: dict[str, Any]) -> dict[str, Any]:
    """The arrays in float64."""
    return {name: value.astype(np.float64) if isinstance(value, np.ndarray) else value for name, value in given.items()}


def nan_like(array: Any) -> Any:
    """Where a result is to be written: what is forgotten stays NaN."""
    return np.full_like(array, np.nan)


def plan_of(given: dict[str, Any]) -> Any:
    return roads.convolution(given["x"].shape[1], given["weight"].shape[0], given["window"], given["groups"])


def check_weight(dweight: Any, dbias: Any, a: dict[str, Any], fast: bool = False) -> None:
    """Asserts that the gradients of weight and bias are the reference's, within what rounding can do, by Winograd's way if `fast`."""
    e, window, groups = exact(a), a["window"], a["groups"]
    n, positions = len(a["x"]), window.output[0] * window.output[1]
    magnitude, terms = (
        winograd_weight_grad(e["dy"], e["x"], window.padding, matrices(window.kernel[0]))
        if fast
        else (reference.conv2d_weight_grad(np.abs(e["dy"]), np.abs(e["x"]), window, groups), n * positions + 8)
    )
    check(dweight, reference.conv2d_weight_grad(e["dy"], e["x"], window, groups), magnitude=magnitude, terms=terms, direction="weight_grad")
    check(
        dbias,
        reference.bias_grad(e["dy"]),
        magnitude=reference.bias_grad(np.abs(e["dy"])),
        terms=n * positions + 8,
        direction="weight_grad",
    )


def hold(plan: Any, a: dict[str, Any]) -> None:
    """Asserts that the three passes of a plan are the reference's, within what rounding can do."""
    e = exact(a)
    window, groups, k = a["window"], a["groups"], len(a["bias"])
    r, s = window.kernel
    turned = e["weight"][:, :, ::-1, ::-1].swapaxes(0, 1)
    padding = tuple(tuple(r - 1 - side for side in sides) for sides in window.padding)
    fast = isinstance(plan, Winograd)

    y = nan_like(a["dy"])
    plan.forward(a["x"], a["weight"], a["bias"], False, y)
    magnitude, terms = (
        winograd(e["x"], e["weight"], window.padding, matrices(r))
        if fast
        else (reference.conv2d(np.abs(e["x"]), np.abs(e["weight"]), None, window, groups), a["weight"][0].size)
    )
    bias = np.abs(e["bias"])[:, None, None]
    check(y, reference.conv2d(e["x"], e["weight"], e["bias"], window, groups), magnitude=magnitude + bias, terms=terms, direction="forward")
    rectified = nan_like(y)
    plan.forward(a["x"], a["weight"], a["bias"], True, rectified)
    np.testing.assert_array_equal(rectified, np.maximum(y, 0))
    plain = nan_like(y)
    plan.forward(a["x"], a["weight"], None, False, plain)
    check(plain, reference.conv2d(e["x"], e["weight"], None, window, groups), magnitude=magnitude, terms=terms, direction="forward")

    dx = nan_like(a["x"])
    plan.input_grad(a["dy"], a["weight"], None, dx)
    magnitude, terms = (
        winograd(e["dy"], turned, padding, matrices(r))
        if fast
        else (reference.conv2d_input_grad(np.abs(e["dy"]), np.abs(e["weight"]), window, groups), k // groups * r * s)
    )
    check(dx, reference.conv2d_input_grad(e["dy"], e["weight"], window, groups), magnitude=magnitude, terms=terms, direction="input_grad")
    masked = nan_like(dx)
    plan.input_grad(a["dy"], a["weight"], a["x"], masked)
    np.testing.assert_array_equal(masked, np.where(a["x"] > 0, dx, 0))

    dweight, dbias = nan_like(a["weight"]), nan_like(a["bias"])
    plan.weight_grad(a["dy"], a["x"], dweight, dbias)
    check_weight(dweight, dbias, a, fast)
    alone = nan_like(dweight)
    plan.weight_grad(a["dy"], a["x"], alone, None)
    np.testing.assert_array_equal(alone, dweight)
