"""Random changes to a batch of images, different for each image, with no Python loop over them.

An augmentation is a callable `(x, rng) -> x` on floating (N, C, H, W) arrays, which leaves its argument as it is, and has a
`config()` from which `augmentation` builds it again.

The kinds here draw with NumPy's generator and leave the work to the operations of gpucnn.ops. Those draw for themselves where a whole data
set lies on a device and batches are made there (`device_augment`): as much of everything, but other numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from gpucnn.checks import integer, positive
from gpucnn.errors import DataError
from gpucnn.ops.augment import Augment
from gpucnn.ops.cpu import batch
from gpucnn.text import plain, shortened, shown


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
        _whole(self, "pixels", 0)

    def __call__(self, x: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
        n, _, _, _ = _shape(x)
        top, left = rng.integers(0, 2 * self.pixels + 1, size=(2, n))
        return batch.shift(x, top, left, self.pixels)

    def config(self) -> dict[str, Any]:
        return {"name": "shift", **asdict(self)}


@dataclass(frozen=True)
class CropFlip:
    """Moves each image by up to `pixels` whole pixels, and exchanges left and right in half of them.

    What networks are trained with on CIFAR: a random crop of the image with a margin of zeros, and a random mirror image.
    """

    pixels: int = 4

    def __post_init__(self) -> None:
        _whole(self, "pixels", 0)

    def __call__(self, x: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
        n, _, _, _ = _shape(x)
        top, left = rng.integers(0, 2 * self.pixels + 1, size=(2, n))
        mirrored = rng.integers(0, 2, size=n) == 1
        return batch.flip(batch.shift(x, top, left, self.pixels), mirrored)

    def config(self) -> dict[str, Any]:
        return {"name": "crop-flip", **asdict(self)}


@dataclass(frozen=True)
class Cutout:
    """Sets a square of `pixels` a side to zero in each image, its centre anywhere in it (DeVries and Taylor 2017)."""

    pixels: int = 8

    def __post_init__(self) -> None:
        _whole(self, "pixels", 0)

    def __call__(self, x: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
        n, _, height, width = _shape(x)
        row, column = rng.integers(0, height, size=n), rng.integers(0, width, size=n)
        return batch.cutout(x, row, column, self.pixels)

    def config(self) -> dict[str, Any]:
        return {"name": "cutout", **asdict(self)}


@dataclass(frozen=True)
class Affine:
    """Turns, scales and moves each image about its centre, with bilinear interpolation and zeros outside.

    Each is drawn evenly: the turn from ± `rotate_degrees`, the factor from 1 ± `scale`, the move from ± `shift` pixels on each axis.
    """

    shift: float = 2.0
    rotate_degrees: float = 10.0
    scale: float = 0.1

    def __post_init__(self) -> None:
        _affine(self)

    def __call__(self, x: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
        n, _, _, _ = _shape(x)
        angle, factor, down, right = rng.uniform(-1, 1, size=(4, n, 1, 1))
        return batch.warp(x, np.deg2rad(self.rotate_degrees) * angle, 1 + self.scale * factor, self.shift * down, self.shift * right)

    def config(self) -> dict[str, Any]:
        return {"name": "affine", **asdict(self)}


@dataclass(frozen=True)
class Elastic:
    """Bends each image, and turns, scales and moves it as Affine does.

    `grid` × `grid` points, from corner to corner, are displaced by up to ± `pixels` on each axis; in between it is interpolated. See
    gpucnn.ops.augment for how this differs from the elastic distortions of Simard, Steinkraus and Platt (2003).
    """

    pixels: float = 2.0
    grid: int = 5
    shift: float = 1.0
    rotate_degrees: float = 10.0
    scale: float = 0.1

    def __post_init__(self) -> None:
        _number(self, "pixels")
        _whole(self, "grid", 2)
        _affine(self)

    def __call__(self, x: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
        n, _, _, _ = _shape(x)
        angle, factor, down, right = rng.uniform(-1, 1, size=(4, n, 1, 1))
        bend = self.pixels * rng.uniform(-1, 1, size=(2, n, self.grid, self.grid))
        return batch.warp(x, np.deg2rad(self.rotate_degrees) * angle, 1 + self.scale * factor, self.shift * down, self.shift * right, bend)

    def config(self) -> dict[str, Any]:
        return {"name": "elastic", **asdict(self)}


KINDS: dict[str, Callable[..., Augmentation]] = {
    "shift": Shift,
    "affine": Affine,
    "elastic": Elastic,
    "crop-flip": CropFlip,
    "cutout": Cutout,
}


def on_device(given: Callable[..., Any] | None) -> bool:
    """Whether a device can do by itself what this augmentation does: the kinds above, and none at all."""
    return given is None or type(given) in KINDS.values()


def device_augment(given: Callable[..., Any] | None) -> Augment | None:
    """An augmentation as the numbers that the operations of a device take; None where images stay as they are.

    Raises DataError for what only NumPy can do: functions of one's own, and classes derived from those above. `on_device` asks.
    """
    if given is None:
        return None
    if not on_device(given):
        name = getattr(given, "__qualname__", type(given).__qualname__)
        raise DataError(f"the augmentation {name} cannot be done on a device, only {', '.join(KINDS)} can: take batches from the host")
    augment = Augment()
    if isinstance(given, Shift):
        augment = Augment(shift=given.pixels)
    elif isinstance(given, CropFlip):
        augment = Augment(shift=given.pixels, flip=True)
    elif isinstance(given, Cutout):
        augment = Augment(cutout=given.pixels)
    elif isinstance(given, Affine):
        augment = Augment(rotate_degrees=given.rotate_degrees, scale=given.scale, translate=given.shift)
    elif isinstance(given, Elastic):
        augment = Augment(
            rotate_degrees=given.rotate_degrees,
            scale=given.scale,
            translate=given.shift,
            elastic=given.pixels,
            elastic_grid=given.grid,
        )
    return augment if augment.warps or augment.moves or augment.cutout else None


def _whole(owner: Any, name: str, least: int) -> None:
    object.__setattr__(owner, name, integer(getattr(owner, name), name, least, DataError))  # a frozen dataclass; NumPy's become Python's


def _number(owner: Any, name: str, most: float = np.inf, range_: str = "finite and at least 0") -> None:
    given = getattr(owner, name)
    value = positive(given, name, zero=True, error=DataError)
    if value > most:
        raise DataError(f"{name} must be {range_}, got {shown(given)}")
    object.__setattr__(owner, name, value if isinstance(given, float | np.floating) else given if isinstance(given, int) else int(given))


def _affine(owner: Any) -> None:
    _number(owner, "shift")
    _number(owner, "rotate_degrees", 360, "0 to 360")
    _number(owner, "scale", np.nextafter(1, 0), "at least 0 and under 1")


def _shape(x: NDArray[Any]) -> tuple[int, int, int, int]:
    if x.ndim != 4 or x.dtype.kind != "f":
        raise DataError(f"only floating images (N, C, H, W) can be augmented, got {x.dtype} {x.shape}")
    n, channels, height, width = x.shape
    return n, channels, height, width


def augmentation(given: str | Mapping[str, Any] | Augmentation | None) -> Augmentation | None:
    """The augmentation of a name ("none" and those of KINDS), of a config, or one that is there already; None for "none"."""
    if given is None or (isinstance(given, Augmentation) and not isinstance(given, type)):
        return given
    if not isinstance(given, str | Mapping):
        raise TypeError(f"an augmentation is given by its name, its config or itself, got {shown(given)}")
    config = {"name": given} if isinstance(given, str) else dict(given)
    name = config.pop("name", None)
    if name == "none" and not config:
        return None
    if name not in KINDS:
        raise DataError(f"there is no augmentation {shown(name)}: the names are none, {', '.join(KINDS)}")
    try:
        return KINDS[name](**config)
    except TypeError as error:
        raise TypeError(f"the augmentation {name!r} cannot be built from {shown(config)}: {shortened(plain(error), 200)}") from None
