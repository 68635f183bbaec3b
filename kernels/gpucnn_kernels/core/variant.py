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
    """The weight of a kernel that was written for such shapes: it goes before every other."""
    return float("inf"), 1


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to do an operation.

    launch     the launcher. All variants of an operation take the same arguments; None where there is no kernel for the whole of it, and
               the operations that it is made of are done one after the other
    fits       whether it can do a problem on a chip
    workspace  how many float32 it needs beside its results, for a problem in so many slices
    weigh      (merit, slices): how well it suits a problem on a chip, where the greatest merit is chosen, and into how many slices it would
               cut the sums. Merits are estimates, as a part of what the largest tile of the engine can reach; none is taken below 0
    slices     whether it can cut the sums of a problem that allows it
    parts      whether the images of y, or of dy, may lie apart, as the channels of one branch do within those of all (launch.images)
    """

    name: str
    launch: Callable[..., None] | None
    fits: Callable[[Problem, Chip], bool] = _always
    workspace: Callable[[Problem, int], int] = _nothing
    weigh: Callable[[Problem, Chip], tuple[float, int]] = _as_a_last_resort
    slices: bool = False
    parts: bool = False
