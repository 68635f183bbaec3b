"""What a figure was measured on: the processor, the versions and the commit; and whether anything else is using the machine."""

from __future__ import annotations

import contextlib
import datetime
import platform
import subprocess
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import gpucnn as gc


def taken_by_others() -> float | None:
    """The share of all cores' time that other programs use while this process sleeps for a second; None if the system does not tell."""

    def used() -> tuple[int, int]:
        numbers = [int(number) for number in Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]]
        return sum(numbers) - numbers[3] - numbers[4], sum(numbers)

    try:
        busy, whole = used()
        time.sleep(1)
        busy_then, whole_then = used()
    except (OSError, ValueError, IndexError):
        return None
    return (busy_then - busy) / max(whole_then - whole, 1)


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name as the system reports it, with its widest vectors: the same name may stand for several kinds."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        lines = []
    said = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    flags = said.get("flags", "").split()
    widest = next((f" ({name})" for name, flag in (("AVX-512", "avx512f"), ("AVX2", "avx2")) if flag in flags), "")
    return (said.get("model name") or platform.processor() or "unknown") + widest


def commit() -> str:
    """The commit of this file, if it is in a repository and Git is installed."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=10).stdout.strip()
    return "unknown"


def about(cores: int) -> dict[str, Any]:
    """What the figures of this run were measured with."""
    versions = {"gpucnn": gc.__version__, "Python": platform.python_version(), "NumPy": np.__version__, "PyTorch": version("torch")}
    return {"processor": processor(), "cores": cores, **versions, "date": datetime.date.today().isoformat(), "commit": commit()}
