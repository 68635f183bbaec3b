"""Writes the figures of kernels/measured, docs/measured and kernels/predicted into the documents: tables between markers, and the roofline.

    python examples/measured_tables.py [--check] [--plot docs/roofline-h100.png]

A document says <!-- figures: NAME --> and <!-- end of figures --> around each table; what stands between is written here and nowhere else.
--check writes nothing, and ends with 1 where a table is not what the figures say.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cpu_tables  # beside this file
import predicted_tables
from cpu_tables import table

from gpucnn.profiling.what import work
from gpucnn.profiling.what.shapes import CONV_SHAPES, POOL_SHAPES

ROOT = Path(__file__).parents[1]
MEASURED = ROOT / "kernels" / "measured"
WRITTEN = ("README.md", "docs/performance.md", "docs/view.md", "kernels/README.md", "kernels/PROFILING.md")
WRITTEN += tuple(f"kernels/{folder}/README.md" for folder in ("gpucnn_loops", "measured", "predicted"))
DOCUMENTS = tuple(ROOT / name for name in WRITTEN)
CHIP = "nvidia-h100-80gb-hbm3"
PASSES = {"conv2d": "forward", "conv2d_input_grad": "gradient of input", "conv2d_weight_grad": "gradient of weight"}
PASSES |= {"max_pool2d": "pooling", "max_pool2d_grad": "its gradient"}
MARKED = re.compile(r"(<!-- figures: ([\w-]+) -->\n).*?(<!-- end of figures -->)", re.DOTALL)


class Refused(Exception):
    """What cannot be done, as a sentence."""


def read(name: str) -> dict[str, Any]:
    path = MEASURED / f"{name}.json"
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Refused(f"{path.name} cannot be read: {error}") from None
    return found


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def mean_ratio(ratios: Iterable[float]) -> float:
    """The geometric mean."""
    logarithms = [math.log(ratio) for ratio in ratios]
    return math.exp(sum(logarithms) / len(logarithms))


def operations(figures: dict[str, Any], kinds: Iterable[str]) -> list[tuple[str, dict[str, Any]]]:
    return [(shape, each) for shape, found in figures["shapes"].items() for each in found["operations"] if each["op"] in kinds]


def kernels_of(each: dict[str, Any]) -> str:
    """The kernel that does the work: launches that prepare or add up are left out."""
    helpers = ("pack", "pack_split", "sum_slices", "add_parts", "bias_grad")
    return ", ".join(dict.fromkeys(kernel["kernel"] for kernel in each["kernels"] if kernel["kernel"] not in helpers))


def about() -> str:
    said = read(CHIP)["about"]
    packages = f"numba-cuda {said['numba-cuda']}, CuPy {said['cupy-cuda13x']}, PyTorch {said['torch']} with cuDNN {said['cuDNN']}"
    return (
        f"{said['chip']}, driver {said['driver_version']}, CUDA {said['CUDA']}, {packages}, Python {said['Python']}; {said['date']}, "
        f"commit {said['commit'][:7]}.\n"
    )


def shapes() -> str:
    rows = []
    for shape, each in operations(read(CHIP), PASSES):
        beside = (number(each["PyTorch"]), f"{1 / each['ratio']:.2f}×") if each.get("ratio") else ("–", "–")
        flops = f"{each['TFLOP/s']:.1f}" if each["op"].startswith("conv") else "–"
        row = shape, PASSES[each["op"]], kernels_of(each), number(each["µs"]), flops, f"{100 * each['of roofline']:.0f} %", *beside
        rows.append(row)
    return table(("shape", "pass", "kernel", "µs", "TFLOP/s", "of the roofline", "PyTorch µs", "times as fast"), rows)


def summary() -> str:
    """The geometric means over the shapes with five or more channels, and over first layers."""
    rows = []
    for op in ("conv2d", "conv2d_input_grad", "conv2d_weight_grad"):
        found = [(shape, each) for shape, each in operations(read(CHIP), (op,)) if each.get("ratio")]
        for first in (False, True):
            ratios = [1 / each["ratio"] for shape, each in found if (shape in ("m1", "k1")) == first]
            layers = "first layers (m1, k1)" if first else "m2, k2, c1–c3, r1, r2, p1"
            spread = f"{min(ratios):.2f}–{max(ratios):.2f}"
            rows.append((f"{PASSES[op]}, {layers}", str(len(ratios)), f"{mean_ratio(ratios):.2f}×", spread))
    return table(("convolution", "shapes", "times as fast as cuDNN in float32", "from–to"), rows)


def steps() -> str:
    rows = []
    for name, rivals in read(CHIP)["steps"].items():
        if "TF32" in name:
            continue
        tf32 = {each["name"]: each for each in read(CHIP)["steps"].get(f"{name}, PyTorch with TF32", [])}
        own, *others = (
            next((each for each in rivals if each["name"] == wanted), None)
            for wanted in ("gpucnn, one graph", "PyTorch, graph", "PyTorch, eager", "PyTorch, compiled")
        )
        assert own is not None
        cells = [f"{number(each['median'])} ({each['ratio']:.1f}×)" if each else "–" for each in others]
        graph = tf32.get("PyTorch, graph")
        cells.append(f"{number(graph['median'])} ({graph['ratio']:.1f}×)" if graph else "–")
        rows.append((name, f"**{number(own['median'])}** ({number(own['p10'])}–{number(own['p90'])})", *cells))
    return table(("network", "gpucnn µs", "PyTorch, CUDA graph", "PyTorch, eager", "torch.compile", "CUDA graph, TF32"), rows)


def networks() -> str:
    parts = []
    for name, found in read(CHIP)["networks"].items():
        rows = []
        for each in found["operations"]:
            beside = (number(each["PyTorch"]), f"{1 / each['ratio']:.2f}×") if each.get("ratio") else ("–", "–")
            rows.append((each["layer"], each["op"], kernels_of(each), number(each["µs"]), f"{100 * each['of roofline']:.0f} %", *beside))
        head = f"{name}, batch {found['batch']}: {number(found['step']['graph'])} µs as one graph on warm data\n\n"
        parts.append(head + table(("layer", "operation", "kernel", "µs", "of the roofline", "PyTorch µs", "times as fast"), rows))
    return "\n".join(parts)


def ladder() -> str:
    found = read(CHIP)["ladder"]
    return table(
        ("4096 × 4096 × 4096", "TFLOP/s", "µs"), ((name, f"{each['TFLOP/s']:.1f}", number(each["µs"])) for name, each in found.items())
    )


def speedrun() -> str:
    runs, rows = read(CHIP)["speedrun"]["seconds and accuracy"], []
    for target in (0.98, 0.99, 0.994):
        times = reached(target)
        rows.append(
            (f"{100 * target:g} %", f"{sum(times) / len(times):.3f}", f"{min(times):.3f}–{max(times):.3f}", f"{len(times)} of {len(runs)}")
        )
    return table(("test accuracy", "seconds of training, mean", "from–to", "seeds that reach it"), rows)


def headline() -> str:
    """The headline figures of the README, each beside PyTorch's if there is one, with the command that measured it."""
    chip, cpu = read(CHIP), cpu_tables.read()
    rows, measured, names = [], "`python examples/measure_chip.py`", ("keras", "tf2", "lenet5x5")
    for name in names:
        times = {each["name"]: each["median"] for each in chip["steps"][f"{name}, batch 128"]}
        ours, theirs = number(times["gpucnn, one graph"]), number(times["PyTorch, graph"])
        rows.append((f"training step, {name}, batch 128", "H100", f"{ours} µs", f"{theirs} µs", measured))
    run = next(
        each
        for each in cpu["steps"]
        if (each["batch"], each["threads"]) == (128, 2) and names[0] in each["networks"] and not cpu_tables.has_avx2(each)
    )
    for name in names:
        found = run["networks"][name]["step"]
        ours, theirs = (f"{found[library]['median']:.1f} ms" for library in ("gpucnn", "PyTorch"))
        rows.append((f"training step, {name}, batch 128", "CPU", ours, theirs, "`python examples/against_pytorch.py`"))
    seconds = reached(0.99)
    rows.append(
        ("MNIST to 99 %, mean of ten seeds", "H100", f"{sum(seconds) / len(seconds):.3f} s", "–", "`python examples/mnist_speedrun.py`")
    )
    trained = cpu["accuracy"][0]
    for name, found in trained["of"].items():
        rows.append((f"MNIST's test images, {name}, 5 epochs", "CPU", f"{found[0]:.2f} %", "–", f"`gpucnn train --model {name}`"))
    versions = f"H100: {about()}\nCPU: {cpu_tables.made_with(run['about'])}; accuracies at commit {trained['about']['commit']}.\n"
    return table(("", "on", "gpucnn", "PyTorch", "command"), rows) + "\n" + versions


