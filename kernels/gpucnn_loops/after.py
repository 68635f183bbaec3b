"""What follows a convolution's sums: bias, batch normalization and ReLU while they are in registers; in the planes of the result, while
these are in the cache, a sum with another array, or the gradient of a ReLU.

Each number goes through the same operations, rounded in the same order, as in passes of its own (`norm.normalized`, `elementwise.add`), so
the bits are the same.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpucnn_loops.language import helper, record
from gpucnn_loops.loops import loop
from gpucnn_loops.tables import images
from gpucnn_loops.threads import address, empty
from gpucnn_loops.vector import at, load, relu16

Array = NDArray[np.float32]
ZERO = np.float32(0)
NOTHING = np.float32(-0.0)  # added to a number, it leaves its bits as they are, those of −0 too
MASK, ADD, ADD_RELU = 1, 2, 3


class Norm(NamedTuple):
    """Batch normalization with known statistics: (v − mean) · weight / √(variance + eps) + bias, one number for each channel."""

    mean: Array
    variance: Array
    weight: Array
    bias: Array
    eps: float


@record("f* i i i i i f* i")
class After(NamedTuple):
    """vectors (4, width): bias, mean, scale and shift of each lane. `some`: whether anything is done to the sums; normed: whether it is
    more than adding the bias; relu: whether ReLU comes then.

    last: what is done with the numbers of `other` in the same places, whose images are `step` apart. MASK: y becomes 0 where they are not
    positive; ADD: they are added; ADD_RELU: and then comes ReLU. 0: nothing.
    """

    vectors: int
    width: int
    some: int
    normed: int
    relu: int
    last: int
    other: int
    step: int

    def moved(self, lane: int, plane: int) -> After:
        """The same for the channels from `lane` on, whose planes are `plane` numbers further on."""
        does = self.width, self.some, self.normed, self.relu, self.last
        return After(self.vectors + 4 * lane, *does, self.other + 4 * plane if self.last else 0, self.step)


@helper
def finished(v, lane, after):
    """v, the sums of 16 channels from `lane` on, after bias, normalization and ReLU."""
    v = v + load(after.vectors, lane)
    if after.normed:
        v = (v - load(after.vectors, after.width + lane)) * load(after.vectors, 2 * after.width + lane)
        v = v + load(after.vectors, 3 * after.width + lane)
    return relu16(v) if after.relu else v


@loop("i i i f* i f* f* f* f* f i f*")
def by_lane(k, width, groups, bias, biased, mean, variance, weight, shift, eps, normed, vectors):
    """vectors (groups, 4, width): bias, mean, weight / √(variance + eps) and shift of each group's k channels; lanes behind the last have
    those of the first once more."""
    for group in range(groups):
        to, channel = at(vectors, 4 * group * width), 0
        for lane in range(width):
            i = group * k + channel
            to[lane] = bias[i] if biased else NOTHING
            if normed:
                to[width + lane] = mean[i]
                to[2 * width + lane] = weight[i] / np.sqrt(variance[i] + eps)
                to[3 * width + lane] = shift[i]
            channel += 1
            if channel == k:
                channel = 0


@loop("f* f* i i i i")
def with_other(y, other, k, plane, count, last):
    """Does to the first `count` numbers of k planes of y what `last` says, with the numbers of `other` in the same places."""
    for channel in range(k):
        line, by = at(y, channel * plane), at(other, channel * plane)
        if last == MASK:
            for i in range(count):
                line[i] = line[i] if by[i] > 0 else ZERO
        elif last == ADD:
            for i in range(count):
                line[i] = line[i] + by[i]
        else:
            for i in range(count):
                total = line[i] + by[i]
                line[i] = ZERO if total <= 0 else total


def after_sums(
    k: int,
    width: int,
    groups: int,
    bias: Array | None = None,
    relu: bool = False,
    norm: Norm | None = None,
    added: Array | None = None,
    *,
    mask: Array | None = None,
) -> tuple[Array, list[After]]:
    """What comes after the sums of each group's k channels, in `width` lanes; and the vectors, which must live as long. With `added`, which
    is added to the result, ReLU comes last. mask: the result is 0 where it is not positive."""
    vectors = empty((groups, 4, width))
    place = address(vectors)
    given = (place,) * 4 + (0.0,) if norm is None else (*map(address, norm[:4]), norm.eps)
    by_lane(k, width, groups, place if bias is None else address(bias), bias is not None, *given, norm is not None, place)
    other = mask if added is None else added
    last = 0 if other is None else MASK if added is None else ADD_RELU if relu else ADD
    at_first, step = (0, 0) if other is None else images(other)
    now = relu and added is None
    some = bias is not None or norm is not None or now
    first = After(place, width, some, norm is not None, now, last, at_first, step)
    plane = 0 if other is None else other[0].size // groups
    return vectors, [first, *(first.moved(4 * width * group, plane * group) for group in range(1, groups))]
