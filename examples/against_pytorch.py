"""Times of a training step and a forward pass in gpucnn and in PyTorch, on the CPU, for the reference networks or any network by name.

    python examples/against_pytorch.py [--models keras tf2 lenet5x5] [--steps 30] [--batch-size 128] [--threads N] [--profile] [--memory]
                                       [--others] [--json FILE] [--quick]

There are large ones, too, for images of 224 × 224: resnet18, resnet50, vgg11 and mobilenet224.

Both get the same images, the same kind of update (Adam at 1e-3; SGD with momentum for lenet5x5) and the same number of threads. A
step is the forward pass, loss, backward pass and update. They take turns of three calls, so that whatever else the machine does falls
on both; before a turn there is a pause, in which the other's threads stop spinning, and two calls that are not measured. What is printed
is the median, with the 10th and 90th percentile behind it.

On a machine that is busy with something else there are no figures: one thread of two that waits for its core doubles the time of one
library and not of the other. With --threads 1 what counts is the process's own time on its core, and the machine may be busy.
--others adds ONNX Runtime (the forward pass) and JAX where they are installed. --profile says where this library's time goes, --memory
prints the peak memory of ten steps, each library in a process of its own. --json adds the figures to a file, such as
docs/measured/cpu.json, from which measured_tables.py writes the tables of the documents.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import platform
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cpu_tables
import large
import numpy as np
import rivals
from common import finish, parse, pytorch_on, whole  # beside this file
from machine import about, commit, processor, taken_by_others

import gpucnn as gc
from gpucnn.device import get_device
from gpucnn.ops import cpu
from gpucnn.training.step import TrainingStep

PAUSE = 0.05  # seconds; threads that have run out of work spin on for about 20 ms
STEPS = 30
BUSY = 0.1  # share of the cores' time that others may take
MODELS = ("keras", "tf2", "lenet5x5")  # the reference networks; they are written down here in PyTorch as well
OTHERS = ("lenet5", "alexnet", "vgg", "inception", "resnet", "mobilenet")  # which in_pytorch.py makes of their layers
LARGE = tuple(large.NETWORKS)
SGD = "lenet5x5"  # the network that is trained with SGD, as in its textbook


def torch_model(name: str) -> Any:
    """A network in PyTorch."""
    from torch import nn

    if name in OTHERS + LARGE:
        from in_pytorch import pytorch_of  # beside this file

        return pytorch_of(large.built(name))
    layers: dict[str, list[nn.Module]] = {
        "keras": [nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(5408, 256), nn.ReLU(), nn.Linear(256, 10)],
        "tf2": [
            nn.Conv2d(1, 64, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(64, 64, 3),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(7744, 128),
            nn.ReLU(),
            nn.Linear(128, 10),
        ],
        "lenet5x5": [
            nn.Conv2d(1, 32, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(3136, 1024),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(1024, 10),
        ],
    }
    return nn.Sequential(*layers[name])


def batch_of(name: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Random images and labels for a network."""
    rng = np.random.default_rng(0)
    return rng.random((size, *large.shape_of(name)), dtype=np.float32), rng.integers(0, 10, size, dtype=np.int32)


def torch_step(name: str, x: np.ndarray, labels: np.ndarray) -> Callable[[], Any]:
    """A training step in PyTorch."""
    import torch
    from torch import nn

    model = torch_model(name)
    rate = {"lr": 0.01, "momentum": 0.9} if name == SGD else {"lr": 1e-3}
    optimizer = (torch.optim.SGD if name == SGD else torch.optim.Adam)(model.parameters(), **rate)
    images, targets = torch.from_numpy(x), torch.from_numpy(labels.astype(np.int64))

    def step() -> float:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images), targets)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def torch_forward(name: str, x: np.ndarray) -> Callable[[], Any]:
    """The forward pass alone in PyTorch."""
    import torch

    model, images = torch_model(name).eval(), torch.from_numpy(x)

    def forward() -> Any:
        with torch.inference_mode():
            return model(images)

    return forward


def own_forward(name: str, x: np.ndarray) -> Callable[[], Any]:
    """The forward pass in gpucnn."""
    model = large.built(name)
    return lambda: model.forward(x)


def own_step(name: str, x: np.ndarray, labels: np.ndarray, recorded: bool = True) -> Callable[[], Any]:
    """The training step in gpucnn. recorded: as `fit` runs it; otherwise Python calls each operation."""
    model = large.built(name)
    model.compile(gc.SGD(0.01, momentum=0.9) if name == SGD else gc.Adam(1e-3))
    assert model.loss is not None and model.optimizer is not None
    if not recorded:
        model.chain.replayed = None
    step = TrainingStep(model, model.loss, model.optimizer)
    return lambda: step(x, labels)


