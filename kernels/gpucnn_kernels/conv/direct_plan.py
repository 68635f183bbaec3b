"""How the kernels of direct.py and direct_grad.py divide their work, for each window and number of filters.

A stretch of positions that are neighbours in whole rows of a plane needs few rows of a small image, but of a large one hundreds of pixels
for each row of taps. So the plane may be cut into bands of columns: a stretch of 256 positions of a band of 16, for 7 × 7 taps at a stride
of 2, reads 37 rows of 37 pixels, where whole rows of 112 positions would be 11 rows of 229. Bands of the gradient are equally wide.

Plans are compared by an estimate of the instructions that they issue, which was compared with `gpucnn profile --arch` (kernels/README.md).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

from gpucnn_kernels.conv.parts import GradPlan, Pixels, share_out
from gpucnn_kernels.conv.patch import BANKS, ROOM, Patch, patch_of
from gpucnn_kernels.core.launch import Window

MOST_CHANNELS = 4
MOST_TAPS = 128  # R·S: they are fully unrolled
_NARROWEST = 8  # columns of positions in a band
_BLOCKS = 512  # of a gradient of the weight
_MOST_SUMS = 104  # of a thread, so that four blocks of it fit on a multiprocessor
_SHARING = 4  # parts of a block: a warp each
_LEAST_UNITS = 4  # of a block whose parts share pixels
_COPIES = 3  # times the instructions of `Patch.copying`: nearer to what predictions count for gradients
_TURN = 150  # what a patch takes besides its copies, in instructions: to wait for memory and at two barriers


@dataclass(frozen=True, slots=True)
class Plan:
    """The division of work for the forward kernel: each thread computes F = `filters` filters (in fours) at `positions` positions. The
    plane is cut into `bands` of columns. The patch is of all channels, or of one of several `turns`."""

    patch: Patch
    threads: int
    filters: int
    positions: int
    bands: int = 1
    turns: int = 1

    @property
    def stretch(self) -> int:
        return self.threads * self.positions

    @property
    def taps(self) -> int:
        """Of the patch."""
        return self.patch.channels * self.patch.kernel[0] * self.patch.kernel[1]

    @property
    def weight_pitch(self) -> int:
        """Words from one tap's weights to the next: four more than F, which avoids most bank conflicts when they are written."""
        return self.filters + 4

    @property
    def start(self) -> int:
        """The offset of the patch, after the weights of all taps and the biases."""
        return (self.taps + 1) * self.weight_pitch

    @property
    def shared(self) -> int:
        return self.start + self.patch.size

    def places(self, down: int) -> int:
        """The positions of a band, in a plane of `down` rows of them."""
        return down * self.patch.across

    def blocks(self, filters: int, down: int) -> int:
        """The blocks of an image."""
        return -(-filters // self.filters) * self.bands * -(-self.places(down) // self.stretch)

    def cost(self, filters: int, down: int) -> float:
        """Roughly the instructions that warps issue for an image, more where few warps are on a multiprocessor at a time, and where threads
        of a warp read from one bank."""
        outputs = self.positions * self.patch.side**2
        sums = self.turns * self.taps * (self.filters * outputs + self.filters // 4 + outputs) + 3 * self.filters * outputs + 60
        copies = self.patch.copying(self.threads) + 16 * -(-self.filters * self.taps // self.threads)
        copies = self.turns * (copies + _TURN) - _TURN
        warps = self.threads * max(1, min(65536 // (72 * self.threads), 24576 // self.shared)) / 32  # at once, on most chips
        worse = (1 + 12 / warps) * (1.05 if self.bands > 1 else 1) * (1 if self.patch.spread else 1.25)
        return self.blocks(filters, down) * self.threads / 32 * (sums + copies + 60) * worse


@functools.lru_cache(maxsize=256)
def plan_of(channels: int, filters: int, window: Window, side: int = 1, threads: int | None = None) -> Plan | None:
    """The plan for a convolution, pooled `side` × `side`; None if it does not fit into shared memory. `threads` is for tests."""
    plans = [
        plan
        for count in ((128, 96, 224, 64, 32) if threads is None else (threads,))
        for plan in _plans(channels, filters, window, side, count)
        if plan.shared <= ROOM
    ]
    return min(plans, key=lambda plan: plan.cost(filters, window.output[0] // side), default=None)


def _plans(channels: int, filters: int, window: Window, side: int, threads: int) -> Iterator[Plan]:
    """The plans for blocks of so many threads, each with 32 sums: fewer filters where there are few, and bands of several widths."""
    width = window.output[1] // side
    shapes = ((4, 4 // side**2),) if filters <= 4 else ((8, 4), (16, 2)) if side == 1 else ((8, 1),)
    for own_filters, positions in shapes:
        for bands in range(1, max(1, width // _NARROWEST) + 1):
            across = -(-width // bands)
            if -(-width // across) < bands:
                continue
            for turns in (1, channels) if channels > side == 1 else (1,):
                patch = patch_of(channels // turns, window, threads * positions, side, across=across)
                if patch is not None:
                    yield Plan(patch, threads, own_filters, positions, bands, turns)


@functools.lru_cache(maxsize=256)
def grad_plan_of(
    images: int,
    channels: int,
    filters: int,
    window: Window,
    *,
    threads: int = 128,
    own_filters: int = 4,
    blocks: int | None = None,
    sharing: int | None = None,
) -> GradPlan | None:
    """The plan for a gradient of weight; None where its patch does not fit in shared memory.

    About 512 blocks: four for each multiprocessor of a large chip, all at work at once, so that the sums, which each block has to
    add up, are few; or 384, three for each, where a thread has so many sums that no more fit. The number does not depend on the chip:
    otherwise the order of the sums, and so their last bits, would. Four parts of a block share its pixels where there are enough of them
    for all blocks. `blocks` and `sharing` are for tests.
    """
    width, outputs, plans = window.output[1], window.output[0] * window.output[1], []
    for bands in (count for count in range(1, max(1, width // _NARROWEST) + 1) if width % count == 0):

        def pixels(stretch: int, room: int, across: int = width // bands) -> Pixels | None:
            return patch_of(channels, window, stretch, room=room, across=across)

        sizes = images, channels, filters, window.kernel, outputs
        for parts in (1, _SHARING) if sharing is None and threads % (BANKS * _SHARING) == 0 else (sharing or 1,):
            alike = functools.partial(share_out, *sizes, pixels, threads=threads, own_filters=own_filters, bands=bands, sharing=parts)
            plan = alike(blocks=blocks or _BLOCKS)
            if plan is not None and blocks is None and plan.sums > _MOST_SUMS:
                plan = alike(blocks=_BLOCKS * 3 // 4)
            if plan is not None and (parts == 1 or sharing is not None or plan.slice_units >= _LEAST_UNITS):
                plans.append(plan)
    return min(plans, key=lambda plan: grad_cost(plan, outputs) * -(-filters // plan.own_filters), default=None)


def grad_cost(plan: GradPlan, outputs: int) -> float:
    """Roughly the instructions that a warp of a block issues for the `outputs` positions of an image."""
    taps, places = plan.group_rows * plan.patch.kernel[1], outputs // plan.bands
    units, turns = -(-places // plan.stretch), -(-places // plan.lanes)
    assert isinstance(plan.patch, Patch)
    return plan.bands * (turns * (plan.filters * (taps + 4) + taps + 16) + units * (_COPIES * plan.patch.copying(plan.threads) + _TURN))
