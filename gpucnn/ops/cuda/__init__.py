"""The operations on CuPy arrays, float32: Numba kernels. Under Numba's simulator, on NumPy arrays."""

from gpucnn.ops.cuda.activations import relu, relu_grad, sigmoid, sigmoid_grad, softmax, softmax_grad
from gpucnn.ops.cuda.batch import gather_batch, permutation
from gpucnn.ops.cuda.conv import bias_grad, conv2d, conv2d_input_grad, conv2d_weight_grad
from gpucnn.ops.cuda.dense import dense, dense_input_grad, dense_weight_grad
from gpucnn.ops.cuda.dropout import dropout, next_call
from gpucnn.ops.cuda.fused import conv2d_relu_max_pool2d, conv2d_relu_max_pool2d_weight_grad
from gpucnn.ops.cuda.join import add, add_bias, copied
from gpucnn.ops.cuda.local import locally_connected2d, locally_connected2d_input_grad, locally_connected2d_weight_grad
from gpucnn.ops.cuda.loss import binary_cross_entropy, hinge, mean_squared_error, root_mean_squared_error, softmax_cross_entropy
from gpucnn.ops.cuda.norm import batch_norm, batch_norm_apply, batch_norm_grad
from gpucnn.ops.cuda.planes import (
    global_avg_pool2d,
    global_avg_pool2d_grad,
    global_max_pool2d,
    global_max_pool2d_grad,
    zero_pad2d,
    zero_pad2d_grad,
)
from gpucnn.ops.cuda.pool import avg_pool2d, avg_pool2d_grad, max_pool2d, max_pool2d_grad
from gpucnn.ops.cuda.tally import tally
from gpucnn.ops.cuda.units import elu, elu_grad, gelu, gelu_grad, leaky_relu, leaky_relu_grad, silu, silu_grad, tanh, tanh_grad
from gpucnn.ops.cuda.update import adam_update, sgd_update

__all__ = [
    "adam_update",
    "add",
    "add_bias",
    "avg_pool2d",
    "avg_pool2d_grad",
    "batch_norm",
    "batch_norm_apply",
    "batch_norm_grad",
    "bias_grad",
    "binary_cross_entropy",
    "conv2d",
    "conv2d_input_grad",
    "conv2d_relu_max_pool2d",
    "conv2d_relu_max_pool2d_weight_grad",
    "conv2d_weight_grad",
    "copied",
    "dense",
    "dense_input_grad",
    "dense_weight_grad",
    "dropout",
    "elu",
    "elu_grad",
    "gather_batch",
    "gelu",
    "gelu_grad",
    "global_avg_pool2d",
    "global_avg_pool2d_grad",
    "global_max_pool2d",
    "global_max_pool2d_grad",
    "hinge",
    "leaky_relu",
    "leaky_relu_grad",
    "locally_connected2d",
    "locally_connected2d_input_grad",
    "locally_connected2d_weight_grad",
    "max_pool2d",
    "max_pool2d_grad",
    "mean_squared_error",
    "next_call",
    "permutation",
    "relu",
    "relu_grad",
    "root_mean_squared_error",
    "sgd_update",
    "sigmoid",
    "sigmoid_grad",
    "silu",
    "silu_grad",
    "softmax",
    "softmax_cross_entropy",
    "softmax_grad",
    "tally",
    "tanh",
    "tanh_grad",
    "zero_pad2d",
    "zero_pad2d_grad",
]
