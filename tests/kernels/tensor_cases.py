"""Convolutions on which kernels on tensor cores are tried, and numbers as TF32 and bfloat16 have them.

Whole blocks of channels and ragged ones, strides, dilation, groups, padding on one side, tiles that are half empty.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from kernel_harness import normal

from gpucnn.ops.shapes import conv_window
from gpucnn_kernels.core.problem import BFLOAT16, FLOAT32, TF32
from gpucnn_kernels.tensor.parts import ENDING

SHAPES: dict[str, tuple[Any, ...]] = {  # images, channels, size, filters, kernel, stride, padding, dilation, groups
    "whole": (2, 32, (8, 9), 40, (3, 3), 1, 1, 1, 1),
    "many-filters": (1, 64, (9, 12), 130, (1, 1), 1, 0, 1, 1),
    "stride": (3, 32, (11, 9), 64, (3, 2), 2, 1, 1, 1),
    "dilation": (1, 33, (12, 12), 33, (3, 3), 1, 2, 2, 1),
    "few-channels": (2, 5, (10, 10), 24, (3, 3), (1, 2), 1, 1, 1),
    "groups": (2, 40, (7, 7), 36, (3, 3), 1, ((0, 1), (2, 0)), 1, 2),
    "one-position": (40, 9, (5, 5), 150, (5, 5), 1, 0, 1, 1),
}


def case(name: str, shapes: dict[str, tuple[Any, ...]] = SHAPES) -> tuple[Any, ...]:
    n, c, hw, k, kernel, stride, padding, dilation, groups = shapes[name]
    window = conv_window(hw, kernel, stride, padding, dilation)
    x = np.maximum(normal(1, n, c, *hw), 0)  # as ReLU leaves it, because its gradient is taken too
    return window, groups, x, normal(2, k, c // groups, *kernel), normal(3, k), normal(4, n, k, *window.output)


def kept(variant: str) -> int:
    """The bits that a variant's factors keep, by its name."""
    return next((bits for bits, ending in ENDING.items() if ending and variant.endswith(ending)), FLOAT32)


def rounded(array: Any, bits: int = TF32) -> Any:
    """An array in float64 with its numbers rounded to TF32, 11 bits, ties away from zero (PTX ISA, cvt.rna), or to bfloat16, 8 bits, ties
    to even; 24 bits are all."""
    numbers = np.ascontiguousarray(array, np.float32).view(np.uint32)
    if bits == TF32:
        numbers = (numbers + np.uint32(0x1000)) & np.uint32(0xFFFFE000)
    elif bits == BFLOAT16:
        numbers = (numbers + np.uint32(0x7FFF) + (numbers >> np.uint32(16) & np.uint32(1))) & np.uint32(0xFFFF0000)
    return numbers.view(np.float32).astype(np.float64)
