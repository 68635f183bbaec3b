"""Recorded profiles: what the profiler once wrote down, or might have. No test here takes a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from gpucnn.profiling.measure.timing import Run
from gpucnn.profiling.records import Ceilings, HotLoop, Profile, Row, Step, Timing

# Text that a model's file may hold, and that must reach no browser as anything but text.
NASTY = '<script>alert("x")</script> & "quoted" \'single\' </style> ⊗'

# And what else such a file, or the name of one, may hold.
HOSTILE = {
    "script": '<script>alert("x")</script>',
    "image": "<img src=x onerror=alert(1)>",
    "double quotes": '" onmouseover="alert(1)" x="',
    "single quotes": "' onfocus='alert(1)' autofocus x='",
    "ends": "</style></title></svg></script></textarea><svg onload=alert(1)>",
    "comment": "<!-- a",
    "ends of comments": "--> ]]> --!>",
    "character data": "<![CDATA[<b>",
    "entities": "&lt;script&gt; &#60;b&#62; &amp",
    "template": "${alert(1)} {{1}} `",
    "link": "javascript:alert(1)",
    "directions": "a\u202eb\u2066c\u200fd\u061ce\u2069f",
    "invisible": "a\ufeffb\u200bc\u00add\u180e",
    "controls": "a\x00b\x07c\x1b[31md\x7fe\x9bf\x08g",
    "lines": "a\nb\rc\r\nd\u2028e\u2029f\x85g\vh\fi\tj",
    "half characters": "a\ud800b\udcffc",
    "many": "<b>" * 2000,
}


def timing(median: float, spread: float = 0.1, samples: int = 20) -> Timing:
    return Timing(median, median * (1 - spread / 2), median * (1 + spread / 2), samples)


def row(name: str = "conv2d_1", phase: str = "forward", op: str = "conv2d", **changes: Any) -> Row:
    """A kernel of 1 GFLOP and 10 MB that took 200 µs, where 100 µs are the least."""
    usual = Row(
        layer=name,
        phase=phase,
        op=op,
        kernel=op,
        shape="128×1×28×28 → 32, 3×3",
        flops=10**9,
        bytes=10**7,
        roofline=1e-4,
        wall="compute",
        time=timing(2e-4),
    )
    return dataclasses.replace(usual, **changes)


def profile(**changes: Any) -> Profile:
    rows = [
        row(start=0.0),
        row("maxpool2d_1", op="max_pool2d", flops=10**5, bytes=2 * 10**7, roofline=2e-5, wall="memory", start=2.1e-4, time=timing(4e-5)),
        row("dense_1", op="dense", flops=10**8, bytes=10**6, roofline=1e-5, start=2.6e-4, time=timing(3e-5), ratio=1.25),
        row("loss", "loss", "softmax_cross_entropy", flops=10**4, bytes=10**4, roofline=1e-8, wall="launch", start=3e-4, time=timing(3e-6)),
        row("conv2d_1", "backward", "conv2d_weight_grad", start=3.1e-4, time=timing(1.6e-4)),
        row("adam", "update", "adam_update", flops=10**6, bytes=3 * 10**7, roofline=3e-5, wall="memory", start=4.8e-4, time=timing(4e-5)),
    ]
    usual = Profile(
        kind="gpu",
        model="keras",
        batch=128,
        device={"chip": "A recorded chip", "compute capability": "9.0", "CuPy": "14.2.0"},
        ceilings=Ceilings(1e12, 1e13, 2e-6, "recorded"),
        rows=rows,
        step=Step(
            kernels=4.73e-4, time=timing(5.5e-4), graph=timing(4.9e-4), host=timing(3e-4), memory={"parameters": 5 << 20, "batch": 1 << 19}
        ),
        notes=["a note"],
        commands={"Nsight Compute": "ncu --kernel-name regex:conv2d gpucnn profile"},
    )
    return dataclasses.replace(usual, **changes)


def bounds_profile() -> Profile:
    """As from --arch: nothing measured."""
    loop = HotLoop(100, 75, 20, 4)
    rows = [
        row(time=None, blocks=196, threads=128, registers=130, spills=0, shared=12288, occupancy=0.19, waves=0.5, loop=loop),
        row(
            "conv2d_1",
            op="conv2d",
            kernel="pack",
            flops=0,
            roofline=1e-6,
            wall="launch",
            time=None,
            blocks=4,
            threads=128,
            registers=22,
            spills=8,
        ),
    ]
    return profile(kind="bounds", rows=rows, step=Step(kernels=1.01e-4, memory={"parameters": 100}), commands={})


def kernels_profile() -> Profile:
    """As from --arch --kernels: each kernel by itself."""
    found = bounds_profile()
    rows = [dataclasses.replace(each, layer="m1", phase="", stack=0, float64=2 * index) for index, each in enumerate(found.rows)]
    return dataclasses.replace(found, kind="kernels", model="all", batch=0, rows=rows, step=Step(kernels=0.0))


class RecordedClock:
    """Plays times back: `run` is what one run takes, whatever is run; or a list of what each sample shows."""

    def __init__(self, run: float = 1e-5, samples: Sequence[float] = ()) -> None:
        self.run, self.samples = run, list(samples)
        self.runs: list[int] = []  # of each sample
        self.batches: list[int] = []

    def batch(self, runs: Sequence[Run]) -> Run:
        self.batches.append(len(runs))

        def work() -> int:
            for each in runs:
                each()
            return len(runs)

        return work

    def time(self, work: Run) -> float:
        count = work()
        runs = count if isinstance(count, int) else 1
        self.runs.append(runs)
        return self.samples.pop(0) if self.samples else self.run * runs


@pytest.fixture
def recorded() -> Profile:
    return profile()


@pytest.fixture
def bounds() -> Profile:
    return bounds_profile()


@pytest.fixture
def kernels() -> Profile:
    return kernels_profile()


@pytest.fixture
def make_profile() -> Callable[..., Profile]:
    return profile


@pytest.fixture
def make_row() -> Callable[..., Row]:
    return row


@pytest.fixture
def make_timing() -> Callable[..., Timing]:
    return timing


@pytest.fixture
def nasty() -> str:
    return NASTY


@pytest.fixture
def clock() -> type[RecordedClock]:
    return RecordedClock


@pytest.fixture(params=HOSTILE.values(), ids=HOSTILE.keys())
def hostile(request: pytest.FixtureRequest) -> str:
    """One after the other."""
    return str(request.param)


@pytest.fixture
def all_hostile() -> list[str]:
    return list(HOSTILE.values())
