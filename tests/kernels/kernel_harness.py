"""What the kernel tests share: arrays on the device, outputs that show what was not written, float64 references, the error of a warp."""

from __future__ import annotations

import sys
from collections.abc import Container, Iterable
from typing import Any

import numpy as np
import pytest

from gpucnn.device import Device, simulated, to_numpy
from gpucnn.ops.augment import Augment
from tolerances import ROUNDOFF

REAL = not simulated() and "vgpu" not in sys.modules
"""Whether kernels run on a GPU, if they run; on the virtual one, whose plugin vgpu-run has pytest load, sizes are smaller."""

COMPILED = () if simulated() else (pytest.mark.slow,)
"""Marks of cases whose kernels, made for them alone, take long to compile; the simulator compiles nothing."""

_GUARD = 64  # elements before and after an output


def cases(named: Iterable[str], quick: Container[str]) -> list[Any]:
    """The names of cases as parameters: all in the simulator; where each is compiled the quick ones, and the rest in make slow."""
    return [pytest.param(name, marks=() if name in quick else COMPILED) for name in named]


class Output:
    """An array for a kernel to write to, filled with NaN (or −1), in the middle of a longer one that must stay as it is."""

    def __init__(self, device: Device, shape: tuple[int, ...], dtype: str = "float32") -> None:
        self.size = int(np.prod(shape))
        self.fill = np.nan if dtype == "float32" else -1
        self.buffer = device.xp.full(self.size + 2 * _GUARD, self.fill, dtype)
        self.array = self.buffer[_GUARD : _GUARD + self.size].reshape(shape)

    def result(self, nan: bool = False) -> Any:
        """The array as NumPy's, once it is sure that all of it was written (`nan`: NaN may be) and nothing beside it."""
        everything = to_numpy(self.buffer)
        untouched = np.isnan(everything) if np.isnan(self.fill) else everything == self.fill
        inside = slice(_GUARD, _GUARD + self.size)
        assert untouched[:_GUARD].all(), "written before the beginning"
        assert untouched[inside.stop :].all(), "written past the end"
        assert nan or not untouched[inside].any(), "not all of it was written"
        return to_numpy(self.array)


def normal(seed: int, *shape: int) -> Any:
    """Random numbers, float32, the same every time."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def distinct(seed: int, *shape: int) -> Any:
    """Numbers in random order of which no two are equal, of both signs."""
    size = int(np.prod(shape))
    return (np.random.default_rng(seed).permutation(size).astype(np.float32) - size / 3).reshape(shape)


def double(array: Any) -> Any:
    return array.astype(np.float64)


def warp_bound(images: Any, augment: Augment) -> float:
    """How far a warped pixel may be off: how far the place it comes from is, times how steep the image is, and the roundings after.

    In units of u, half of the distance from 1 to the next number, and to first order: with angles of θ at most, the kernel's angle is off
    by 2θ (its factor in quarter turns and the product are rounded), its reduction, π/2 and its product by 2 · 0.8, and the polynomials
    by 2; so cosine and sine are by 2θ + 4. Over the factor, which is rounded at 1 ± s with a rounded s, and whose reciprocal and
    product are: 4 roundings more, of 1 / (1 − s), and that of the factor itself is up to 3 / (1 − s) of it. A row less the middle and
    the move: 3 roundings; its product and the sums: 4. That times the reach, a row and a column from the centre, each with a move.
    Displacements: a node's place is off by 2 (its ratio and the product) of up to G − 1 cells, times up to 2 · elastic a cell and axis;
    the interpolation by 6 roundings of up to twice the range. Bilinear interpolation is continuous, at the edges too: within a pixel it
    changes by no more than the largest step between neighbours, counting the zeros outside. Another 8 roundings are those of its own.
    """
    height, width = images.shape[2:]
    scale = images.max() / (255 if images.dtype == np.uint8 else 1)
    padded = np.pad(double(images), ((0, 0), (0, 0), (1, 1), (1, 1))) * (scale / images.max())
    steepest = max(np.abs(np.diff(padded, axis=axis)).max() for axis in (2, 3))
    theta, least = np.deg2rad(augment.rotate_degrees), 1 - augment.scale
    reach = (height + width) / 2 + 2 * augment.translate
    place = (2 * theta + 4 + 4 + 3 / least + 3 + 4) * reach / least + (height + width) / 2
    place += augment.elastic * (2 * 2 * 2 * (augment.elastic_grid - 1) + 6 * 2 + 2)
    return float(ROUNDOFF["float32"] * (2 * place * steepest + 8 * scale))
