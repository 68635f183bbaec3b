"""Results are the same to the bit on any number of threads."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from gpucnn.ops import cpu
from gpucnn.ops.cpu import _threads

PROGRAM = """
import hashlib, numpy as np
import gpucnn.functional as F
from gpucnn.ops import cpu
from gpucnn.ops.shapes import conv_window, pool_window
rng = np.random.default_rng(0)
make = lambda *shape: rng.normal(size=shape).astype("float32")
parts = []
for n, c, side, k, kernel in ((37, 3, 24, 16, 3), (1, 16, 20, 32, 3), (8, 64, 13, 64, 3), (5, 1, 28, 32, 5)):
    x, w, b = make(n, c, side, side), make(k, c, kernel, kernel), make(k)
    window = conv_window((side, side), kernel, 1, "same")
    y = cpu.conv2d(x, w, b, window, relu=True)
    parts += [y, cpu.conv2d_input_grad(y, w, window), cpu.conv2d_weight_grad(y, x, window), cpu.bias_grad(y)]
    pool = pool_window((side, side), 3, 2, 1)
    p, indices = cpu.max_pool2d(y, pool)
    parts += [p, indices, cpu.max_pool2d_grad(p, indices, pool), cpu.avg_pool2d(y, pool), cpu.avg_pool2d_grad(p, pool)]
x, w = make(128, 500), make(60, 500)
y = cpu.dense(x, w)
parts += [y, cpu.dense_input_grad(y, w), cpu.dense_weight_grad(y, x), cpu.dropout(y, np.array([2, 0], "uint32"), 0.5, 1)]
p, g, m, v = make(200_003), make(200_003), make(200_003), abs(make(200_003))
cpu.adam_update(p, g, m, v, rates=np.array([0.37, 18.3, 1, 1]), weight_decay=0.1)
cpu.sgd_update(p, g, m, rates=np.array([0.1, 1, 1, 1]), momentum=0.9, nesterov=True)
parts += [p, m, v]
print(*(hashlib.sha256(np.ascontiguousarray(part)).hexdigest()[:16] for part in parts))
"""


def digests(threads: str) -> list[str]:
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    environment |= {"GPUCNN_NUM_THREADS": threads, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    one = digests("1")
    assert len(one) == 43
    assert digests("2") == one
    assert digests("5") == one


@pytest.mark.parametrize("given", ["0", "-1", "two", "1.5", ""])
def test_a_number_of_threads_that_is_none_is_refused_and_named(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUCNN_NUM_THREADS", given)
    with pytest.raises(ValueError, match="GPUCNN_NUM_THREADS must be a whole number of at least 1, got ") as caught:
        _threads.threads.__wrapped__()
    assert repr(given) in str(caught.value)


@pytest.mark.parametrize("size", [1, 31, 2**15 - 1, 2**15, 2**15 + 1, 100_003, 2**18])
def test_every_element_is_updated_once_whatever_the_size(size: int) -> None:
    parameters = np.zeros(size)
    cpu.sgd_update(parameters, np.ones(size), None, rates=np.array([0.5, 1, 1, 1]))
    np.testing.assert_array_equal(parameters, -0.5)
