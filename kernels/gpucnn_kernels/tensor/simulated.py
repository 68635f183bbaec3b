"""What the instructions of instructions.py and hopper.py mean, in Python: for Numba's simulator, which has a Python thread for each thread.

They do as the PTX ISA says, as late as it allows: the sums of a product of a warpgroup are NaN until they have been waited for. Threads
that issue an instruction together hand over what they hold; the last to come puts it where fragments.py says that it lies, multiplies, and
all take their own. Addresses that belong to no array are errors.

Sums are worked out in float64 and then cut to float32, as tensor cores do by and large (tests/kernels/test_warps.py). What is not shown
here is how memory is ordered: fences do nothing, since everything that a thread writes is seen at once. The virtual GPU of tests/vgpu
checks that.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpucnn_kernels.core.problem import BFLOAT16
from gpucnn_kernels.core.simulated import current_block
from gpucnn_kernels.core.simulated_copies import copies_commit, copies_wait
from gpucnn_kernels.core.simulated_memory import Memory, memory
from gpucnn_kernels.tensor import fragments

_WARP, _GROUP = 32, 128
_NAN, _INFINITE, _ROUND, _KEPT = 0x7FFFFFFF, 0x7F800000, 0x1000, np.uint32(0xFFFFE000)


def _placed(place: Callable[[int, int], tuple[int, int]], threads: int, registers: int) -> tuple[Any, Any]:
    """Rows and columns of what threads have in registers, as two arrays that NumPy can index by."""
    places = np.array([[place(thread, register) for register in range(registers)] for thread in range(threads)])
    return places[..., 0], places[..., 1]


_A, _B, _C = _placed(fragments.a_place, _WARP, 4), _placed(fragments.b_place, _WARP, 2), _placed(fragments.c_place, _WARP, 4)
_A_PAIRS = _placed(lambda lane, number: fragments.a_pair(lane, number // 2, number % 2), _WARP, 8)
_B_PAIRS = _placed(lambda lane, number: fragments.b_pair(lane, number // 2, number % 2), _WARP, 4)
_GROUP_A = _placed(fragments.group_a_place, _GROUP, 4)
_GROUP_A_PAIRS = _placed(
    lambda thread, number: (fragments.group_a_place(thread, number // 2)[0], thread % 4 * 2 + number // 4 * 8 + number % 2), _GROUP, 8
)


class _Own(threading.local):
    """What a thread has begun. Each thread of the simulator is a new one of Python's."""

    def __init__(self) -> None:
        self.ordered = False  # whether the registers are, for products of a warpgroup
        self.products: list[tuple[Any, ...]] = []
        self.committed: list[tuple[Any, ...]] = []
        self.sums: dict[int, tuple[Any, Any]] = {}  # of those products, and what they were before


_own = _Own()


def _thread() -> int:
    thread: Any = threading.current_thread()
    return int(thread.thread_id)


def read_four(address):
    if int(address) % 16:
        raise ValueError(f"a read of 16 bytes at {int(address):#x}: it must be a multiple of 16")
    return tuple(memory().shared(address, 16).view(np.float32))


def copy_bulk(to, source, count, barrier):
    if int(count) % 16 or int(to) % 16 or int(source) % 16:
        raise ValueError(f"a bulk copy of {count} bytes from {int(source):#x} to {int(to):#x}: all must be multiples of 16")
    memory().shared(to, int(count))[:] = memory().global_words(source, int(count))
    _barrier(barrier).come(copied=int(count))


# Barriers in shared memory.


@dataclass
class _Barrier:
    arrivals: int  # in each phase
    missing: int
    expected: int = 0  # bytes
    phase: int = 0

    def come(self, arrivals: int = 0, expecting: int = 0, copied: int = 0) -> None:
        def counted() -> None:
            self.missing -= arrivals
            self.expected += expecting - copied
            if self.missing < 0:
                raise ValueError(f"more than {self.arrivals} arrivals at a barrier in one phase")
            if not self.missing and not self.expected:
                self.missing, self.phase = self.arrivals, self.phase + 1

        current_block().change(counted)


