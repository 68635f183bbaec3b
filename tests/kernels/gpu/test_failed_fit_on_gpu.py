"""A fit leaves nothing behind, also one that ends by an exception: nothing runs, and its memory is free for what comes next."""

from __future__ import annotations

import contextlib
import copy
from typing import Any

import numpy as np
import pytest

import gpucnn as gc

pytestmark = pytest.mark.gpu


class Failing(gc.Callback):
    """Fails behind a step, as Ctrl-C does."""

    def on_step_end(self, run: Any) -> None:
        if run.step == 2:
            raise KeyboardInterrupt


def no_rate(step: int) -> float:
    raise LookupError(f"no learning rate for step {step}")


@pytest.mark.parametrize(("rate", "callbacks", "error"), [(no_rate, [], LookupError), (1e-3, [Failing()], KeyboardInterrupt)])
def test_the_next_model_may_have_the_memory(rate: Any, callbacks: list[gc.Callback], error: type[BaseException], gpu: Any) -> None:
    """No rate: what the rehearsal of a step has changed is being put back when the epoch cannot begin."""
    x, labels = np.random.default_rng(0).random((60, 1, 4, 4), dtype=np.float32), np.arange(60) % 3
    for _ in range(3):
        model = gc.Sequential(gc.Flatten(), gc.Dense(3)).build((1, 4, 4), device=gpu).compile(gc.Adam(rate))
        with pytest.raises(error):
            model.fit(x, labels, batch_size=20, epochs=2, verbose=False, callbacks=callbacks)
        del model
    model = gc.Sequential(gc.Flatten(), gc.Dense(3)).build((1, 4, 4), device=gpu).compile("adam")
    assert np.isfinite(model.fit(x, labels, batch_size=20, epochs=1, verbose=False)["loss"]).all()


class Broken(gc.Layer):
    """Fails in its backward pass when it has been through it some times: the layers before it still hold what they kept for theirs."""

    times = 2

    def _build(self, input_shape: Any) -> Any:
        return input_shape

    def _forward(self, x: Any, training: bool) -> Any:
        return x + 1

    def _backward(self, dy: Any, input_grad: bool) -> Any:
        self.times -= 1
        if not self.times:
            raise LookupError("no gradient")
        return dy


@pytest.mark.parametrize("kind", ["complete", "stopped", "broken off"])
def test_a_fit_returns_its_memory_to_the_device(kind: str, gpu: Any) -> None:
    """CuPy's pools never do that for what is free in them when they end: each fit would leave the device with less."""
    x, labels = np.random.default_rng(0).random((60, 1, 12, 12), dtype=np.float32), np.arange(60) % 3
    layers = gc.Conv2D(8, 3, activation="tanh"), gc.Conv2D(4, 3, activation="relu"), gc.Flatten()
    free, own = [], gpu.xp.get_default_memory_pool()
    for _ in range(3):
        broken = [Broken()] if kind == "broken off" else []
        model = gc.Sequential(*copy.deepcopy(layers), *broken, gc.Dense(3)).build((1, 12, 12), device=gpu).compile("adam")
        with contextlib.suppress(KeyboardInterrupt, LookupError):
            model.fit(x, labels, batch_size=25, verbose=False, callbacks=[Failing()] if kind == "stopped" else [])
        own.free_all_blocks()
        free.append(gpu.xp.cuda.runtime.memGetInfo()[0])
    assert free[0] == free[1] == free[2]
