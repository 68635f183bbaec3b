"""Times of a training step on a GPU: kernel by kernel and as one CUDA graph, beside PyTorch eager, compiled and as a CUDA graph.

    python examples/steps_on_gpu.py [--model keras] [--batch-size 128] [--steps 100] [--rounds 10] [--tf32] [--compiled] [--quick]

Both have the same 10,000 random images on the device as uint8 and draw their batches there; float32, with TF32 for PyTorch where asked.
The rivals take turns, `steps` steps at a time. Printed are microseconds per step (median over the rounds, with 10th and 90th percentile),
images per second, what of a step the host took to launch it, and the peak memory. torch.compile takes up to a minute, and so is left out
unless --compiled asks for it. --device cpu tries the script where there is no GPU; on the virtual one, which has no times, --quick does.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from common import finish, not_measured, parse, pytorch_on, whole  # beside this file

import gpucnn as gc
from gpucnn.data.batches import Batches
from gpucnn.device import get_device, simulated
from gpucnn.training.feed import feed_for
from gpucnn.training.step import TrainingStep

IMAGES = 10_000
QUICK = {"batch_size": 4, "steps": 1, "rounds": 2}
SGD = "lenet5x5"  # the network that is trained with SGD, as in its textbook


@dataclass
class Rival:
    """A library that does training steps: a number of steps without waiting, then a wait, and its peak memory in bytes."""

    name: str
    steps: Callable[[int], None]
    wait: Callable[[], None]
    memory: Callable[[], int]


def ours(name: str, images: Any, labels: Any, batch: int, device: str, graphs: bool) -> Rival:
    model = gc.network(name).build(images.shape[1:], seed=0, device=device)
    model.compile(gc.SGD(0.01, momentum=0.9) if name == SGD else gc.Adam(1e-3))
    assert model.loss is not None and model.optimizer is not None
    step = TrainingStep(model, model.loss, model.optimizer, graphs=graphs)
    batches = Batches(images, labels, batch)
    feed = feed_for(step.graphs, batches)
    full = IMAGES // batch  # batches

    def steps(count: int) -> None:
        done = 0
        while done < count:
            step.begin(batches.steps_per_epoch)
            for size, _ in zip(feed.epoch(0, 0), range(min(full, count - done)), strict=False):
                step.run(feed, size)
                done += 1

    def memory() -> int:
        pool = model.device.xp.get_default_memory_pool() if step.graphs.cuda else None
        return step.graphs.bytes + (int(pool.total_bytes()) if pool else 0)

    return Rival(f"gpucnn, {'one graph' if graphs else 'kernel by kernel'}", steps, lambda: (step.read(), None)[1], memory)


def pytorch(name: str, images: Any, labels: Any, batch: int, device: str, how: str) -> Rival:
    import torch
    from against_pytorch import torch_model  # beside this file
    from torch.nn.functional import cross_entropy

    model = torch_model(name).to(device)
    rate = {"lr": 0.01, "momentum": 0.9} if name == SGD else {"lr": 1e-3, **({"capturable": True} if how == "graph" else {})}
    optimizer = (torch.optim.SGD if name == SGD else torch.optim.Adam)(model.parameters(), **rate)
    data, targets = torch.from_numpy(images).to(device), torch.from_numpy(labels.astype(np.int64)).to(device)
    x = torch.empty((batch, *images.shape[1:]), device=device)
    y = torch.empty(batch, dtype=torch.int64, device=device)
    forward = torch.compile(model) if how == "compiled" else model

    def step() -> None:
        optimizer.zero_grad(set_to_none=how != "graph")
        cross_entropy(forward(x), y).backward()
        optimizer.step()

    def draw() -> None:
        chosen = torch.randint(0, IMAGES, (batch,), device=device)
        torch.divide(data[chosen], 255.0, out=x)
        y.copy_(targets[chosen])

    run = step
    if how == "graph":
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            for _ in range(3):
                draw()
                step()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
        run = graph.replay

    def steps(count: int) -> None:
        for _ in range(count):
            draw()
            run()

    on_gpu = device == "cuda"
    return Rival(
        f"PyTorch, {how}",
        steps,
        torch.cuda.synchronize if on_gpu else lambda: None,
        torch.cuda.max_memory_allocated if on_gpu else lambda: 0,
    )


@dataclass(frozen=True)
class Result:
    """A library's time for a step in microseconds: median over the rounds, 10th and 90th percentile; the host's share; peak memory."""

    name: str
    median: float
    p10: float
    p90: float
    host: float
    mib: float
    ratio: float  # to the first rival's median


def compare(
    name: str, batch: int, steps: int, rounds: int, device: str = "cuda", *, tf32: bool = False, compiled: bool = False
) -> list[Result]:
    """A step of the network `name` in all libraries, alternating; PyTorch's if it runs on the device."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (IMAGES, 1, 28, 28), np.uint8), rng.integers(0, 10, IMAGES).astype(np.int32)
    given = name, images, labels, batch, device
    on_gpu = device == "cuda"
    rivals = [ours(*given, graphs) for graphs in ((True, False) if on_gpu else (False,))]
    torch, missing = pytorch_on(get_device(device))
    if torch is None:
        print(f"nothing to compare with: {missing}", flush=True)
    else:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        torch.backends.cudnn.benchmark = True
        rivals += [pytorch(*given, how) for how in ("eager", *(["compiled"] if compiled else []), *(["graph"] if on_gpu else []))]
    for rival in rivals:  # compiles, records, picks algorithms
        rival.steps(max(min(5, steps), steps // 10))
        rival.wait()
    times: dict[str, list[float]] = {rival.name: [] for rival in rivals}
    hosts: dict[str, list[float]] = {rival.name: [] for rival in rivals}
    for _ in range(rounds):
        for rival in rivals:
            start = time.perf_counter()
            rival.steps(steps)
            hosts[rival.name].append((time.perf_counter() - start) / steps)
            rival.wait()
            times[rival.name].append((time.perf_counter() - start) / steps)
    base = statistics.median(times[rivals[0].name])
    results = []
    for rival in rivals:
        own = sorted(times[rival.name])
        middle, low, high = statistics.median(own), own[len(own) // 10], own[-1 - len(own) // 10]
        host = statistics.median(hosts[rival.name])
        results.append(Result(rival.name, 1e6 * middle, 1e6 * low, 1e6 * high, 1e6 * host, rival.memory() / 2**20, middle / base))
    return results


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="keras", choices=("keras", "tf2", "lenet5x5"), help="the network [keras]")
    parser.add_argument("--batch-size", type=whole(1, IMAGES), default=128, help="images in a step [128]")
    parser.add_argument("--steps", type=whole(), default=100, help="steps per measurement [100]")
    parser.add_argument("--rounds", type=whole(), default=10, help="rounds of measurements [10]")
    parser.add_argument("--tf32", action="store_true", help="let PyTorch use TF32")
    parser.add_argument("--compiled", action="store_true", help="also measure torch.compile")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"), help="cpu only checks that the program runs [cuda]")
    options = parse(parser, **QUICK)
    device = get_device(options.device)
    if device.kind == "cuda" and simulated():
        raise gc.DeviceError("Numba's CUDA simulator is on, and launches neither graphs nor PyTorch: unset NUMBA_ENABLE_CUDASIM")
    note = not_measured(device, options.quick)
    if note and not options.quick:
        raise gc.DeviceError(f"there is no GPU to measure: {note} (--quick runs anyway)")
    results = compare(
        options.model, options.batch_size, options.steps, options.rounds, options.device, tf32=options.tf32, compiled=options.compiled
    )
    print(f"{device.name}: {options.model}, batch {options.batch_size}, float32{', PyTorch with TF32' if options.tf32 else ''}")
    print(f"{'':28}  {'µs a step (p10–p90)':>26}  {'images/s':>11}  {'host µs':>8}  {'peak MiB':>8}  ratio")
    for each in results:
        spread = f"{each.median:,.1f} ({each.p10:,.1f}–{each.p90:,.1f})"
        rate = 1e6 * options.batch_size / each.median
        print(f"{each.name:28}  {spread:>26}  {rate:11,.0f}  {each.host:8.1f}  {each.mib:8.1f}  {each.ratio:.2f}×")
    if note:
        print(note)
    return 0


if __name__ == "__main__":
    finish(main)
