"""A variant: one way to do an operation. Each is an object in the file of its kernels; choose/variants.py lists them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gpucnn_kernels.core.problem import Chip, Problem


def _always(problem: Problem, chip: Chip) -> bool:
    return True


def _nothing(problem: Problem, slices: int) -> int:
    return 0


def _as_a_last_resort(problem: Problem, chip: Chip) -> tuple[float, int]:
    return 0.0, 1


def made_for_it(problem: Problem, chip: Chip) -> tuple[float, int]:
    """The merit of a kernel that was written for these shapes: it beats every other."""
    return float("inf"), 1


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to do an operation.

    launch     the launcher. All variants of an operation take the same arguments; None if no kernel does the whole operation, and the
               operations that it consists of run one after the other
    fits       whether it can do a problem on a chip
    workspace  the float32 elements that it needs besides its results, given a problem and a number of slices
    weigh      (merit, slices): how well it suits a problem on a chip, and into how many slices it would cut the sums. The greatest merit
               is selected. Merits are estimates, as a fraction of what the engine's largest tile can reach; a negative one is never
               selected. For a problem that does not allow all sums to be cut alike, those that would leave a part of the chip idle may
               be (engine/cut.py): then `slices` is the number of multiprocessors to fill
    slices     whether it can cut sums
    parts      whether the images of y, or of dy, may lie apart, as the channels of one branch do within those of all (launch.images)
    cross_entropy
               the launcher of a dense layer and the softmax cross-entropy of its outputs as one; None if they run one after the other
    """

    name: str
    launch: Callable[..., None] | None
    fits: Callable[[Problem, Chip], bool] = _always
    workspace: Callable[[Problem, int], int] = _nothing
    weigh: Callable[[Problem, Chip], tuple[float, int]] = _as_a_last_resort
    slices: bool = False
    parts: bool = False
    cross_entropy: Callable[..., None] | None = None
