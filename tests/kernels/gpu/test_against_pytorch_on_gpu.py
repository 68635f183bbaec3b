"""Random legal shapes through `gpucnn.functional` on a GPU, beside PyTorch in float64: an oracle that shares nothing with this project.

`make slow` has them: 500 shapes for each operation. Kernels that are made for a window take seconds to compile, so those of first layers
and of depthwise convolutions come from a list; all else is drawn.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernel_harness import distinct, normal

from gpucnn import functional as F
from gpucnn.device import Device, to_numpy
from gpucnn.errors import ShapeError
from tolerances import check

torch = pytest.importorskip("torch", reason="PyTorch is the oracle here")
pytestmark = [pytest.mark.gpu, pytest.mark.slow]

TESTS, SHAPES = 25, 20  # 500 shapes for each operation
FIXED = (  # channels, kernel, stride, padding, dilation of layers that have kernels of their own
    (1, (3, 3), 1, 0, 1),
    (1, (5, 5), 1, 2, 1),
    (3, (3, 3), 1, 1, 1),
    (3, (7, 7), 2, 3, 1),
    (4, (3, 2), (2, 1), (1, 0), 1),
)
DEPTHWISE = (((3, 3), 1, 1, 1), ((3, 3), 2, 1, 1), ((5, 5), 1, 2, 1), ((3, 3), 1, 2, 2), ((4, 2), (1, 2), (2, 0), 1))


def where() -> Any:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def wide(array: Any) -> Any:
    """An array as PyTorch has it, in float64."""
    return torch.from_numpy(np.ascontiguousarray(array)).to(where(), torch.float64)


def pair(random: Any, low: int, high: int) -> tuple[int, int]:
    return int(random.integers(low, high)), int(random.integers(low, high))


def convolution(random: Any, number: int) -> tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]:
    """Shapes of x and weight, and the rest of the arguments; legal ones."""
    while True:
        n, hw, kind = int(random.integers(1, 7)), pair(random, 1, 45), number % 5
        if kind == 0:
            c, kernel, stride, padding, dilation = FIXED[int(random.integers(len(FIXED)))]
            groups, k = 1, int(random.integers(1, 70))
        elif kind == 1:
            c = groups = int(random.integers(2, 40))
            k = c * int(random.integers(1, 3))
            kernel, stride, padding, dilation = DEPTHWISE[int(random.integers(len(DEPTHWISE)))]
        else:
            groups = int(random.choice([1, 1, 1, 2, 3]))
            c, k = groups * int(random.integers(5, 70)), groups * int(random.integers(1, 140))
            kernel, stride, padding = pair(random, 1, 8), pair(random, 1, 4), pair(random, 0, 4)
            dilation = pair(random, 1, 4)
        shapes = (n, c, *hw), (k, c // groups, *kernel)
        options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        try:
            F.conv2d(np.zeros((1, c, *hw), np.float32), np.zeros(shapes[1], np.float32), **options)
        except ShapeError:
            continue
        return *shapes, options


@pytest.mark.parametrize("seed", range(TESTS))
def test_convolution(gpu: Device, seed: int) -> None:
    random = np.random.default_rng(seed)
    for number in range(SHAPES):
        x_shape, weight_shape, options = convolution(random, number)
        x, weight, bias = normal(number, *x_shape), normal(number + 1, *weight_shape), normal(number + 2, weight_shape[0])

        def of(x: Any, weight: Any, bias: Any, dy: Any, options: dict[str, Any] = options) -> list[Any]:
            """y, dx and dweight in float64."""
            tensors = [wide(each).requires_grad_() for each in (x, weight)]
            y = torch.nn.functional.conv2d(*tensors, wide(bias), **options)
            y.backward(wide(dy) if dy is not None else torch.ones_like(y))
            return [each.detach().cpu().numpy() for each in (y, tensors[0].grad, tensors[1].grad)]

        shape = of(x, weight, bias, None)[0].shape
        dy = normal(number + 3, *shape)
        expected, magnitudes = of(x, weight, bias, dy), of(*map(np.abs, (x, weight, bias, dy)))
        a, w, b, d = map(gpu.array, (x, weight, bias, dy))
        got = (
            F.conv2d(a, w, b, **options),
            F.conv2d_input_grad(d, w, x.shape, **options),
            F.conv2d_weight_grad(d, a, weight.shape, **options),
        )
        terms = weight[0].size, weight.size // x.shape[1], dy.size // dy.shape[1]
        for own, ref, magnitude, length, direction in zip(
            got, expected, magnitudes, terms, ("forward", "input_grad", "weight_grad"), strict=True
        ):
            try:
                check(to_numpy(own), ref, magnitude=magnitude, terms=max(1, length), direction=direction)
            except AssertionError as error:
                raise AssertionError(f"{direction} of x {x.shape}, weight {weight.shape}, {options}: {error}") from None


def pooling(random: Any) -> tuple[tuple[int, ...], dict[str, Any]]:
    """The shape of x and the rest of the arguments; legal ones."""
    while True:
        shape = int(random.integers(1, 6)), int(random.integers(1, 30)), *pair(random, 1, 45)
        kernel = pair(random, 1, 6) if random.random() < 0.7 else (2, 2)
        options = {
            "kernel_size": kernel,
            "stride": pair(random, 1, 5) if random.random() < 0.7 else kernel,
            "padding": tuple(int(random.integers(0, k // 2 + 1)) for k in kernel),
            "ceil_mode": bool(random.integers(2)),
        }
        try:
            F.max_pool2d(np.zeros((1, 1, *shape[2:]), np.float32), **options)
        except ShapeError:
            continue
        return shape, options


@pytest.mark.parametrize("seed", range(TESTS))
def test_pooling(gpu: Device, seed: int) -> None:
    random = np.random.default_rng(seed)
    for _ in range(SHAPES):
        shape, options = pooling(random)
        said = f"x {shape}, {options}"
        x = distinct(seed, *shape)
        tensor = wide(x).requires_grad_()
        y, places = torch.nn.functional.max_pool2d(tensor, **options, return_indices=True)
        dy = normal(seed, *y.shape)
        y.backward(wide(dy))
        own, own_places = F.max_pool2d(gpu.array(x), **options)
        np.testing.assert_array_equal(to_numpy(own), y.detach().cpu().numpy(), said)
        np.testing.assert_array_equal(to_numpy(own_places), places.cpu().numpy(), said)
        without = {name: value for name, value in options.items() if name != "ceil_mode"}
        dx = F.max_pool2d_grad(gpu.array(dy), own_places, x.shape, **without)
        magnitude = torch.zeros_like(tensor.detach()).flatten(2)
        magnitude = magnitude.scatter_add_(2, places.flatten(2), wide(np.abs(dy)).flatten(2)).view(x.shape).cpu().numpy()
        taps = int(np.prod(options["kernel_size"]))
        check(to_numpy(dx), tensor.grad.cpu().numpy(), magnitude=magnitude, terms=taps, direction="input_grad")

        for counted in (True, False):
            tensor = wide(x).requires_grad_()
            mean = torch.nn.functional.avg_pool2d(tensor, **options, count_include_pad=counted)
            mean.backward(wide(dy))
            size = torch.nn.functional.avg_pool2d(wide(np.abs(x)), **options, count_include_pad=counted).cpu().numpy()
            check(
                to_numpy(F.avg_pool2d(gpu.array(x), **options, count_include_pad=counted)),
                mean.detach().cpu().numpy(),
                magnitude=size,
                terms=taps,
                direction="forward",
            )
            again = wide(x).requires_grad_()
            torch.nn.functional.avg_pool2d(again, **options, count_include_pad=counted).backward(wide(np.abs(dy)))
            check(
                to_numpy(F.avg_pool2d_grad(gpu.array(dy), x.shape, **without, count_include_pad=counted)),
                tensor.grad.cpu().numpy(),
                magnitude=again.grad.cpu().numpy(),
                terms=taps,
                direction="input_grad",
            )


@pytest.mark.parametrize("seed", range(TESTS))
def test_dense(gpu: Device, seed: int) -> None:
    random = np.random.default_rng(seed)
    for number in range(SHAPES):
        n, c, k = (int(size) for size in random.integers(1, 700, 3))
        x, weight, bias, dy = normal(number, n, c), normal(number + 1, k, c), normal(number + 2, k), normal(number + 3, n, k)
        a, w, b, d = map(gpu.array, (x, weight, bias, dy))
        results = (
            (F.dense(a, w, b), lambda x, w, b, d: x @ w.T + b, c, "forward"),
            (gpu.ops.dense_input_grad(d, w), lambda x, w, b, d: d @ w, k, "input_grad"),
            (gpu.ops.dense_weight_grad(d, a), lambda x, w, b, d: d.T @ x, n, "weight_grad"),
        )
        doubles = [array.astype(np.float64) for array in (x, weight, bias, dy)]
        for got, function, terms, direction in results:
            check(to_numpy(got), function(*doubles), magnitude=function(*map(np.abs, doubles)), terms=terms, direction=direction)
