"""The catalogue's own windows are those that users get."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from gpucnn.ops.shapes import Window, conv_window, pool_window
from gpucnn_kernels.catalogue import CONV_SHAPES, ENGINE_ENTRIES, ENTRIES, POOL_SHAPES, ConvShape, PoolShape, shape_entries


@pytest.mark.parametrize("shape", [*CONV_SHAPES, *POOL_SHAPES], ids=lambda shape: shape.name)
def test_windows(shape: ConvShape | PoolShape) -> None:
    expected: Window
    if isinstance(shape, ConvShape):
        expected = conv_window(shape.hw, shape.rs, shape.stride, shape.padding)
    else:
        expected = pool_window(shape.hw, shape.kernel, shape.stride, shape.padding)
    assert asdict(shape.window) == asdict(expected)  # type: ignore[call-overload]


def test_names_are_different() -> None:
    names = [entry.name for entry in (*ENTRIES, *ENGINE_ENTRIES, *shape_entries())]
    assert len(set(names)) == len(names)
