"""Losses, each with its gradient and the number of right answers: (loss, correct, dx).

`loss` (the mean) and `correct` are 0-d arrays, float32 and int32; they stay on the device, so that the caller chooses when to wait for
them.
"""

from __future__ import annotations

from collections.abc import Callable

from gpucnn.ops.cuda._arrays import Array, empty, stream
from gpucnn.ops.cuda.dense import dense
from gpucnn_kernels import cross_entropy, margin
from gpucnn_kernels import loss as kernels
from gpucnn_kernels.choose import problems, select

__all__ = ["binary_cross_entropy", "dense_cross_entropy", "hinge", "mean_squared_error", "root_mean_squared_error", "softmax_cross_entropy"]


def softmax_cross_entropy(logits: Array, labels: Array, *, out: Array | None = None) -> tuple[Array, Array, Array]:
    """Mean over the batch of −Σₖ pₖ·log softmax(logits)ₖ, with p the labels, and dlogits = (softmax·Σₖ pₖ − p) / N.

    logits (N, K). labels: int32 class numbers (N), or floating rows of probabilities (N, K). Right where the largest logit is at
    the label (at the label's largest probability), the first of equals.
    """
    return _loss(cross_entropy.softmax_cross_entropy, logits, labels, out)


def dense_cross_entropy(
    x: Array, weight: Array, bias: Array | None, labels: Array, *, input_grad: bool = False, relu: bool = False
) -> tuple[Array, Array, Array, Array | None]:
    """`softmax_cross_entropy` of a dense layer's logits, x·weightᵀ + bias: (losses, right answers, dlogits, dx), the first two of each row
    (N).

    x (N, C), weight (K, C), bias (K). labels: int32 class numbers (N). dlogits (N, K) is the gradient of the mean loss. So is dx (N, C),
    which is 0 where x is not positive if `relu`, for an x that a ReLU has produced. It is None if not `input_grad`, or where it takes a
    launch of its own.
    """
    n, k = x.shape[0], weight.shape[0]
    dlogits, losses, correct = empty(x, (n, k)), empty(x, (n,)), empty(x, (n,), "int32")
    together = select.choose(problems.dense(n, x.shape[1], k)).variant.cross_entropy
    if together is None:
        cross_entropy.rows_cross_entropy(dense(x, weight, bias), labels, dlogits, losses, correct, stream(x))
        return losses, correct, dlogits, None
    dx = empty(x, x.shape) if input_grad else None
    together(x, weight, bias, labels, dlogits, losses, correct, stream(x), dx=dx, relu=relu)
    return losses, correct, dlogits, dx


def binary_cross_entropy(logits: Array, targets: Array, *, out: Array | None = None) -> tuple[Array, Array, Array]:
    """Mean over all elements of −t·log σ(z) − (1 − t)·log(1 − σ(z)) = max(z, 0) − z·t + log(1 + e^−|z|), and dz = (σ(z) − t) / size.

    logits z and targets t in [0, 1], both (N, K). Right where z > 0 just when t > ½.
    """
    return _loss(kernels.binary_cross_entropy, logits, targets, out)


def mean_squared_error(y: Array, targets: Array, *, out: Array | None = None) -> tuple[Array, Array, Array]:
    """Mean over all elements of (y − t)², and dy = 2·(y − t) / size.

    y, targets (N, K). Right where the largest of y is at the largest target (K > 1), or y > ½ just when t > ½ (K = 1).
    """
    return _loss(kernels.mean_squared_error, y, targets, out)


def hinge(y: Array, targets: Array, *, out: Array | None = None) -> tuple[Array, Array, Array]:
    """Mean over all elements of max(0, 1 − t·y), and dy = −t / size where that is not 0.

    y, targets t of −1 and 1, (N, K). Right where the largest of y is at the largest target (K > 1), or y > 0 just when t > 0 (K = 1).
    """
    return _loss(margin.hinge, y, targets, out)


def root_mean_squared_error(y: Array, targets: Array, *, out: Array | None = None) -> tuple[Array, Array, Array]:
    """√mean (y − t)² over all elements, and dy = (y − t) / (size · loss), 0 where the loss is.

    y, targets (N, K). Right answers as in `mean_squared_error`.
    """
    return _loss(margin.root_mean_squared_error, y, targets, out, scratch=1)


def _loss(launcher: Callable[..., None], x: Array, targets: Array, out: Array | None, scratch: int = 0) -> tuple[Array, Array, Array]:
    n = x.shape[0]
    dx = empty(x, x.shape) if out is None else out
    loss, correct = empty(x, (1,)), empty(x, (1,), "int32")
    row_loss, row_correct = empty(x, (n + scratch,)), empty(x, (n,), "int32")
    launcher(x, targets, dx, loss, correct, row_loss, row_correct, stream(x))
    return loss.reshape(()), correct.reshape(()), dx
