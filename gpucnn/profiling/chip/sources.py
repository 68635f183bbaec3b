"""The source files that a kernel is made of: those of all functions that it closes over, and whatever these files import of their package.

Machine code that was made from the same files, with the same compilers, need not be made again when another file of the package changes.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import types
import warnings
from pathlib import Path
from typing import Any

BY_VERSION = ("numba",)  # packages whose version says as much as their files: kernels close over their types, and they have hundreds


def files_of(function: Any) -> list[Path]:
    """The files that a kernel's machine code can depend on, sorted. What a module imports of other packages is left out, and so are the
    compilers, whose versions are to be compared beside the files."""
    own = [name for name in _modules(function) if name.partition(".")[0] not in BY_VERSION]
    return sorted({file for name in own for file in reached(name)})


@functools.cache
def content(files: tuple[Path, ...]) -> bytes:
    """A hash of files and their names, wherever they are installed."""
    digest = hashlib.sha256()
    for file in files:
        digest.update("/".join(file.parts[-2:]).encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.digest()


def _modules(value: Any, seen: set[int] | None = None) -> set[str]:
    """The modules of a function and of the functions that it closes over."""
    seen = set() if seen is None else seen
    value = getattr(value, "py_func", value)  # a device function
    if id(value) in seen:
        return set()
    seen.add(id(value))
    if isinstance(value, types.FunctionType):
        inside = [cell.cell_contents for cell in value.__closure__ or ()]
        return {str(value.__module__)}.union(*(_modules(each, seen) for each in inside))
    if isinstance(value, (tuple, list)):
        return set[str]().union(*(_modules(each, seen) for each in value))
    return {type(value).__module__}  # a table of settings, say


@functools.cache
def reached(name: str) -> tuple[Path, ...]:
    """The files of a module and of all that it imports of its package, wherever in the file, and so on."""
    package, found, ahead = name.partition(".")[0], set[str](), [name]
    while ahead:
        each = ahead.pop()
        if each not in found and each.partition(".")[0] == package and _path(each) is not None:
            found.add(each)
            ahead += _imports(each)
    return tuple(sorted(path for each in found if (path := _path(each)) is not None))


@functools.cache
def _imports(name: str) -> tuple[str, ...]:
    """The names of modules that a module imports; and each name that it takes from one, which may be a module, too."""
    path = _path(name)
    assert path is not None
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
                base = ".".join([*parts[: len(parts) - node.level + 1], *([base] if base else [])])
            submodules = [f"{base}.{alias.name}" for alias in node.names]
            found += submodules if base and all(_path(each) is not None for each in submodules) else [base, *submodules]
    return tuple(found)


@functools.cache
def _path(name: str) -> Path | None:
    """The source file of a module; None if there is no such module, or if it is not in Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the packages above a module are imported to find it, and may warn of themselves
            spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):  # its parent is not a package
        return None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    return Path(spec.origin)
