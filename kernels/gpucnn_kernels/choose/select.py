"""Which variant does an operation, and in how many slices: chosen once for each shape.

The one place where that is chosen. What is said first counts:

    with override(conv2d="plain"): …                               for the calls inside
    GPUCNN_VARIANT="conv2d=plain,conv2d_weight_grad=tile128x64"    in the environment
    tuned.py                                                       what was fastest on this chip for this very shape (`gpucnn tune`)
    the variants' own weights                                      for everything else: kernels that were written for such shapes first,
                                                                   then the tile that suits best; the plain ones for what is tiny
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from gpucnn_kernels.choose import tuned
from gpucnn_kernels.choose.variants import VARIANTS
from gpucnn_kernels.core._numba import SIMULATED, cuda
from gpucnn_kernels.core.problem import Chip, Problem
from gpucnn_kernels.core.variant import Variant

VARIABLE = "GPUCNN_VARIANT"
_LEAST_WORK = 1 << 20  # FMAs: less than that takes as long as a launch, however it is done


@dataclass(frozen=True, slots=True)
class Choice:
    """What does an operation: a variant, the slices that its sums are cut into, and the float32 of its workspace."""

    variant: Variant
    slices: int = 1
    workspace: int = 0

    @property
    def name(self) -> str:
        """The variant's."""
        return self.variant.name

    @property
    def apart(self) -> bool:
        """Whether there is no kernel for the whole: the operations that it is made of are done one after the other."""
        return self.variant.launch is None

    @property
    def launch(self) -> Callable[..., None]:
        """The variant's launcher."""
        assert self.variant.launch is not None, f"{self.name} has no launcher: ask for `apart` first"
        return self.variant.launch


def choose(problem: Problem, name: str | None = None) -> Choice:
    """What does `problem` on the current GPU. `name` says which variant for this call.

    A variant that is known but cannot do such a shape is passed over. Raises ValueError for a variant or an operation that is not there.
    """
    operation = problem.operation
    if name:
        _check(operation, name)
    said = name or _override.get().get(operation) or _overrides(os.environ.get(VARIABLE, "")).get(operation)
    if isinstance(said, Choice):
        return said
    chip = current_chip()
    return _choose(problem, chip, said, None if said else tuned.lookup(chip.name, problem.key))


def variants(problem: Problem) -> tuple[str, ...]:
    """The names of all that can do it on the current GPU."""
    chip = current_chip()
    return tuple(variant.name for variant in VARIANTS[problem.operation] if variant.fits(problem, chip))


@functools.lru_cache(maxsize=1024)
def _choose(problem: Problem, chip: Chip, said: str | None, measured: tuple[str, int] | None) -> Choice:
    found = {variant.name: variant for variant in VARIANTS[problem.operation] if variant.fits(problem, chip)}
    if measured is not None and measured[0] in found:
        return choice(found[measured[0]], problem, measured[1])
    if said in found:
        return choice(found[said], problem, found[said].weigh(problem, chip)[1])
    first = next(iter(found.values()))
    if problem.fmas < _LEAST_WORK:
        return choice(first, problem)
    weights = {name: variant.weigh(problem, chip) for name, variant in found.items()}
    best = max(weights, key=lambda name: weights[name][0])  # the first of equals
    return choice(found[best], problem, weights[best][1])


def choice(variant: Variant, problem: Problem, slices: int = 1) -> Choice:
    """That variant for a problem, with the workspace that it needs."""
    return Choice(variant, slices, variant.workspace(problem, slices))


# What the choice depends on besides the problem.

_override: ContextVar[dict[str, str | Choice]] = ContextVar("override", default={})  # noqa: B039  (never written to)
_chip: ContextVar[Chip | None] = ContextVar("chip", default=None)


@contextmanager
def override(chosen: Mapping[str, str | Choice] | None = None, **more: str | Choice) -> Iterator[None]:
    """Variants by the names of operations, for the calls inside; a Choice is taken as it is. Raises ValueError for what is not there."""
    everything = {**(chosen or {}), **more}
    for operation, said in everything.items():
        _check(operation, said.name if isinstance(said, Choice) else said)
    token = _override.set({**_override.get(), **everything})
    try:
        yield
    finally:
        _override.reset(token)


@contextmanager
def for_chip(sms: int, name: str = "", capability: tuple[int, int] = (0, 0)) -> Iterator[None]:
    """Chooses as on a chip of `sms` multiprocessors and a compute capability, which need not be there."""
    token = _chip.set(Chip(name, sms, capability))
    try:
        yield
    finally:
        _chip.reset(token)


def current_chip() -> Chip:
    """The current GPU. The simulator has no name, and as many multiprocessors as an H100."""
    return _chip.get() or _present()


@functools.cache
def _present() -> Chip:
    if SIMULATED:
        return Chip("", 132, (0, 0))
    current = cuda.get_current_device()
    name = current.name.decode() if isinstance(current.name, bytes) else str(current.name)
    major, minor = current.compute_capability[:2]
    return Chip(name, int(current.MULTIPROCESSOR_COUNT), (int(major), int(minor)))


@functools.lru_cache(maxsize=16)
def _overrides(text: str) -> dict[str, str]:
    found = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        operation, equals, name = (piece.strip() for piece in part.partition("="))
        if not equals:
            raise ValueError(f"{VARIABLE} holds {part!r}: write operation=variant, separated by commas")
        _check(operation, name)
        found[operation] = name
    return found


def _check(operation: str, name: str) -> None:
    if operation not in VARIANTS:
        raise ValueError(f"unknown operation {operation!r}: the operations with variants are {', '.join(VARIANTS)}")
    names = [variant.name for variant in VARIANTS[operation]]
    if name not in names:
        raise ValueError(f"unknown variant {name!r} of {operation}: the variants are {', '.join(names)}")
