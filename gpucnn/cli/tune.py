"""gpucnn tune"""

from __future__ import annotations

from typing import Annotated

import typer

from gpucnn.checks import integer
from gpucnn.cli.options import whole
from gpucnn.cli.program import app
from gpucnn.cli.progress import Status
from gpucnn.device import get_device, why_no_cuda
from gpucnn.errors import DeviceError
from gpucnn.networks import NETWORKS
from gpucnn.precision import MODES, using
from gpucnn.surroundings import say


@app.command(short_help="Measure which kernels are fastest on this GPU, and store the result.")
def tune(
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|FILE",
            help=f"The networks to measure: {NETWORKS}, or a model.safetensors, or its folder; can be repeated. [default: all of these]",
            show_default=False,
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(parser=whole, metavar="N", help="Images in a step.")] = 128,
    precision: Annotated[
        str, typer.Option(metavar="MODE", help=f"Tune convolutions and dense layers in this mode: {', '.join(MODES)}.")
    ] = "highest",
    forget: Annotated[bool, typer.Option("--forget", help="Delete the results for this GPU, and measure nothing.")] = False,
) -> None:
    """Measure all kernels for each operation of a training step, and remember those clearly faster than the default choice.

    The results are stored in the user's cache (or in the folder $GPUCNN_TUNED) and used from the next run on.
    """
    from gpucnn.profiling import tune as tuning

    if missing := why_no_cuda():
        raise DeviceError(f"there is no GPU to tune ({missing}): run tune on a machine that has one; a CPU has nothing to choose")
    device = get_device("cuda")
    if device.xp.__name__ == "numpy":
        raise DeviceError("Numba's CUDA simulator is on, and its times mean nothing: run tune on a GPU")
    if forget:
        gone = tuning.forget()
        say(f"deleted   {gone}" if gone else "nothing was remembered of this GPU")
        return
    with using(precision), Status() as status:
        results, file = tuning.on_gpu(device, list(NETWORKS) if model is None else model, integer(batch_size, "batch size", 1), status)
    for line in tuning.lines(results):
        say(line)
    say(f"wrote     {file}")
