"""The same seed gives the same bits, for any number of threads."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Callable

import pytest

from gpucnn_loops.tables import MOST_SUMS, edges

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
from gpucnn.ops import cpu
from loop_cases import DEPTHWISE, DIRECT, PIXELS, WHOLE, WINOGRAD, arrays, nan_like, plan_of
rng = np.random.default_rng(0)
for case in [*DIRECT, *DEPTHWISE, *PIXELS, *WHOLE, *WINOGRAD]:
    a = arrays(case, rng)
    y, dx, dweight, dbias = (nan_like(a[name]) for name in ("dy", "x", "weight", "bias"))
    plan = plan_of(a)
    plan.forward(a["x"], a["weight"], a["bias"], True, y)
    plan.input_grad(a["dy"], a["weight"], None, dx)
    plan.weight_grad(a["dy"], a["x"], dweight, dbias)
    print(hashlib.sha256(y.tobytes() + dx.tobytes() + dweight.tobytes() + dbias.tobytes()).hexdigest())
for c in (3, 4, 17):
    x, dy, weight = rng.random((5, c, 81), dtype="float32"), rng.random((5, c, 81), dtype="float32"), rng.random(c, dtype="float32")
    y, mean, rstd = cpu.batch_norm(x, weight, weight, (weight.copy(), weight.copy()), momentum=0.1, eps=0.1)
    sums = np.empty_like(weight), np.empty_like(weight)
    dx = cpu.batch_norm_grad(dy, x, weight, (mean, rstd), relu=True, dweight=sums[0], dbias=sums[1])
    print(hashlib.sha256(b"".join(each.tobytes() for each in (y, mean, rstd, dx, *sums))).hexdigest())
"""


def test_images_are_grouped_by_sizes_alone() -> None:
    """As many groups as eight threads share evenly, unless their sums would have few terms, or be large."""
    assert [len(edges(n, 1000, 784)) - 1 for n in (1, 2, 3, 7, 8, 31, 32, 500)] == [1, 2, 2, 4, 8, 8, 8, 8]
    assert [len(edges(n, 1000, 49)) - 1 for n in (1, 11, 12, 32, 48, 500)] == [1, 1, 2, 4, 8, 8]
    assert [len(edges(n, 1000, 1)) - 1 for n in (8, 32, 64)] == [1, 4, 8]
    assert [len(edges(64, sums, 784)) - 1 for sums in (MOST_SUMS // 8, MOST_SUMS // 7, MOST_SUMS)] == [8, 4, 1]
    for n in range(1, 70):
        ends = edges(n, 1000, 200)
        assert ends[0] == 0 and ends[-1] == n and all(b > a for a, b in itertools.pairwise(ends))


@pytest.mark.parametrize("text", [TRAIN, OPERATIONS], ids=["training", "operations"])
def test_one_to_four_threads(text: str, program: Program) -> None:
    # However little there is to do, it is shared out.
    text = "from gpucnn_loops import crew; crew.WORTH_A_THREAD = 0\n" + text
    results = [program(text, GPUCNN_NUM_THREADS=str(count)) for count in (1, 2, 3, 4)]
    assert [done.returncode for done in results] == [0] * 4, results[0].stderr
    assert len({done.stdout for done in results}) == 1
    assert results[0].stdout
