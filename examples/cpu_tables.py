"""docs/measured/cpu.json: the tables that measured_tables.py makes from it, and how against_pytorch.py adds a run to it.

Times are milliseconds, memory is MiB, accuracies are per cent. Each figure says which command measured it, on what, and at which commit.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import gpucnn as gc
from gpucnn import files

FIGURES = Path(__file__).parents[1] / "docs" / "measured" / "cpu.json"
LISTS = ("steps", "others")  # parts that hold several runs
RUNGS = {
    "plain": "a sum for each output, one product at a time",
    "vectors": "the lanes are 16 filters; each sum still waits for itself",
    "tiles": "5 × 4 independent sums: 9 reads for 20 multiply-adds",
    "cache": "long sums are cut, so that their weights stay in the first-level cache",
    "fused": "ReLU and pooling while the sums are in registers: a quarter is written",
    "Winograd": "36 products for 16 outputs instead of 144",
}


def read() -> dict[str, Any]:
    """The figures; OSError or ValueError if they cannot be read."""
    found: dict[str, Any] = json.loads(FIGURES.read_text(encoding="utf-8"))
    return found


def figures_in(path: Path) -> dict[str, Any]:
    """The figures that are in `path` already. DataError for a file that holds something else: to be asked before anything is measured."""
    try:
        figures = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except (OSError, ValueError, RecursionError) as error:
        raise gc.DataError(f"{path} cannot be added to: {error}; name a file that --json has written, or a new file") from None
    try:
        for part in LISTS:
            _in_order(figures.get(part, []))
    except (AttributeError, KeyError, TypeError):
        raise gc.DataError(f"{path} cannot be added to: it does not contain figures of this program; name another file") from None
    return figures  # type: ignore[no-any-return]


def _in_order(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Runs in the order of the tables; AttributeError, KeyError or TypeError for something else."""
    if not isinstance(runs, list):
        raise TypeError
    for run in runs:  # what the tables read of each
        _ = run["networks"].items(), _of(run)
    return sorted(runs, key=lambda run: (-run["threads"], +run["batch"], has_avx2(run)))  # signs raise TypeError for text


def add(path: Path, part: str, run: dict[str, Any]) -> None:
    """Adds `run` to the figures in `path`, created if it does not exist. A run replaces the one with its command and processor.

    Raises DataError as `figures_in` does.
    """
    figures = figures_in(path)
    if part in LISTS:
        kept = [each for each in figures.get(part, []) if _of(each) != _of(run)]
        run = _in_order([*kept, run])  # type: ignore[assignment]
    figures[part] = run
    text = json.dumps(figures, indent=1, ensure_ascii=False) + "\n"
    try:
        files.write_atomically(path, lambda file: file.write(text.encode()))
    except OSError as error:
        raise gc.DataError(f"{path} cannot be written: {error}; name a file in a folder that can be written") from None


def _of(run: dict[str, Any]) -> tuple[Any, Any]:
    return run["command"], run["about"]["processor"]


