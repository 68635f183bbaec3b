"""Losses, each with its gradient and the number of right answers: (loss, correct, dx). 0·log 0 is 0, and NaN is not a right answer.

`loss` (the mean) and `correct` are 0-d arrays; on a GPU they stay on the device, so that the caller chooses when to wait for them.
"""

from __future__ import annotations

import numpy as np

from gpucnn.ops.cpu._threads import Array
from gpucnn.ops.cpu.dense import dense, dense_input_grad

__all__ = ["binary_cross_entropy", "dense_cross_entropy", "hinge", "mean_squared_error", "root_mean_squared_error", "softmax_cross_entropy"]


def softmax_cross_entropy(logits: Array, labels: Array, *, out: Array | None = None) -> tuple[Array, Array, Array]:
    """Mean over the batch of −Σₖ pₖ·log softmax(logits)ₖ, with p the labels, and dlogits = (softmax·Σₖ pₖ − p) / N.

    logits (N, K). labels: int32 class numbers (N), or floating rows of probabilities (N, K). Right where the largest logit is at
    the label (at the label's largest probability), the first of equals.
    """
    n, rows = logits.shape[0], np.arange(logits.shape[0])
    shifted = logits - logits.max(axis=1, keepdims=True)
    dlogits = np.exp(shifted, out=out)
    sums = dlogits.sum(axis=1, keepdims=True)
    dlogits /= sums
    logs = shifted - np.log(sums)
    guess = logits.argmax(axis=1)
    if labels.ndim == 1:
        loss = -logs[rows, labels].mean(dtype=np.float64)
        dlogits[rows, labels] -= 1
        right = guess == labels
    else:
        loss = -np.where(labels == 0, labels, labels * logs).sum(dtype=np.float64) / n  # 0·log 0 is 0
        # Rows of probabilities sum to one up to rounding; the exact gradient has their sum, for soft labels of any weight.
        dlogits *= labels.sum(axis=1, keepdims=True, dtype=logits.dtype)
        dlogits -= labels
        right = guess == labels.argmax(axis=1)
    correct = np.count_nonzero(right & ~np.isnan(logits[rows, guess]))  # NaN counts as the largest, and is not a right answer
    dlogits *= logits.dtype.type(1 / n)
    return np.asarray(loss), np.asarray(correct), dlogits


def dense_cross_entropy(
    x: Array, weight: Array, bias: Array | None, labels: Array, *, input_grad: bool = False, relu: bool = False
) -> tuple[Array, Array, Array, Array | None]:
    """`softmax_cross_entropy` of a dense layer's logits, x·weightᵀ + bias: (losses, right answers, dlogits, dx), the first two of each row
    (N).

    x (N, C), weight (K, C), bias (K). labels: int32 class numbers (N). dlogits (N, K) is the gradient of the mean loss. So is dx (N, C),
    which is 0 where x is not positive if `relu`, for an x that a ReLU has produced. It is None if not `input_grad`, or where it takes a
    launch of its own.
    """
    logits, rows = dense(x, weight, bias), np.arange(x.shape[0])
    _, _, dlogits = softmax_cross_entropy(logits, labels)
    guess, shifted = logits.argmax(axis=1), logits - logits.max(axis=1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(axis=1)) - shifted[rows, labels]
    correct = ((guess == labels) & ~np.isnan(logits[rows, guess])).astype(np.int32)
    dx = dense_input_grad(dlogits, weight, relu=x if relu else None) if input_grad else None
    return losses, correct, dlogits, dx


def binary_cross_entropy(logits: Array, targets: Array, *, out: Array | None = None) -> tuple[Array, Array, Array]:
    """Mean over all elements of −t·log σ(z) − (1 − t)·log(1 − σ(z)) = max(z, 0) − z·t + log(1 + e^−|z|), and dz = (σ(z) − t) / size.

    logits z and targets t in [0, 1], both (N, K). Right where z > 0 just when t > ½.
    """
    decay = np.exp(-np.abs(logits))
    losses = np.maximum(logits, 0) - logits * targets + np.log1p(decay)
    endless = np.isinf(logits)
    if endless.any():  # −t·log 0 is 0 where t is
        losses[endless] = np.where(targets[endless] == (logits[endless] > 0), 0, np.inf)
    loss = losses.mean(dtype=np.float64)
    dlogits = np.divide(np.where(logits >= 0, logits.dtype.type(1), decay), 1 + decay, out=out)
    dlogits -= targets
    dlogits *= logits.dtype.type(1 / logits.size)
    correct = np.count_nonzero(((logits > 0) == (targets > 0.5)) & ~np.isnan(logits))
    return np.asarray(loss), np.asarray(correct), dlogits


def mean_squared_error(y: Array, targets: Array, *, out: Array | None = None) -> tuple[Array, Array, Array]:
    """Mean over all elements of (y − t)², and dy = 2·(y − t) / size.

    y, targets (N, K). Right where the largest of y is at the largest target (K > 1), or y > ½ just when t > ½ (K = 1).
    """
    dy = np.subtract(y, targets, out=out)
    loss = np.square(dy, dtype=np.float64).mean()
    dy *= y.dtype.type(2 / y.size)
    if y.shape[1] > 1:
        guess = y.argmax(axis=1)
        right = (guess == targets.argmax(axis=1)) & ~np.isnan(y[np.arange(len(y)), guess])
    else:
        right = ((y > 0.5) == (targets > 0.5)) & ~np.isnan(y)
    correct = np.count_nonzero(right)
    return np.asarray(loss), np.asarray(correct), dy


def hinge(y: Array, targets: Array, *, out: Array | None = None) -> tuple[Array, Array, Array]:
    """Mean over all elements of max(0, 1 − t·y), and dy = −t / size where that is not 0.

    y, targets t of −1 and 1, (N, K). Right where the largest of y is at the largest target (K > 1), or y > 0 just when t > 0 (K = 1).
    """
    missing = 1 - targets * y
    dy = np.multiply(targets, y.dtype.type(-1 / y.size), out=out)
    dy[missing <= 0] = 0
    guess = y.argmax(axis=1)
    right = guess == targets.argmax(axis=1) if y.shape[1] > 1 else (y[:, 0] > 0) == (targets[:, 0] > 0)
    correct = np.count_nonzero(right & ~np.isnan(y[np.arange(len(y)), guess]))
    return np.asarray(np.maximum(missing, 0).mean(dtype=np.float64)), np.asarray(correct), dy


def root_mean_squared_error(y: Array, targets: Array, *, out: Array | None = None) -> tuple[Array, Array, Array]:
    """√mean (y − t)² over all elements, and dy = (y − t) / (size · loss), 0 where the loss is.

    y, targets (N, K). Right answers as in `mean_squared_error`.
    """
    mean, correct, dy = mean_squared_error(y, targets, out=out)
    loss = np.sqrt(mean)
    dy *= y.dtype.type(0 if loss == 0 else 1 / (2 * loss))
    return np.asarray(loss), correct, dy
