"""Measures every figure in kernels/measured for one chip, in one run on this machine's GPU.

    python examples/measure_chip.py kernels/measured/CHIP.json [--parts tune shapes networks ladder steps speedrun] [--compiled] [--quick]

The parts, each written as soon as it is done, with chip, driver, versions and commit:

    shapes     the convolutions and poolings of the catalogue, forward and both gradients, each beside PyTorch (cuDNN, TF32 off)
    networks   the three reference networks kernel by kernel, beside PyTorch
    ladder     a product of matrices from the plain kernel to the tiled one, beside cuBLAS
    steps      a training step as one graph and kernel by kernel, beside PyTorch eager, as a graph, and with --compiled torch.compile
    speedrun   seconds of training to 98, 99 and 99.4 % on MNIST (--data-dir)
    tune       which variant is fastest for each operation of the networks and for each shape, and how far the rules are from it

A part that fails is said in the file in place of its figures, and the rest go on. Results are checked against float64 before a time is
taken; PyTorch, where it sees the GPU, and CUDA's events are what the times are compared by. --quick does the smallest of each part, says in
the file that its figures mean nothing, and leaves the table of what is fastest as it is; it is all that a virtual GPU is good for.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import platform
import subprocess
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from common import few_repetitions, finish, not_measured, parse, pytorch_on, small_set, whole  # beside this file

import gpucnn as gc
from gpucnn.device import Device, get_device, simulated
from gpucnn.profiling import run, tune
from gpucnn.profiling.measure.bench import Bench, EventClock
from gpucnn.profiling.measure.timing import measure
from gpucnn.profiling.records import Profile
from gpucnn.profiling.what import workload
from gpucnn.profiling.what.observe import Observer
from gpucnn.profiling.what.shapes import CONV_SHAPES, POOL_SHAPES
from gpucnn_kernels.choose import select
from gpucnn_kernels.core.launch import external_stream, unsynchronized
from ladder import gpu as ladder

NETWORKS = ("keras", "tf2", "lenet5x5")
PACKAGES = ("numpy", "numba", "numba-cuda", "cuda-bindings", "cupy-cuda12x", "cupy-cuda13x", "nvidia-nvjitlink", "torch")


@dataclass(frozen=True)
class Job:
    """What to measure, and on what."""

    device: Device
    torch: Any  # the module, or None where there is nothing to compare with
    quick: bool
    compiled: bool
    seeds: int
    data_dir: str | None

    @property
    def compare(self) -> str | None:
        return None if self.torch is None else "torch"


def about(device: Device) -> dict[str, Any]:
    """Chip, driver, versions and commit."""
    found: dict[str, Any] = {"chip": device.name, "date": time.strftime("%Y-%m-%d"), "gpucnn": gc.__version__}
    query = "driver_version,clocks.max.sm,clocks.max.mem,power.limit"
    found |= dict(zip(query.split(","), _output("nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader").split(", "), strict=False))
    found["commit"] = _output("git", "rev-parse", "HEAD") or "unknown"
    found["Python"] = platform.python_version()
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def condensed(profile: Profile) -> dict[str, Any]:
    """A profile by operation, with the launches of each added up: microseconds, PyTorch's time, and the share of the roofline."""
    operations: dict[tuple[str, str, str], dict[str, Any]] = {}
    for row in profile.rows:
        key = row.layer, row.phase, row.op
        assert row.time is not None
        own = operations.setdefault(
            key,
            {"layer": row.layer, "op": row.op, "µs": 0.0, "p10": 0.0, "p90": 0.0, "warm": 0.0, "flops": 0, "roofline": 0.0, "kernels": []},
        )
        own["µs"] += 1e6 * row.time.median
        own["p10"] += 1e6 * row.time.p10
        own["p90"] += 1e6 * row.time.p90
        own["warm"] += 1e6 * (row.warm or row.time).median
        own["flops"] += row.flops
        own["roofline"] += 1e6 * row.roofline
        own["wall"] = row.wall
        kernel = {"kernel": row.kernel, "µs": 1e6 * row.time.median, "blocks": row.blocks, "threads": row.threads}
        own["kernels"].append({**kernel, "registers": row.registers, "occupancy": row.occupancy, "waves": row.waves})
        if row.reference is not None:
            own["PyTorch"] = 1e6 * row.reference.median
            own["ratio"] = row.ratio
    for own in operations.values():
        own["TFLOP/s"] = own["flops"] / own["µs"] / 1e6 if own["µs"] else 0.0
        own["of roofline"] = own["roofline"] / own["µs"] if own["µs"] else 0.0
    return {
        "batch": profile.batch,
        "bandwidth": profile.ceilings.bandwidth,
        "peak": profile.ceilings.flops,
        "launch": 1e6 * profile.ceilings.launch,
        "step": {
            name: 1e6 * each.median
            for name, each in (("launched", profile.step.time), ("graph", profile.step.graph), ("host", profile.step.host))
            if each is not None
        },
        "operations": list(operations.values()),
    }


