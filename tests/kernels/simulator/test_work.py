"""The bytes that work.py says a kernel moves, against counting every read and write of global memory while the kernel runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gpucnn.device import simulated
from gpucnn.ops.shapes import Window, conv_window, pool_window
from gpucnn.profiling.what import work
from gpucnn.profiling.what.work import Work
from gpucnn_kernels import activations, loss, pool
from gpucnn_kernels.choose.select import Choice
from gpucnn_kernels.conv import depthwise, direct, pooled, pooled_grad
from gpucnn_kernels.conv import plain as conv
from gpucnn_kernels.conv import tiled as implicit_gemm
from gpucnn_kernels.dense import plain as gemm
from gpucnn_kernels.dense import tiled as tiled_gemm
from gpucnn_kernels.engine import bias as sums
from gpucnn_kernels.engine.tiles import Tile

pytestmark = pytest.mark.skipif(not simulated(), reason="reads and writes can be counted in the simulator only")

Count = Callable[[Callable[[], None]], int]
SMALL = Tile(8, 8, 8, 4, 4)
WIDE = Tile(16, 8, 8, 8, 4)


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> Count:
    """Runs something, and says how many bytes its kernels moved."""
    from numba.cuda.simulator.cudadrv.devicearray import FakeWithinKernelCUDAArray as InKernel

    moved: list[None] = []  # threads append to it at the same time
    read, write = InKernel.__getitem__, InKernel.__setitem__

    def counted_read(array: Any, index: Any) -> Any:
        moved.append(None)
        return read(array, index)

    def counted_write(array: Any, index: Any, value: Any) -> None:
        moved.append(None)
        write(array, index, value)

    monkeypatch.setattr(InKernel, "__getitem__", counted_read)
    monkeypatch.setattr(InKernel, "__setitem__", counted_write)

    def run(action: Callable[[], None]) -> int:
        moved.clear()
        action()
        return 4 * len(moved)

    return run


def zeros(*shape: int) -> Any:
    return np.zeros(shape, np.float32)


def random(*shape: int) -> Any:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


CONVOLUTIONS: dict[str, tuple[int, int, int, int, Window]] = {  # n, c, k, groups
    "one": (1, 1, 1, 1, conv_window((1, 1), (1, 1))),
    "ragged": (1, 3, 9, 1, conv_window((3, 3), (3, 2), padding=1)),
    "whole-tiles": (1, 8, 8, 1, conv_window((4, 4), (2, 2), padding=((0, 1), (1, 0)))),
    "stride": (1, 3, 2, 1, conv_window((6, 5), (3, 2), stride=2, padding="same")),
    "stride-over-kernel": (1, 2, 3, 1, conv_window((7, 5), (2, 1), stride=(3, 2))),
    "groups": (2, 4, 6, 2, conv_window((3, 3), (2, 1))),
    "dilation-stride": (1, 1, 2, 1, conv_window((10, 9), (3, 2), dilation=2, stride=(2, 3), padding=((1, 2), (0, 1)))),
    "padding-over-kernel": (1, 1, 2, 1, conv_window((2, 3), (1, 1), padding=3, stride=2)),
    "many-channels": (1, 11, 10, 1, conv_window((2, 2), (1, 1))),
}


CASES = [
    *((name, None) for name in CONVOLUTIONS if name not in ("ragged", "whole-tiles", "many-channels")),  # long, and nothing to tell
    *((name, SMALL) for name in CONVOLUTIONS),
    *((name, WIDE) for name in ("one", "whole-tiles", "groups")),
]
QUICK = ("one", "asymmetric", "first-layer")  # the others take seconds each


def marked(name: str, *more: Any) -> Any:
    return pytest.param(name, *more, marks=() if name in QUICK else pytest.mark.slow)


@pytest.mark.parametrize(("name", "tile"), [marked(*case) for case in CASES])
def test_convolution(name: str, tile: Tile | None, count: Count) -> None:
    n, c, k, groups, window = CONVOLUTIONS[name]
    sizes = (n, c, k, window, groups)
    x, weight, bias, y = zeros(n, c, *window.input), zeros(k, c // groups, *window.kernel), zeros(k), zeros(n, k, *window.output)
    if tile is None:
        plain = Choice("plain", None)
        assert work.conv2d(*sizes, plain).moved_bytes == count(lambda: conv.conv2d(x, weight, None, y, window, groups))
        assert work.conv2d(*sizes, plain, bias=True).moved_bytes == count(lambda: conv.conv2d(x, weight, bias, y, window, groups))
        assert work.conv2d_input_grad(*sizes, plain).moved_bytes == count(lambda: conv.conv2d_input_grad(y, weight, x, window, groups))
        assert work.conv2d_weight_grad(*sizes, plain).moved_bytes == count(lambda: conv.conv2d_weight_grad(y, x, weight, window, groups))
        return

    def forward(bias: Any) -> int:
        space = zeros(implicit_gemm.conv2d_workspace(*sizes, tile))
        return count(lambda: implicit_gemm.conv2d(x, weight, bias, y, space, window, groups, tile=tile))

    assert work.conv2d(*sizes, Choice("tile", tile)).moved_bytes == forward(None)
    assert work.conv2d(*sizes, Choice("tile", tile), bias=True).moved_bytes == forward(bias)
    space = zeros(implicit_gemm.conv2d_input_grad_workspace(*sizes, tile))
    backward = count(lambda: implicit_gemm.conv2d_input_grad(y, weight, x, space, window, groups, tile=tile))
    assert work.conv2d_input_grad(*sizes, Choice("tile", tile)).moved_bytes == backward
    for slices in (1, 3):
        space = zeros(implicit_gemm.conv2d_weight_grad_workspace(*sizes, tile, slices))
        moved = count(
            lambda s=slices, room=space: implicit_gemm.conv2d_weight_grad(y, x, weight, room, window, groups, tile=tile, slices=s)
        )
        assert work.conv2d_weight_grad(*sizes, Choice("tile", tile, slices)).moved_bytes == moved, slices


DIRECT: dict[str, tuple[int, int, int, Window]] = {
    "one": (1, 1, 1, conv_window((1, 1), (1, 1))),
    "first-layer": (1, 1, 3, conv_window((5, 6), (5, 5), padding="same")),
    "several-stretches": (1, 1, 1, conv_window((81, 80), (1, 1))),
    "several-blocks": (1, 2, 5, conv_window((3, 5), (3, 3), padding=1)),
    "stride": (1, 3, 2, conv_window((9, 7), (3, 2), stride=2, padding=((1, 2), (0, 1)))),
    "padding-over-kernel": (1, 1, 7, conv_window((2, 3), (1, 1), padding=3, stride=2)),
}


@pytest.mark.parametrize("name", [marked(name) for name in DIRECT])
def test_direct_convolution(name: str, count: Count) -> None:
    n, c, k, window = DIRECT[name]
    choice, sizes = Choice("direct", None), (n, c, k, window, 1)
    x, weight, y = zeros(n, c, *window.input), zeros(k, c, *window.kernel), zeros(n, k, *window.output)
    space = zeros(direct.workspace_size(n, c, k, window))
    for bias in (None,) if name == "several-stretches" else (None, zeros(k)):
        with_bias = bias is not None
        forward = count(lambda b=bias: direct.conv2d_direct(x, weight, b, y, window))
        assert work.conv2d(*sizes, choice, bias=with_bias).moved_bytes == forward
        backward = count(lambda b=bias: direct.conv2d_direct_weight_grad(y, x, weight, b, space, window))
        assert work.conv2d_weight_grad(*sizes, choice, bias=with_bias).moved_bytes == backward


DEPTHWISE: dict[str, tuple[int, int, int, Window]] = {
    "one": (1, 1, 1, conv_window((1, 1), (1, 1))),
    "several-strips": (1, 2, 2, conv_window((18, 4), (3, 3), padding="same")),
    "two-filters": (2, 2, 4, conv_window((3, 5), (2, 3), padding=1)),
    "stride": (1, 2, 2, conv_window((9, 7), (3, 2), stride=(2, 3), padding=((1, 2), (2, 1)))),
    "dilation": (1, 1, 1, conv_window((7, 9), (2, 3), stride=(1, 2), dilation=(3, 2), padding=2)),
}


@pytest.mark.parametrize("name", [marked(name) for name in DEPTHWISE])
def test_depthwise_convolution(name: str, count: Count) -> None:
    n, c, k, window = DEPTHWISE[name]
    choice, sizes = Choice("depthwise", None), (n, c, k, window, c)
    x, weight, y = zeros(n, c, *window.input), zeros(k, 1, *window.kernel), zeros(n, k, *window.output)
    space = zeros(depthwise.workspace_size(n, c, k, window))
    for bias in (None, zeros(k)):
        with_bias = bias is not None
        forward = count(lambda b=bias: depthwise.conv2d_depthwise(x, weight, b, y, window))
        assert work.conv2d(*sizes, choice, bias=with_bias).moved_bytes == forward
        weight_grad = count(lambda b=bias: depthwise.conv2d_depthwise_weight_grad(y, x, weight, b, space, window))
        assert work.conv2d_weight_grad(*sizes, choice, bias=with_bias).moved_bytes == weight_grad
    input_grad = count(lambda: depthwise.conv2d_depthwise_input_grad(y, weight, x, window))
    assert work.conv2d_input_grad(*sizes, choice).moved_bytes == input_grad


@pytest.mark.slow
def test_fused(count: Count) -> None:
    n, c, k, window = DIRECT["several-blocks"]
    pooling = pool_window(window.output, 2)
    x, weight, y = zeros(n, c, *window.input), zeros(k, c, *window.kernel), zeros(n, k, *pooling.output)
    indices = np.zeros(y.shape, np.int32)
    for bias in (None, zeros(k)):
        moved = count(lambda b=bias: pooled.conv2d_relu_max_pool2d(x, weight, b, y, indices, window, pooling))
        assert work.conv2d_relu_max_pool2d(n, c, k, window, pooling, bias=bias is not None).moved_bytes == moved
    pooled.conv2d_relu_max_pool2d(x, weight, None, y, indices, window, pooling)
    space, launch = zeros(pooled_grad.workspace_size(n, c, k, window, pooling)), pooled_grad.conv2d_relu_max_pool2d_weight_grad
    for relu, bias in ((y, zeros(k)), (None, None)):
        arrays = (y, indices, relu, x, weight, bias, space, window, pooling)
        moved = count(lambda a=arrays: launch(*a))
        expected = work.conv2d_relu_max_pool2d_weight_grad(n, c, k, window, pooling, bias is not None, relu is not None)
        assert expected.moved_bytes == moved


POOLINGS = {
    "2x2": pool_window((4, 6), 2),
    "2x2-odd": pool_window((5, 3), 2),
    "3x3": pool_window((7, 6), 3, 2, 1),
    "stride-over-kernel": pool_window((7, 5), (2, 1), (3, 2)),
    "dilation": pool_window((7, 8), 2, (2, 1), dilation=(2, 3)),
    "ceil": pool_window((5, 5), 2, 2, ceil_mode=True),
}


@pytest.mark.parametrize("name", POOLINGS)
def test_pooling(name: str, count: Count) -> None:
    window = POOLINGS[name]
    x, y = random(2, 3, *window.input), zeros(2, 3, *window.output)
    indices = np.zeros(y.shape, np.int32)
    assert work.max_pool2d(2, 3, window).moved_bytes == count(lambda: pool.max_pool2d(x, y, indices, window))
    assert work.max_pool2d_grad(2, 3, window).moved_bytes == count(lambda: pool.max_pool2d_grad(y, indices, x, window))
    assert work.avg_pool2d(2, 3, window).moved_bytes == count(lambda: pool.avg_pool2d(x, y, window))
    assert work.avg_pool2d_grad(2, 3, window).moved_bytes == count(lambda: pool.avg_pool2d_grad(y, x, window))


@pytest.mark.parametrize(
    "sizes", [(1, 1, 1), *(pytest.param(sizes, marks=pytest.mark.slow) for sizes in ((5, 19, 3), (8, 16, 12), (17, 4, 10)))], ids=str
)
@pytest.mark.parametrize("tile", [None, SMALL, WIDE], ids=["plain", "small", "wide"])
def test_dense(sizes: tuple[int, int, int], tile: Tile | None, count: Count) -> None:
    n, c, k = sizes
    x, weight, bias, y, space = zeros(n, c), zeros(k, c), zeros(k), zeros(n, k), zeros(3 * (n * c + c * k + n * k))
    for slices in (1,) if tile is None else (1, 3):
        choice = Choice("plain" if tile is None else "tile", tile, slices)

        def run(operation: str, *arrays: Any, slices: int = slices) -> int:
            if tile is None:
                return count(lambda: getattr(gemm, operation)(*arrays))
            return count(lambda: getattr(tiled_gemm, operation)(*arrays, space, tile=tile, slices=slices))

        assert work.dense(*sizes, choice).moved_bytes == run("dense", x, weight, None, y)
        assert work.dense(*sizes, choice, bias=True).moved_bytes == run("dense", x, weight, bias, y)
        assert work.dense_input_grad(*sizes, choice).moved_bytes == run("dense_input_grad", y, weight, x)
        assert work.dense_weight_grad(*sizes, choice).moved_bytes == run("dense_weight_grad", y, x, weight)


def test_elementwise(count: Count) -> None:
    x, y, z = zeros(131), zeros(131), zeros(131)
    sizes = {
        work.relu(131): lambda: activations.relu(x, y),
        work.relu_grad(131): lambda: activations.relu_grad(x, y, z),
        work.sigmoid(131): lambda: activations.sigmoid(x, y),
        work.bias_grad(2, 5, 131): lambda: sums.bias_grad(zeros(2, 5, 131), zeros(5)),
        work.softmax(3, 37): lambda: activations.softmax(zeros(3, 37), zeros(3, 37)),
        work.softmax_grad(3, 37): lambda: activations.softmax_grad(zeros(3, 37), zeros(3, 37), zeros(3, 37)),
    }
    for expected, action in sizes.items():
        assert expected.moved_bytes == count(action), expected
    # In the source y is named twice; the compiler makes that one read, the simulator two.
    assert work.sigmoid_grad(131) + Work(0, 0, 4 * 131) == Work(393, 12 * 131, count(lambda: activations.sigmoid_grad(x, y, z)))


@pytest.mark.parametrize(("n", "k"), [(5, 3), (40, 10), pytest.param(600, 2, marks=pytest.mark.slow), (3, 40)])
def test_cross_entropy(n: int, k: int, count: Count) -> None:
    falling = -np.tile(np.arange(k, dtype=np.float32), (n, 1))  # so that the first of a lane's logits is its largest
    for labels in (np.zeros(n, np.int32), falling - falling.min()):
        of_classes = labels.ndim == 1
        arrays = (falling, labels, zeros(n, k), zeros(1), np.zeros(1, np.int32), zeros(n), np.zeros(n, np.int32))
        moved = count(lambda a=arrays: loss.softmax_cross_entropy(*a))
        # Where a new maximum is found the source names it again; the compiler makes that one read, the simulator two.
        again = 4 * n * min(k, 32) * (1 if of_classes else 2) if k > loss.ONE_BLOCK_CLASSES else 0
        assert work.softmax_cross_entropy(n, k, of_classes).moved_bytes + again == moved, of_classes
