"""An image file as an array."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from gpucnn.checks import pair
from gpucnn.data.files import load_npy
from gpucnn.data.idx import PathLike
from gpucnn.errors import ArgumentError, DataError, MissingExtraError
from gpucnn.files import regular_file
from gpucnn.surroundings import install
from gpucnn.text import reason_of, shown

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".jpe", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".npy")
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")  # Pillow's names; it knows others that start programs, as EPS does
QUIET = logging.NullHandler()
MAX_PIXELS = 1 << 26  # a larger one is not a training image, and may be a decompression bomb


def images_below(folder: Path, refuse: Callable[[OSError], object] | None = None) -> Iterator[Path]:
    """The images in a folder and then in its subfolders, each sorted by name. Hidden ones are skipped, and so are folders whose names begin
    with two underscores, as those of macOS's archives do. `refuse` is called with the error of a folder that cannot be read."""
    for above, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__")))
        yield from (Path(above) / name for name in sorted(names) if name.lower().endswith(SUFFIXES) and not name.startswith("."))


def read_image(path: PathLike, image_size: int | tuple[int, int] | str | None = None) -> NDArray[np.uint8]:
    """The image in a file: uint8 (C, H, W), C = 1 for grey and 3 for colour. With `image_size`, a number, (height, width) or a string such
    as "32x48", it is scaled until it covers this size, and cropped about its centre.

    PNG, JPEG, BMP, GIF, WebP, TIFF, PPM and PGM, whatever the file's extension: 16-bit grey is scaled to 8 bits, transparency is blended
    with white, a palette counts as grey if all of its used colours are, the first frame of an animation is used, and the EXIF orientation
    is applied.

    .npy: (H, W), (C, H, W) or (H, W, C) with C = 1 or 3, and (C, H, W) if both would fit; integers in 0 … 255 unchanged,
    floats in 0 … 1 times 255. Nothing is unpickled.

    DataError if the file cannot be read as an image, MissingExtraError without Pillow.
    """
    size = None if image_size is None else size_of(image_size)
    array = os.fspath(path).lower().endswith(".npy")
    path = regular_file(path, "a .npy array" if array else "an image", empty=False)
    image = _read_npy(path) if array else _read_picture(path, path)
    return image if size is None else resized(image, size)


def fit_channels(image: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    """uint8 (…, C, H, W) with `channels` channels: grey is repeated, colour becomes its luma (ITU-R BT.601).

    DataError unless the two are equal, or 1 and 3.
    """
    given = image.shape[-3]
    if given == channels:
        return image
    if given == 1 and channels == 3:
        return np.repeat(image, 3, axis=-3)
    if given == 3 and channels == 1:
        red, green, blue = (image[..., i : i + 1, :, :].astype(np.uint32) for i in range(3))
        return ((299 * red + 587 * green + 114 * blue + 500) // 1000).astype(np.uint8)
    raise DataError(f"an image of {given} channels cannot be turned into one of {channels}: only grey (1) and colour (3) can")


def size_of(given: Any) -> tuple[int, int]:
    """(height, width) from a number, a pair, or a string such as "32" or "32x48". ArgumentError and TypeError for anything else."""
    value = given
    if isinstance(given, str):
        words = given.lower().replace("×", "x").split("x")
        if len(words) > 2 or not all(word.strip().isascii() and word.strip().isdigit() and len(word) < 20 for word in words):
            raise ArgumentError(f"image_size must be a number of pixels or HEIGHTxWIDTH, such as 32 or 32x48, got {shown(given)}")
        value = tuple(int(word) for word in words) * (3 - len(words))
    height, width = pair(value, "image_size", 1)
    if height * width > MAX_PIXELS:
        raise ArgumentError(f"image_size {height} × {width} is over {MAX_PIXELS:,} pixels: give a smaller one")
    return height, width


def resized(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """uint8 (C, H, W) resized to (C, *size): scaled until it covers `size`, then cropped about the centre. MissingExtraError without
    Pillow."""
    if image.shape[1:] == size:
        return image
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise MissingExtraError(f"resizing needs Pillow, which is not installed: {install('images')}") from error
    picture = Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0).copy())
    fitted = np.asarray(ImageOps.fit(picture, (size[1], size[0]), method=Image.Resampling.BILINEAR))
    return np.array(fitted[None] if fitted.ndim == 2 else fitted.transpose(2, 0, 1), order="C")


def _read_npy(path: Path) -> NDArray[np.uint8]:
    array = load_npy(path)
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path} is an .npz archive, expected one array: write the array itself with numpy.save")
    shape = array.shape
    if array.ndim == 2:
        image = array[None]
    elif array.ndim == 3 and shape[0] in (1, 3):
        image = array
    elif array.ndim == 3 and shape[2] in (1, 3):
        image = array.transpose(2, 0, 1)
    else:
        raise DataError(f"{path} has the shape {shape}, expected (H, W), (C, H, W) or (H, W, C) with C = 1 or 3: reshape it")
    if image.size == 0:
        raise DataError(f"{path} has the shape {shape}, no pixels at all: give a larger image")
    if image.size > 3 * MAX_PIXELS:
        raise DataError(f"{path} has the shape {shape}, more than {MAX_PIXELS:,} pixels: give a smaller image")
    if array.dtype == np.uint8:
        return np.array(image, np.uint8, order="C")
    if array.dtype.kind in "iu":
        if image.min() < 0 or image.max() > 255:
            raise DataError(f"{path} contains {image.min()} to {image.max()} where integers are pixels, 0 … 255: scale it first")
        return np.array(image, np.uint8, order="C")
    if array.dtype.kind != "f":
        raise DataError(f"{path} contains {array.dtype}, expected integers in 0 … 255, or floats in 0 … 1: convert it first")
    values = np.array(image, np.float64, order="C")
    if not np.isfinite(values).all():
        raise DataError(f"{path} contains NaN or infinite values, expected floats within 0 … 1: replace them first")
    if values.min() < 0 or values.max() > 1:
        raise DataError(f"{path} contains floats from {values.min():g} to {values.max():g}, expected 0 … 1: scale it, or store it as uint8")
    return np.rint(values * 255).astype(np.uint8)


