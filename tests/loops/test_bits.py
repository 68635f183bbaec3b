"""The same seed gives the same bits, for any number of threads."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

Program = Callable[..., subprocess.CompletedProcess[str]]

TRAIN = """
import hashlib
import numpy as np, gpucnn as gc
rng = np.random.default_rng(0)
x, y = rng.random((40, 1, 28, 28), dtype="float32"), rng.integers(0, 10, 40)
for name in ("keras", "tf2", "lenet5x5"):
    model = gc.network(name).build((1, 28, 28), seed=3, device="cpu")
    model.compile(gc.SGD(0.01, momentum=0.9) if name == "lenet5x5" else gc.Adam(1e-3))
    model.fit(x, y, batch_size=37, epochs=1, verbose=False)
    print(hashlib.sha256(model.buffers.values.tobytes() + model.predict(x[:3]).tobytes()).hexdigest())
"""
OPERATIONS = """
import hashlib
import numpy as np
from loop_cases import DEPTHWISE, DIRECT, PIXELS, WINOGRAD, arrays, nan_like, plan_of
rng = np.random.default_rng(0)
for case in [*DIRECT, *DEPTHWISE, *PIXELS, *WINOGRAD]:
    a = arrays(case, rng)
    y, dx, dweight, dbias = (nan_like(a[name]) for name in ("dy", "x", "weight", "bias"))
    plan = plan_of(a)
    plan.forward(a["x"], a["weight"], a["bias"], True, y)
    plan.input_grad(a["dy"], a["weight"], None, dx)
    plan.weight_grad(a["dy"], a["x"], dweight, dbias)
    print(hashlib.sha256(y.tobytes() + dx.tobytes() + dweight.tobytes() + dbias.tobytes()).hexdigest())
"""


@pytest.mark.parametrize("text", [TRAIN, OPERATIONS], ids=["training", "operations"])
def test_one_to_four_threads(text: str, program: Program) -> None:
    # However little there is to do, it is shared out.
    text = "from gpucnn_loops import crew; crew.WORTH_A_THREAD = 0\n" + text
    results = [program(text, GPUCNN_NUM_THREADS=str(count)) for count in (1, 2, 3, 4)]
    assert [done.returncode for done in results] == [0] * 4, results[0].stderr
    assert len({done.stdout for done in results}) == 1
    assert results[0].stdout
