"""kernels/predicted: the tables that measured_tables.py makes from it, of chips that are not here. predict.py compiles and predicts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import predictions
from predictions import number

from gpucnn.text import bytes_text

KERNELS = Path(__file__).parents[1] / "kernels"
MADE = {"times": "Predicted", "steps": "Predicted", "compiled": "Compiled"}
SHORT = {  # the kernels that kernels/README.md shows, by sample: "" is all of them
    "m2": ("conv2d", "pack", "sum_slices", "bias_grad"),
    "m1": ("conv2d_direct", "conv2d_relu", "add_parts"),
    "even": ("dense",),
    "few": ("",),
    "c1-2x2": ("max_pool2d",),
    "c1-3x3": ("max_pool2d",),
    "3x3": ("",),
    "": ("sgd", "adam", "dropout", "batch_norm", "locally_connected2d"),
    "512x10": ("softmax", "dense"),
    "uint8-28x28": ("",),
}
COMPILERS = {"numba-cuda": "numba-cuda", "nvidia-nvvm": "NVVM", "nvidia-nvjitlink": "nvJitLink (which contains ptxas)"}
TWINS = ("-tf32", "-bf16", "_pairs")


def read(name: str) -> dict[str, Any]:
    """One of the files; OSError or ValueError if it cannot be read."""
    found: dict[str, Any] = json.loads((KERNELS / "predicted" / f"{name}.json").read_text(encoding="utf-8"))
    return found


def made(name: str, entries: Iterable[dict[str, Any]]) -> str:
    """With what entries of a file were made. The linker, nvJitLink, is the one that has ptxas's part."""
    found, commits = read(name), Counter(each["commit"] for each in entries)
    (last, _), *others = sorted(commits.items(), key=lambda item: (item[0] != found["commit"], -item[1]))
    older = "".join(f", {count} of {commits.total()} figures at {commit}" for commit, count in others)
    versions = dict(each.split(" ") for each in found["compilers"].split(", "))
    with_what = ", ".join(f"{words} {versions[package]}" for package, words in COMPILERS.items() if package in versions)
    return f"{MADE[name]}, not measured: commit {last}{older}; {found['date']}, {with_what}.\n"


def markdown(head: Iterable[str], words: int, rows: Iterable[Iterable[str]]) -> str:
    """A table with its first columns, which are words, to the left."""
    head = list(head)
    rules = ["---"] * words + ["---:"] * (len(head) - words)
    return "".join(f"| {' | '.join(line)} |\n" for line in (head, rules, *rows))


def since() -> str:
    """What was measured with earlier kernels, beside what is predicted of today's."""
    measured = json.loads((KERNELS / "measured" / "nvidia-h100-80gb-hbm3.json").read_text(encoding="utf-8"))
    found, whole, rows = read("times")["entries"], read("steps")["entries"], []
    for words, (kind, name, layer, op), asked in predictions.MEASURED:
        operations = measured[kind][name]["operations"]
        before = next(each["µs"] for each in operations if each["op"] == op and layer in ("", each["layer"]))
        now = found[asked.key]
        rows.append((words, number(before), number(now["µs"]), now["limit"]))
    for words, network, op in predictions.UPDATES:
        before = next(each["µs"] for each in measured["networks"][network]["operations"] if each["op"] == op)
        _, _, _, microseconds, limit = next(each for each in whole[f"H100, {network}"]["kernels"] if each[1] == op)
        rows.append((words, number(before), number(microseconds), limit))
    head = "what", "before, measured µs", "now, predicted µs", "what limits it"
    used = [found[asked.key] for _, _, asked in predictions.MEASURED]
    return markdown(head, 1, rows).replace("---: |\n", "--- |\n", 1) + "\n" + made("times", used)


def times(name: str) -> Callable[[], str]:
    def section() -> str:
        found, wanted = read("times")["entries"], predictions.TABLES[name]()
        return wanted.text(found) + "\n" + made("times", [found[each.key] for each in dict.fromkeys(wanted.asked)])

    return section


def steps() -> str:
    found, rows = read("steps")["entries"], []
    for network in dict.fromkeys(network for _, network in predictions.STEPS):
        cells = []
        for chip in dict.fromkeys(chip for chip, _ in predictions.STEPS):
            each = found[f"{chip}, {network}"]
            cells += [number(each["in turn"]), number(each["µs"])]
        rows.append([network, *cells])
    chips = dict.fromkeys(chip for chip, _ in predictions.STEPS)
    head = ["step", *(text for chip in chips for text in (f"{chip}, in turn", "on branches"))]
    return markdown(head, 1, rows) + "\n" + made("steps", found.values())


def report(name: str, *, shapes: bool) -> Callable[[], str]:
    """The table of kernels that `gpucnn profile` prints and, of a step, what follows up to the notes. Without `shapes`, it lacks the last
    column, which has them."""

    def section() -> str:
        found = read("steps")["entries"][name]
        lines = found["report"]
        notes = next((at for at, line in enumerate(lines) if line.startswith("note ")), len(lines))
        start = next(at for at, line in enumerate(lines) if line.startswith(("layer ", "sample ")))
        width = len(lines[start]) if shapes else lines[start].index("  shape")
        end = lines.index("", start)
        text = "\n".join([*(line[:width].rstrip() if not shapes else line for line in lines[start:end]), *lines[end:notes]])
        return "```\n" + text.rstrip() + "\n```\n\n" + made("steps", [found])

    return section


def compiled(shown: Callable[[dict[str, Any]], bool] = lambda entry: True) -> str:
    entries = [each for each in read("compiled")["entries"].values() if shown(each)]
    head = "sample", "kernel", "grid", "regs", "spills", "stack", "f64", "shared", "occupancy", "loop FMA"
    return "```\n" + "\n".join(aligned([head, *map(_cells, entries)], words=2)) + "\n```\n\n" + made("compiled", entries)


def _cells(entry: dict[str, Any]) -> tuple[str, ...]:
    grid = f"{entry['blocks']:,} × {entry['threads']}"
    numbers = (str(entry[name]) for name in ("registers", "spills", "stack", "float64"))
    loop = "" if entry["loop"] is None or not entry["loop"][0] else f"{100 * entry['loop'][0] / entry['loop'][1]:.2g} %"
    return entry["sample"], entry["kernel"], grid, *numbers, bytes_text(entry["shared"]), f"{100 * entry['occupancy']:.0f} %", loop


def aligned(lines: Iterable[tuple[str, ...]], words: int) -> list[str]:
    """Lines in columns: the first `words` of them to the left, the others to the right."""
    lines = list(lines)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    cells = [[f"{text:{'<' if at < words else '>'}{widths[at]}}" for at, text in enumerate(line)] for line in lines]
    return ["  ".join(line).rstrip() for line in cells]


def _short(entry: dict[str, Any]) -> bool:
    return entry["kernel"].startswith(SHORT.get(entry["sample"], ())) and not entry["kernel"].endswith(TWINS)


def short() -> str:
    return compiled(_short)


SECTIONS: dict[str, Callable[[], str]] = {
    **{f"predicted-{name}": times(name) for name in predictions.TABLES},
    "predicted-since": since,
    "predicted-steps": steps,
    "predicted-keras": report("H100, keras", shapes=False),
    "shapes-on-h200": report("H200, shapes", shapes=True),
    "compiled": compiled,
    "compiled-short": short,
}
