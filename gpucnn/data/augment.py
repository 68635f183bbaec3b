"""Random changes to a batch of images, different for each image, without a Python loop over them.

An augmentation is a callable `(x, rng) -> x` on floating (N, C, H, W) arrays, which leaves its argument as it is, and has a
`config()` from which `augmentation` builds it again.

The augmentations here draw with NumPy's generator and leave the work to the operations of gpucnn.ops. If a whole data set is on a device,
these operations draw by themselves (`device_augment`), from the same distributions but with other numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from gpucnn.checks import integer, positive
from gpucnn.errors import ArgumentError, DataError
from gpucnn.names import Registry
from gpucnn.ops.augment import Augment
from gpucnn.ops.cpu import batch
from gpucnn.text import plain, shortened, shown


@runtime_checkable
class Augmentation(Protocol):
    """The type of an augmentation: (x, rng) -> x, of floats (N, C, H, W), which leaves its argument as it is, and has a `config()`."""

    def __call__(self, x: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]: ...

    def config(self) -> dict[str, Any]: ...


class RandomChange:
    """Base class of the augmentations that have a name. Attributes are arguments of the constructor, as in a dataclass. A subclass
    implements `__call__(x, rng)`, which returns changed images (N, C, H, W), floats, and leaves x as it is; or `draws` and `change`
    instead, so that each of several ranks changes its own images."""

    @classmethod
    def for_side(cls, side: int) -> RandomChange:
        """An instance with a strength that suits images whose shorter side has `side` pixels, as `gpucnn train` uses it."""
        return cls()

    def __call__(self, x: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
        return self.change(x, *self.draws(_shape(x), rng))

    def of_part(self, x: NDArray[Any], rng: np.random.Generator, size: int, own: slice) -> NDArray[Any]:
        """The part of what `__call__` would return for the whole batch of `size` images that belongs to the slice `own`; x holds those
        images."""
        shape = (size, *_shape(x)[1:])
        return self.change(x, *(drawn[own] for drawn in self.draws(shape, rng)))

    def draws(self, shape: tuple[int, int, int, int], rng: np.random.Generator) -> Sequence[NDArray[Any]]:
        """Everything random for a batch of `shape` (N, C, H, W), in arrays whose first axis is N."""
        raise NotImplementedError

    def change(self, x: NDArray[Any], *drawn: NDArray[Any]) -> NDArray[Any]:
        """Images (N, C, H, W) changed according to `draws`."""
        raise NotImplementedError

    def config(self) -> dict[str, Any]:
        """The settings from which `augmentation` builds the same one again."""
        known = (AUGMENTATIONS.name_of(kind) for kind in type(self).__mro__)
        return {"name": next((name for name in known if name), type(self).__qualname__), **vars(self)}

    def on_device(self) -> Augment | None:
        """The settings for a device's own operations, for classes that have them. They must make exactly the changes that `__call__`
        makes."""
        return None


AUGMENTATIONS: Registry[type[RandomChange]] = Registry("augmentation")


@AUGMENTATIONS.add("shift")
@dataclass(frozen=True)
class Shift(RandomChange):
    """Shifts each image by up to `pixels` whole pixels, vertically and horizontally, and fills with zeros."""

    pixels: int = 2

    def __post_init__(self) -> None:
        _whole(self, "pixels", 0)

    def draws(self, shape: tuple[int, int, int, int], rng: np.random.Generator) -> Sequence[NDArray[Any]]:
        return rng.integers(0, 2 * self.pixels + 1, size=(2, shape[0]))  # type: ignore[return-value]

    def change(self, x: NDArray[Any], *drawn: NDArray[Any]) -> NDArray[Any]:
        top, left = drawn
        return batch.shift(x, top, left, self.pixels)

    @classmethod
    def for_side(cls, side: int) -> Shift:
        return cls(max(1, side // 28))

    def on_device(self) -> Augment:
        return Augment(shift=self.pixels)


@AUGMENTATIONS.add("crop-flip")
@dataclass(frozen=True)
class CropFlip(RandomChange):
    """Shifts each image by up to `pixels` whole pixels, and flips half of them left to right.

    The usual changes for CIFAR: a random crop of the image with a margin of zeros, and a random mirror image.
    """

    pixels: int = 4

    def __post_init__(self) -> None:
        _whole(self, "pixels", 0)

    def draws(self, shape: tuple[int, int, int, int], rng: np.random.Generator) -> Sequence[NDArray[Any]]:
        top, left = rng.integers(0, 2 * self.pixels + 1, size=(2, shape[0]))
        return top, left, rng.integers(0, 2, size=shape[0]) == 1

    def change(self, x: NDArray[Any], *drawn: NDArray[Any]) -> NDArray[Any]:
        top, left, mirrored = drawn
        return batch.flip(batch.shift(x, top, left, self.pixels), mirrored)

    @classmethod
    def for_side(cls, side: int) -> CropFlip:
        return cls(max(1, side // 8))

    def on_device(self) -> Augment:
        return Augment(shift=self.pixels, flip=True)


@AUGMENTATIONS.add("cutout")
@dataclass(frozen=True)
class Cutout(RandomChange):
    """Sets a square of `pixels` × `pixels` to zero in each image, centred anywhere in it (DeVries and Taylor 2017)."""

    pixels: int = 8

    def __post_init__(self) -> None:
        _whole(self, "pixels", 0)

    def draws(self, shape: tuple[int, int, int, int], rng: np.random.Generator) -> Sequence[NDArray[Any]]:
        n, _, height, width = shape
        return rng.integers(0, height, size=n), rng.integers(0, width, size=n)

    def change(self, x: NDArray[Any], *drawn: NDArray[Any]) -> NDArray[Any]:
        row, column = drawn
        return batch.cutout(x, row, column, self.pixels)

    @classmethod
    def for_side(cls, side: int) -> Cutout:
        return cls(max(1, side // 2))

    def on_device(self) -> Augment:
        return Augment(cutout=self.pixels)


@AUGMENTATIONS.add("affine")
@dataclass(frozen=True)
class Affine(RandomChange):
    """Rotates, scales and shifts each image about its centre, with bilinear interpolation and zeros outside.

    All are drawn uniformly: the angle from ± `rotate_degrees`, the factor from 1 ± `scale`, the shift from ± `shift` pixels on each axis.
    """

    shift: float = 2.0
    rotate_degrees: float = 10.0
    scale: float = 0.1

    def __post_init__(self) -> None:
        _affine(self)

    def draws(self, shape: tuple[int, int, int, int], rng: np.random.Generator) -> Sequence[NDArray[Any]]:
        return rng.uniform(-1, 1, size=(4, shape[0], 1, 1))  # type: ignore[return-value]

    def change(self, x: NDArray[Any], *drawn: NDArray[Any]) -> NDArray[Any]:
        angle, factor, down, right = drawn
        return batch.warp(x, np.deg2rad(self.rotate_degrees) * angle, 1 + self.scale * factor, self.shift * down, self.shift * right)

    @classmethod
    def for_side(cls, side: int) -> Affine:
        return cls(side / 16, 8.0, 0.08)

    def on_device(self) -> Augment:
        return Augment(rotate_degrees=self.rotate_degrees, scale=self.scale, translate=self.shift)


@AUGMENTATIONS.add("elastic")
@dataclass(frozen=True)
class Elastic(RandomChange):
    """Distorts each image elastically, and rotates, scales and shifts it as Affine does.

    `grid` × `grid` points, from corner to corner, are displaced by up to ± `pixels` on each axis, and displacements in between are
    interpolated. See gpucnn.ops.augment for how this differs from the elastic distortions of Simard, Steinkraus and Platt (2003).
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

    def draws(self, shape: tuple[int, int, int, int], rng: np.random.Generator) -> Sequence[NDArray[Any]]:
        angle, factor, down, right = rng.uniform(-1, 1, size=(4, shape[0], 1, 1))
        bend = self.pixels * rng.uniform(-1, 1, size=(2, shape[0], self.grid, self.grid))
        return angle, factor, down, right, bend.swapaxes(0, 1)

    def change(self, x: NDArray[Any], *drawn: NDArray[Any]) -> NDArray[Any]:
        angle, factor, down, right, bend = *drawn[:4], drawn[4].swapaxes(0, 1)
        return batch.warp(x, np.deg2rad(self.rotate_degrees) * angle, 1 + self.scale * factor, self.shift * down, self.shift * right, bend)

    @classmethod
    def for_side(cls, side: int) -> Elastic:
        return cls(side / 16, 5, side / 28, 8.0, 0.08)

    def on_device(self) -> Augment:
        turned = Affine(self.shift, self.rotate_degrees, self.scale).on_device()
        return replace(turned, elastic=self.pixels, elastic_grid=self.grid)


