"""A fit that ends by an exception leaves nothing running: its arrays are free for what comes next."""

from __future__ import annotations

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
