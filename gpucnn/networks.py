"""Networks by name: the reference networks, known from the MNIST chapters of textbooks and tutorials, and small forms of well-known
families for grey or colour images of 28 × 28 to 32 × 32."""

from __future__ import annotations

from collections.abc import Callable

from gpucnn.checks import integer
from gpucnn.layers import AvgPool2D, BatchNorm2D, Conv2D, Dense, Dropout, Flatten, GlobalAvgPool2D, Layer, MaxPool2D
from gpucnn.layers.blocks import depthwise_block, inception, residual_block
from gpucnn.model import Sequential
from gpucnn.names import Registry
from gpucnn.optimizers import SGD, Adam, Optimizer

NETWORKS: Registry[Callable[[int], list[Layer]]] = Registry("model")
"""Functions that make the layers of a network for so many classes, raw outputs last."""
_OPTIMIZERS: dict[str, Callable[[], Optimizer]] = {"lenet5x5": lambda: SGD(0.01, momentum=0.9)}
"""The optimizers of the textbooks that do not use Adam."""


@NETWORKS.add("keras")
def _keras(classes: int) -> list[Layer]:
    return [
        Conv2D(32, 3, activation="relu"),
        MaxPool2D(2),
        Flatten(),
        Dense(256, activation="relu"),
        Dense(classes),
    ]


@NETWORKS.add("tf2")
def _tf2(classes: int) -> list[Layer]:
    return [
        Conv2D(64, 3, activation="relu"),
        MaxPool2D(2),
        Conv2D(64, 3, activation="relu"),
        Flatten(),
        Dense(128, activation="relu"),
        Dense(classes),
    ]


@NETWORKS.add("lenet5x5")
def _lenet5x5(classes: int) -> list[Layer]:
    return [
        Conv2D(32, 5, padding="same", activation="relu"),
        MaxPool2D(2),
        Conv2D(64, 5, padding="same", activation="relu"),
        MaxPool2D(2),
        Flatten(),
        Dense(1024, activation="relu"),
        Dropout(0.5),
        Dense(classes),
    ]


@NETWORKS.add("lenet5")
def _lenet5(classes: int) -> list[Layer]:
    """LeCun, Bottou, Bengio and Haffner, "Gradient-Based Learning Applied to Document Recognition" (1998), with its average pooling and
    tanh; images of 28 × 28 are padded as in the paper."""
    return [
        Conv2D(6, 5, padding="same", activation="tanh"),
        AvgPool2D(2),
        Conv2D(16, 5, activation="tanh"),
        AvgPool2D(2),
        Flatten(),
        Dense(120, activation="tanh"),
        Dense(84, activation="tanh"),
        Dense(classes),
    ]


@NETWORKS.add("alexnet")
def _alexnet(classes: int) -> list[Layer]:
    """Krizhevsky, Sutskever and Hinton, "ImageNet Classification with Deep Convolutional Neural Networks" (2012): five convolutions,
    overlapping pooling, three dense layers with dropout."""
    return [
        Conv2D(32, 5, padding="same", activation="relu"),
        MaxPool2D(3, stride=2),
        Conv2D(64, 5, padding="same", activation="relu"),
        MaxPool2D(3, stride=2),
        Conv2D(96, 3, padding="same", activation="relu"),
        Conv2D(96, 3, padding="same", activation="relu"),
        Conv2D(64, 3, padding="same", activation="relu"),
        MaxPool2D(3, stride=2),
        Flatten(),
        Dropout(0.5),
        Dense(256, activation="relu"),
        Dropout(0.5),
        Dense(256, activation="relu"),
        Dense(classes),
    ]


@NETWORKS.add("vgg")
def _vgg(classes: int) -> list[Layer]:
    """Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition" (2015): 3 × 3 in pairs, then pooling."""
    return [
        *(layer for filters in (32, 64, 128) for layer in (*_pair(filters), MaxPool2D(2))),
        Flatten(),
        Dense(256, activation="relu"),
        Dropout(0.5),
        Dense(classes),
    ]


def _pair(filters: int) -> tuple[Layer, Layer]:
    return Conv2D(filters, 3, padding="same", activation="relu"), Conv2D(filters, 3, padding="same", activation="relu")


@NETWORKS.add("inception")
def _inception(classes: int) -> list[Layer]:
    """Szegedy and others, "Going Deeper with Convolutions" (2015): convolutions of several sizes in parallel."""
    return [
        Conv2D(32, 3, padding="same", activation="relu"),
        MaxPool2D(2),
        inception(16, (16, 32), (8, 16), 16),
        inception(32, (32, 48), (8, 24), 24),
        MaxPool2D(2),
        inception(48, (48, 64), (12, 32), 32),
        GlobalAvgPool2D(),
        Dropout(0.2),
        Dense(classes),
    ]


@NETWORKS.add("resnet")
def _resnet(classes: int) -> list[Layer]:
    """He, Zhang, Ren and Sun, "Deep Residual Learning for Image Recognition" (2016): their network for small images, with 14 layers."""
    return [
        Conv2D(16, 3, padding="same", use_bias=False),
        BatchNorm2D(activation="relu"),
        *(residual_block(filters, stride=stride) for filters, stride in ((16, 1), (16, 1), (32, 2), (32, 1), (64, 2), (64, 1))),
        GlobalAvgPool2D(),
        Dense(classes),
    ]


@NETWORKS.add("mobilenet")
def _mobilenet(classes: int) -> list[Layer]:
    """Howard and others, "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications" (2017)."""
    blocks = (depthwise_block(filters, stride=stride) for filters, stride in ((32, 1), (64, 2), (64, 1), (128, 2), (128, 1)))
    return [
        Conv2D(16, 3, padding="same", use_bias=False),
        BatchNorm2D(activation="relu"),
        *blocks,
        GlobalAvgPool2D(),
        Dense(classes),
    ]


def textbook_optimizer(name: str) -> Optimizer:
    """The optimizer that is profiled with a network: the one of its textbook. Measured times in the documents depend on it."""
    return _OPTIMIZERS.get(name, lambda: Adam(1e-3))()


def network(name: str, classes: int = 10) -> Sequential:
    """The network called `name` in NETWORKS, unbuilt, with raw outputs for `classes` classes."""
    return Sequential(NETWORKS.pick(name)(integer(classes, "classes", 1)))