def draws_for_parts(given: Callable[..., Any]) -> bool:
    """Whether this augmentation can change a part of a batch as it would change the whole: a `RandomChange` that does nothing beyond its
    `draws` and `change`. All others get whole batches."""
    return isinstance(given, RandomChange) and type(given).__call__ is RandomChange.__call__


def on_device(given: Callable[..., Any] | None) -> bool:
    """Whether a device can apply this augmentation by itself: True for those that define how, and for none.

    A class derived from one of them draws in its own way, unless it also defines how a device does.
    """
    return given is None or "on_device" in vars(type(given))


def device_augment(given: Callable[..., Any] | None) -> Augment | None:
    """An augmentation as the numbers that a device's operations take; None if images stay unchanged.

    Raises ArgumentError for augmentations that only NumPy can apply: your own functions, and classes derived from those above. `on_device`
    tells which.
    """
    if given is None:
        return None
    if not isinstance(given, RandomChange) or not on_device(given):
        name = getattr(given, "__qualname__", type(given).__qualname__)
        raise ArgumentError(f"the augmentation {name} cannot run on a device, only {AUGMENTATIONS} can: use batches from the host")
    augment = given.on_device()
    return augment if augment is not None and (augment.warps or augment.moves or augment.cutout) else None


def for_images(name: str, side: int) -> Augmentation | None:
    """The augmentation called `name`, with a strength that suits images whose shorter side has `side` pixels; None for "none"."""
    kind = choices().pick(name)
    return None if kind is None else kind.for_side(side)


