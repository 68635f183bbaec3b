"""All variants of each operation, in the order in which they are considered. A new one is a line here, and an object in its own file."""

from __future__ import annotations

from gpucnn_kernels.conv import (
    depthwise,
    depthwise_grad,
    depthwise_input_grad,
    direct,
    direct_grad,
    direct_input_grad,
    pooled,
    pooled_grad,
    tensor,
    wide,
    winograd,
)
from gpucnn_kernels.conv import plain as plain_conv
from gpucnn_kernels.conv import tiled as tiled_conv
from gpucnn_kernels.core.variant import Variant
from gpucnn_kernels.dense import narrow as narrow_dense
from gpucnn_kernels.dense import plain as plain_dense
from gpucnn_kernels.dense import tensor as tensor_dense
from gpucnn_kernels.dense import tiled as tiled_dense
from gpucnn_kernels.local import plain as plain_local
from gpucnn_kernels.local import tiled as tiled_local


def _of(operation: str, found: list[dict[str, Variant]]) -> list[Variant]:
    return [variants[operation] for variants in found]


_SUMMING = [*tiled_conv.ALL, *tiled_conv.SUMMING, *tensor.ALL]
_GATHERING = [*tiled_conv.ALL, *tiled_conv.GATHERING, *tensor.ALL, *wide.ALL]
_DENSE = [*tiled_dense.ALL, *tensor_dense.ALL]
_LOCAL = tiled_local.ALL

VARIANTS: dict[str, list[Variant]] = {
    "conv2d": [
        plain_conv.FORWARD,
        direct.FORWARD,
        depthwise.FORWARD,
        depthwise.GROUPED,
        *_of("conv2d", _GATHERING),
        winograd.FORWARD,
    ],
    "conv2d_input_grad": [
        plain_conv.INPUT_GRAD,
        direct_input_grad.INPUT_GRAD,
        depthwise_input_grad.INPUT_GRAD,
        depthwise_input_grad.GROUPED,
        *_of("conv2d_input_grad", _GATHERING),
        winograd.INPUT_GRAD,
    ],
    "conv2d_weight_grad": [
        plain_conv.WEIGHT_GRAD,
        direct_grad.WEIGHT_GRAD,
        depthwise_grad.WEIGHT_GRAD,
        depthwise_grad.GROUPED,
        *_of("conv2d_weight_grad", _SUMMING),
    ],
    "conv2d_relu_max_pool2d": [pooled.APART, pooled.FORWARD],
    "conv2d_relu_max_pool2d_weight_grad": [pooled_grad.APART, pooled_grad.WEIGHT_GRAD],
    "locally_connected2d": [plain_local.FORWARD, *_of("locally_connected2d", _LOCAL)],
    "locally_connected2d_input_grad": [plain_local.INPUT_GRAD, *_of("locally_connected2d_input_grad", _LOCAL)],
    "locally_connected2d_weight_grad": [plain_local.WEIGHT_GRAD, *_of("locally_connected2d_weight_grad", _LOCAL)],
    "dense": [narrow_dense.FORWARD, plain_dense.FORWARD, *_of("dense", _DENSE)],
    "dense_input_grad": [narrow_dense.INPUT_GRAD, plain_dense.INPUT_GRAD, *_of("dense_input_grad", _DENSE)],
    "dense_weight_grad": [narrow_dense.WEIGHT_GRAD, plain_dense.WEIGHT_GRAD, *_of("dense_weight_grad", _DENSE)],
}
