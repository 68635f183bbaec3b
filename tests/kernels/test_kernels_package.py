"""The package of kernels by itself: what importing it does, what launchers refuse, what the catalogue holds."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpucnn_kernels
from gpucnn.device import simulated
from gpucnn.ops.shapes import conv_window, pool_window
from gpucnn.profiling.chip import chips, samples
from gpucnn.profiling.what.shapes import CONV_SHAPES, POOL_SHAPES
from gpucnn_kernels import activations, cross_entropy, dropout, pool, update
from gpucnn_kernels.conv import plain as conv
from gpucnn_kernels.core import launch
from gpucnn_kernels.dense import plain as gemm
from gpucnn_kernels.engine import bias

HERE = Path(gpucnn_kernels.__file__).parent
SOURCES = sorted(HERE.rglob("*.py"))
LADDER = HERE.parent / "ladder" / "gpu.py"


def zeros(*shape: int, dtype: Any = np.float32) -> Any:
    return np.zeros(shape, dtype)


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "PYTHONPATH": str(HERE.parent), **environment}
    return subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("simulator", ["0", "1"])
def test_importing_needs_no_gpucnn_no_cupy_no_driver_and_compiles_nothing(simulator: str) -> None:
    code = (
        "import importlib, pkgutil, sys; sys.modules['cupy'] = sys.modules['gpucnn'] = None; import gpucnn_kernels as package\n"
        "simulator = importlib.import_module('gpucnn_kernels.core._numba').SIMULATED\n"
        "for each in pkgutil.walk_packages(package.__path__, 'gpucnn_kernels.'):\n"
        "    if simulator and each.name.endswith('_shortcuts'): continue  # of the compiler, which is not there\n"
        "    for thing in vars(importlib.import_module(each.name)).values():\n"
        "        assert not getattr(thing, 'overloads', None), thing\n"
    )
    result = python(code, NUMBA_ENABLE_CUDASIM=simulator)
    assert result.returncode == 0, result.stderr


def test_without_numba_the_error_says_what_to_install() -> None:
    result = python("import sys; sys.modules['numba'] = None; import gpucnn_kernels.conv.plain")
    assert result.returncode == 1
    assert 'pip install "numba-cuda[cu13]"' in result.stderr


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(HERE)))
def test_numba_is_imported_in_one_place_and_changed_in_another(source: Path) -> None:
    lines = [line.strip() for line in source.read_text().splitlines()]
    imports = [line for line in lines if line.startswith(("from numba", "import numba"))]
    assert bool(imports) == (source.name in ("_numba.py", "_shortcuts.py")), imports


def is_kernel(decorator: ast.expr) -> bool:
    return getattr(decorator.func if isinstance(decorator, ast.Call) else decorator, "id", None) == "kernel"


@pytest.mark.skipif(simulated(), reason="the simulator knows no types")
def test_every_kernel_is_in_the_catalogue() -> None:
    """Those that functions make as well: each is known by the line of its decorator, because no module holds it by name."""
    written = {
        (source.parent.name, source.stem, node.name, node.decorator_list[0].lineno)
        for source in SOURCES
        for node in ast.walk(ast.parse(source.read_text()))
        if isinstance(node, ast.FunctionDef) and any(map(is_kernel, node.decorator_list))
    }
    functions = [each.launch.kernel.py_func for each in samples.kernels(chips.find("H100"))]
    functions = [each for each in functions if each.__module__.startswith("gpucnn_kernels")]
    assert written == {(*each.__module__.split(".")[-2:], each.__name__, each.__code__.co_firstlineno) for each in functions}


def test_catalogued_shapes_are_legal() -> None:
    for shape in CONV_SHAPES:
        conv_window(shape.hw, shape.rs, shape.stride, shape.padding)
    for pooling in POOL_SHAPES:
        pool_window(pooling.hw, pooling.kernel, pooling.stride, pooling.padding)
    assert [shape.name for shape in POOL_SHAPES] == ["c1-2x2", "c1-3x3", "r1-2x2", "r1-3x3"]


WINDOW = conv_window((4, 4), (3, 3))
X, WEIGHT, Y = zeros(1, 2, 4, 4), zeros(3, 2, 3, 3), zeros(1, 3, 2, 2)

REFUSED: list[tuple[Callable[[], None], type[Exception], str]] = [
    (lambda: conv.conv2d(X.astype(np.float64), WEIGHT, None, Y, WINDOW), TypeError, "x is float64, and the kernel takes float32"),
    (lambda: conv.conv2d(zeros(1, 2, 5, 4), WEIGHT, None, Y, WINDOW), ValueError, r"x has shape \(1, 2, 5, 4\), expected \(1, 2, 4, 4\)"),
    (lambda: conv.conv2d(X, zeros(3, 1, 3, 3), None, Y, WINDOW), ValueError, "weight has shape"),
    (lambda: conv.conv2d(X, WEIGHT, zeros(2), Y, WINDOW), ValueError, "bias has shape"),
    (lambda: conv.conv2d(X, WEIGHT, None, zeros(1, 3, 2, 3), WINDOW), ValueError, "y has shape"),
    (lambda: conv.conv2d(X, WEIGHT, None, Y, WINDOW, groups=2), ValueError, "groups must divide the channels"),
    (lambda: conv.conv2d(zeros(1, 2, 8, 4)[:, :, ::2], WEIGHT, None, Y, WINDOW), ValueError, "x of shape .* is not C-contiguous"),
    (lambda: bias.bias_grad(zeros(2, 3), zeros(4)), ValueError, "dbias has shape"),
    (lambda: gemm.dense(zeros(2, 3), zeros(4, 2), None, zeros(2, 4)), ValueError, "weight has shape"),
    (lambda: activations.relu(zeros(2), zeros(3)), ValueError, "y has shape"),
    (
        lambda: pool.max_pool2d(zeros(1, 1, 2, 2), zeros(1, 1, 1, 1), zeros(1, 1, 1, 1, dtype=np.int64), pool_window((2, 2), 2)),
        TypeError,
        "indices is int64, and the kernel takes int32",
    ),
    (
        lambda: cross_entropy.softmax_cross_entropy(
            zeros(2, 3), zeros(2, dtype=np.int64), zeros(2, 3), zeros(1), zeros(1), zeros(2), zeros(2)
        ),
        TypeError,
        "labels is int64",
    ),
    (lambda: update.sgd_update(zeros(2), zeros(3), None, rates=zeros(4)), ValueError, "gradients has shape"),
    (lambda: dropout.dropout(zeros(2), zeros(2, 1), np.zeros(2, "uint32"), 0.5, 0), ValueError, "y has shape"),
    (lambda: activations.relu(np.broadcast_to(np.float32(0), (2**31,)), zeros(1)), ValueError, "not C-contiguous"),
    (lambda: launch.run(None, 2**31, 1, 0), ValueError, "2147483648 thread blocks"),
]


@pytest.mark.parametrize("number", range(len(REFUSED)))
def test_launchers_say_what_is_wrong(number: int) -> None:
    call, error, text = REFUSED[number]
    with pytest.raises(error, match=text):
        call()


def test_arrays_too_large_for_32_bits_are_refused() -> None:
    class Huge:
        dtype, shape, flags = "float32", (2**16, 2**15), {"C_CONTIGUOUS": True}

    with pytest.raises(ValueError, match="x has 2147483648 elements, and the kernels count to"):
        launch.floats(Huge(), "x")
    with pytest.raises(ValueError, match="reaches over"):
        launch.geometry(conv_window((2**31 - 1, 1), (1, 1)))


def test_nothing_to_do_is_no_launch() -> None:
    launch.run(None, 0, 1, 0)


def test_pytorch_tensors_pass_the_checks() -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.zeros(2, 3)
    assert launch.floats(tensor, "x", (2, 3)).data_ptr() == tensor.data_ptr()
    with pytest.raises(ValueError, match="not C-contiguous"):
        launch.floats(tensor.T, "x")
    with pytest.raises(TypeError, match="x is float64"):
        launch.floats(tensor.double(), "x")


class Pointed:
    """An array as CuPy's: its pointer costs nothing, its array interface is made again whenever one asks, even whether it is there."""

    def __init__(self, pointer: int) -> None:
        self.data = types.SimpleNamespace(ptr=pointer)
        self.size = 4

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        raise AssertionError("the interface was made")


