"""gpucnn tune"""

from __future__ import annotations

from typing import Annotated

import typer

from gpucnn.checks import integer
from gpucnn.cli.options import whole
from gpucnn.cli.program import app
from gpucnn.cli.progress import Status
from gpucnn.device import get_device
from gpucnn.errors import DeviceError
from gpucnn.networks import NETWORKS
from gpucnn.surroundings import say


@app.command(short_help="Measure which kernels are fastest on this GPU, and remember it.")
def tune(
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|FILE",
            help=f"Whose shapes: {NETWORKS}, or a model.safetensors; may be given several times. [default: all of these]",
            show_default=False,
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(parser=whole, metavar="N", help="Images in a step.")] = 128,
    forget: Annotated[bool, typer.Option("--forget", help="Delete what is remembered of this GPU, and measure nothing.")] = False,
) -> None:
    """Measures every kernel that can do each operation of a training step, and keeps what is clearly faster than what the rules choose.

    The table is in the user's cache ($GPUCNN_TUNED names another folder) and counts from the next run on.
    """
    from gpucnn.profiling import tune as tuning

    device = get_device("cuda")
    if device.xp.__name__ == "numpy":
        raise DeviceError("Numba's CUDA simulator is on, and its times say nothing: tune on a GPU")
    if forget:
        gone = tuning.forget()
        say(f"deleted   {gone}" if gone else "nothing was remembered of this GPU")
        return
    with Status() as status:
        results, file = tuning.on_gpu(device, list(NETWORKS) if model is None else model, integer(batch_size, "batch size", 1), status)
    for line in tuning.lines(results):
        say(line)
    say(f"wrote     {file}")
