"""Stateless functions on NumPy or CuPy arrays and on any other arrays of floats (gpucnn.arrays). Arguments are checked at every call.

For PyTorch's tensors and other arrays with DLPack, results are of the same library (gpucnn.foreign); gradients do not flow through.

Images are (N, C, H, W), weights (K, C/groups, R, S). All arrays of a call are of one dtype (float32; float64 on the CPU too) and on
one device. Sizes that do not fit raise ShapeError (a ValueError), arrays of a wrong kind TypeError, and both say what was expected.
"""

from __future__ import annotations

import numpy as np

from gpucnn.arguments import arrays_of, conv_of, four_sizes, native, pool_of, pool_window_of, same_shape, small, transposed_window_of
from gpucnn.arrays import numbers, on_a_gpu
from gpucnn.checks import flag, integer, pick, positive
from gpucnn.device import of
from gpucnn.errors import DataError, ShapeError
from gpucnn.foreign import in_kind
from gpucnn.layers.base import Array, Shape
from gpucnn.layers.norm import share
from gpucnn.losses import check_class_labels
from gpucnn.ops.shapes import LIMIT, normalize_padding
from gpucnn.precision import bits
from gpucnn.signatures import Padding, Size
from gpucnn.text import shown

__all__ = [
    "avg_pool2d",
    "avg_pool2d_grad",
    "batch_norm",
    "conv2d",
    "conv2d_input_grad",
    "conv2d_weight_grad",
    "conv_transpose2d",
    "dense",
    "elu",
    "flatten",
    "gelu",
    "global_avg_pool2d",
    "global_max_pool2d",
    "hard_sigmoid",
    "hard_swish",
    "leaky_relu",
    "max_pool2d",
    "max_pool2d_grad",
    "relu",
    "relu6",
    "sigmoid",
    "silu",
    "softmax",
    "softmax_cross_entropy",
    "tanh",
    "zero_pad2d",
]


@in_kind
def conv2d(
    x: Array, weight: Array, bias: Array | None = None, *, stride: Size = 1, padding: Padding = 0, dilation: Size = 1, groups: int = 1
) -> Array:
    """y (N, K, P, Q): x (N, C, H, W) convolved with weight (K, C/groups, R, S), plus bias (K).

    padding: a number, (vertical, horizontal), ((top, bottom), (left, right)), "valid" or "same".
    """
    device, (x, weight, *rest) = arrays_of(x=(x, 4), weight=(weight, 4), **({} if bias is None else {"bias": (bias, 1)}))
    window = conv_of(x.shape, weight.shape, stride, padding, dilation, groups)
    if rest and rest[0].shape != weight.shape[:1]:
        raise ShapeError(f"bias must have one value for each of the {weight.shape[0]} filters, got shape {rest[0].shape}")
    return device.ops.conv2d(x, weight, rest[0] if rest else None, window, groups, bits=bits())


@in_kind
def conv2d_input_grad(
    dy: Array, weight: Array, input_shape: Shape, *, stride: Size = 1, padding: Padding = 0, dilation: Size = 1, groups: int = 1
) -> Array:
    """dx of shape `input_shape` (N, C, H, W): the gradient of `conv2d` with respect to x, given dy (N, K, P, Q)."""
    device, (dy, weight) = arrays_of(dy=(dy, 4), weight=(weight, 4))
    shape = four_sizes(input_shape)
    window = conv_of(shape, weight.shape, stride, padding, dilation, groups)
    same_shape("dy", dy, (shape[0], weight.shape[0], *window.output))
    return device.ops.conv2d_input_grad(dy, weight, window, groups, bits=bits())


@in_kind
def conv2d_weight_grad(
    dy: Array, x: Array, weight_shape: Shape, *, stride: Size = 1, padding: Padding = 0, dilation: Size = 1, groups: int = 1
) -> Array:
    """dweight of shape `weight_shape` (K, C/groups, R, S): the gradient of `conv2d` with respect to weight, given dy (N, K, P, Q)."""
    device, (dy, x) = arrays_of(dy=(dy, 4), x=(x, 4))
    shape = four_sizes(weight_shape, "weight_shape", "(K, C/groups, R, S)")
    window = conv_of(x.shape, shape, stride, padding, dilation, groups)
    same_shape("dy", dy, (x.shape[0], shape[0], *window.output))
    return device.ops.conv2d_weight_grad(dy, x, window, groups, bits=bits())


