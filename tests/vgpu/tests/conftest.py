"""Programs with planted faults, run on the virtual GPU in this process: vgpu-run python -m pytest tests/vgpu/tests."""

from __future__ import annotations

import runpy
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

# Without vgpu-run there is nothing to test, and on a real GPU these programs would do harm.
collect_ignore_glob = [] if "vgpu" in sys.modules else ["test_*.py"]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("filterwarnings", "ignore:Grid size:Warning")  # all are small


USUAL = {"STRICT": 1, "ORDER": 0, "ASYNC": 0, "STICKY": 1}


@dataclass(frozen=True)
class Outcome:
    error: BaseException | None
    out: str
    err: str


@pytest.fixture
def run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Runs a program to its end, with options of the virtual GPU, and gives what it said."""
    import cupy

    import vgpu

    def run(code: str, **options: object) -> Outcome:
        file = tmp_path / "program.py"  # a file, because Numba wants the source of a kernel
        file.write_text(textwrap.dedent(code) + "\nimport cupy\ncupy.cuda.runtime.deviceSynchronize()\n")
        cupy.get_default_memory_pool().free_all_blocks()  # memory that was used before hides what is uninitialized
        capfd.readouterr()
        error: BaseException | None = None
        options["STICKY"] = 0  # so that what the program leaves behind can be freed
        for name, value in options.items():
            vgpu.set(name, value)
        try:
            runpy.run_path(str(file))
        except Exception as caught:
            error = caught.with_traceback(None)
        finally:
            for name in options:
                vgpu.set(name, USUAL[name])
            vgpu.forget()
        return Outcome(error, *capfd.readouterr())

    return run
