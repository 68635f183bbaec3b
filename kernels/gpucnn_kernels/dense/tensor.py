"""Dense layers on tensor cores: the products of tiled.py by other kernels.

By warps on chips of compute capability 8.0 and newer (`mma128x64`), and by warpgroups on Hopper (`tensor128x128`, `tensor64x128`); with
`-tf32` and `-bf16` for factors of fewer bits. No chip has confirmed them, so they come by `gpucnn tune`, by select.override or by the
environment alone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from gpucnn_kernels.core.problem import KINDS, Chip, Problem
from gpucnn_kernels.core.variant import Variant
from gpucnn_kernels.dense.tiled import Epilogue, Form, Multiplier, variants
from gpucnn_kernels.engine.product import Product
from gpucnn_kernels.tensor import groups, matrices
from gpucnn_kernels.tensor.accuracy import enough
from gpucnn_kernels.tensor.chips import UNCONFIRMED, groups_there, warps_there
from gpucnn_kernels.tensor.groups import GroupTile
from gpucnn_kernels.tensor.matrices import MatrixTile
from gpucnn_kernels.tensor.parts import ENDING

NAME = "mma128x64"
GROUPS = {"tensor128x128": GroupTile(128), "tensor64x128": GroupTile(64)}
"""The tiles of warpgroups by name."""
_LEAST_STEPS = 4  # of 32 terms in a slice by warpgroups
_LONGEST = 1 << 23  # numbers in a line: then lines are less than 2³² bytes apart, as many as a thread copies


def multiply(tile: MatrixTile, form: Form, sizes: tuple[int, int, int], epilogue: Epilogue, slices: int) -> Product:
    """The product of matrices by warps, which read each factor by fours or one by one."""
    by_rows, last = (form.a == "rows", form.b == "rows"), (epilogue.extra, epilogue.relu)
    return matrices.product(tile, by_rows, form.store, sizes, last, slices=slices, widths=_widths(form, sizes, epilogue))


def multiply_by_groups(tile: GroupTile, form: Form, sizes: tuple[int, int, int], epilogue: Epilogue, slices: int) -> Product:
    """The product of matrices by warpgroups."""
    by_rows, last = (form.a == "rows", form.b == "rows"), (epilogue.extra, epilogue.relu)
    return groups.product(tile, by_rows, form.store.sums, sizes, last, slices=slices, widths=_widths(form, sizes, epilogue))


def _widths(form: Form, sizes: tuple[int, int, int], epilogue: Epilogue) -> tuple[int, int]:
    """How many numbers of each factor may be read at once."""
    by_fours = epilogue.a_vector, epilogue.b_vector
    a_width, b_width = (4 if fours and line % 4 == 0 else 1 for fours, line in zip(by_fours, form.lines(sizes), strict=True))
    return a_width, b_width


def _fits(problem: Problem, chip: Chip, bits: int, there: Callable[[Chip], bool]) -> bool:
    """Whether factors may be rounded to so many bits, the sums are long enough to be exact, and lines short enough."""
    return there(chip) and bits >= problem.bits and enough(problem.depth, bits) and max(problem.M, problem.N, problem.depth) < _LONGEST


def _variants(name: str, tile: Any, make: Multiplier, there: Callable[[Chip], bool], **more: Any) -> dict[str, Variant]:
    fits = functools.partial(_fits, bits=tile.bits, there=there)
    return variants(name + ENDING[tile.bits], tile, UNCONFIRMED, make, fits=fits, **more)


ALL = [
    *(_variants(NAME, MatrixTile(bits), multiply, warps_there) for bits in KINDS),
    *(
        _variants(name, replace(tile, bits=bits), multiply_by_groups, groups_there, least_steps=_LEAST_STEPS)
        for bits in KINDS
        for name, tile in GROUPS.items()
    ),
]
