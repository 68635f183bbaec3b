"""The operations have the same files, names and signatures on every device, so that callers need not know which one they have."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from types import FunctionType, ModuleType

import pytest

from gpucnn.ops import cpu, cuda

FILES = sorted(path.stem for path in Path(cpu.__file__).parent.glob("[!_]*.py") if path.stem != "roads")


def operations(module: ModuleType) -> dict[str, FunctionType]:
    """The functions that a file defines and its package exports."""
    exported = importlib.import_module(module.__name__.rpartition(".")[0]).__all__
    return {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, FunctionType) and value.__module__ == module.__name__ and name in exported
    }


def public(module: ModuleType) -> set[str]:
    return {
        name
        for name, value in vars(module).items()
        if isinstance(value, FunctionType) and value.__module__ == module.__name__ and not name.startswith("_")
    }


def test_same_files_and_names() -> None:
    assert sorted(path.stem for path in Path(cuda.__file__).parent.glob("[!_]*.py")) == FILES
    assert cuda.__all__ == cpu.__all__


@pytest.mark.parametrize("file", FILES)
def test_same_signatures(file: str) -> None:
    reference = importlib.import_module(f"gpucnn.ops.cpu.{file}")
    kernels = importlib.import_module(f"gpucnn.ops.cuda.{file}")
    expected, got = operations(reference), operations(kernels)
    assert set(got) == set(expected) and expected
    for name, function in expected.items():
        assert inspect.signature(got[name]) == inspect.signature(function), name
        assert getattr(cuda, name) is got[name], name
    # The CPU's files may hold helpers beside the operations (the generator's words, the counts of windows); the kernels' hold none.
    assert public(kernels) == set(got)


def test_every_exported_operation_is_compared() -> None:
    found = {name for file in FILES for name in operations(importlib.import_module(f"gpucnn.ops.cpu.{file}"))}
    assert found == set(cpu.__all__)
