"""Well-known networks for images of 224 × 224 and 1000 classes, for against_pytorch.py: how they are made of this library's layers."""

from __future__ import annotations

from collections.abc import Callable

import gpucnn as gc
from gpucnn.layers import BatchNorm2D, Conv2D, Dense, Flatten, GlobalAvgPool2D, Layer, MaxPool2D, Residual
from gpucnn.layers.blocks import depthwise_block, residual_block

SHAPE, CLASSES = (3, 224, 224), 1000


def _conv(filters: int, kernel: int, stride: int = 1, activation: str | None = "relu") -> list[Layer]:
    """A convolution, batch normalization and, unless `activation` is None, ReLU."""
    return [
        Conv2D(filters, kernel, stride=stride, padding=kernel // 2, use_bias=False),
        BatchNorm2D(activation=activation),
    ]


def _bottleneck(filters: int, stride: int, first: bool) -> Residual:
    """1×1, 3×3, 1×1, the last with four times as many filters. Beside them, in the first block of a stage, is a 1×1 convolution."""
    layers = [*_conv(filters, 1), *_conv(filters, 3, stride), *_conv(4 * filters, 1, activation=None)]
    return Residual(*layers, shortcut=_conv(4 * filters, 1, stride, None) if first else None, activation="relu")


def _ended(*layers: Layer) -> list[Layer]:
    return [*layers, GlobalAvgPool2D(), Dense(CLASSES)]


def _resnet18() -> list[Layer]:
    """He, Zhang, Ren and Sun, "Deep Residual Learning for Image Recognition" (2016), the one with 18 layers."""
    stages = ((64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1))
    return _ended(
        *_conv(64, 7, 2), MaxPool2D(3, stride=2, padding=1), *(residual_block(filters, stride=stride) for filters, stride in stages)
    )


def _resnet50() -> list[Layer]:
    """The one with 50 layers; where a stage halves the image, the 3×3 convolution has the stride, as in most libraries."""
    stages = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))
    blocks = (_bottleneck(filters, 1 if i else stride, i == 0) for filters, count, stride in stages for i in range(count))
    return _ended(*_conv(64, 7, 2), MaxPool2D(3, stride=2, padding=1), *blocks)


def _vgg11() -> list[Layer]:
    """Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition" (2015): configuration A, no dropout."""
    layers: list[Layer] = []
    for filters, count in ((64, 1), (128, 1), (256, 2), (512, 2), (512, 2)):
        layers += [*(Conv2D(filters, 3, padding="same", activation="relu") for _ in range(count)), MaxPool2D(2)]
    return [*layers, Flatten(), Dense(4096, activation="relu"), Dense(4096, activation="relu"), Dense(CLASSES)]


def _mobilenet() -> list[Layer]:
    """Howard and others, "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications" (2017)."""
    stages = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))
    return _ended(*_conv(32, 3, 2), *(depthwise_block(filters, stride=stride) for filters, stride in stages))


NETWORKS: dict[str, Callable[[], list[Layer]]] = {
    "resnet18": _resnet18,
    "resnet50": _resnet50,
    "vgg11": _vgg11,
    "mobilenet224": _mobilenet,
}


def shape_of(name: str) -> tuple[int, int, int]:
    """The shape of an image for one of these, or for a network of gpucnn's."""
    return SHAPE if name in NETWORKS else (1, 28, 28)


def built(name: str) -> gc.Sequential:
    """One of these, or a network of gpucnn's, built on the CPU."""
    network = gc.Sequential(NETWORKS[name]()) if name in NETWORKS else gc.network(name)
    return network.build(shape_of(name), device="cpu")
