"""Memory runs out inside the pool of the graphs: while a step is recorded, and while one is launched. In processes of their own, on a
virtual GPU with little memory, which finds whoever still uses what was given back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from kernel_harness import REAL

from gpucnn.device import Device

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(REAL, reason="a real GPU has the memory that it has")]

SMALL, LARGE = 8, 24

PROGRAM = """
import hashlib, json, sys, warnings

import cupy
import numpy as np

import gpucnn
from gpucnn.device import get_device, to_numpy
from gpucnn.errors import DeviceMemoryError
from gpucnn.layers.beside import beside
from gpucnn.networks import network
from gpucnn.training import step as steps
from gpucnn.training.feed import HostFeed
from gpucnn.training.graph import Graphs

SMALL, LARGE = map(int, sys.argv[2:])
random = np.random.default_rng(0)
images, labels = random.random((9, LARGE, 1, 12, 12), np.float32), random.integers(0, 10, (9, LARGE)).astype(np.int32)
log = []


class Watched(Graphs):
    filled = False  # by who has no business with the device

    def clear(self):
        log.append(["clear", self.recorded, self.bytes])
        super().clear()

    def _allocate(self, size):
        if self.filled:
            raise MemoryError
        try:
            return super()._allocate(size)
        except Exception as error:
            log.append(["full", self._recording, self.recorded, type(error).__name__])
            raise


steps.Graphs = Watched


class Training:
    def __init__(self):
        log.clear()
        self.model = network("keras").build((1, 12, 12), seed=4, device="cuda").compile(gpucnn.Adam(0.01))
        self.step = steps.TrainingStep(self.model, self.model.loss, self.model.optimizer)
        self.graphs = self.step.graphs
        self.feed = HostFeed(self.graphs)
        self.number = 0
        for size in (SMALL, LARGE):  # what batches are copied to has its place
            self.feed.put(images[0, :size], labels[0, :size])

    def go(self, size, count=1):
        for _ in range(count):
            self.step.begin(1)
            self.feed.put(images[self.number, :size], labels[self.number, :size])
            self.step.run(self.feed, size)
            self.step.read()
            self.number += 1

    def result(self, **more):
        digest = hashlib.sha256(to_numpy(self.model.buffers.values).tobytes()).hexdigest()
        return {"bits": digest, "steps": self.model.optimizer.steps, "recorded": self.graphs.recorded, **more}

    def fill(self):
        "Holds all that is free: of the graphs' pool, and of the device."
        self.fill_device()
        self.graphs.wait()
        self.graphs.filled = True
        for stream in (self.graphs._stream, *self.graphs._branches.streams):  # the pool keeps what is free on a stream for that one
            with self.graphs.entered(), stream:
                self.held += taken(self.graphs._pool.malloc, self.graphs._pool.free_bytes)
        self.graphs.filled = False

    def fill_device(self):
        cupy.get_default_memory_pool().free_all_blocks()
        self.held = taken(cupy.cuda.Memory, lambda: 1 << 25)


def taken(allocate, left):
    held, size = [], 1 << 25
    while size >= 512 and left():
        try:
            held.append(allocate(min(size, left())))
        except (cupy.cuda.runtime.CUDARuntimeError, MemoryError):
            size //= 2
    return held


def refused(training, size):
    try:
        training.go(size)
    except DeviceMemoryError as error:
        return str(error)


def never():
    "What each of the others ends with where memory does not run out."
    ends = {}
    for name, sizes in {"launched": (3, 0, 3), "recorded": (3, 1, 3), "recovered": (3, 3, 3)}.items():
        training = Training()
        for size, count in zip((SMALL, LARGE, SMALL), sizes):
            training.go(size, count)
        ends[name] = training.result()
    return ends


def out_of_memory():
    ends = {}
    training = Training()
    training.go(SMALL, 3)
    training.fill_device()
    before = training.graphs.bytes
    said = refused(training, LARGE)
    after, events = training.graphs.bytes, list(log)
    training.go(SMALL, 3)
    ends["launched"] = training.result(said=said, log=events, before=before, after=after)
    training.held.clear()

    training = Training()
    training.go(SMALL, 3)
    training.go(LARGE)
    training.fill()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        said = refused(training, LARGE)
    events = list(log)
    training.held.clear()
    training.go(SMALL, 3)
    ends["recorded"] = training.result(said=said, log=events, warned=[str(each.message) for each in caught])

    training = Training()
    training.go(SMALL, 3)
    training.go(LARGE)
    training.fill()
    caught = []

    def room_again(text, *more, **named):
        caught.append(str(text))
        training.held.clear()

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = room_again
        training.go(LARGE, 2)
    events = list(log)
    training.go(SMALL, 3)
    ends["recovered"] = training.result(log=events, warned=caught)
    return ends


