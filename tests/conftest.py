"""What all tests share."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")  # a test picture, and nobody is asked

# What is imported, collected and compiled stays to the end: millions of objects, through which Python's garbage collector would look again
# and again, and pytest five times more when all is done, which took ten seconds. Once it has looked, they are put out of its sight.
gc.disable()

# Tests run on all cores already: those of compiling in several processes say so themselves.
os.environ.setdefault("GPUCNN_COMPILERS", "1")


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    out_of_sight()
    gc.enable()


@pytest.fixture(scope="module", autouse=True)
def what_a_module_leaves_is_put_out_of_sight() -> Iterator[None]:
    yield
    out_of_sight()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish() -> None:
    out_of_sight()


def out_of_sight() -> None:
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def ctrl_c_is_heeded() -> Iterator[None]:
    """Also where the tests were started in the background, or with nohup: there Ctrl-C is ignored, by what a test starts as well."""
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium without a window. One for all tests of a process: Playwright's event loop stays, and a second one is refused."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium: apt install chromium")
    sync_api: Any = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install playwright")
    with sync_api.sync_playwright() as playwright:
        try:
            started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *CAMERA])
        except sync_api.Error as error:
            pytest.skip(f"Chromium does not start: {str(error).splitlines()[0]}")
        yield started
        started.close()
