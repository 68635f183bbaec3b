"""Dense layers on tensor cores that warps feed: the products of tiled.py by another kernel, on chips of compute capability 8.0 and newer.

No chip has confirmed them (`mma128x64`, and `-tf32` and `-bf16` for factors of fewer bits), so they come by `gpucnn tune`, by
select.override or by the environment alone.
"""

from __future__ import annotations

import functools

from gpucnn_kernels.core.problem import KINDS, Chip, Problem
from gpucnn_kernels.core.variant import Variant
from gpucnn_kernels.dense.tiled import Epilogue, Form, variants
from gpucnn_kernels.engine.product import Product
from gpucnn_kernels.tensor import matrices
from gpucnn_kernels.tensor.chips import LEAST_TERMS, UNCONFIRMED, warps_there
from gpucnn_kernels.tensor.matrices import MatrixTile
from gpucnn_kernels.tensor.parts import ENDING

NAME = "mma128x64"


def multiply(tile: MatrixTile, form: Form, sizes: tuple[int, int, int], epilogue: Epilogue, slices: int) -> Product:
    """The product of matrices on tensor cores, which read each factor by fours or one by one."""
    by_fours = epilogue.a_vector, epilogue.b_vector
    a_width, b_width = (4 if fours and line % 4 == 0 else 1 for fours, line in zip(by_fours, form.lines(sizes), strict=True))
    by_rows, last = (form.a == "rows", form.b == "rows"), (epilogue.extra, epilogue.relu)
    return matrices.product(tile, by_rows, form.store, sizes, last, slices=slices, widths=(a_width, b_width))


def _fits(problem: Problem, chip: Chip, bits: int) -> bool:
    """Whether factors may be rounded to so many bits."""
    return warps_there(chip) and bits >= problem.bits and problem.depth >= LEAST_TERMS


def _variants(bits: int) -> dict[str, Variant]:
    return variants(NAME + ENDING[bits], MatrixTile(bits), UNCONFIRMED, multiply, fits=functools.partial(_fits, bits=bits))


ALL = [_variants(bits) for bits in KINDS]
