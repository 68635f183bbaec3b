"""Random changes to a batch of images, different for each image, with no Python loop over them.

An augmentation is a callable `(x, rng) -> x` on floating (N, C, H, W) arrays, which leaves its argument as it is, and has a
`config()` from which `augmentation` builds it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from gpucnn.errors import DataError


@runtime_checkable
class Augmentation(Protocol):
    """What `Batches` takes as `augment`."""

    def __call__(self, x: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]: ...

    def config(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Shift:
    """Moves each image by up to `pixels` whole pixels, vertically and horizontally, and fills with zeros."""

    pixels: int = 2

    def __post_init__(self) -> None:
        if isinstance(self.pixels, bool) or not isinstance(self.pixels, int):
            raise TypeError(f"pixels must be a whole number, got {self.pixels!r}")
        if self.pixels < 0:
            raise DataError(f"pixels must be at least 0, got {self.pixels}")

    def __call__(self, x: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
        p, (n, _, height, width) = self.pixels, _shape(x)
        top, left = rng.integers(0, 2 * p + 1, size=(2, n))
        padded = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)))
        # Every position of an H × W window in the padded image is one view; taking one per image copies whole rows.
        windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(2, 3))
        return np.ascontiguousarray(windows[np.arange(n), :, top, left])

    def config(self) -> dict[str, Any]:
        return {"name": "shift", **asdict(self)}


@dataclass(frozen=True)
class Affine:
    """Turns, scales and moves each image about its centre, with bilinear interpolation and zeros outside.

    Each is drawn evenly: the turn from ± `rotate_degrees`, the factor from 1 ± `scale`, the move from ± `shift` pixels on each axis.
    """

    shift: float = 2.0
    rotate_degrees: float = 10.0
    scale: float = 0.1

    def __post_init__(self) -> None:
        for name, value, most in (("shift", self.shift, np.inf), ("rotate_degrees", self.rotate_degrees, 360), ("scale", self.scale, 1)):
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TypeError(f"{name} must be a number, got {value!r}")
            if not 0 <= value <= most or value == np.inf or (name == "scale" and value == 1):
                range_ = {"shift": "finite and at least 0", "rotate_degrees": "0 to 360", "scale": "at least 0 and under 1"}[name]
                raise DataError(f"{name} must be {range_}, got {value!r}")

    def __call__(self, x: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
        n, channels, height, width = _shape(x)
        dtype = x.dtype
        angle, factor, down, right = rng.uniform(-1, 1, size=(4, n, 1, 1))
        angle, factor = np.deg2rad(self.rotate_degrees) * angle, 1 + self.scale * factor
        # Backwards: where in x does the pixel (row, column) of the result come from?
        cos, sin = (np.cos(angle) / factor).astype(dtype), (np.sin(angle) / factor).astype(dtype)
        middle, centre = (height - 1) / 2, (width - 1) / 2
        row = (np.arange(height)[:, None] - middle - self.shift * down).astype(dtype)  # (N, H, 1)
        column = (np.arange(width) - centre - self.shift * right).astype(dtype)  # (N, 1, W)
        y, x0 = cos * row - sin * column + dtype.type(middle), sin * row + cos * column + dtype.type(centre)

        # Two rings of zeros, one to interpolate towards and one for the right-hand neighbour of a clipped coordinate.
        padded = np.pad(x, ((0, 0), (0, 0), (1, 2), (1, 2)))
        y, x0 = np.clip(y, -1, height) + dtype.type(1), np.clip(x0, -1, width) + dtype.type(1)
        top, left = y.astype(np.int32), x0.astype(np.int32)  # not negative, so this rounds down
        fy, fx = (y - top).astype(dtype, copy=False)[:, None], (x0 - left).astype(dtype, copy=False)[:, None]
        stride, plane = width + 3, (height + 3) * (width + 3)
        start = (np.arange(n * channels, dtype=np.intp) * plane).reshape(n, channels, 1, 1)
        at = start + (top * stride + left)[:, None]
        flat = padded.ravel()
        upper: NDArray[Any] = flat[at]
        lower = flat[at + stride]
        upper += fx * (flat[at + 1] - upper)
        lower += fx * (flat[at + (stride + 1)] - lower)
        upper += fy * (lower - upper)
        return upper

    def config(self) -> dict[str, Any]:
        return {"name": "affine", **asdict(self)}


KINDS: dict[str, type[Shift] | type[Affine]] = {"shift": Shift, "affine": Affine}


def _shape(x: NDArray[Any]) -> tuple[int, int, int, int]:
    if x.ndim != 4 or x.dtype.kind != "f":
        raise DataError(f"only floating images (N, C, H, W) can be augmented, got {x.dtype} {x.shape}")
    n, channels, height, width = x.shape
    return n, channels, height, width


def augmentation(given: str | Mapping[str, Any] | Augmentation | None) -> Augmentation | None:
    """The augmentation of a name ("none", "shift", "affine"), of a config, or one that is there already; None for "none"."""
    if given is None or (isinstance(given, Augmentation) and not isinstance(given, type)):
        return given
    if not isinstance(given, str | Mapping):
        raise TypeError(f"an augmentation is given by its name, its config or itself, got {given!r}")
    config = {"name": given} if isinstance(given, str) else dict(given)
    name = config.pop("name", None)
    if name == "none" and not config:
        return None
    if name not in KINDS:
        raise DataError(f"there is no augmentation {name!r}: the names are none, {', '.join(KINDS)}")
    try:
        return KINDS[name](**config)
    except TypeError as error:
        raise TypeError(f"the augmentation {name!r} cannot be built from {config}: {error}") from None
