"""Random numbers from a counter.

Philox4x32-10 (J. Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011) turns a counter of four 32-bit words and a key of
two into four random words, by ten rounds of multiplying and mixing. Nothing carries over from one counter to the next, so each thread
takes a counter of its own.
"""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from gpucnn_kernels.core._numba import uint32, uint64
from gpucnn_kernels.core.compile import device

_WORD = 0xFFFFFFFF
_ROUNDS = 10


@device
def philox(c0, c1, c2, c3, k0, k1):
    """The four random words of a counter (c0, c1, c2, c3) under a key (k0, k1)."""
    # Products and sums of 32-bit words are computed in 64 bits, so that only the explicit shifts and masks wrap around.
    for _ in range(_ROUNDS):
        product0 = uint64(0xD2511F53) * uint64(c0)
        product1 = uint64(0xCD9E8D57) * uint64(c2)
        c0 = uint32(uint32(product1 >> uint64(32)) ^ c1 ^ k0)
        c1 = uint32(product1 & uint64(_WORD))
        c2 = uint32(uint32(product0 >> uint64(32)) ^ c3 ^ k1)
        c3 = uint32(product0 & uint64(_WORD))
        k0 = uint32((uint64(k0) + uint64(0x9E3779B9)) & uint64(_WORD))
        k1 = uint32((uint64(k1) + uint64(0xBB67AE85)) & uint64(_WORD))
    return c0, c1, c2, c3