def _barrier(address) -> _Barrier:
    found: _Barrier | None = memory().barriers.get(int(address))
    if found is None:
        raise ValueError(f"no barrier was begun at {int(address):#x}")
    return found


def barrier_begin(address, arrivals):
    if int(address) % 8:
        raise ValueError(f"a barrier at {int(address):#x}: it must be a multiple of 8")
    memory().shared(address, 8)
    memory().barriers[int(address)] = _Barrier(int(arrivals), int(arrivals))


def barriers_begun():
    """What is written is seen at once."""


def arrive(address):
    _barrier(address).come(1)


def arrive_expecting(address, count):
    _barrier(address).come(1, expecting=int(count))


def arrive_with_copies(address):
    copies_commit()
    copies_wait(0)
    _barrier(address).come(1)


def has_ended(address, parity):
    barrier = _barrier(address)
    current_block().wait_until(lambda: barrier.phase % 2 != parity, f"parity {int(parity)} of the barrier at {int(address):#x}")
    return np.uint32(1)


# Numbers.


def bits_of(number):
    return np.float32(number).view(np.uint32)


def number_of(bits):
    return np.uint32(bits).view(np.float32)


def to_tf32(number):
    bits = int(bits_of(number))
    exponent = bits & _INFINITE
    if exponent == _INFINITE:
        return np.uint32(_NAN if bits & ~_INFINITE & _NAN else bits)
    return np.uint32(bits + _ROUND) & _KEPT


def _in_tf32(bits: Any) -> Any:
    """The numbers of an array of bits as tensor cores take them: they look at the upper 19 bits alone."""
    return (np.asarray(bits, np.uint32) & _KEPT).view(np.float32).astype(np.float64)


def to_bfloat16(low, high):
    return np.uint32(_upper_half(low) | _upper_half(high) << 16)


def _upper_half(number: Any) -> int:
    """The 16 bits of it rounded to bfloat16, to nearest, ties to even."""
    bits = int(bits_of(number))
    return _NAN >> 16 if np.isnan(number) else (bits + 0x7FFF + (bits >> 16 & 1)) >> 16


def _of_pairs(words: Any) -> Any:
    """The numbers of words that hold two in bfloat16 each, the lower half first."""
    pairs = np.stack([words << np.uint32(16), words & np.uint32(0xFFFF0000)], axis=-1)
    return pairs.view(np.float32).astype(np.float64).reshape(len(words), -1)


def _cut(exact: Any) -> Any:
    """Float64 to float32, toward zero; infinities and NaN as they are."""
    near = exact.astype(np.float32)
    over = np.isfinite(exact) & (np.abs(near.astype(np.float64)) > np.abs(exact))
    return np.where(over, np.nextafter(near, np.float32(0)), near)


# Tensor cores.


def _product_of_warp(depths: int, numbers: Callable[[Any], Any], a_places: Any, b_places: Any) -> Any:
    """mma.sync of so many steps of k, where a thread's words hold `numbers` (threads, …)."""

    def multiply_all(held: list[tuple[Any, ...]]) -> list[Any]:
        words = np.array([each[:6] for each in held], np.uint32)
        a, b, c = np.empty((fragments.ROWS, depths)), np.empty((depths, fragments.COLUMNS)), np.empty((fragments.ROWS, fragments.COLUMNS))
        a[a_places], b[b_places] = numbers(words[:, :4]), numbers(words[:, 4:])
        c[_C] = np.array([each[6:] for each in held], np.float32)
        return list(_cut(c + a @ b)[_C])

    def multiply(*held):  # a0, a1, a2, a3, b0, b1, c0, c1, c2, c3
        place = f"mma.sync of {depths} steps in warp {_thread() // _WARP}"
        return tuple(current_block().meet(place, _WARP, held, multiply_all))

    return multiply


multiply_warp = _product_of_warp(fragments.DEPTHS, _in_tf32, _A, _B)
multiply_warp_bfloat16 = _product_of_warp(2 * fragments.DEPTHS, _of_pairs, _A_PAIRS, _B_PAIRS)