def apart():
    "Memory runs out on the branch, in a recording and in a launch; in the end there is room again."
    graphs = Watched(get_device("cuda"))
    size, total, seen = (10 << 20) // 4, cupy.zeros(1, np.float32), []

    def function():
        with beside() as branch:
            with branch:
                theirs = cupy.full(size, 1, np.float32)
            own = cupy.full(size, 2, np.float32)
        total[...] += own[-1:] + theirs[-1:]

    def run():
        try:
            graphs.run("key", function)
        except MemoryError as error:
            seen.append(type(error).__name__)
        graphs.wait()
        seen.append(float(total[0]))

    run()
    with graphs.entered(), graphs._branches.streams[0]:
        held = [graphs._pool.malloc(4 * size)]
    held += taken(cupy.cuda.Memory, lambda: 1 << 25)
    log.clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run()
    held.clear()
    run()
    return {"seen": seen, "log": log, "warned": [str(each.message) for each in caught], "recorded": graphs.recorded}


def left_over():
    "Predictions leave more than half of the device's memory in CuPy's pool, and a step needs as much."
    training = Training()
    training.go(SMALL, 3)
    size = cupy.cuda.runtime.memGetInfo()[0] * 5 // 8
    cupy.empty(size, np.uint8)
    pointer = training.graphs._pool.malloc(size)
    training.go(SMALL, 3)
    return training.result(log=log, size=size, free=cupy.cuda.runtime.memGetInfo()[0])


CASES = {"never": never, "out of memory": out_of_memory, "apart": apart, "left over": left_over}
print(json.dumps(CASES[sys.argv[1]]()))
"""


def alone(case: str, memory: int) -> dict[str, Any]:
    """What the program prints, on a virtual GPU of so many MB."""
    environment = {**os.environ, "VGPU_MEMORY": str(memory), "VGPU_EXACT": "0", "GPUCNN_GRAPHS": "1"}
    command = [sys.executable, "-c", PROGRAM, case, str(SMALL), str(LARGE)]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    assert result.returncode == 0, result.stderr
    assert "vgpu" not in result.stderr, result.stderr  # no findings
    return dict(json.loads(result.stdout.splitlines()[-1]))


@pytest.fixture(scope="module")
def ends(gpu: Device) -> tuple[dict[str, Any], dict[str, Any]]:
    return alone("never", 512), alone("out of memory", 32)


SENTENCE = f"has too little memory for a training step of {LARGE} examples: they need about "


def test_a_batch_too_large_to_launch_is_one_sentence_and_smaller_ones_go_on(ends: Any) -> None:
    fresh, full = (each["launched"] for each in ends)
    assert SENTENCE in full["said"] and full["said"].endswith(" should fit") and "\n" not in full["said"]
    # The graph goes while its scratch is still in the pool, and only then does the pool give back what is free.
    (clear, recorded, held), failed = full["log"][:2]
    assert (clear, recorded) == ("clear", 1) and failed == ["full", False, 0, "CUDARuntimeError"]
    assert held >= full["before"] > full["after"]
    assert (full["bits"], full["steps"], full["recorded"]) == (fresh["bits"], 6, 1)  # recorded anew


def test_a_recording_frees_nothing_and_the_launches_that_follow_it_do(ends: Any) -> None:
    fresh, full = (each["recorded"] for each in ends)
    assert SENTENCE in full["said"]
    assert len(full["warned"]) == 1
    assert "training continues without a CUDA graph, more slowly: the step could not be recorded (there is no memory" in full["warned"][0]
    assert full["log"][0] == ["full", True, 1, "RuntimeError"]  # the other graph is still there
    assert full["log"][1][:2] == ["clear", 1] and full["log"][2] == ["full", False, 0, "CUDARuntimeError"]
    assert (full["bits"], full["steps"], full["recorded"]) == (fresh["bits"], 7, 0)


def test_training_goes_on_without_a_graph_where_launches_find_room(ends: Any) -> None:
    fresh, full = (each["recovered"] for each in ends)
    assert len(full["warned"]) == 1 and full["log"] == [["full", True, 1, "RuntimeError"]]
    assert (full["bits"], full["steps"]) == (fresh["bits"], 9)
    assert (fresh["recorded"], full["recorded"]) == (2, 1)


def test_memory_that_runs_out_on_a_branch_ends_the_fork_and_the_recording(gpu: Device) -> None:
    """The launches that follow take what the other stream's arena has left over, and find too little."""
    found = alone("apart", 32)
    assert found["seen"] == [3.0, "OutOfMemoryError", 3.0, 6.0]
    assert len(found["warned"]) == 1 and "the step could not be recorded (there is no memory left to record in" in found["warned"][0]
    assert found["log"][0] == ["full", True, 0, "RuntimeError"]
    assert [event[:2] for event in found["log"][1:3]] == [["clear", 0], ["full", False]]  # nothing is given back before
    assert found["recorded"] == 0


def test_a_step_has_what_predictions_have_left_over(ends: Any) -> None:
    """And keeps its graph."""
    found = alone("left over", 32)
    assert (found["bits"], found["recorded"], found["log"]) == (ends[0]["launched"]["bits"], 1, [])
    assert found["free"] < found["size"]
