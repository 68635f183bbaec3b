"""The exceptions that gpucnn raises.

Each also derives from the built-in exception that a Python user would expect, so `except ValueError` keeps working. The message says
what was given, what was expected and how to fix it, in one sentence that the command line can print unchanged: on one line, without
control characters, and no longer than 500 characters.
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
    """Base class of all errors that gpucnn raises on purpose."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*(message(arg) if isinstance(arg, str) else arg for arg in args))


class ArgumentError(GpucnnError, ValueError):
    """An invalid argument: out of range, of the wrong length, or in conflict with another one."""


class ShapeError(ArgumentError):
    """Sizes that do not fit together: images, kernels, strides, channels, labels."""


class DataError(GpucnnError, ValueError):
    """An unusable data set, image or label file: truncated, corrupt, empty, or of the wrong size."""


class CheckpointError(GpucnnError, ValueError):
    """An unusable model or checkpoint file: truncated, for another model, or not a safetensors file."""


class DeviceError(GpucnnError, RuntimeError):
    """A requested device that is not available."""


class DeviceMemoryError(GpucnnError, MemoryError):
    """A device with too little memory."""


class TrainingError(GpucnnError, RuntimeError):
    """Training that cannot continue: the loss became NaN or infinite."""


class MissingExtraError(GpucnnError, ImportError):
    """A feature whose optional package is not installed."""


class UnknownNameError(GpucnnError, ValueError):
    """An unknown name of a layer, optimizer, loss, data set or the like."""
