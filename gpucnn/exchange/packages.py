"""Imports packages that only some formats need, when such a file is read or written."""

from __future__ import annotations

import importlib
from typing import Any

from gpucnn.errors import MissingExtraError
from gpucnn.surroundings import install


def onnx() -> Any:
    """The module onnx. MissingExtraError if it is not installed."""
    return _needed("onnx", "ONNX files", "onnx")


def h5py() -> Any:
    """The module h5py, which reads the weights in .keras files. MissingExtraError if it is not installed."""
    return _needed("h5py", ".keras files", "keras")


def _needed(name: str, what: str, extra: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        missing = getattr(error, "name", None) == name
        why = "is not installed" if missing else f"does not import ({error})"
        raise MissingExtraError(f"{what} need {name}, which {why}: {install(extra)}") from None
