"""The operations on NumPy arrays, float32 or float64: roads.py says what computes them. NumPy is the reference for every kernel."""

import gpucnn.arrays
from gpucnn.ops.cpu.activations import sigmoid, sigmoid_grad, softmax, softmax_grad
from gpucnn.ops.cpu.batch import gather_batch, permutation
from gpucnn.ops.cpu.dropout import next_call
from gpucnn.ops.cpu.join import add_bias, copied
from gpucnn.ops.cpu.local import locally_connected2d, locally_connected2d_input_grad, locally_connected2d_weight_grad
from gpucnn.ops.cpu.loss import binary_cross_entropy, hinge, mean_squared_error, root_mean_squared_error
from gpucnn.ops.cpu.planes import (
    global_avg_pool2d,
    global_avg_pool2d_grad,
    global_max_pool2d,
    global_max_pool2d_grad,
    zero_pad2d,
    zero_pad2d_grad,
)
from gpucnn.ops.cpu.roads import (
    adam_update,
    add,
    avg_pool2d,
    avg_pool2d_grad,
    batch_norm,
    batch_norm_apply,
    batch_norm_grad,
    bias_grad,
    conv2d,
    conv2d_input_grad,
    conv2d_relu_max_pool2d,
    conv2d_relu_max_pool2d_weight_grad,
    conv2d_weight_grad,
    dense,
    dense_input_grad,
    dense_weight_grad,
    dropout,
    max_pool2d,
    max_pool2d_grad,
    relu,
    relu_grad,
    sgd_update,
    softmax_cross_entropy,
)
from gpucnn.ops.cpu.tally import tally
from gpucnn.ops.cpu.units import elu, elu_grad, gelu, gelu_grad, leaky_relu, leaky_relu_grad, silu, silu_grad, tanh, tanh_grad

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

for _name in __all__:  # whatever the caller has told NumPy to raise: see `quiet`
    globals()[_name] = gpucnn.arrays.quiet(globals()[_name])