@in_kind
def conv_transpose2d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    stride: Size = 1,
    padding: Padding = 0,
    output_padding: Size = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> Array:
    """y (N, K, P, Q): the transposed convolution of x (N, C, H, W) with weight (C, K/groups, R, S), plus bias (K).

    P = (H − 1) · stride − top − bottom + dilation · (R − 1) + 1 + output_padding, and likewise Q; with padding="same" H · stride.
    """
    device, (x, weight, *rest) = arrays_of(x=(x, 4), weight=(weight, 4), **({} if bias is None else {"bias": (bias, 1)}))
    groups = integer(groups, "groups", 1)
    if x.shape[1] != weight.shape[0] or x.shape[1] % groups:
        raise ShapeError(f"weight must be (C, K/groups, R, S) with the {x.shape[1]} channels of x, divisible by groups, got {weight.shape}")
    window = transposed_window_of(x.shape[2:], weight.shape[2:], stride, padding, output_padding, dilation)
    if rest and rest[0].shape != (weight.shape[1] * groups,):
        raise ShapeError(f"bias must have one value for each of the {weight.shape[1] * groups} filters, got shape {rest[0].shape}")
    small("y", (x.shape[0], weight.shape[1] * groups, *window.input))
    y = device.ops.conv2d_input_grad(x, weight, window, groups, bits=bits())
    return device.ops.add_bias(y, rest[0], out=y) if rest else y


@in_kind
def max_pool2d(
    x: Array, kernel_size: Size, stride: Size | None = None, padding: Padding = 0, dilation: Size = 1, ceil_mode: bool = False
) -> tuple[Array, Array]:
    """(y, indices), both (N, C, P, Q): the largest pixel of each window, and its int32 index in the flattened H·W plane of x.

    `stride` defaults to the size of the window. Of equal values the first wins; NaN wins over numbers; padding never wins.
    """
    device, (x,) = arrays_of(x=(x, 4))
    window = pool_window_of(x.shape[2:], kernel_size, stride, padding, dilation, ceil_mode)
    return device.ops.max_pool2d(x, window)  # type: ignore[no-any-return]


@in_kind
def max_pool2d_grad(
    dy: Array, indices: Array, input_shape: Shape, kernel_size: Size, stride: Size | None = None, padding: Padding = 0, dilation: Size = 1
) -> Array:
    """dx of shape `input_shape` (N, C, H, W): dy (N, C, P, Q) summed at the pixels that `indices` from `max_pool2d` name."""
    device, (dy,) = arrays_of(dy=(dy, 4))
    shape = four_sizes(input_shape)
    window = pool_of(dy.shape, shape, kernel_size, stride, padding, dilation)
    if not on_a_gpu(indices):
        listed, indices = isinstance(indices, list | tuple), native(numbers(indices, "indices", TypeError))
        indices = indices.astype(np.int32) if listed and indices.dtype.kind == "i" and abs(indices).max(initial=0) < LIMIT else indices
    if of(indices) != device or indices.dtype != device.xp.int32:
        raise TypeError(
            f"indices must be an int32 array on the device of dy, as max_pool2d returns them, got {indices.dtype} on {of(indices).kind}"
        )
    same_shape("indices", indices, dy.shape)
    pixels = shape[2] * shape[3]
    low, high = int(indices.min()), int(indices.max())
    if low < 0 or high >= pixels:
        raise DataError(f"indices must lie in 0..{pixels - 1} for images of {shape[2]}×{shape[3]}, got {low}..{high}")
    return device.ops.max_pool2d_grad(dy, device.array(indices), window)


@in_kind
def avg_pool2d(
    x: Array, kernel_size: Size, stride: Size | None = None, padding: Padding = 0, ceil_mode: bool = False, count_include_pad: bool = True
) -> Array:
    """y (N, C, P, Q): the mean of each window. Explicit padding counts unless `count_include_pad` is False; "same" never counts."""
    device, (x,) = arrays_of(x=(x, 4))
    window = pool_window_of(x.shape[2:], kernel_size, stride, padding, 1, ceil_mode)
    return device.ops.avg_pool2d(x, window, flag(count_include_pad, "count_include_pad"))


