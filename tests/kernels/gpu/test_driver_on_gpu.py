"""Launches straight through the driver: those of Numba to the bit, on any thread, captured or not, and left to Numba where they must be."""

from __future__ import annotations

import importlib
import threading
import time
from typing import Any

import numpy as np
import pytest

from gpucnn.device import Device, to_numpy
from gpucnn_kernels import activations
from gpucnn_kernels.core import driver
from gpucnn_kernels.core._numba import cuda
from gpucnn_kernels.core.launch import Launch, external_stream, recording, run
from gpucnn_kernels.dense import plain as gemm

pytestmark = pytest.mark.gpu


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """What the driver said to each launch: whether it was its own."""
    said: list[bool] = []
    real = driver.launch

    def noted(*arguments: Any) -> bool:
        said.append(real(*arguments))
        return said[-1]

    monkeypatch.setattr(driver, "launch", noted)
    return said


def products(gpu: Device, seed: int) -> Any:
    """A product with a bias: arrays, many numbers, more blocks than one."""
    random = np.random.default_rng(seed)
    x, weight, bias = (gpu.array(random.standard_normal(shape).astype(np.float32)) for shape in ((37, 50), (41, 50), (41,)))
    y = gpu.xp.full((37, 41), gpu.xp.nan, "float32")
    gemm.dense(x, weight, bias, y, True, external_stream(gpu.xp.cuda.get_current_stream().ptr))
    return y


def test_the_bits_are_those_of_numba(gpu: Device, taken: list[bool]) -> None:
    with gpu.xp.cuda.Stream(non_blocking=True) as stream, recording() as launches:
        first = products(gpu, 3)  # may be compiled here, by Numba
        second = products(gpu, 3)
        stream.synchronize()
        assert taken[-1]
        expected = to_numpy(first).copy()
        np.testing.assert_array_equal(to_numpy(second), expected)
        again: Launch = launches[-1]
        second[...] = np.nan
        again.run(external_stream(stream.ptr))  # Numba's way
        stream.synchronize()
        np.testing.assert_array_equal(to_numpy(second), expected)


def test_arrays_of_another_type_are_another_kernel(gpu: Device, taken: list[bool]) -> None:
    """Integers are refused by the launcher; a kernel that takes both is distinguished by its arrays' types."""
    with gpu.xp.cuda.Stream(non_blocking=True) as stream:
        for dtype in ("float32", "int32", "float32", "int32"):
            x = gpu.xp.arange(-5, 5, dtype=dtype)
            y = gpu.xp.empty_like(x)
            numba_stream = external_stream(stream.ptr)
            if not driver.launch(activations.relu_kernel, 1, 32, 0, stream.ptr, (x, y)):
                activations.relu_kernel[1, 32, numba_stream](x, y)
            stream.synchronize()
            np.testing.assert_array_equal(to_numpy(y), np.maximum(np.arange(-5, 5), 0).astype(dtype))
    assert taken[-2:] == [True, True]


def test_launches_from_threads_do_not_mix_their_numbers(gpu: Device) -> None:
    expected = {seed: to_numpy(products(gpu, seed)) for seed in range(4)}
    wrong: list[int] = []

    def work(seed: int) -> None:
        with gpu.xp.cuda.Device(0), gpu.xp.cuda.Stream(non_blocking=True) as stream:
            for _ in range(50):
                y = products(gpu, seed)
                stream.synchronize()
                if (to_numpy(y) != expected[seed]).any():
                    wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_threads_that_launch_a_kernel_for_the_first_time_load_it_once(gpu: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was compiled ahead or comes from the disk. Numba refuses the library of whoever comes second."""
    fresh, kernel = cuda.jit(activations.relu_kernel.py_func), importlib.import_module("numba.cuda.dispatcher")._Kernel
    with monkeypatch.context() as ahead:
        ahead.setattr(kernel, "bind", lambda self: None)  # which loads it
        fresh.compile(tuple(fresh.typeof_pyval(gpu.xp.zeros(10, "float32")) for _ in range(2)))
    numbas = importlib.import_module("numba.cuda.cudadrv.driver")
    load, loads = numbas.load_module_image, []

    def slowly(*arguments: Any) -> Any:
        loads.append(threading.get_ident())
        time.sleep(0.2)  # so that the other thread comes meanwhile
        return load(*arguments)

    monkeypatch.setattr(numbas, "load_module_image", slowly)
    results: list[Any] = []

    def launched() -> None:
        with gpu.xp.cuda.Stream(non_blocking=True) as stream:
            x = gpu.xp.arange(-5, 5, dtype="float32")
            y = gpu.xp.empty_like(x)
            run(fresh, 1, 32, external_stream(stream.ptr), x, y)
            stream.synchronize()
            results.append(to_numpy(y))

    threads = [threading.Thread(target=launched) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loads) == 1 and len(results) == 3
    for result in results:
        np.testing.assert_array_equal(result, np.maximum(np.arange(-5, 5, dtype=np.float32), 0))


def test_what_is_no_flat_array_of_cupy_is_left_to_numba(gpu: Device) -> None:
    x = gpu.xp.zeros((2, 3), "float32")
    stream = gpu.xp.cuda.get_current_stream().ptr
    assert not driver.launch(activations.relu_kernel, 1, 32, 0, stream, (x, x))  # two axes
    assert not driver.launch(activations.relu_kernel, 1, 32, 0, stream, (np.zeros(3, np.float32), x))  # the host's
    assert not driver.launch(activations.relu_kernel, 1, 32, 0, stream, (x.ravel(), 1.5))  # a number of Python's
