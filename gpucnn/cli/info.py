"""gpucnn info"""

from __future__ import annotations

import platform

import gpucnn
from gpucnn import experiment
from gpucnn.cli.program import app
from gpucnn.device import get_device, why_not_auto
from gpucnn.surroundings import say
from gpucnn.training.parallel import join

COMPUTING = ("numpy", "numba", "numba-cuda", "cupy", "cupy-cuda12x", "cupy-cuda13x")
FILES = ("safetensors", "scikit-learn", "pillow", "matplotlib", "pyarrow", "mpi4py", "onnx", "h5py")


@app.command(short_help="Print versions, the device, and what is missing for the GPU.")
def info() -> None:
    """Print versions, the device that "auto" selects, and what is missing for the GPU if that is the CPU."""
    import importlib.metadata

    rows = [("gpucnn", gpucnn.__version__), ("Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")]
    for name in COMPUTING + FILES:
        try:
            rows.append((name, importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            if not name.startswith("cupy"):
                rows.append((name, "not installed"))
    device = get_device("auto")
    ranks = join("auto")
    rows.append(("device", f"{device.kind}: {device.name}"))
    if ranks.size > 1:
        rows += [("ranks", line[10:]) for line in experiment.devices(ranks, device)]
    if device.kind == "cpu":
        from gpucnn.ops.cpu._threads import threads

        rows.append(("threads", str(threads())))
        rows.append(("no GPU", why_not_auto() or "GPUCNN_DEVICE is cpu"))
    for name, value in rows:
        say(f"{name:<13} {value}")