@in_kind
def avg_pool2d_grad(
    dy: Array, input_shape: Shape, kernel_size: Size, stride: Size | None = None, padding: Padding = 0, count_include_pad: bool = True
) -> Array:
    """dx of shape `input_shape` (N, C, H, W): dy (N, C, P, Q) distributed over the pixels of each window."""
    device, (dy,) = arrays_of(dy=(dy, 4))
    shape = four_sizes(input_shape)
    window = pool_of(dy.shape, shape, kernel_size, stride, padding, 1)
    return device.ops.avg_pool2d_grad(dy, window, flag(count_include_pad, "count_include_pad"))


@in_kind
def global_avg_pool2d(x: Array) -> Array:
    """y (N, C): the mean of each plane of x (N, C, H, W)."""
    device, (x,) = arrays_of(x=(x, 4))
    return device.ops.global_avg_pool2d(x)


@in_kind
def global_max_pool2d(x: Array) -> tuple[Array, Array]:
    """(y, indices), both (N, C): the largest pixel of each plane of x (N, C, H, W) and its int32 index there."""
    device, (x,) = arrays_of(x=(x, 4))
    return device.ops.global_max_pool2d(x)  # type: ignore[no-any-return]


@in_kind
def zero_pad2d(x: Array, padding: Padding) -> Array:
    """x (N, C, H, W) with zeros around each plane. padding: a number, (vertical, horizontal) or ((top, bottom), (left, right))."""
    device, (x,) = arrays_of(x=(x, 4))
    sides = normalize_padding(padding)
    if isinstance(sides, str):
        raise ShapeError(f"padding of zero_pad2d must be integers, got {shown(padding)}")
    small("y", (*x.shape[:2], *(size + sum(side) for size, side in zip(x.shape[2:], sides, strict=True))))
    return device.ops.zero_pad2d(x, sides)