def has_avx2(run: dict[str, Any]) -> bool:
    """Whether a run was held to AVX2, or was on a processor that has no wider vectors."""
    return "avx2" in run["command"] or "AVX2" in run["about"]["processor"]


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table with its first column aligned left and the others right."""
    head = list(head)
    lines = [" | ".join(head), " | ".join(["---", *["---:"] * (len(head) - 1)]), *(" | ".join(row) for row in rows)]
    return "".join(f"| {line} |\n" for line in lines)


def made_with(about: dict[str, Any]) -> str:
    """The processor, the versions, the date and the commit, in one phrase."""
    packages = "".join(
        f", {name} {about[name]}" for name in ("Python", "NumPy", "PyTorch", "ONNX Runtime", "JAX", "Chromium") if name in about
    )
    note = f", {about['note']}" if "note" in about else ""
    return f"{about['cores']} cores of {about['processor']}{packages}{note}; {about['date']}, commit {about['commit']}"


def by(figures: dict[str, Any]) -> str:
    """The command that made `figures`, and made_with."""
    return f"`{figures['command']}`: {made_with(figures['about'])}."


def milliseconds(times: dict[str, float], best: bool = False) -> str:
    median = f"**{times['median']:.1f}**" if best else f"{times['median']:.1f}"
    return f"{median} ({times['p10']:.1f}–{times['p90']:.1f})"


def _label(run: dict[str, Any], *what: str) -> str:
    """What stands first in a row: the network, the batch, `what` else, and what is special about the run."""
    network, *more = what
    special = ["one thread"] * (run["threads"] == 1) + ["AVX2"] * has_avx2(run)
    return ", ".join([network, f"batch {run['batch']}", *more, *special])


def steps() -> str:
    """Every run's steps and forward passes beside PyTorch's. Runs made with one machine and one commit share a line."""
    rows, lines = [], {}
    for run in read()["steps"]:
        lines.setdefault(made_with(run["about"]), []).append(f"`{run['command']}`")
        for name, found in run["networks"].items():
            for title, times in found.items():
                theirs = times["PyTorch"]
                rows.append(
                    (_label(run, name, title), milliseconds(times["gpucnn"], best=True), milliseconds(theirs), f"{theirs['ratio']:.2f}×")
                )
    about = "".join(f"{', '.join(commands)}: {where}.\n" for where, commands in lines.items())
    return table(("network", "gpucnn ms", "PyTorch ms", "ratio"), rows) + "\n" + about


def others() -> str:
    """Every run's ratios to libraries other than PyTorch."""
    rows, lines, names = [], [], list[str]()
    for run in read()["others"]:
        lines.append(by(run))
        for network, found in run["networks"].items():
            ratios = {
                f"{title}, {library}": each["ratio"] for title, times in found.items() for library, each in times.items() if "ratio" in each
            }
            names += [name for name in ratios if name not in names and "PyTorch" not in name]
            rows.append((_label(run, network), ratios))
    cells = [(label, *(f"{ratios[name]:.2f}×" if name in ratios else "–" for name in names)) for label, ratios in rows]
    return table(("gpucnn's time over that of", *names), cells) + "\n" + "".join(f"{line}\n" for line in lines)


def memory() -> str:
    found = read()["memory"]
    rows = [(network, f"{peak['gpucnn']} MiB", f"{peak['PyTorch']} MiB") for network, peak in found["MiB"].items()]
    return table((f"peak memory, batch {found['batch']}", "gpucnn", "PyTorch"), rows) + f"\n{by(found)}\n"


def speedrun() -> str:
    found, rows = read()["speedrun"], []
    for library, run in found["of"].items():
        ends = ", ".join(f"{each:.2f} %" for each in run["accuracies"])
        rows.append((library, f"{run['seconds to goal']:.1f} s", f"{run['seconds']:.0f} s", ends))
    head = ("", f"to {found['goal']} %", f"{found['epochs']} epochs", "test accuracy then, for each seed")
    return table(head, rows) + f"\n{by(found)}\n"


def accuracy() -> str:
    rows = []
    for found in read()["accuracy"]:
        for network, seeds in found["of"].items():
            about = found["about"]
            rows.append((found["recipe"], network, ", ".join(f"{each:.2f} %" for each in seeds), f"`{found['command']}`", about["commit"]))
    return table(("recipe", "network", "test accuracy", "command", "commit"), rows)


def epoch() -> str:
    found = read()["epoch"]
    rows = [(name, f"{each['parameters']:,}", f"{each['accuracy']:.2f} %") for name, each in found["networks"].items()]
    return table(("network", "parameters", "test accuracy"), rows) + f"\n{found['recipe']}. {by(found)}\n"


def view() -> str:
    found = read()["view"]
    return table(("network", "ms"), [(name, str(value)) for name, value in found["ms"].items()]) + f"\n{by(found)}\n"


def ladder() -> str:
    found = read()["ladder"]
    rows = []
    for name, each in found["rungs"].items():
        large, small = each["GFLOP/s"]
        rows.append((name, RUNGS[name], f"{large:g}", f"{each['of the peak']} %", f"{small:g}"))
    head = (
        "rung",
        "what changed",
        f"GFLOP/s, {found['shapes'][0]}",
        f"of the peak, {found['peak']} GFLOP/s",
        f"GFLOP/s, {found['shapes'][1]}",
    )
    return table(head, rows) + f"\n{by(found)}\n"


SECTIONS: dict[str, Callable[[], str]] = {
    "cpu-steps": steps,
    "cpu-others": others,
    "cpu-memory": memory,
    "cpu-speedrun": speedrun,
    "cpu-accuracy": accuracy,
    "cpu-epoch": epoch,
    "cpu-view": view,
    "cpu-ladder": ladder,
}
