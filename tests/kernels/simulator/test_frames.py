"""How far it is from `fit` to a launch: whoever follows a step with a debugger passes so many frames."""

from __future__ import annotations

import sys
import traceback
from typing import Any

import numpy as np
import pytest

import gpucnn as gc
from gpucnn.device import Device, simulated
from gpucnn_kernels.choose import select
from gpucnn_kernels.choose.variants import VARIANTS
from gpucnn_kernels.conv import tiled as tiled_conv
from gpucnn_kernels.core import launch
from gpucnn_kernels.dense import tiled
from gpucnn_kernels.engine.tiles import Tile

MOST = 10
TILE = Tile(8, 8, 8, 4, 4)  # the tests of the engine have compiled it, and all tiles are launched by the same functions
ON_THE_ENGINE = {**tiled_conv.variants("small", TILE, 1.0), **tiled.variants("small", TILE, 1.0)}


def test_frames_from_fit_to_a_launch(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    frames: dict[str, list[str]] = {}
    real = launch.run

    def run(kernel: Any, blocks: int, threads: int, stream: Any, *arguments: Any, **options: Any) -> None:
        if launch._own.recorder is not None:  # a rehearsal
            return real(kernel, blocks, threads, stream, *arguments, **options)
        names = [frame.name for frame in traceback.extract_stack()]
        frames.setdefault(launch.Launch(kernel, blocks, threads, arguments).name, names[names.index("fit") + 1 : -1])
        if simulated():
            real(kernel, blocks, threads, stream, *arguments, **options)
        else:  # four kernels would be compiled for this test alone, which does not ask what they compute
            for array in launch.Launch(kernel, blocks, threads, arguments).arrays:
                device.xp.asarray(array).fill(0)

    for name, module in list(sys.modules.items()):
        if name.startswith("gpucnn_kernels") and getattr(module, "run", None) is real:
            monkeypatch.setattr(module, "run", run)
    for operation, variant in ON_THE_ENGINE.items():
        monkeypatch.setitem(VARIANTS, operation, [*VARIANTS[operation], variant])
    monkeypatch.setenv("GPUCNN_GRAPHS", "0")  # a recorded step is replayed by one call: here is what is recorded
    rng = np.random.default_rng(0)
    model = gc.Sequential(gc.Conv2D(2, 3, activation="relu"), gc.Conv2D(2, 3, activation="relu"), gc.Flatten(), gc.Dense(3))
    model.build((1, 6, 6), seed=0, device=device)
    model.compile("adam")
    with select.override(dict.fromkeys(ON_THE_ENGINE, "small")):
        model.fit(rng.random((2, 1, 6, 6), np.float32), np.array([0, 2]), batch_size=2, epochs=1, verbose=False)
    assert {"gather_batch", "pack", "engine", "tally_rows", "adam"} <= frames.keys(), frames.keys()
    longest = max(frames.values(), key=len)
    assert len(longest) <= MOST, " → ".join(longest)