Say = Callable[[str], None]
Figures = dict[str, Any]


def shapes(say: Say, found: Figures, job: Job) -> None:
    """The catalogue's shapes, forward and backward."""
    wanted = {shape.name: ("conv", shape.name) for shape in CONV_SHAPES}
    for pool in POOL_SHAPES:
        sizes = f"{pool.n},{pool.c},{pool.hw[0]}x{pool.hw[1]},{pool.kernel}x{pool.kernel},{pool.stride},{pool.padding}"
        wanted[pool.name] = "pool", sizes
    if job.quick:
        wanted = {"small convolution": ("conv", "2,3,6x6,4,3x3"), "small pooling": ("pool", "2,3,6x6,2x2")}
    for name, (op, shape) in wanted.items():
        asked = run.Options(op=op, shape=shape, device="cuda", compare=job.compare)
        found[name] = condensed(run.make(asked, say=lambda text: None))
        say(f"shapes: {name}")


def networks(say: Say, found: Figures, job: Job) -> None:
    """The reference networks, kernel by kernel."""
    for name in NETWORKS[: 1 if job.quick else None]:
        sizes = {"batch_size": 4, "layer": "dense_2"} if job.quick else {}
        asked = run.Options(model=name, device="cuda", compare=job.compare, **sizes)
        found[name] = condensed(run.make(asked, say=lambda text: None))
        say(f"networks: {name}")


def rungs(say: Say, found: Figures, job: Job) -> None:
    """The ladder's product of `side` × `side` matrices, in TFLOP/s; results are verified before they are timed."""
    side = 128 if job.quick else 4096
    xp, torch = job.device.xp, job.torch
    left, right = (np.random.default_rng(seed).standard_normal((side, side), np.float32) for seed in (0, 1))
    expected = left[:128].astype("float64") @ right.astype("float64")
    allowed = 6 * side**0.5 * 2.0**-24 * (abs(left[:128]).astype("float64") @ abs(right).astype("float64"))  # tests/tolerances.py
    a, b = xp.asarray(left), xp.asarray(right)
    xp.cuda.Device().synchronize()
    stream = xp.cuda.Stream(non_blocking=True)
    with stream:
        clock = EventClock(xp, stream)
        for rung in ladder.rungs():
            c = xp.full((side, side), xp.nan, "float32")
            arrays = [unsynchronized(each) for each in (a, b, c)]
            ladder.product(rung, *arrays, external_stream(stream.ptr))
            if not (abs(c[:128].get() - expected) <= allowed).all():
                raise RuntimeError(f"the ladder's {rung.name} gives a wrong result")
            timing = measure(clock, [lambda rung=rung, arrays=arrays: ladder.product(rung, *arrays, external_stream(stream.ptr))])
            found[rung.name] = {"µs": 1e6 * timing.median, "TFLOP/s": 2 * side**3 / timing.median / 1e12}
            say(f"ladder: {rung.name}")
    if torch is None:
        return
    torch.backends.cuda.matmul.allow_tf32 = False
    factors, out = [torch.randn(side, side, device="cuda") for _ in range(2)], torch.empty(side, side, device="cuda")
    events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
    times = []
    for _ in range(13):
        events[0].record()
        torch.mm(*factors, out=out)
        events[1].record()
        torch.cuda.synchronize()
        times.append(1e-3 * events[0].elapsed_time(events[1]))
    middle = sorted(times[3:])[5]
    found["cuBLAS, float32"] = {"µs": 1e6 * middle, "TFLOP/s": 2 * side**3 / middle / 1e12}


def steps(say: Say, found: Figures, job: Job) -> None:
    """A training step in all libraries; torch.compile, which is slow to compile, only for the smaller batch."""
    from steps_on_gpu import QUICK, compare  # beside this file

    if job.quick:
        found["keras, quick"] = [dataclasses.asdict(each) for each in compare("keras", *QUICK.values())]
        return
    for name in NETWORKS:
        for batch, tf32 in ((128, False), (128, True), (512, False)):
            key = f"{name}, batch {batch}{', PyTorch with TF32' if tf32 else ''}"
            results = compare(name, batch, 50, 8, tf32=tf32, compiled=job.compiled and batch == 128 and not tf32)
            found[key] = [dataclasses.asdict(each) for each in results]
            say(f"steps: {key}")


