"""The virtual GPU from Python, where vgpu-run has put it: what it has found, and how to go on after that.

As a plugin of pytest (which vgpu-run makes it) it fails each test that leaves a finding behind, and lets the next one begin afresh: on a
real GPU an error stays until the process ends, and would fail them all.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import pytest

_driver = ctypes.CDLL("libcuda.so.1")
if not hasattr(_driver, "vgpu_findings"):
    raise ImportError("this is not the virtual GPU's driver: run the program with vgpu-run")
_driver.vgpu_findings.restype = ctypes.c_uint64
_driver.vgpu_set.argtypes = ctypes.c_char_p, ctypes.c_char_p


def findings() -> int:
    """How many errors it has found in this process."""
    return int(_driver.vgpu_findings())


def forget() -> None:
    """Goes on after a finding: waits for all that was launched, ends captures, and clears the error that a context keeps."""
    _driver.vgpu_forget()


def set(name: str, value: object) -> None:
    """Changes what the variable VGPU_`name` says at the start, for what is launched from now on."""
    if _driver.vgpu_set(name.encode(), str(value).encode()):
        raise ValueError(f"{name} cannot be changed in a process that runs")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    before = findings()
    try:
        result = yield
        found = findings() - before
        if found and item.get_closest_marker("vgpu_findings") is None:
            pytest.fail(f"findings of the virtual GPU: {found} (the test wrote them to stderr)", pytrace=False)
        return result
    finally:
        forget()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "vgpu_findings: leaves findings of the virtual GPU behind on purpose")