def read_bytes(content: BinaryIO, where: str) -> NDArray[np.uint8]:
    """An encoded image, as `read_image` returns those of files; `where` says where it comes from, for error messages."""
    return _read_picture(content, where)


def _read_picture(source: Path | BinaryIO, path: Path | str) -> NDArray[np.uint8]:
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ImportError as error:
        raise MissingExtraError(f"reading {path} needs Pillow, which is not installed: {install('images')}") from error
    logging.getLogger("PIL").addHandler(QUIET)  # else what it logs of a damaged file would be printed, beside the error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the size is checked here, and more strictly
            with Image.open(source, formats=FORMATS) as picture:  # reads the header only
                if picture.width * picture.height > MAX_PIXELS:
                    raise DataError(f"{path} has {picture.width} × {picture.height} pixels, over {MAX_PIXELS:,}: give a smaller image")
                return _pixels(ImageOps.exif_transpose(picture), path)
    except DataError:
        raise
    except Image.DecompressionBombError as error:  # Pillow looks at the size as well, and says it at length
        raise DataError(f"{path} has over {MAX_PIXELS:,} pixels: give a smaller image") from error
    except UnidentifiedImageError as error:  # its words are the file's name, or the address of its content
        raise DataError(f"{path} cannot be read as an image (it is in none of the known formats): replace or remove it") from error
    except Exception as error:  # Pillow's decoders may raise anything
        raise DataError(f"{path} cannot be read as an image ({reason_of(error)}): replace or remove it") from error


def _pixels(picture: Image.Image, path: Path | str) -> NDArray[np.uint8]:
    """The pixels of a Pillow image, uint8 (C, H, W)."""
    mode = picture.mode
    if mode.startswith("I"):
        wide = np.asarray(picture).astype(np.int64)
        if wide.min() < 0 or wide.max() > 65535:
            raise DataError(f"{path} has pixels from {wide.min()} to {wide.max()}, expected 16 bits: save it with 8 or 16 bits")
        return ((wide + 128) // 257).astype(np.uint8)[None]
    if mode == "F":
        raise DataError(f"{path} has floating-point pixels, whose range is not known: save it with 8 bits, or as .npy within 0 … 1")
    if mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in picture.info:
        rgba = np.asarray(picture.convert("RGBA")).astype(np.uint32)
        alpha = rgba[..., 3:]
        colour = ((rgba[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    elif mode in ("L", "1"):
        return np.asarray(picture.convert("L"))[None].copy()
    else:
        colour = np.asarray(picture.convert("RGB"))
    grey = mode in ("L", "1", "LA", "La") or (mode in ("P", "PA") and bool((colour == colour[..., :1]).all()))
    return np.array(colour.transpose(2, 0, 1)[: 1 if grey else 3], order="C")
