"""Programs in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys


def run(text: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a program, with variables of its environment, and gives what became of it."""
    around = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS") and name != "GPUCNN_CPU"}
    around |= {"PYTHONPATH": os.pathsep.join(sys.path), **environment}
    return subprocess.run([sys.executable, "-c", text], env=around, capture_output=True, text=True, timeout=300)
