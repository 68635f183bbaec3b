"""Handing work to a thread: one word in memory says whether it has any, and it looks at this word within a loop."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

from __future__ import annotations

import sys

from gpucnn_loops.language import cgutils, helper, intrinsic, ir, types, words
from gpucnn_loops.loops import loop

READY, GIVEN, ASLEEP = 0, 1, 2
# Words of a thread's slot. Those that both sides write have a line of the cache for each side.
STATE, BEFORE, NOTE, CALLS, LOOKS, CORE, SLOT = 0, 16, 17, 18, 19, 32, 48
I64 = ir.IntType(64)
LINE = 16  # words from one that a thread writes to one that another writes: two lines of the cache
NAP = 20  # microseconds


@intrinsic
def seen(typing, x, i):
    """Reads x[i] with what the other threads have written."""

    def code(c, b, s, args):
        return b.load_atomic(b.gep(args[0], [args[1]]), "acquire", 8)

    return types.int64(x, types.int64), code


@intrinsic
def shown(typing, x, i, value):
    """Sets x[i] = value, which others see only after all that this thread has written before."""

    def code(c, b, s, args):
        b.store_atomic(args[2], b.gep(args[0], [args[1]]), "release", 8)
        return c.get_dummy_value()

    return types.void(x, types.int64, types.int64), code


@intrinsic
def swapped(typing, x, i, value):
    """Sets x[i] to `value`, and returns what it was."""

    def code(c, b, s, args):
        return b.atomic_rmw("xchg", b.gep(args[0], [args[1]]), args[2], "seq_cst")

    return types.int64(x, types.int64, types.int64), code


@intrinsic
def became(typing, x, i, old, new):
    """Sets x[i] to `new` if it was `old`, and returns whether it was."""

    def code(c, b, s, args):
        place = b.gep(args[0], [args[1]])
        return b.extract_value(b.cmpxchg(place, args[2], args[3], "seq_cst", "seq_cst"), 1)

    return types.boolean(x, types.int64, types.int64, types.int64), code


@intrinsic
def taken(typing, x, i):
    """Adds 1 to x[i], and returns what it was."""

    def code(c, b, s, args):
        return b.atomic_rmw("add", b.gep(args[0], [args[1]]), ir.Constant(I64, 1), "seq_cst")

    return types.int64(x, types.int64), code


@intrinsic
def breath(typing):
    """Tells the processor that this loop only waits."""

    def code(c, b, s, args):
        if "x86" in b.module.triple or "i686" in b.module.triple:
            b.call(cgutils.get_or_insert_function(b.module, ir.FunctionType(ir.VoidType(), []), "llvm.x86.sse2.pause"), [])
        elif "aarch64" in b.module.triple or "arm64" in b.module.triple:
            kind = ir.IntType(32)
            hint = cgutils.get_or_insert_function(b.module, ir.FunctionType(ir.VoidType(), [kind]), "llvm.aarch64.hint")
            b.call(hint, [ir.Constant(kind, 1)])
        return c.get_dummy_value()

    return types.void(), code


@intrinsic
def nap(typing):
    """Lets other threads have the core for a while, where the system has a way."""

    def code(c, b, s, args):
        if sys.platform in ("linux", "darwin"):
            kind = ir.IntType(32)
            b.call(cgutils.get_or_insert_function(b.module, ir.FunctionType(kind, [kind]), "usleep"), [ir.Constant(kind, NAP)])
        return c.get_dummy_value()

    return types.void(), code


@intrinsic
def here(typing):
    """The core that this thread runs on; −1 where the system does not tell."""

    def code(c, b, s, args):
        if sys.platform != "linux":
            return ir.Constant(I64, -1)
        return b.sext(b.call(cgutils.get_or_insert_function(b.module, ir.FunctionType(ir.IntType(32), []), "sched_getcpu"), []), I64)

    return types.int64(), code


@intrinsic
def run_noted(typing, note, i):
    """Calls the loop noted at note[i]: the address of its function, the number of words, the arguments."""

    def code(c, b, s, args):
        way_in = b.load(b.gep(args[0], [args[1]]))
        kind = ir.FunctionType(ir.VoidType(), [I64.as_pointer()])
        b.call(b.inttoptr(way_in, kind.as_pointer()), [b.gep(args[0], [b.add(args[1], ir.Constant(I64, 2))])])
        return c.get_dummy_value()

    return types.void(note, types.int64), code


@intrinsic
def noted_at(typing, place):
    """The array of words at an address that is given as a number."""
    return words(types.int64), lambda c, b, s, args: b.inttoptr(args[0], I64.as_pointer())


@helper
def run_all(note, calls):
    """Calls the loops that are noted one behind the other."""
    place = 0
    for _ in range(calls):
        run_noted(note, place)
        place += note[place + 1]


@loop("w* i")
def run(note, calls):
    """Runs the first `calls` loops of a note."""
    run_all(note, calls)


@loop("w* i")
def tell(word, number):
    """Sets a word that other threads wait for."""
    shown(word, 0, number)


@loop("w* i i")
def reach(word, number, looks):
    """Waits until a word is no less than `number`; after so many looks with naps between them."""
    while seen(word, 0) < number:
        if looks > 0:
            breath()
            looks -= 1
        else:
            nap()


@loop("w*")
def serve(slot):
    """Runs what a thread is given while it is awake, until it has looked slot[LOOKS] times and found nothing."""
    became(slot, STATE, ASLEEP, READY)
    while True:
        left = slot[LOOKS]
        while left > 0 and seen(slot, STATE) != GIVEN:
            breath()
            left -= 1
        if left <= 0 and became(slot, STATE, READY, ASLEEP):
            return
        slot[CORE] = here()
        run_all(noted_at(slot[NOTE]), slot[CALLS])
        shown(slot, STATE, READY)


@loop("w*")
def hand_over(slot):
    """Hands a thread its work. slot[BEFORE] is set to the state that it was in."""
    slot[BEFORE] = swapped(slot, STATE, GIVEN)


@loop("w* i")
def await_end(slot, looks):
    """Waits until a thread has done its work, but looks at most so many times."""
    while looks > 0 and seen(slot, STATE) == GIVEN:
        breath()
        looks -= 1


HANDING = serve, hand_over, await_end, run, tell, reach
