"""What there is to do: one operation on one shape, as the kernels are chosen for it."""

from __future__ import annotations

from dataclasses import dataclass

from gpucnn_kernels.core.launch import Pair, Window


@dataclass(frozen=True, slots=True)
class Problem:
    """An operation on n images or rows, from c channels or columns to k.

    Seen as a product of matrices it has M × N results, each a sum of `depth` terms, in each of `groups`. `channels`: where depth is
    channels × taps and each tap is filled up to whole blocks of channels, how many there are. `cuts`: whether the sums may be cut into
    slices, to be added up afterwards. `shape` is its name in tables of what is fastest.
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

    @property
    def key(self) -> str:
        """The name of operation and shape, as tables of what is fastest have it."""
        return f"{self.operation} {self.shape}"

    @property
    def fmas(self) -> int:
        """Multiplications with an addition each."""
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
    """What the choice of kernels depends on: the name that the driver has for a GPU, its multiprocessors, its compute capability."""

    name: str
    multiprocessors: int
    capability: Pair
