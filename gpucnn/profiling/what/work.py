"""The work of an operation, whatever kernel does it: floating-point operations and bytes. Counted, not measured.

    Work.flops        an FMA counts as two, as it does for cuDNN and PyTorch. A convolution has 2·N·K·P·Q·(C/groups)·R·S, taps that fall on
                      padding included, although the plain kernels skip those.
    Work.least_bytes  each needed number of the inputs read once, each number of the outputs written once: no kernel moves less

The least time of a chip is that of the slower of its two ceilings (S. Williams et al., "Roofline", CACM 2009): its arithmetic takes
flops / fp32, its memory least_bytes / bandwidth.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gpucnn_kernels.core.launch import Pair, Window

WORD = 4  # bytes of a number, whether float32 or int32


@dataclass(frozen=True, slots=True)
class Work:
    """Floating-point operations and bytes: see the module's docstring. Works add up."""

    flops: int
    least_bytes: int

    def __add__(self, other: Work) -> Work:
        return Work(self.flops + other.flops, self.least_bytes + other.least_bytes)

    @property
    def intensity(self) -> float:
        """FLOP per byte that has to be moved."""
        return self.flops / self.least_bytes


def conv2d(n: int, c: int, k: int, window: Window, groups: int = 1, *, bias: bool = False) -> Work:
    """The forward convolution of n images of c channels by k filters; ReLU costs nothing."""
    down, across = _reaches(window)
    results = n * k * _area(window.output)
    read = n * c * down.pixels * across.pixels + k * (c // groups) * down.taps * across.taps + bias * k
    return _work(_conv_flops(n, c, k, window, groups), read + results)


def conv2d_input_grad(n: int, c: int, k: int, window: Window, groups: int = 1) -> Work:
    """The gradient of a convolution with respect to its input."""
    down, across = _reaches(window)
    read = n * k * down.positions * across.positions + k * (c // groups) * down.taps * across.taps
    return _work(_conv_flops(n, c, k, window, groups), read + n * c * _area(window.input))


def conv2d_weight_grad(n: int, c: int, k: int, window: Window, groups: int = 1, *, bias: bool = False) -> Work:
    """The gradient of a convolution with respect to its weight, and with `bias` to its bias: the sums of dy."""
    down, across = _reaches(window)
    read = n * k * down.positions * across.positions + n * c * down.pixels * across.pixels
    written = k * (c // groups) * _area(window.kernel) + bias * k
    return _work(_conv_flops(n, c, k, window, groups) + bias * n * k * _area(window.output), read + written)


def conv2d_relu_max_pool2d(n: int, c: int, k: int, window: Window, pool_window: Window, groups: int = 1, *, bias: bool = False) -> Work:
    """Convolution, ReLU and max pooling as one: the work of all three, without the bytes of intermediate results."""
    kept = n * k * _area(pool_window.output)
    down, across = _reaches(window, pool_window)
    read = n * c * down.pixels * across.pixels + k * (c // groups) * down.taps * across.taps + bias * k
    flops = _conv_flops(n, c, k, window, groups) + n * k * _area(window.output) + kept * _area(pool_window.kernel)
    return _work(flops, read + 2 * kept)


def conv2d_relu_max_pool2d_weight_grad(
    n: int, c: int, k: int, window: Window, pool_window: Window, groups: int = 1, *, bias: bool = False
) -> Work:
    """Its gradient with respect to weight and `bias`, from the gradients of the pooled values and their places: a convolution's gradient
    of the weight, and the scattering of each of these values."""
    kept = n * k * _area(pool_window.output)
    down, across = _reaches(window, pool_window)
    written = k * (c // groups) * _area(window.kernel) + bias * k
    flops = _conv_flops(n, c, k, window, groups) + kept + bias * kept
    return _work(flops, 2 * kept + n * c * down.pixels * across.pixels + written)


def max_pool2d(n: int, c: int, window: Window) -> Work:
    """Max pooling and the indices of the maxima. A comparison counts as an operation, one per tap."""
    down, across = _reaches(window)
    results = n * c * _area(window.output)
    return _work(results * _area(window.kernel), n * c * down.pixels * across.pixels + 2 * results)


def max_pool2d_grad(n: int, c: int, window: Window) -> Work:
    """Its gradient: an addition per window, at the pixel of its maximum."""
    windows = n * c * _area(window.output)
    return _work(windows, 2 * windows + n * c * _area(window.input))


def avg_pool2d(n: int, c: int, window: Window) -> Work:
    """Average pooling: an operation per tap, all but one additions."""
    down, across = _reaches(window)
    results = n * c * _area(window.output)
    return _work(results * _area(window.kernel), n * c * down.pixels * across.pixels + results)


def avg_pool2d_grad(n: int, c: int, window: Window) -> Work:
    """Its gradient: an addition per tap."""
    windows = n * c * _area(window.output)
    return _work(windows * _area(window.kernel), windows + n * c * _area(window.input))


def dense(n: int, c: int, k: int, *, bias: bool = False) -> Work:
    """A dense layer: x (n, c), weight (k, c). For bias and ReLU, only the reads count."""
    return _product(n, k, c) + _work(0, bias * k)


def dense_input_grad(n: int, c: int, k: int) -> Work:
    """Its gradient with respect to x."""
    return _product(n, c, k)


def dense_weight_grad(n: int, c: int, k: int, *, bias: bool = False) -> Work:
    """Its gradient with respect to weight, and with `bias` to its bias: the sums of dy."""
    return _product(k, c, n) + _work(bias * n * k, bias * k)


def bias_grad(n: int, k: int, plane: int = 1) -> Work:
    """The sums of dy (n, k, plane) over everything but channels."""
    return _work(n * k * plane, n * k * plane + k)


def elementwise(size: int, operations: int, arrays: int) -> Work:
    """The work of `operations` on each of `size` numbers, in arrays that are read or written."""
    return _work(operations * size, arrays * size)


def softmax_cross_entropy(n: int, k: int, *, of_classes: bool = True) -> Work:
    """Loss, gradient and right answers of n rows of k logits; labels are class numbers, or rows of probabilities.

    Per logit there are softmax's five operations and the gradient's difference and product; with probabilities, also the loss's product
    and sum.
    """
    size = n * k
    return _work((7 if of_classes else 9) * size, 2 * size + (n if of_classes else size) + 2)


@dataclass(frozen=True, slots=True)
class _Reach:
    """Along one axis: the number of pixels that are read, and of positions and taps that read any."""

    pixels: int
    positions: int
    taps: int


def _reaches(window: Window, pool_window: Window | None = None) -> tuple[_Reach, _Reach]:
    """The reach of a window, along rows and along columns; with `pool_window`, only for the positions that the pooling uses."""
    if pool_window is None:
        positions: Iterable[Iterable[int]] = map(range, window.output)
    else:
        positions = ({pixel for row in _pixels(pool_window, axis) for pixel in row if pixel is not None} for axis in (0, 1))
    down, across = (_reach(window, axis, own) for axis, own in enumerate(positions))
    return down, across


def _reach(window: Window, axis: int, positions: Iterable[int]) -> _Reach:
    pixels = _pixels(window, axis)
    rows = [pixels[position] for position in positions]
    read = {pixel for row in rows for pixel in row if pixel is not None}
    taps = [any(pixel is not None for pixel in column) for column in zip(*rows, strict=True)]
    return _Reach(len(read), sum(any(pixel is not None for pixel in row) for row in rows), sum(taps))


def _pixels(window: Window, axis: int) -> list[list[int | None]]:
    """The pixel that each tap of each position reads; None for padding."""
    size, stride, dilation, before = window.input[axis], window.stride[axis], window.dilation[axis], window.padding[axis][0]
    rows = [[p * stride - before + r * dilation for r in range(window.kernel[axis])] for p in range(window.output[axis])]
    return [[pixel if 0 <= pixel < size else None for pixel in row] for row in rows]


def _conv_flops(n: int, c: int, k: int, window: Window, groups: int) -> int:
    return 2 * n * k * _area(window.output) * (c // groups) * _area(window.kernel)


def _product(m: int, n: int, depth: int) -> Work:
    return _work(2 * m * n * depth, m * depth + depth * n + m * n)


def _area(sides: Pair) -> int:
    return sides[0] * sides[1]


def _work(flops: int, numbers: int) -> Work:
    return Work(flops, WORD * numbers)