def load_pieces(address):
    own = memory()

    def load(addresses: list[Any]) -> list[tuple[Any, ...]]:
        if any(int(each) % 16 for each in addresses):
            raise ValueError(f"ldmatrix of {', '.join(f'{int(each):#x}' for each in addresses)}: all must be multiples of 16")
        rows = [own.shared(each, 16) for each in addresses]
        return [tuple(rows[8 * piece + lane // 4][lane % 4] for piece in range(4)) for lane in range(_WARP)]

    return current_block().meet(f"ldmatrix in warp {_thread() // _WARP}", _WARP, address, load)


def multiply_add(columns: int, bits: int):
    def multiply(sums, a0, a1, a2, a3, descriptor, keep):
        if not _own.ordered:
            raise ValueError("wgmma before products_begin: the registers are not ordered")
        if id(sums) not in _own.sums:
            _own.sums[id(sums)] = sums, sums.copy()
            sums[:] = np.nan
        _own.products.append(((columns, bits, int(descriptor), bool(keep)), id(sums), (a0, a1, a2, a3)))

    return multiply


def products_begin():
    _own.ordered = True


def products_commit():
    _own.committed += _own.products
    _own.products = []


def products_wait():
    if not _own.committed:
        return
    own, group = memory(), _thread() // _GROUP
    before = {name: values for name, (_, values) in _own.sums.items()}
    results = current_block().meet(
        f"wgmma of warpgroup {group}", _GROUP, (_own.committed, before), lambda held: _products_of_group(held, own)
    )
    for name, values in results.items():
        _own.sums.pop(name)[0][:] = values
    _own.committed, _own.ordered = [], False


def _products_of_group(held: list[tuple[Any, ...]], own: Memory) -> list[dict[int, Any]]:
    """What each thread's sums become, all products one after the other."""
    if any(len(products) != len(held[0][0]) for products, _ in held):
        raise ValueError("the threads of a warpgroup wait for different numbers of products")
    results = [dict(before) for _, before in held]
    for same in zip(*(products for products, _ in held), strict=True):
        kind = same[0][0]
        columns, bits, descriptor, keep = kind
        if any(each[0] != kind for each in same):
            raise ValueError("the threads of a warpgroup multiply by different b, or keep different sums")
        places = _placed(fragments.group_c_place, _GROUP, columns // 2)
        depths, numbers, a_places = (16, _of_pairs, _GROUP_A_PAIRS) if bits == BFLOAT16 else (8, _in_tf32, _GROUP_A)
        a, c = np.empty((64, depths)), np.zeros((64, columns))
        a[a_places] = numbers(np.array([held_a for _, _, held_a in same], np.uint32))
        if keep:
            c[places] = [result[name] for result, (_, name, _) in zip(results, same, strict=True)]
        summed = _cut(c + a @ numbers(described(descriptor, columns, own.shared)).T)[places]
        for result, (_, name, _), values in zip(results, same, summed, strict=True):
            result[name] = values
    return results


def described(descriptor: int, columns: int, words: Callable[[int, int], Any]) -> Any:
    """b's words (columns, 8), in shared memory as a descriptor says (PTX ISA, 9.7.16.5.1): from its address on, in units of 16 bytes, rows
    of 128 or 64 bytes, eight of them and then the next eight so many bytes further on. An address has its bits 4 … 6, or 4 and 5, turned by
    the three or two from 7 on."""
    address, eight, mode = (descriptor & 0x3FFF) << 4, (descriptor >> 32 & 0x3FFF) << 4, descriptor >> 62
    if mode not in (1, 2) or descriptor >> 49 & 7:
        raise NotImplementedError(f"the descriptor {descriptor:#x}: only rows of 128 or 64 bytes, swizzled")
    row_bytes, turning = (128, 7) if mode == 1 else (64, 3)
    bits = np.empty((columns, 8), np.uint32)
    for column in range(columns):
        for first in (0, 4):
            at = address + column // 8 * eight + column % 8 * row_bytes + 4 * first
            bits[column, first : first + 4] = words(at ^ (at >> 7 & turning) << 4, 16)
    return bits


def written_for_products():
    """What is written is seen at once."""


def take_registers(count: int):
    """A thread of Python has all the registers it wants."""


def give_registers(count: int):
    """A thread of Python has all the registers it wants."""
