"""The position of the channels of images: first, as everywhere in gpucnn, or last, as in Keras."""

from __future__ import annotations

from typing import Any, Final

from gpucnn.checks import integer, pick, several
from gpucnn.errors import ShapeError
from gpucnn.signatures import DataFormat
from gpucnn.text import shown

FIRST: Final = "channels_first"
LAST: Final = "channels_last"
FEW, SIDE = (1, 3, 4), 8  # channels, and the least side of an image, that make a shape look like one with its channels last


def check_format(data_format: Any) -> DataFormat | None:
    """ "channels_first", "channels_last", or None if unspecified; UnknownNameError for anything else."""
    known: dict[str, DataFormat] = {FIRST: FIRST, LAST: LAST}
    return None if data_format is None else pick(data_format, known, "data_format")


def image_shape(given: Any, data_format: str | None) -> tuple[int, ...]:
    """The shape of one example as (C, H, W) or (features,). The channel of grey images may be omitted.

    ShapeError for anything else, and for a shape that looks like channels last if `data_format` does not say so.
    """
    sizes = several(given)
    if sizes is None or len(sizes) not in (1, 2, 3):
        raise ShapeError(f"input_shape must be (channels, height, width), (height, width) or (features,), got {shown(given)}")
    shape = tuple(integer(size, "input_shape", 1, ShapeError) for size in sizes)
    if len(shape) == 2:
        return (1, *shape)
    if len(shape) == 3 and data_format == LAST:
        return shape[2], shape[0], shape[1]
    if len(shape) == 3 and data_format is None and _looks_last(shape):
        raise ShapeError(
            f"input_shape {shape} looks like (height, width, channels): give data_format='channels_last' if it is, or "
            f"'channels_first' if there are {shape[0]} channels"
        )
    return shape


def in_order(x: Any, shape: tuple[int, ...], data_format: str | None) -> Any:
    """Examples (N, …) with channels first, for a model that takes `shape`; copied if the channels were last."""
    if len(shape) != 3:
        return x
    if x.ndim == 3 and shape[0] == 1:
        return x[:, None]
    if x.ndim == 4 and data_format == LAST:
        return x.transpose(0, 3, 1, 2).copy()
    return x


def hint(found: tuple[int, ...], shape: tuple[int, ...], mend: str = "pass data_format='channels_last'", *, last: bool = False) -> str:
    """A hint for an error about examples of the wrong shape whose channels seem to be last, and how to fix it; or first, where they
    were taken to be `last`."""
    if last:
        return ": their channels seem to be first; pass data_format='channels_first'" if tuple(found[1:]) == shape else ""
    last = len(shape) == 3 and tuple(found[1:]) == (*shape[1:], shape[0]) and shape[0] in FEW
    return f": their channels seem to be last; {mend}" if last else ""


def _looks_last(shape: tuple[int, ...]) -> bool:
    return shape[2] in FEW and shape[0] >= SIDE and shape[1] >= SIDE