def reached(target: float) -> list[float]:
    """Seconds of training after which each seed that reached `target` did so."""
    firsts = [next((s for s, accuracy in run if accuracy >= target), None) for run in read(CHIP)["speedrun"]["seconds and accuracy"]]
    return [seconds for seconds in firsts if seconds is not None]


def predicted() -> str:
    first = read(f"{CHIP}-first-run")
    rows, ratios = [], []
    for shape, each in operations(first, PASSES):
        guess = first["predicted"]["shapes"].get(shape, {}).get(each["op"])
        if guess is not None:
            ratios.append(each["µs"] / guess)
            rows.append((f"{shape}, {PASSES[each['op']]}", number(guess), number(each["µs"]), f"{ratios[-1]:.2f}"))
    for name, found in first["networks"].items():
        guess, took = first["predicted"]["networks"][name]["step"], found["step"]["graph"]
        ratios.append(took / guess)
        rows.append((f"{name}, whole step", number(guess), number(took), f"{ratios[-1]:.2f}"))
    close = sum(1 / 1.5 <= ratio <= 1.5 for ratio in ratios)
    said = f"{close} of {len(ratios)} within 1.5×; geometric mean of measured over predicted {mean_ratio(ratios):.2f}.\n\n"
    return said + table(("first run, FMAs alone", "predicted µs", "measured µs", "ratio"), rows)


