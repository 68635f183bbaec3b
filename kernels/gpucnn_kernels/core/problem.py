"""A problem: one operation on one shape, the input for selecting kernels."""

from __future__ import annotations

from dataclasses import dataclass

from gpucnn_kernels.core.launch import Pair, Window

FLOAT32, TF32, BFLOAT16 = 24, 11, 8
"""Bits of a factor, with the leading one that is not stored."""
KINDS = (FLOAT32, TF32, BFLOAT16)
_IN = {FLOAT32: "", TF32: " in TF32", BFLOAT16: " in bfloat16"}


@dataclass(frozen=True, slots=True)
class Problem:
    """An operation on n images or rows, from c channels or columns to k.

    As a matrix product it has M × N results, each a sum of `depth` terms, in each of `groups`. `channels`: the number of channels where
    depth is channels × taps and each tap is padded to whole blocks of channels. `cuts`: whether the sums may be cut into slices that are
    added up afterwards. `bits`: what factors keep at least of a float32's: all 24, TF32's 11, or bfloat16's 8. `shape` is its name
    in the tables of tuned.py.
    """

    operation: str
    shape: str
    n: int
    c: int
    k: int
    M: int
    N: int
    depth: int
    window: Window | None = None
    pool_window: Window | None = None
    groups: int = 1
    channels: int = 0
    cuts: bool = False
    bits: int = FLOAT32

    @property
    def key(self) -> str:
        """The name of operation and shape in the tables of tuned.py."""
        return f"{self.operation} {self.shape}{_IN[self.bits]}"

    @property
    def fmas(self) -> int:
        """The number of FMAs."""
        return self.groups * self.M * self.N * self.depth

    @property
    def windowed(self) -> Window:
        """The window of a convolution."""
        assert self.window is not None
        return self.window

    @property
    def pooled(self) -> Window:
        """The window of the pooling behind a convolution."""
        assert self.pool_window is not None
        return self.pool_window


@dataclass(frozen=True, slots=True)
class Chip:
    """The facts about a GPU that the selection depends on: its name, number of multiprocessors and compute capability."""

    name: str
    multiprocessors: int
    capability: Pair
