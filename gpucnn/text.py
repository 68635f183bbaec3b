"""Makes text from outside fit for messages: one line, safe for a terminal, and short enough to read."""

from __future__ import annotations

import math
import reprlib
import unicodedata
from collections.abc import Collection, Sequence

LONGEST = 500  # characters of a message; one that is longer loses its middle
_HARMFUL = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # controls, invisible formats (which can turn the direction), half characters, line ends
FORMULAS = ("=", "+", "-", "@")
_JOINERS = "\u200c\u200d"  # formats that several scripts cannot do without; they only join and part letters


def plain(text: object) -> str:
    """`text` with an escape for every character that could move the cursor, start a line, hide or reverse other text.

    File names, names of classes, metadata and servers' answers go through this before they are printed.
    """
    words = str(text)
    if words.isascii() and words.isprintable():
        return words
    return "".join(_shown(character) for character in words)


def shortened(text: str, most: int = LONGEST) -> str:
    """`text` in at most `most` characters. The middle is cut, because the end often says how to fix the error."""
    if len(text) <= most:
        return text
    head = (most - 1) * 2 // 3
    return f"{text[:head]}…{text[len(text) - (most - 1 - head) :]}"


def message(text: object) -> str:
    """A message ready to show: `plain` and `shortened`."""
    return shortened(plain(text))


def shown(value: object, most: int = 100) -> str:
    """A shortened repr(value) that does not traverse large values; for an array, its type and shape."""
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if isinstance(shape, tuple) and shape and dtype is not None and math.prod(shape) > 8:
        return shortened(plain(f"{type(value).__name__} of {dtype} {shape}"), most)
    try:
        words = _SHORT.repr(value)
    except Exception:  # a number of more digits than Python prints, an object that cannot describe itself
        words = f"<{type(value).__name__}>"
    return shortened(plain(words), most)


def listed(names: Sequence[object], most: int = 12) -> str:
    """The first of the names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(shortened(plain(name), 40) for name in names[:most]) + more


def reason_of(error: BaseException) -> str:
    """A short reason for people: the system's words if there are any, on one line, without numbers and paths."""
    words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    if isinstance(error, KeyError):  # whose words are the key alone
        words = f"there is no {words}"
    return shortened(plain(" ".join(words.split()).rstrip(".")), 200) or type(error).__name__


def first_line(error: BaseException) -> str:
    """The first line of an error, without the details below."""
    return shortened(plain((str(error).strip() or type(error).__name__).splitlines()[0]), 200)


def cell(words: object) -> str:
    """Text from outside in a table: on one line, and not a formula, which a spreadsheet would compute."""
    text = plain(words)
    return f"'{text}" if text.lstrip().startswith(FORMULAS) else text


def columns(text: str) -> int:
    """The columns of a terminal that `text` takes: characters of Chinese, Japanese and Korean take two, combining accents none."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len  # Unicode's tables, which most text does not need

    return cell_len(text)


def aligned(rows: Sequence[Sequence[str]], right: Collection[int]) -> list[str]:
    """The lines of a table on a terminal: its columns two spaces apart, those with the numbers in `right` aligned at their right."""
    widths = [max(map(columns, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        spaces = [" " * (width - columns(text)) for text, width in zip(row, widths, strict=True)]
        cells = [spaces[index] + text if index in right else text + spaces[index] for index, text in enumerate(row)]
        lines.append("  ".join(cells).rstrip())
    return lines


def number_of(number: int, noun: str) -> str:
    """1 image, 1,200 images."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def bytes_text(count: float) -> str:
    """1.2 MiB: steps of 1024, as memory is counted."""
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count:.0f} B"


def _shown(character: str) -> str:
    if character in _JOINERS or unicodedata.category(character) not in _HARMFUL:
        return character
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = _SHORT.maxset = 6
