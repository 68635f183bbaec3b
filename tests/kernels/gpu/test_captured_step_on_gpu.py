"""Training steps recorded as CUDA graphs by the real driver: the bits of steps that are launched one by one, and what goes wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kernel_harness import REAL

import gpucnn as gc
from gpucnn.data.augment import CropFlip
from gpucnn.data.batches import Batches
from gpucnn.device import Device, to_numpy
from gpucnn.errors import TrainingError
from gpucnn.networks import network
from gpucnn.training.feed import DeviceFeed, HostFeed
from gpucnn.training.step import VARIABLE, Totals, TrainingStep

pytestmark = pytest.mark.gpu

BATCH, EPOCHS = 16, 2
SIDE = 28 if REAL else 12
LONG = () if REAL else (pytest.mark.slow,)
RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (3 * BATCH + 9, 1, SIDE, SIDE)).astype(np.uint8)  # four steps an epoch, the last with fewer examples
LABELS = RANDOM.integers(0, 10, len(IMAGES)).astype(np.int32)


@pytest.fixture(autouse=True)
def with_graphs_and_no_word_about_them(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Where a graph cannot be recorded training goes on without, and warns: here that is a failure."""
    monkeypatch.delenv(VARIABLE, raising=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*CUDA graph")
        yield


def model_on(device: Device, name: str, kind: str) -> gc.Sequential:
    """Both networks begin with the fused block; lenet5x5 has dropout."""
    schedule = gc.schedules.OneCycle(0.01, 4 * EPOCHS)
    optimizer = (
        gc.Adam(schedule, weight_decay=0.01) if kind == "adam" else gc.SGD(schedule, momentum=0.9, nesterov=True, global_clipnorm=0.05)
    )
    return network(name).build((1, SIDE, SIDE), seed=4, device=device).compile(optimizer)


def step_of(model: gc.Sequential, graphs: bool = True) -> TrainingStep:
    assert model.loss is not None and model.optimizer is not None
    return TrainingStep(model, model.loss, model.optimizer, graphs=graphs)


def train(device: Device, name: str, kind: str, feed: type[Any], graphs: bool) -> tuple[Any, list[Totals], Any, int]:
    """Parameters, the totals of each epoch, the layers' state, and how many graphs there are in the end."""
    model = model_on(device, name, kind)
    step = step_of(model, graphs)
    batches = Batches(IMAGES, LABELS, BATCH, seed=1)
    source = DeviceFeed(step.graphs, batches, None) if feed is DeviceFeed else HostFeed(step.graphs, batches)
    totals = []
    for epoch in range(EPOCHS):
        step.begin(batches.steps_per_epoch, epoch=epoch)
        for size in source.epoch(epoch, 0):
            step.run(source, size)
        totals.append(step.read())
    return to_numpy(model.buffers.values), totals, model.state(), step.graphs.recorded


@pytest.mark.parametrize(
    ("name", "kind", "feed"),
    [
        ("keras", "adam", DeviceFeed),
        ("keras", "sgd", HostFeed),
        pytest.param("lenet5x5", "adam", HostFeed, marks=LONG),
        pytest.param("keras", "adam", HostFeed, marks=LONG),
        pytest.param("keras", "sgd", DeviceFeed, marks=LONG),
        pytest.param("lenet5x5", "adam", DeviceFeed, marks=LONG),
        pytest.param("lenet5x5", "sgd", HostFeed, marks=LONG),
        pytest.param("lenet5x5", "sgd", DeviceFeed, marks=LONG),
    ],
)
def test_replayed_steps_have_the_bits_of_launched_ones(gpu: Device, name: str, kind: str, feed: type[Any]) -> None:
    values, totals, state, recorded = train(gpu, name, kind, feed, True)
    launched, expected, expected_state, none = train(gpu, name, kind, feed, False)
    np.testing.assert_array_equal(values, launched)
    assert totals == expected and state == expected_state
    assert np.isfinite(values).all() and totals[0].loss != totals[1].loss
    assert (recorded, none) == (2, 0)  # whole batches, and the last one


@pytest.mark.parametrize("name", ["keras", pytest.param("lenet5x5", marks=LONG)])
def test_fit_gives_the_same_bits_for_the_same_seed(gpu: Device, name: str) -> None:
    results = []
    for seed in (7, 7, 8):
        model = model_on(gpu, name, "adam")
        history = model.fit(IMAGES, LABELS, batch_size=BATCH, epochs=2, seed=seed, augment=CropFlip(2), verbose=False)
        results.append((to_numpy(model.buffers.values), history["loss"]))
    (first, loss), (second, again), (other, _) = results
    np.testing.assert_array_equal(first, second)
    assert loss == again
    assert (first != other).any()


def test_a_loss_of_nan_stops_the_updates_where_it_came_up(gpu: Device) -> None:
    """At the fifth step, which is a replayed one."""
    model = model_on(gpu, "keras", "sgd")
    step = step_of(model)
    feed = HostFeed(step.graphs)
    x = (IMAGES[:BATCH] / 255).astype(np.float32)
    step.begin(6)
    kept = []
    for number in range(6):
        feed.put(x * np.float32(np.nan if number == 4 else 1), LABELS[:BATCH])
        step.run(feed, BATCH)
        step.graphs.wait()
        kept.append(to_numpy(model.buffers.values).copy())
    with pytest.raises(TrainingError, match="the loss became nan at step 5"):
        step.read()
    assert step.graphs.recorded == 1 and model.optimizer is not None and model.optimizer.steps == 4
    assert np.isfinite(kept[5]).all() and (kept[3] != kept[2]).any()
    np.testing.assert_array_equal(kept[5], kept[3])


# Kernels are dispatchers that nothing lists; those with a cache of their own are found among all objects.
PROGRAM = """
import gc, json
import numpy as np
import gpucnn
from gpucnn.networks import network
random = np.random.default_rng(0)
images, labels = random.integers(0, 256, (40, 1, 12, 12)).astype(np.uint8), random.integers(0, 10, 40).astype(np.int32)
model = network("keras").build((1, 12, 12), seed=4, device="cuda").compile(gpucnn.Adam(0.001))
history = model.fit(images, labels, batch_size=16, epochs=2, verbose=False)
kernels = [each for each in gc.get_objects() if type(getattr(each, "_cache", None)).__name__ == "KernelCache"]
hits, misses = (sum(sum(getattr(each, name).values()) for each in kernels) for name in ("_cache_hits", "_cache_misses"))
print(json.dumps([hits, misses, history["loss"]]))
"""


@pytest.mark.slow  # compiles all that there is
def test_a_second_process_takes_every_kernel_from_disk(gpu: Device, tmp_path: Path) -> None:
    """And computes the same with it. In the first one, two processes compile."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "GPUCNN_KERNEL_CACHE": "1", "GPUCNN_COMPILERS": "2"}
    found = []
    for _ in range(2):
        result = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False, env=environment, timeout=600)
        assert result.returncode == 0, result.stderr
        assert "a kernel" not in result.stderr  # cannot be used, cannot be kept
        found.append(json.loads(result.stdout.splitlines()[-1]))
    (hits, misses, loss), (again, compiled, same) = found
    assert hits > 0 and misses > 0 and hits + misses > 5
    assert (again, compiled) == (hits + misses, 0)
    assert same == loss
