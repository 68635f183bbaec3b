"""How exact products on tensor cores are, and from how many terms on a sum is left to them.

In units of 2⁻²⁴ Σ |a||b|, one rounding of a float32; n is the number of terms. With factors in two parts (product.py):

    leaving out small · small        up to 4: each small part is at most 2⁻¹¹ of its number
    a small part has 12 bits         up to 2 for each factor: TF32 has 11, so the last may be lost, 2⁻²³ of the number
    tensor cores cut sums off        where float32 rounds. Of each 16 terms, products with a small part are added first, so only the two
                                     products of big parts cut off bits of a whole sum: up to 4, or 28 on a chip that also cuts each
                                     four terms to one bit more than a float32's (M. Fasi et al., "Numerical behavior of NVIDIA tensor
                                     cores", PeerJ Computer Science, 2021; F. A. Khattak, M. Mikaitis, "Accurate models of NVIDIA tensor
                                     cores", arXiv:2512.07004, 2025)
    sums of 16 are added up          in ordinary float32: up to n / 16

So no sum of finite numbers is off by more than 36 + n/16, whatever the numbers, as long as nothing overflows or underflows. FMAs one
after the other, which is how the engine sums (engine/loop.py), may be off by n. From 256 terms on tensor cores stay below a quarter of it.

In the mean, which is the root mean square over the results of a product, they are then no less exact than FMAs either: for normal and for
positive numbers, for images behind a ReLU, for numbers of up to 13 decimal magnitudes in each factor, and for sums that cancel. Shorter
sums may be less exact in the mean, because FMAs round only a few times, so FMAs compute them. tests/kernels/test_tensor_accuracy.py tests
both. (The gradient of a weight is a sum over images. A last batch with fewer of them has the kernels of the whole ones (choose/select.py),
so its sums may be shorter: only the bound holds for them.)

Not promised: that each single result is nearer than by FMAs; nor that results are nearer than those of FMAs whose sums are cut into slices,
which are more exact, too; and numbers of so many magnitudes that one or two terms are the whole sum, where FMAs are off by about one
rounding, and three products by up to 36.
"""

from __future__ import annotations

from gpucnn_kernels.core.problem import BFLOAT16, FLOAT32, TF32

LEAST_TERMS = {FLOAT32: 256, TF32: 32, BFLOAT16: 32}
"""Of a sum on tensor cores, by the bits that its factors keep. With one part, rounding the factors costs more than the sum: there 32 terms,
for which a tile is full."""


def enough(terms: int, bits: int) -> bool:
    """Whether a sum of so many terms may be left to tensor cores, where factors keep so many bits."""
    return terms >= LEAST_TERMS[bits]