@in_kind
def batch_norm(
    x: Array,
    running_mean: Array | None = None,
    running_var: Array | None = None,
    weight: Array | None = None,
    bias: Array | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Array:
    """y of x (N, C, …): (x − mean) / √(variance + eps) · weight + bias, channel by channel; all of these are (C,), with weight 1 and
    bias 0 by default. As in PyTorch, with `training` mean and variance are those of x, and the running ones are updated in place, or
    may be left out."""
    training, running = flag(training, "training"), {"running_mean": running_mean, "running_var": running_var}
    given = {name: array for name, array in (running | {"weight": weight, "bias": bias}).items() if array is not None}
    device, (x, *rest) = arrays_of(x=(x, None), **{name: (array, 1) for name, array in given.items()})
    if x.ndim < 2:
        raise ShapeError(f"x must be (N, C, …), got shape {x.shape}")
    arrays = dict(zip(given, rest, strict=True))
    for name, array in arrays.items():
        same_shape(name, array, (x.shape[1],))
    if len(arrays.keys() & running.keys()) != (0 if training and running_mean is None else 2):
        raise TypeError("running_mean and running_var belong together: give both, or neither and training=True")
    ones, zeros = device.xp.ones(x.shape[1], x.dtype), device.xp.zeros(x.shape[1], x.dtype)
    scale, shift = arrays.get("weight", ones), arrays.get("bias", zeros)
    moved = (arrays.get("running_mean", zeros.copy()), arrays.get("running_var", ones.copy()))
    eps, momentum = positive(eps, "eps"), share(momentum)
    if not training:
        return device.ops.batch_norm_apply(x, scale, shift, moved, eps=eps)
    if x.size // x.shape[1] < 2:
        raise ShapeError(f"batch normalization needs at least two numbers in each channel to train on, got x of shape {x.shape}")
    for name, array in running.items():
        if isinstance(array, list | tuple | memoryview) or (isinstance(array, np.ndarray) and not array.flags.writeable):
            what = "a read-only array" if isinstance(array, np.ndarray) else f"a {type(array).__name__}"
            raise TypeError(f"{name} is updated in place, and {what} cannot be written to: give a writable NumPy array, or a tensor")
    y, _, _ = device.ops.batch_norm(x, scale, shift, moved, momentum=momentum, eps=eps)
    for array, new in zip(running.values(), moved, strict=True):
        if array is not None and array is not new:
            array[...] = new
    return y


@in_kind
def dense(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """y (N, K) = x (N, C) · weight (K, C)ᵀ + bias (K)."""
    device, (x, weight, *rest) = arrays_of(x=(x, 2), weight=(weight, 2), **({} if bias is None else {"bias": (bias, 1)}))
    if x.shape[1] != weight.shape[1]:
        raise ShapeError(f"x has {x.shape[1]} features and weight {weight.shape[1]}: they must be the same")
    if rest and rest[0].shape != weight.shape[:1]:
        raise ShapeError(f"bias must have one value for each of the {weight.shape[0]} outputs, got shape {rest[0].shape}")
    return device.ops.dense(x, weight, rest[0] if rest else None, bits=bits())


@in_kind
def relu(x: Array) -> Array:
    """max(x, 0), of any shape; NaN stays NaN."""
    device, (x,) = arrays_of(x=(x, None))
    return device.ops.relu(x)


@in_kind
def sigmoid(x: Array) -> Array:
    """1 / (1 + e⁻ˣ), of any shape."""
    device, (x,) = arrays_of(x=(x, None))
    return device.ops.sigmoid(x)


@in_kind
def softmax(x: Array) -> Array:
    """eˣ / Σ eˣ along the last axis."""
    device, (x,) = arrays_of(x=(x, None))
    return device.ops.softmax(x)


@in_kind
def tanh(x: Array) -> Array:
    """The hyperbolic tangent, of any shape."""
    device, (x,) = arrays_of(x=(x, None))
    return device.ops.tanh(x)


@in_kind
def leaky_relu(x: Array, negative_slope: float = 0.01) -> Array:
    """x, or negative_slope · x where x is not positive, of any shape."""
    device, (x,) = arrays_of(x=(x, None))
    return device.ops.leaky_relu(x, positive(negative_slope, "negative_slope", zero=True))


@in_kind
def elu(x: Array, alpha: float = 1.0) -> Array:
    """x, or alpha · (eˣ − 1) where x is not positive, of any shape."""
    device, (x,) = arrays_of(x=(x, None))
    return device.ops.elu(x, positive(alpha, "alpha"))


@in_kind
def gelu(x: Array, approximate: bool | str = False) -> Array:
    """x · Φ(x), with Φ the normal distribution, or its approximation by the hyperbolic tangent if `approximate`, of any shape. PyTorch's
    "none" and "tanh" stand for False and True."""
    device, (x,) = arrays_of(x=(x, None))
    if isinstance(approximate, str):
        approximate = pick(approximate, {"none": False, "tanh": True}, "approximation of GELU")
    return device.ops.gelu(x, flag(approximate, "approximate"))


@in_kind
def silu(x: Array) -> Array:
    """x / (1 + e⁻ˣ), of any shape."""
    device, (x,) = arrays_of(x=(x, None))
    return device.ops.silu(x)


@in_kind
def relu6(x: Array) -> Array:
    """min(max(x, 0), 6), of any shape."""
    device, (x,) = arrays_of(x=(x, None))
    return device.ops.relu6(x)


@in_kind
def hard_sigmoid(x: Array) -> Array:
    """x / 6 + 1/2, no less than 0 and no more than 1, of any shape."""
    device, (x,) = arrays_of(x=(x, None))
    return device.ops.hard_sigmoid(x)


@in_kind
def hard_swish(x: Array) -> Array:
    """x · hard_sigmoid(x), of any shape."""
    device, (x,) = arrays_of(x=(x, None))
    return device.ops.hard_swish(x)


@in_kind
def softmax_cross_entropy(logits: Array, labels: Array) -> tuple[Array, Array]:
    """(loss, dlogits): the mean over the batch of −log softmax(logits) at the labels, and its gradient (softmax − labels) / N.

    logits (N, K); labels: class numbers (N), or one row of probabilities each (N, K). `loss` is a 0-d array on the logits' device.
    """
    device, (logits,) = arrays_of(logits=(logits, 2))
    checked = check_class_labels(labels, logits.shape[0], logits.shape[1], logits.dtype)
    loss, _, dlogits = device.ops.softmax_cross_entropy(logits, device.array(checked))
    return loss, dlogits


@in_kind
def flatten(x: Array) -> Array:
    """(N, …) as (N, product of the rest)."""
    _, (x,) = arrays_of(x=(x, None))
    return x.reshape(x.shape[0], -1)