def choices() -> Registry[type[RandomChange] | None]:
    """All names with their classes, and "none"."""
    found: Registry[type[RandomChange] | None] = Registry(AUGMENTATIONS.kind)
    found.update({"none": None, **AUGMENTATIONS})
    return found


def _whole(owner: Any, name: str, least: int) -> None:
    object.__setattr__(owner, name, integer(getattr(owner, name), name, least))  # a frozen dataclass; NumPy's become Python's


def _number(owner: Any, name: str, most: float = np.inf, range_: str = "finite and at least 0") -> None:
    given = getattr(owner, name)
    value = positive(given, name, zero=True)
    if value > most:
        raise ArgumentError(f"{name} must be {range_}, got {shown(given)}")
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
    """The augmentation for a name ("none" or one that `fit` takes), a config, or an existing augmentation; None for "none"."""
    if given is None or (isinstance(given, Augmentation) and not isinstance(given, type)):
        return given
    if not isinstance(given, str | Mapping):
        raise TypeError(f"an augmentation must be a name, a config or an augmentation object, got {shown(given)}")
    config = {"name": given} if isinstance(given, str) else dict(given)
    name = config.pop("name", None)
    kind = choices().pick(name)
    try:
        if kind is None and config:
            raise TypeError("it has no settings")
        return None if kind is None else kind(**config)
    except TypeError as error:
        raise TypeError(f"the augmentation {name!r} cannot be built from {shown(config)}: {shortened(plain(error), 200)}") from None
