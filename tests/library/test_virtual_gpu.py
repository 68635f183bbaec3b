"""Where the virtual GPU of tests/vgpu cannot be had: one sentence says why, and make test takes Numba's simulator instead."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).parents[1] / "vgpu" / "vgpu-run"
TOOLS = ("bash", "basename", "cat", "cut", "dirname", "find", "gcc", "g++", "grep", "mkdir", "readlink", "sha256sum", "sort", "tr", "xargs")

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the virtual GPU is for Linux")


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("system", "machine", "without", "python", "cache", "reason"),
    [
        ("Darwin", "arm64", "", "exit 0", "cache", "the virtual GPU needs Linux, and this is Darwin"),
        ("Linux", "riscv64", "", "exit 0", "cache", "the virtual GPU runs on x86-64 and aarch64 processors, and this is riscv64"),
        ("Linux", "x86_64", "g++", "exit 0", "cache", "the virtual GPU is built with g++, and there is none here"),
        ("Linux", "x86_64", "gcc", "exit 0", "cache", "the virtual GPU compiles kernels with gcc, and there is none here"),
        ("Linux", "x86_64", "", "exit 1", "cache", "the virtual GPU is built with cuda.h of CUDA 13, and there is none here"),
        (
            "Linux",
            "x86_64",
            "",
            "exit 0",
            "/dev/null/cache",
            "the virtual GPU keeps what it builds in /dev/null/cache, which cannot",
        ),
        ("Linux", "x86_64", "", 'case "$2" in *cupy*) exit 1 ;; *) echo / ;; esac', "cache", "CuPy is what asks for the virtual GPU"),
    ],
    ids=["another-system", "another-processor", "no-g++", "no-gcc", "no-cuda.h", "a-cache-that-cannot-be-written", "no-cupy"],
)
def test_one_sentence_says_what_is_missing(
    tmp_path: Path, system: str, machine: str, without: str, python: str, cache: str, reason: str
) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in TOOLS:
        there = shutil.which(name)
        if there is None:
            script(tools / name, "exit 0")  # a compiler that this machine does not have: it is only looked for
        elif name != without:
            (tools / name).symlink_to(there)
    script(tools / "uname", f'case "$1" in -s) echo {system} ;; *) echo {machine} ;; esac')
    interpreter = script(tmp_path / "python", python)
    environment = {"PATH": str(tools), "VGPU_CACHE": str(tmp_path / cache), "CUDA_HOME": str(tmp_path), "HOME": str(tmp_path)}
    for command, stream in (([RUN, "--check", interpreter], "stdout"), ([RUN, interpreter], "stderr")):
        if reason.startswith("CuPy") and stream == "stderr":
            continue  # then whatever the program does without CuPy is its own affair
        done = subprocess.run(["bash", *map(str, command)], capture_output=True, text=True, env=environment, timeout=60)
        said = getattr(done, stream).removeprefix("vgpu-run: ")
        assert done.returncode == 3 and said.startswith(reason) and len(said.splitlines()) == 1, (done.stdout, done.stderr)


def test_nothing_of_it_is_in_the_wheel() -> None:
    import tomllib

    project = tomllib.loads((RUN.parents[2] / "pyproject.toml").read_text())
    assert not [folder for folder in project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] if "tests" in folder]
    assert os.access(RUN, os.X_OK)
