"""Selects the variant and the number of slices for an operation, once per shape.

This is the only place that selects. In order of precedence:

    with override(conv2d="plain"): …                               for the calls inside
    GPUCNN_VARIANT="conv2d=plain,conv2d_weight_grad=tile128x64"    in the environment
    tuned.py                                                       the fastest measured on this chip for this shape (`gpucnn tune`)
    the variants' own weights                                      otherwise: special kernels for their shapes first, then the tile that
                                                                   fits best; plain kernels for tiny problems

The last batch of an epoch is often smaller than the others. Kernels of its own would be compiled for seconds, to run for microseconds; so
within `batches_of` it takes those of a whole batch, if they can do it.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace

from gpucnn_kernels.choose import problems, tuned
from gpucnn_kernels.choose.variants import VARIANTS
from gpucnn_kernels.core._numba import SIMULATED, cuda
from gpucnn_kernels.core.problem import KINDS, Chip, Problem
from gpucnn_kernels.core.variant import Variant

VARIABLE = "GPUCNN_VARIANT"
_LEAST_WORK = 1 << 20  # FMAs: any kernel does fewer in less time than a launch takes …
_LONGEST = 512  # … unless a thread adds up more terms one after the other: a tenth of a microsecond each, as predicted for an H100
_ALONE = ("conv2d", "conv2d_input_grad")  # the operations whose plain kernels have a thread for each result


@dataclass(frozen=True, slots=True)
class Choice:
    """The selected variant, the number of slices of its sums, and the size of its workspace in float32."""

    variant: Variant
    slices: int = 1
    workspace: int = 0

    @property
    def name(self) -> str:
        """The name of the variant."""
        return self.variant.name

    @property
    def apart(self) -> bool:
        """Whether there is no kernel for the whole operation: its parts then run one after the other."""
        return self.variant.launch is None

    @property
    def launch(self) -> Callable[..., None]:
        """The launcher of the variant. Where only some do, it takes `slices` from here."""
        launch = self.variant.launch
        assert launch is not None, f"{self.name} has no launcher: ask for `apart` first"
        return launch if self.slices == 1 else functools.partial(launch, slices=self.slices)


def choose(problem: Problem, name: str | None = None) -> Choice:
    """Selects the variant for `problem` on the current GPU. `name` forces a variant for this call.

    A variant that the environment, a table or an `override` names is skipped where it cannot do the shape, since these hold for many.
    Raises ValueError if `name`, or the variant of a Choice, cannot; and for an unknown variant or operation.
    """
    operation = problem.operation
    if name:
        _check(operation, name)
        _check_shape(problem, next(variant for variant in VARIANTS[operation] if variant.name == name))
    said = name or _override.get().get(operation) or _overrides(os.environ.get(VARIABLE, "")).get(operation)
    if isinstance(said, Choice):
        _check_shape(problem, said.variant)
        return said
    chip, whole = current_chip(), _whole.get()
    if problem.n < whole:
        like = problems.of_batch(problem, whole)
        found = _choose(like, chip, said, None if said else _measured(like, chip))
        return _as_in(found, like.depth, problem, chip, said)
    return _choose(problem, chip, said, None if said else _measured(problem, chip))


def variants(problem: Problem) -> tuple[str, ...]:
    """The names of all variants that can do the problem on the current GPU."""
    chip = current_chip()
    return tuple(variant.name for variant in VARIANTS[problem.operation] if variant.fits(problem, chip))


def _measured(problem: Problem, chip: Chip) -> tuple[str, int] | None:
    """The variant that was measured to be the fastest. For a problem whose factors may lose bits, that of the problem whose factors lose
    fewer, if nothing else was measured."""
    for bits in reversed(KINDS):
        if bits >= problem.bits and (found := tuned.lookup(chip.name, replace(problem, bits=bits).key)):
            return found
    return None


@functools.lru_cache(maxsize=1024)
def _choose(problem: Problem, chip: Chip, said: str | None, measured: tuple[str, int] | None) -> Choice:
    found = {variant.name: variant for variant in VARIANTS[problem.operation] if variant.fits(problem, chip)}
    if measured is not None and measured[0] in found:
        return choice(found[measured[0]], problem, measured[1])
    if said in found:
        return choice(found[said], problem, found[said].weigh(problem, chip)[1])
    first = next(iter(found.values()))
    if problem.fmas < _LEAST_WORK and not (problem.operation in _ALONE and problem.depth > _LONGEST):
        return choice(first, problem)
    weights = {name: variant.weigh(problem, chip) for name, variant in found.items()}
    best = max(weights, key=lambda name: weights[name][0])  # the first of equals
    return choice(found[best], problem, weights[best][1])


def _as_in(whole: Choice, depth: int, problem: Problem, chip: Chip, said: str | None) -> Choice:
    """The choice for a part of a batch, given that for the whole and how many terms its sums have. The gradient of a weight has fewer in
    the part, but the same kernel."""
    if whole.variant.fits(replace(problem, depth=depth), chip):
        return choice(whole.variant, problem, whole.slices)
    return _choose(problem, chip, said, None if said else _measured(problem, chip))


def choice(variant: Variant, problem: Problem, slices: int = 1) -> Choice:
    """A Choice of this variant for a problem, with the workspace that it needs."""
    return Choice(variant, slices, variant.workspace(problem, slices))


# The rest of the selection's input, besides the problem.

_override: ContextVar[dict[str, str | Choice]] = ContextVar("override", default={})  # noqa: B039  (never written to)
_chip: ContextVar[Chip | None] = ContextVar("chip", default=None)
_whole: ContextVar[int] = ContextVar("whole", default=0)


@contextmanager
def override(chosen: Mapping[str, str | Choice] | None = None, **more: str | Choice) -> Iterator[None]:
    """Forces variants, by the names of operations, for the calls inside; a Choice is used unchanged. ValueError for unknown names."""
    everything = {**(chosen or {}), **more}
    for operation, said in everything.items():
        _check(operation, said.name if isinstance(said, Choice) else said)
    token = _override.set({**_override.get(), **everything})
    try:
        yield
    finally:
        _override.reset(token)


@contextmanager
def batches_of(n: int) -> Iterator[None]:
    """Selects for smaller batches as for those of n images or rows."""
    token = _whole.set(n)
    try:
        yield
    finally:
        _whole.reset(token)


@contextmanager
def for_chip(sms: int, name: str = "", capability: tuple[int, int] = (0, 0)) -> Iterator[None]:
    """Selects as for a chip with `sms` multiprocessors and a compute capability, which need not be present."""
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


def _check_shape(problem: Problem, variant: Variant) -> None:
    chip = current_chip()
    if not variant.fits(problem, chip):
        major, minor = chip.capability
        raise ValueError(
            f"the variant {variant.name!r} of {problem.operation} cannot do {problem.shape}, sums of {problem.depth} terms, with factors "
            f"of {problem.bits} bits on compute capability {major}.{minor}: those that can are {', '.join(variants(problem))}"
        )