SECTIONS: dict[str, Callable[[], str]] = {
    "about": about,
    "shapes": shapes,
    "summary": summary,
    "steps": steps,
    "networks": networks,
    "ladder": ladder,
    "speedrun": speedrun,
    "predicted": predicted,
    "headline": headline,
    **cpu_tables.SECTIONS,
    **predicted_tables.SECTIONS,
}


def filled(text: str) -> str:
    """A document with its tables replaced according to the figures. Refused for an unknown table and for missing figures."""
    unknown = [name for _, name, _ in MARKED.findall(text) if name not in SECTIONS]
    if unknown:
        raise Refused(f"there is no table {unknown[0]!r}: the tables are {', '.join(SECTIONS)}")
    try:
        cpu_tables.read()
    except (OSError, ValueError) as error:
        raise Refused(f"{cpu_tables.FIGURES.name} cannot be read: {error}") from None
    for name in predicted_tables.MADE:
        try:
            predicted_tables.read(name)
        except (OSError, ValueError) as error:
            raise Refused(f"{name}.json cannot be read: {error}; python examples/predict.py makes it") from None
    return MARKED.sub(lambda match: f"{match[1]}\n{SECTIONS[match[2]]()}\n{match[3]}", text)


def plot(path: Path) -> None:
    """The measured roofline, with a dot for each convolution and pooling: with FMAs alone, and with today's kernels."""
    if not path.parent.is_dir() or path.is_dir():
        raise Refused(f"{path} cannot be written: name a file in a folder that exists")
    try:
        import matplotlib as mpl
    except ImportError:
        raise Refused("--plot draws with matplotlib: pip install matplotlib") from None

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    now, first = read(CHIP), read(f"{CHIP}-first-run")
    ceilings = next(iter(now["shapes"].values()))
    bandwidth, peak = ceilings["bandwidth"], ceilings["peak"]
    figure, axes = plt.subplots(figsize=(9, 5.2), dpi=150)
    least, most = 0.03, 2000.0
    line = [least * (most / least) ** (i / 200) for i in range(201)]
    axes.plot(line, [min(peak, bandwidth * x) / 1e12 for x in line], color="#333", lw=1.5, label="roofline in float32, measured")
    for figures, color, label, alpha in (
        (first, "#9aa5b1", "first run: FMAs alone", 0.8),
        (now, "#d1495b", "now: tensor cores for convolutions", 1.0),
    ):
        dots = [(intensity(shape, each["op"]), each["TFLOP/s"]) for shape, each in operations(figures, PASSES)]
        axes.scatter(*zip(*dots, strict=True), s=26, color=color, alpha=alpha, label=label, zorder=3)
    axes.set(
        xscale="log", yscale="log", xlabel="FLOP per byte that has to be moved", ylabel="TFLOP/s", xlim=(least, most), ylim=(0.008, 300)
    )
    axes.set_title(f"{now['about']['chip']}: float32 convolutions and poolings, forward and backward", fontsize=11)
    axes.grid(which="both", color="#e8e8e8", lw=0.6)
    axes.legend(loc="lower right", fontsize=9)
    figure.tight_layout()
    figure.savefig(path)


def intensity(shape: str, op: str) -> float:
    """FLOPs per byte of an operation on one of the catalogue's shapes, counting the least bytes that it must move."""
    pooling = next((each for each in POOL_SHAPES if each.name == shape), None)
    if pooling is not None:
        return float(getattr(work, op)(pooling.n, pooling.c, pooling.window).intensity)
    conv = next(each for each in CONV_SHAPES if each.name == shape)
    return float(getattr(work, op)(conv.n, conv.c, conv.k, conv.window).intensity)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a table does not match the figures")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="also draw the roofline")
    options = parser.parse_args()
    try:
        return update(options.check, options.plot)
    except Refused as error:
        print(f"measured_tables: {error}", file=sys.stderr)
        return 2


def update(check: bool, picture: Path | None) -> int:
    """Writes or checks all documents, and draws the picture; returns the program's status."""
    stale = []
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        new = filled(text)
        if new != text:
            stale.append(path.relative_to(ROOT))
            if not check:
                path.write_text(new, encoding="utf-8")
    if picture:
        plot(picture)
    if check and stale:
        print(f"the tables do not match the figures: {', '.join(map(str, stale))}; run python examples/measured_tables.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
