"""Convolution whose only window is the whole image, without padding: a dense layer. 1×1 images of many channels come to it, and the layers
before and after a network's planes end."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gpucnn_loops.after import Norm, after_sums
from gpucnn_loops.dense import dense, dense_input_grad, dense_weight_grad
from gpucnn_loops.elementwise import add
from gpucnn_loops.norm import normalize
from gpucnn_loops.sums import column_sums
from gpucnn_loops.tables import Window, one_window

Array = NDArray[np.float32]


def fits(window: Window, groups: int) -> bool:
    """Whether a convolution has one window, of all pixels."""
    return groups == 1 and one_window(window)


class Whole:
    """The plan of a convolution that `fits`. x (N, C, H, W), weight (K, C, H, W), y and dy (N, K, 1, 1)."""

    parts = False  # images lie right behind one another

    def forward(
        self, x: Array, weight: Array, bias: Array | None, relu: bool, y: Array, norm: Norm | None = None, added: Array | None = None
    ) -> None:
        """y = convolution of x, plus bias, then batch normalization, plus `added`, then ReLU."""
        dense(_rows(x), _rows(weight), bias, relu and norm is None and added is None, _rows(y))
        if norm is not None:
            (vectors,), _after = after_sums(len(weight), len(weight), 1, norm=norm)
            _bias, mean, scale, shift = vectors
            normalize(y, mean, scale, shift, relu and added is None, y)
        if added is not None:
            add(y, added, relu, None, y)

    def input_grad(self, dy: Array, weight: Array, relu: Array | None, dx: Array) -> None:
        """dx from dy; 0 where `relu`, if given, is not positive."""
        dense_input_grad(_rows(dy), _rows(weight), None if relu is None else _rows(relu), _rows(dx))

    def weight_grad(self, dy: Array, x: Array, dweight: Array, dbias: Array | None) -> None:
        """dweight (K, C, H, W), and dbias (K)."""
        dense_weight_grad(_rows(dy), _rows(x), _rows(dweight))
        if dbias is not None:
            column_sums(_rows(dy), dbias)


def _rows(array: Array) -> Array:
    return array.reshape(len(array), -1)
