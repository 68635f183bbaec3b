"""Machine code placed in memory, from an object file as LLVM writes it for Linux on x86-64.

LLVM has a loader of its own, which is right for every object file on every machine, and takes some 60 MB and a tenth of a second before it
loads the first. A loop needs little of that: its code, its constants, and the addresses of what it calls. All addresses in it are words of
64 bits, because LLVM is asked for code that may lie anywhere (`codemodel="jitdefault"`). So the sections are copied to pages of their own,
these words are filled in, and the pages are made executable. Whatever else an object file contains is left to LLVM.

The format: System V Application Binary Interface, "Object Files", and its AMD64 supplement, "Relocation".
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import platform
import struct
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

HERE = sys.platform == "linux" and platform.machine() == "x86_64" and sys.maxsize > 2**32
"""Whether this module can do anything on this machine."""

_MAGIC, _RELOCATABLE, _X86_64 = b"\x7fELF\x02\x01", 1, 62  # 64 bits, the lowest byte first; what kind of file, for which processor
_SYMBOLS, _ADDENDS, _EMPTY, _IMPLICIT = 2, 4, 8, 9  # kinds of sections. In two, words to be filled in: with what is added, and without
_WRITTEN, _LOADED, _OF_THREADS = 0x1, 0x2, 0x400  # what a section may be
_WORD = 1  # R_X86_64_64: the address of a symbol, and a number


class Unplaced(Exception):
    """An object file that this module does not place, and why."""


class _Section(NamedTuple):
    name: int
    kind: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int
    entry: int


class _Symbol(NamedTuple):
    name: str
    place: int | None  # in the image; None for one that is elsewhere


class _Word(NamedTuple):
    place: int
    symbol: int
    added: int


def place(code: bytes, address_of: Callable[[str], int]) -> dict[str, int]:
    """Places an object file in memory, for good, and returns the addresses of its functions by name. address_of: gives those of other
    functions; 0 where there is none. Unplaced for what is not as expected; OSError where the system gives no pages."""
    try:
        image, symbols, words = _laid_out(code)
        outer = {word.symbol: address_of(symbols[word.symbol].name) for word in words if symbols[word.symbol].place is None}
    except (struct.error, IndexError, ValueError) as error:
        raise Unplaced(f"not an object file: {error}") from error
    for symbol, address in outer.items():
        if not address:
            raise Unplaced(f"calls {symbols[symbol].name}, which is not there")
    start = _pages(len(image))
    for word in words:
        own = symbols[word.symbol].place
        struct.pack_into("<Q", image, word.place, (outer[word.symbol] if own is None else start + own) + word.added)
    ctypes.memmove(start, bytes(image), len(image))
    _make_executable(start, len(image))
    return {name: start + found for name, found in symbols if name and found is not None}


def _laid_out(code: bytes) -> tuple[bytearray, list[_Symbol], list[_Word]]:
    """The sections that are loaded, in a row; the symbols; and the words of the image to be filled in."""
    if code[: len(_MAGIC)] != _MAGIC or struct.unpack_from("<HH", code, 16) != (_RELOCATABLE, _X86_64):
        raise Unplaced("not for Linux on x86-64")
    (table,), (count, names) = struct.unpack_from("<Q", code, 40), struct.unpack_from("<HH", code, 60)
    sections = [_Section(*struct.unpack_from("<IIQQQQIIQQ", code, table + 64 * number)) for number in range(count)]

    image, starts = bytearray(), dict[int, int]()
    for number, section in enumerate(sections):
        # .eh_frame is for exceptions on their way through a function: there are none.
        if not section.flags & _LOADED or _text(code, sections[names], section.name) == ".eh_frame":
            continue
        if section.flags & (_WRITTEN | _OF_THREADS):
            raise Unplaced("has variables")
        if section.kind != _EMPTY and section.offset + section.size > len(code):
            raise Unplaced("not an object file: it ends within a section")
        image.extend(bytes(-len(image) % max(1, section.alignment)))
        starts[number] = len(image)
        image.extend(bytes(section.size) if section.kind == _EMPTY else code[section.offset : section.offset + section.size])

    symbols, words = list[_Symbol](), list[_Word]()
    for section in sections:
        inside = range(section.offset, section.offset + section.size, 24)
        if section.kind == _SYMBOLS:
            for at in inside:
                name, _, _, home, value, _ = struct.unpack_from("<IBBHQQ", code, at)
                symbols.append(_Symbol(_text(code, sections[section.link], name), starts[home] + value if home in starts else None))
        elif section.kind in (_ADDENDS, _IMPLICIT) and section.info in starts:
            for at in inside:
                offset, kind, symbol, added = struct.unpack_from("<QIIq", code, at)
                if kind != _WORD or section.kind == _IMPLICIT or offset + 8 > sections[section.info].size:
                    raise Unplaced(f"has words to be filled in of kind {kind}")
                words.append(_Word(starts[section.info] + offset, symbol, added))
    return image, symbols, words


def _text(code: bytes, table: _Section, at: int) -> str:
    start = table.offset + at
    return code[start : code.index(b"\0", start)].decode()


@functools.cache
def _system() -> Any:
    system = ctypes.CDLL(None, use_errno=True)
    system.mmap.restype = ctypes.c_void_p
    system.mmap.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long
    system.mprotect.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    return system


def _pages(size: int) -> int:
    """The address of new pages. Nobody gives them back: a thread may still run what is on them when Python ends."""
    found = _system().mmap(None, size, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
    if found in (None, ctypes.c_void_p(-1).value):
        raise OSError(ctypes.get_errno(), "no pages for machine code")
    return int(found)


def _make_executable(start: int, size: int) -> None:
    """No page is ever both written and executed: systems with stricter rules refuse that."""
    if _system().mprotect(start, size, mmap.PROT_READ | mmap.PROT_EXEC):
        raise OSError(ctypes.get_errno(), "pages cannot be made executable")


@functools.cache
def address_in_libraries(name: str) -> int:
    """The address of a C function in the libraries that this process has loaded, or in the mathematical one; 0 where there is none."""
    for library in (None, "libm.so.6"):
        try:
            found = ctypes.cast(getattr(ctypes.CDLL(library), name), ctypes.c_void_p).value
        except (OSError, AttributeError):
            continue
        if found:
            return found
    return 0
