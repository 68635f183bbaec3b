"""The activations by name, and the operations that each consists of."""

from __future__ import annotations

from dataclasses import dataclass

from gpucnn.names import Registry


@dataclass(frozen=True)
class Activation:
    """The names of an activation's operations, and what its gradient is computed from."""

    apply: str
    grad: str
    of_input: bool = False  # from its input; otherwise from its output
    like_relu: bool = False  # about half of its outputs are near zero, which initial weights make up for


ACTIVATIONS: Registry[Activation] = Registry("activation")
ACTIVATIONS |= {
    "relu": Activation("relu", "relu_grad", like_relu=True),
    "sigmoid": Activation("sigmoid", "sigmoid_grad"),
    "softmax": Activation("softmax", "softmax_grad"),
    "tanh": Activation("tanh", "tanh_grad"),
    "leaky_relu": Activation("leaky_relu", "leaky_relu_grad", like_relu=True),
    "elu": Activation("elu", "elu_grad", like_relu=True),
    "gelu": Activation("gelu", "gelu_grad", of_input=True, like_relu=True),
    "silu": Activation("silu", "silu_grad", of_input=True, like_relu=True),
    "relu6": Activation("relu6", "relu6_grad", like_relu=True),
    "hard_sigmoid": Activation("hard_sigmoid", "hard_sigmoid_grad"),
    "hard_swish": Activation("hard_swish", "hard_swish_grad", of_input=True, like_relu=True),
}


def named(activation: str | None) -> str | None:
    """The registered name of an activation; None for none, which Keras calls "linear"."""
    none = activation is None or (isinstance(activation, str) and activation == "linear")
    return None if none else ACTIVATIONS.first(activation)
