"""Softmax with cross-entropy, its gradient and the right answers: one pass over a few thousand numbers, on the caller's thread."""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from gpucnn_loops.loops import loop
from gpucnn_loops.threads import address, empty
from gpucnn_loops.vector import at

Array = NDArray[np.float32]
ZERO = np.float32(0)


@loop("i i f* i* f* f d* w*")
def cross_entropy(n, k, logits, labels, dlogits, scale, mean, right):
    """mean: that of −log softmax at the labels; right: right answers. dlogits (n, k) = scale·(softmax − 1 at the label)."""
    loss, correct = 0.0, 0
    for i in range(n):
        line, out, label = at(logits, i * k), at(dlogits, i * k), labels[i]
        guess, top = 0, line[0]
        for j in range(1, k):
            value = line[j]
            if (not value <= top) and top == top:  # the first of equals, and the first NaN of all
                guess, top = j, value
        total = ZERO
        for j in range(k):
            power = np.float32(math.exp(line[j] - top))
            out[j] = power
            total += power
        loss -= float(line[label] - top - np.float32(math.log(total)))
        if guess == label and top == top:
            correct += 1
        for j in range(k):
            part = out[j] / total
            out[j] = (part - np.float32(1) if j == label else part) * scale
    mean[0] = loss / n
    right[0] = correct


def softmax_cross_entropy(logits: Array, labels: NDArray[np.int32], dlogits: Array) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """(mean loss, right answers), 0-d, of logits (N, K) and class numbers (N); dlogits is written."""
    (n, k), mean, right = logits.shape, empty((), np.float64), empty((), np.int64)
    cross_entropy(n, k, address(logits), address(labels), address(dlogits), 1 / n, address(mean), address(right))
    return mean, right
