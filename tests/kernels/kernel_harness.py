"""What the kernel tests share: arrays on the device, outputs that show what was not written, float64 references."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpucnn.device import Device, to_numpy

_GUARD = 64  # elements before and after an output


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