def alternate(steps: list[Callable[[], Any]], count: int, clock: Callable[[], float]) -> list[list[float]]:
    """Seconds for `count` calls of each, alternating in groups of up to three."""
    for step in steps:
        step()
    times: list[list[float]] = [[] for _ in steps]
    for turn in range(0, count, 3):
        for step, own in zip(steps, times, strict=True):
            time.sleep(PAUSE)
            for call in range(-2, min(3, count - turn)):
                start = clock()
                step()
                if call >= 0:
                    own.append(clock() - start)
    return times


@contextlib.contextmanager
def profiled(spent: dict[str, float]) -> Iterator[None]:
    """Adds up the seconds spent in each operation of gpucnn.ops.cpu."""

    def timed(name: str, operation: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            start = time.perf_counter()
            try:
                return operation(*args, **options)
            finally:
                spent[name] += time.perf_counter() - start

        return call

    originals = {name: getattr(cpu, name) for name in cpu.__all__}
    try:
        for name, operation in originals.items():
            setattr(cpu, name, timed(name, operation))
        yield
    finally:
        for name, operation in originals.items():
            setattr(cpu, name, operation)


def peak_memory(library: str, name: str, x: np.ndarray, labels: np.ndarray) -> None:
    """Prints the peak memory of this process in MiB after ten steps, and how much of it was in use before the first."""
    import resource

    def peak() -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)

    if library == "PyTorch":  # what computes counts as there before
        import torch  # noqa: F401
    else:
        cpu.relu(np.zeros(1, np.float32))
    before = peak()
    step = (torch_step if library == "PyTorch" else own_step)(name, x, labels)
    for _ in range(10):
        step()
    print(f"{peak():.0f} {peak() - before:.0f}")


def memory_of(library: str, name: str, batch_size: int) -> tuple[int, int]:
    """(peak, growth) in MiB of a process that trains `name` with `library`."""
    command = [sys.executable, __file__, "--batch-size", str(batch_size), "--memory-of", library, name]
    for _ in range(1 if library == "PyTorch" else 2):  # the first one may compile loops, which takes memory of its own
        peak, growth = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return int(peak), int(growth)


def spread(times: list[float]) -> dict[str, float]:
    """Median, 10th and 90th percentile, in milliseconds."""
    low, *_, high = statistics.quantiles(times, n=10, method="inclusive")
    return {name: round(1e3 * value, 3) for name, value in (("median", statistics.median(times)), ("p10", low), ("p90", high))}


def milliseconds(times: list[float]) -> str:
    found = spread(times)
    return f"{found['median']:6.1f} ms ({found['p10']:.1f}–{found['p90']:.1f})"


INSTRUCTIONS = ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES", "ATEN_CPU_CAPABILITY", "DNNL_MAX_CPU_ISA")
"""What holds either library to fewer instructions than the processor has."""


def command(options: argparse.Namespace, *more: str) -> str:
    """The command that measures the same again, with what the environment sets of the instructions that are used."""
    held = [f"{name}={os.environ[name]}" for name in INSTRUCTIONS if os.environ.get(name)]
    models = [] if options.models == list(MODELS) else ["--models", *options.models]
    steps = [] if options.steps == STEPS or options.memory else [f"--steps {options.steps}"]
    return " ".join([*held, "python examples/against_pytorch.py", *more, *steps, *models])


