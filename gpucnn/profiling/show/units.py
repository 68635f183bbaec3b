"""Human-readable numbers: three digits and a unit."""

from __future__ import annotations


def seconds_text(seconds: float) -> str:
    """1.23 µs, 12.3 ms, 1.23 s; <0.1 ns for times too short for any chip."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{digits(seconds / size)} {unit}"
    if not seconds:
        return "0 s"
    return f"{digits(seconds * 1e9)} ns" if seconds >= 1e-10 else "<0.1 ns"


def scaled(number: float, unit: str) -> str:
    """1.23 GFLOP, 45.6 MB: steps of a thousand."""
    for prefix, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{digits(number / size)} {prefix}{unit}"
    return f"{digits(number)} {unit}"


def digits(number: float) -> str:
    """Three significant digits: 1.23, 12.3, 123; integers from 100 on."""
    if number >= 99.95:
        return f"{number:,.0f}"
    return f"{number:.1f}" if number >= 9.995 else f"{number:.2f}"
