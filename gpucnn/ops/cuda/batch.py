"""Batches from a data set in device memory: the order of an epoch, and the examples of a step, changed at random.

Every random number is a function of the seed, the epoch and an example's position in it. No state is kept between calls, so a resumed run
draws the same numbers as one that was never stopped; and nothing depends on the device.
"""

from __future__ import annotations

from gpucnn.ops.augment import Augment
from gpucnn.ops.cuda._arrays import Array, stream
from gpucnn_kernels import batch as kernels
from gpucnn_kernels import order as orders

__all__ = ["gather_batch", "permutation"]


def permutation(order: Array, seed: int, epoch: int) -> None:
    """Fills `order`, int32 (M,), with a random permutation of 0 … M − 1: a function of (seed, epoch, M). Both are taken mod 2⁶⁴.

    The numbers are those of the CPU's operation, which explains how they are computed.
    """
    orders.permutation(order, seed, epoch, stream(order))


def gather_batch(
    images: Array,
    labels: Array,
    order: Array,
    position: Array,
    x: Array,
    targets: Array,
    *,
    batch_size: int,
    augment: Augment | None = None,
    seed: int = 0,
    first: int = 0,
) -> None:
    """Writes the examples of a step to x and targets, changed at random as `augment` says.

    images (M, …), uint8 or floating; labels (M,) int32 or floating rows (M, …); order int32. position int32 (2,): the step s in the epoch
    and the epoch, read on the device, so that a captured graph makes another batch each time. Example i is number
    order[s·batch_size + first + i]: where x is a part of a batch, `first` examples stand before it. x (n, …) and targets (n, …) with
    first + n ≤ batch_size are written; examples past the end of the order repeat its last one.

    uint8 becomes x / 255, divided in the type of `x`. Only images (M, C, H, W) are changed, as a function of the seed, the epoch and the
    position in the order.
    """
    kernels.gather_batch(
        images, labels, order, position, x, targets, batch_size=batch_size, augment=augment, seed=seed, first=first, stream=stream(x)
    )