def main() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    known = MODELS + OTHERS + LARGE
    parser.add_argument("--models", nargs="+", choices=known, default=list(MODELS), metavar="NAME", help="which networks [the first three]")
    parser.add_argument("--steps", type=whole(2), default=STEPS, help=f"measured steps of each [{STEPS}]")
    parser.add_argument("--batch-size", type=whole(), default=128, help="images in a step [128]")
    parser.add_argument("--threads", type=whole(), default=cores, help=f"threads of each [{cores}]")
    parser.add_argument("--others", action="store_true", help="compare with ONNX Runtime and JAX too")
    parser.add_argument("--profile", action="store_true", help="print where gpucnn's time goes")
    parser.add_argument("--memory", action="store_true", help="print the peak memory of training instead of times")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also add the figures to this file")
    parser.add_argument("--memory-of", nargs=2, help=argparse.SUPPRESS)
    options = parse(parser, steps=2, batch_size=4)
    if options.memory_of and (options.memory_of[0] not in ("gpucnn", "PyTorch") or options.memory_of[1] not in known):
        parser.error("--memory-of takes gpucnn or PyTorch, and a network")
    if (options.memory or options.memory_of) and importlib.util.find_spec("resource") is None:
        parser.error("--memory asks the system for a process's peak memory as Linux and macOS have it, and this one has not")
    if options.json and options.json.parent and not options.json.parent.is_dir():
        parser.error(f"--json {options.json} cannot be written: there is no folder {options.json.parent}")
    if options.json and not os.access(options.json.parent, os.W_OK):
        parser.error(f"--json {options.json} cannot be written: the folder {options.json.parent} is read-only")
    if options.json:
        cpu_tables.figures_in(options.json)
    if options.memory_of:
        peak_memory(*options.memory_of, *batch_of(options.memory_of[1], options.batch_size))
        return 0
    if options.memory:  # PyTorch is not imported here: a process begins with the peak of the one that starts it
        torch, missing = importlib.util.find_spec("torch"), "PyTorch is not installed (pip install torch)"
    else:
        torch, missing = pytorch_on(get_device("cpu"))
    if torch is None:
        raise gc.MissingExtraError(f"{missing}, so there is nothing to compare with")
    note = {"note": "a run with --quick: the figures mean nothing"} if options.quick else {}
    if options.quick:
        print(note["note"])
    if options.memory:
        print(f"batch {options.batch_size}: peak memory of a process that trains ten steps (since its library was there), ratios of both")
        peaks = {}
        for name in options.models:
            (own_peak, own_growth), (peak, growth) = (memory_of(library, name, options.batch_size) for library in ("gpucnn", "PyTorch"))
            print(
                f"{name:<13} gpucnn {own_peak:4} MiB ({own_growth})   PyTorch {peak:4} MiB ({growth})   {own_peak / peak:.2f}× "
                f"({own_growth / max(growth, 1):.2f})",
                flush=True,
            )
            peaks[name] = {"gpucnn": own_peak, "PyTorch": peak}
        if options.json:
            said = command(options, "--memory", f"--batch-size {options.batch_size}")
            run = {"about": about(cores) | note, "command": said, "batch": options.batch_size, "MiB": peaks}
            cpu_tables.add(options.json, "memory", run)
        return 0
    threads = options.threads
    if threads > 1 and not options.quick and (taken := taken_by_others()) is not None and taken > BUSY:
        raise gc.GpucnnError(
            f"other programs use {100 * taken:.0f} % of this machine's cores, so figures of {threads} threads would mean nothing: "
            "wait until it is quiet, or use --threads 1"
        )
    os.environ["GPUCNN_NUM_THREADS"] = str(threads)
    torch.set_num_threads(threads)
    print(
        f"{processor()}, {cores} cores; gpucnn {gc.__version__}, NumPy {np.__version__}, PyTorch {torch.__version__}, "
        f"Python {platform.python_version()}, commit {commit()}\nbatch {options.batch_size}, {threads} thread"
        f"{'s' if threads > 1 else ', its own time'}; median (p10–p90)"
    )
    clock = time.process_time if threads == 1 else time.perf_counter
    found: dict[str, dict[str, Any]] = defaultdict(dict)
    compared: set[str] = set()  # of the other libraries
    for name in options.models:
        x, labels = batch_of(name, options.batch_size)
        steps = {"gpucnn": own_step(name, x, labels), "PyTorch": torch_step(name, x, labels)}
        forwards = {"gpucnn": own_forward(name, x), "PyTorch": torch_forward(name, x)}
        others = rivals.found(torch_model(name), x, labels, threads, name == SGD) if options.others else {}
        for library, runs in others.items():
            if isinstance(runs, str):
                print(f"{name:<13}{runs}")
                continue
            compared.add(library)
            forwards[library] = runs[1]
            if runs[0] is not None:
                steps[library] = runs[0]
        for title, who in {"step": steps, "forward": forwards}.items():
            ours, *theirs = alternate(list(who.values()), options.steps, clock)
            line = f"{name:<13}{title:<8} gpucnn {milliseconds(ours)}"
            found[name][title] = {"gpucnn": spread(ours)}
            for library, times in zip(list(who)[1:], theirs, strict=True):
                ratio = statistics.median(ours) / statistics.median(times)
                line += f"   {library} {milliseconds(times)}   {ratio:.2f}×"
                found[name][title][library] = {**spread(times), "ratio": round(ratio, 3)}
            print(line, flush=True)
        if options.profile:
            spent: dict[str, float] = defaultdict(float)
            alone = own_step(name, x, labels, recorded=False)
            alone()
            with profiled(spent):
                start = time.perf_counter()
                for _ in range(options.steps):
                    alone()
                total = time.perf_counter() - start
            for operation, seconds in sorted(spent.items(), key=lambda item: -item[1]):
                if seconds > 0.01 * total:
                    print(f"            {operation:<22} {1e3 * seconds / options.steps:6.2f} ms  {100 * seconds / total:4.1f} %")
    if options.json:
        asked = ["--others"] if options.others else []
        said = command(options, *asked, f"--batch-size {options.batch_size}", f"--threads {threads}")
        run = {"about": about(cores), "command": said, "batch": options.batch_size, "threads": threads, "networks": dict(found)}
        run["about"] |= {library: version(rivals.PACKAGES[library]) for library in sorted(compared)} | note
        cpu_tables.add(options.json, "others" if options.others else "steps", run)
    return 0


if __name__ == "__main__":
    finish(main)
