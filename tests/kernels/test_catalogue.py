"""The catalogue's own windows are those that users get."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from gpucnn.ops.shapes import Window, conv_window, pool_window
from gpucnn_kernels.catalogue import CONV_SHAPES, DEPTHWISE_WINDOWS, POOL_SHAPES, ConvShape, PoolShape, all_entries


@pytest.mark.parametrize("shape", [*CONV_SHAPES, *POOL_SHAPES], ids=lambda shape: shape.name)
def test_windows(shape: ConvShape | PoolShape) -> None:
    expected: Window
    if isinstance(shape, ConvShape):
        expected = conv_window(shape.hw, shape.rs, shape.stride, shape.padding)
    else:
        expected = pool_window(shape.hw, shape.kernel, shape.stride, shape.padding)
    assert asdict(shape.window) == asdict(expected)  # type: ignore[call-overload]


def test_windows_of_depthwise_layers() -> None:
    expected = {
        "3x3": conv_window((112, 112), (3, 3), 1, 1),
        "3x3-stride-2": conv_window((112, 112), (3, 3), 2, 1),
        "5x5-stride-2": conv_window((56, 56), (5, 5), 2, 2),
        "3x3-dilation-2": conv_window((14, 14), (3, 3), 1, 2, dilation=2),
        "7x7": conv_window((56, 56), (7, 7), 1, 3),
    }
    given = {name: asdict(window) for name, window in DEPTHWISE_WINDOWS.items()}  # type: ignore[call-overload]
    assert given == {name: asdict(window) for name, window in expected.items()}


def test_names_are_different() -> None:
    names = [entry.name for entry in all_entries()]
    assert len(set(names)) == len(names)