def speedrun(say: Say, found: Figures, job: Job) -> None:
    """Seconds of training and test accuracy after each epoch, for each seed."""
    import mnist_speedrun  # beside this file

    data = small_set() if job.quick else gc.load_dataset("mnist", data_dir=job.data_dir)
    batch, epochs = (32, 1) if job.quick else (256, 6)
    mnist_speedrun.run(data, 0, 1, batch, "cuda")  # compiles
    found |= {"batch": batch, "epochs": epochs, "seconds and accuracy": []}
    for seed in range(1 if job.quick else job.seeds):
        reached = mnist_speedrun.run(data, seed, epochs, batch, "cuda")
        found["seconds and accuracy"].append(reached)
        say(f"speedrun: seed {seed}, {100 * reached[-1][1]:.2f} % after {reached[-1][0]:.3f} s")


def tuned(say: Say, found: Figures, job: Job) -> None:
    """The variants and their times for every problem of the networks and of the catalogue's convolutions; results that beat the rules
    are stored where `gpucnn tune` stores them."""
    device, xp = job.device, job.device.xp
    work = [lambda observer, name=name: workload.of_model(name, 128, device, observer) for name in NETWORKS]
    work += [lambda observer, name=shape.name: workload.of_operation("conv", name, device, observer) for shape in CONV_SHAPES]
    if job.quick:
        work = [lambda observer: workload.of_operation("conv", "2,2,4x4,2,3x3", device, observer)]
    results: list[tune.Result] = []
    done: set[str] = set()
    stream = xp.cuda.Stream(non_blocking=True)
    for make in work:
        made = make(Observer())
        xp.cuda.Device().synchronize()
        with stream:
            timer = functools.partial(Bench.on(xp, stream).time_together, budget=0.04)
            results += tune.tune(made, timer, lambda text: None, done=done)
        for result in results[len(found) :]:
            found[result.problem.key] = {
                "best": f"{result.best[0].name}/{result.best[0].slices}",
                "gain": result.gain,
                "µs": {f"{choice.name}/{choice.slices}": 1e6 * timing.median for choice, timing in result.times},
                "wrong": {f"{choice.name}/{choice.slices}": words for choice, words in result.wrong},
            }
        say(f"tune: {made.name}")
    for line in tune.lines(results):
        print(line)
    if not job.quick:
        tune.store(select.current_chip().name, results, {"driver": str(xp.cuda.runtime.driverGetVersion())})


PARTS: dict[str, Callable[[Say, Figures, Job], None]] = {
    "tune": tuned,
    "shapes": shapes,
    "networks": networks,
    "ladder": rungs,
    "steps": steps,
    "speedrun": speedrun,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", type=Path, help="file for the figures, as JSON")
    parser.add_argument(
        "--parts", nargs="+", choices=tuple(PARTS), default=list(PARTS), metavar="PART", help="which parts, and in what order [all]"
    )
    parser.add_argument("--compiled", action="store_true", help="also measure steps with torch.compile")
    parser.add_argument("--seeds", type=whole(), default=10, help="runs of the speedrun [10]")
    parser.add_argument("--data-dir", metavar="FOLDER", help="folder of MNIST, also for downloads")
    options = parse(parser)
    run.Outputs(json=options.file).check()  # before anything is measured
    device = get_device("cuda")
    if simulated():
        raise gc.DeviceError("Numba's CUDA simulator is on, and its times mean nothing: unset NUMBA_ENABLE_CUDASIM")
    note = not_measured(device, options.quick)
    if note and not options.quick:
        raise gc.DeviceError(f"there is no GPU to measure: {note} (--quick runs the smallest case of each part anyway)")
    torch, missing = pytorch_on(device)
    job = Job(device, torch, options.quick, options.compiled, options.seeds, options.data_dir)
    figures: Figures = {"about": about(device)}
    for name, words in (("nothing measured", note), ("without PyTorch", missing)):
        if words:
            figures["about"][name] = words
            print(f"{name}: {words}", flush=True)

    def say(text: str) -> None:  # and keeps what there is by now
        print(text, flush=True)
        options.file.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    failed = False
    for part in options.parts:
        start = time.perf_counter()
        figures[part] = {}
        try:
            with few_repetitions(options.quick):
                PARTS[part](say, figures[part], job)
        except Exception:
            failed = True
            figures[part]["failed"] = traceback.format_exc()
            print(figures[part]["failed"], flush=True)
        say(f"{part}: {time.perf_counter() - start:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    finish(main)
