"""The errors that are gpucnn's own.

Each of them is also the built-in exception that a Python user would look for, so `except ValueError` keeps working. The message
says what was given, what was expected and how to mend it, in one sentence that the command line can print as it is: on one line, with
nothing in it that a terminal would obey, and no longer than 500 characters.
"""

from typing import Any

from gpucnn.text import message

__all__ = [
    "ArgumentError",
    "CheckpointError",
    "DataError",
    "DeviceError",
    "DeviceMemoryError",
    "GpucnnError",
    "MissingExtraError",
    "ShapeError",
    "TrainingError",
    "UnknownNameError",
]


class GpucnnError(Exception):
    """Anything that gpucnn refuses on purpose."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*(message(arg) if isinstance(arg, str) else arg for arg in args))


class ArgumentError(GpucnnError, ValueError):
    """An argument that cannot be used: out of its range, of the wrong length, at odds with another one."""


class ShapeError(ArgumentError):
    """Sizes that do not fit together: images, kernels, strides, channels, labels."""


class DataError(GpucnnError, ValueError):
    """A data set, an image or a label file that cannot be used: truncated, corrupt, empty, of another size."""


class CheckpointError(GpucnnError, ValueError):
    """A model or checkpoint file that cannot be used: truncated, of another model, or no safetensors at all."""


class DeviceError(GpucnnError, RuntimeError):
    """A device that was asked for and is not there."""


class DeviceMemoryError(GpucnnError, MemoryError):
    """A device whose memory is too small for what was asked of it."""


class TrainingError(GpucnnError, RuntimeError):
    """Training that cannot go on: the loss became NaN or infinite."""


class MissingExtraError(GpucnnError, ImportError):
    """A feature whose optional package is not installed."""


class UnknownNameError(GpucnnError, ValueError):
    """A layer, optimizer, loss, data set or other thing asked for by a name that it does not have."""
