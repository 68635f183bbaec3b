"""gpucnn profile"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from gpucnn.cli import together
from gpucnn.cli.options import filled, in_any_case, named, whole
from gpucnn.cli.program import app
from gpucnn.cli.progress import Status
from gpucnn.device import NAMES as DEVICES
from gpucnn.experiment.folder import MODEL
from gpucnn.files import check_target
from gpucnn.networks import NETWORKS
from gpucnn.precision import MODES, using
from gpucnn.surroundings import say, started_ranks, user_path


@app.command(short_help="Show where a training step's time goes, kernel by kernel.")
def profile(
    model: Annotated[
        str, typer.Option(parser=filled, metavar="NAME|FILE", help=f"{NETWORKS}, or a model.safetensors that train wrote, or its folder.")
    ] = "keras",
    batch_size: Annotated[
        int | None, typer.Option(parser=whole, metavar="N", help="Images in the step. [default: 128]", show_default=False)
    ] = None,
    layer: Annotated[
        str | None, typer.Option(metavar="I", help="Only this layer: its number, counted from 1, or its name.", show_default=False)
    ] = None,
    op: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            help="Only these: batch, conv, pool, pad, dense, bias, norm, activation, join, dropout, loss, update.",
            show_default=False,
        ),
    ] = None,
    shape: Annotated[
        str | None,
        typer.Option(
            metavar="SIZES",
            help="One operation, named by --op, instead of a model: for conv N,C,HxW,K,RxS[,stride[,padding]], such as "
            "128,32,14x14,64,5x5,1,same.",
            show_default=False,
        ),
    ] = None,
    compare: Annotated[
        str | None, typer.Option(metavar="torch", help="Compare with PyTorch (cuDNN on a GPU) on the same shapes.", show_default=False)
    ] = None,
    arch: Annotated[
        str | None,
        typer.Option(
            metavar="CHIP",
            help="A chip, present or not (T4, A100, RTX 4090, H100, H200, B200, sm_90): bounds and predicted times.",
            show_default=False,
        ),
    ] = None,
    kernels: Annotated[
        str | None,
        typer.Option(
            parser=filled,
            metavar="TEXT",
            help="With --arch, instead of a step: single kernels with TEXT in their names; all; or shapes, the requirements of the "
            "named shapes.",
            show_default=False,
        ),
    ] = None,
    precision: Annotated[
        str, typer.Option(metavar="MODE", help=f"How exact convolutions and dense layers are on tensor cores: {', '.join(MODES)}.")
    ] = "highest",
    device: Annotated[
        str,
        typer.Option(
            parser=in_any_case(DEVICES),
            metavar="NAME",
            help=f"{', '.join(DEVICES)}; auto is the GPU, cpu measures the CPU's operations.",
        ),
    ] = "auto",
    json: Annotated[
        Path | None, typer.Option(parser=named, metavar="FILE", help="Write the profile, for --against.", show_default=False)
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option(parser=named, metavar="FILE", help="Write a trace for ui.perfetto.dev or chrome://tracing.", show_default=False),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(parser=named, metavar="FILE", help="Write a page: roofline, timeline, sortable table.", show_default=False),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            parser=named,
            metavar="FILE",
            help="An earlier profile (--json): print what has become slower, beyond the noise.",
            show_default=False,
        ),
    ] = None,
    ranks: Annotated[
        int | None,
        typer.Option(
            parser=whole,
            metavar="N",
            help="Add a row for the sum of gradients over N ranks: measured with --device cpu (MPI starts them), calculated for a GPU.",
            show_default=False,
        ),
    ] = None,
    link: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="What connects the GPUs of ranks: nvlink, pcie, 100gbe. [default: nvlink]", show_default=False),
    ] = None,
    lineinfo: Annotated[
        bool, typer.Option("--lineinfo", help="Compile with line numbers, so that Nsight Compute shows Python source.")
    ] = False,
) -> None:
    """Show where a training step's time goes, how far each kernel is from what the chip can do, and what to look at next.

    On a GPU, kernels are measured; with --device cpu, the CPU's operations. With --arch, nothing runs: the kernels are compiled for a chip
    that need not be present, and the output consists of bounds and of times predicted from the machine code.
    """
    if ranks is not None and device == "cpu" and arch is None and started_ranks() == 1 and together.start(ranks, "--ranks"):
        return
    if lineinfo:
        os.environ["GPUCNN_LINEINFO"] = "1"  # read when the kernels are imported, which is below
    with _lines(wanted=arch is not None):
        from gpucnn.profiling import records, run
        from gpucnn.profiling.show import compare as comparison
        from gpucnn.profiling.show import report

    outputs = run.Outputs(*(None if path is None else user_path(path) for path in (json, trace, html)))
    outputs.check()
    for option, path in (("--json", outputs.json), ("--trace", outputs.trace), ("--html", outputs.html)):
        if path is not None:
            check_target(path, option, {"the model itself": [model, str(Path(model) / MODEL)]})
    earlier = None if against is None else records.read(user_path(against))
    options = run.Options(model, batch_size, layer, op, shape, compare, device, arch, lineinfo, kernels, ranks, link)
    with using(precision), Status() as status:
        made = run.make(options, status)
    try:  # before anything is printed: a reader such as head may end the program
        written = outputs.write(made)
    finally:
        for line in report.lines(made):
            say(line)
        if earlier is not None:
            say("")
            for line in comparison.lines(earlier, made):
                say(line)
    for path in written:
        say(f"wrote     {path}")


@contextmanager
def _lines(*, wanted: bool) -> Iterator[None]:
    """Makes everything that is imported in the block compile kernels with line numbers, so that the page can show Python beside
    instructions; this does not change the kernels. Later imports and child processes are not affected."""
    if not wanted or "GPUCNN_LINEINFO" in os.environ:
        yield
        return
    os.environ["GPUCNN_LINEINFO"] = "1"
    try:
        yield
    finally:
        del os.environ["GPUCNN_LINEINFO"]
