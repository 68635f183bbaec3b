"""How far it is from `fit` to a launch: whoever follows a step with a debugger passes so many frames."""

from __future__ import annotations

import sys
import traceback
from typing import Any

import numpy as np
import pytest

import gpucnn as gc
from gpucnn.device import Device
from gpucnn_kernels.choose import select
from gpucnn_kernels.core import launch

MOST = 10
ON_THE_ENGINE = {
    operation: "tile64x64"
    for operation in ("conv2d", "conv2d_input_grad", "conv2d_weight_grad", "dense", "dense_input_grad", "dense_weight_grad")
}


def test_frames_from_fit_to_a_launch(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    frames: dict[str, list[str]] = {}
    real = launch.run

    def run(kernel: Any, blocks: int, threads: int, stream: Any, *arguments: Any, **options: Any) -> None:
        names = [frame.name for frame in traceback.extract_stack()]
        frames.setdefault(launch.Launch(kernel, blocks, threads, arguments).name, names[names.index("fit") + 1 : -1])
        real(kernel, blocks, threads, stream, *arguments, **options)

    for name, module in list(sys.modules.items()):
        if name.startswith("gpucnn_kernels") and getattr(module, "run", None) is real:
            monkeypatch.setattr(module, "run", run)
    monkeypatch.setenv("GPUCNN_GRAPHS", "0")  # a recorded step is replayed by one call: here is what is recorded
    rng = np.random.default_rng(0)
    model = gc.Sequential(gc.Conv2D(2, 3, activation="relu"), gc.Conv2D(2, 3, activation="relu"), gc.Flatten(), gc.Dense(3))
    model.build((1, 6, 6), seed=0, device=device)
    model.compile("adam")
    with select.override(ON_THE_ENGINE):
        model.fit(rng.random((2, 1, 6, 6), np.float32), np.array([0, 2]), batch_size=2, epochs=1, verbose=False)
    assert {"gather_batch", "pack", "engine", "tally", "adam"} <= frames.keys(), frames.keys()
    longest = max(frames.values(), key=len)
    assert len(longest) <= MOST, " → ".join(longest)