def test_the_pointer_of_an_array_is_asked_for_first() -> None:
    assert launch.aligned(Pointed(64)) and not launch.aligned(Pointed(68))
    assert launch.address_of(Pointed(64)) == (64, 4)
    array = np.zeros(9, np.float32)
    assert launch.aligned(array) == (array.ctypes.data % 16 == 0)
    first = -(array.ctypes.data // 4) % 4
    assert launch.aligned(array[first:]) and not launch.aligned(array[first + 1 :])


READ_BY_128_BITS = {  # kernels whose tiles load_4 and store_4 read and write
    ("engine/loop.py", "a_tile"): 1,
    ("engine/loop.py", "b_tile"): 1,
    ("ladder/gpu.py", "a_tile"): 1,
    ("ladder/gpu.py", "b_tile"): 1,
    ("conv/direct.py", "tile"): 1,
    ("conv/pooled.py", "tile"): 1,
}


def test_shared_arrays_that_are_read_by_128_bits_say_so() -> None:
    """By luck of their sizes they lie at multiples of 16 bytes without it as well."""
    found: dict[tuple[str, str], int] = {}
    for path in [*SOURCES, LADDER]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Assign) and "shared.array" in (text := ast.unparse(node.value)) and "alignment=16" in text:
                place = str(path.relative_to(HERE.parent)).removeprefix("gpucnn_kernels/"), ast.unparse(node.targets[0])
                found[place] = found.get(place, 0) + 1
    assert READ_BY_128_BITS.items() <= found.items()
