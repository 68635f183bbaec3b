"""Writes docs/examples.md: for each example its first line, its command, and what that prints. `python docs/make_examples.py`

What is shown is a run with --quick, which takes seconds and needs no download. The tests run the same commands, and compare what they print
with what is shown, apart from the numbers.
"""

from __future__ import annotations

import argparse
import ast
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "docs" / "examples.md"
HEAD = """# Examples, and what they print

Every program in [examples/](../examples) but the first has `--help`, and each that can take over a minute has `--quick` for a run of a few
seconds: few steps, on small images that the program draws itself. The accuracies and times of such a run mean nothing; it only shows the
output. Without `--quick`, the programs use MNIST, and [performance.md](performance.md) has the results.
`python docs/make_examples.py` writes this page.
"""
# (heading, [(example, its arguments, what else is to be said)])
QUICK = "--quick --device cpu"
SECTIONS = [
    (
        "A first network",
        [
            ("quickstart", "", "It has no options."),
            ("keras_mnist", QUICK, ""),
            ("tf2_mnist", QUICK, ""),
            ("lenet5x5_mnist", f"{QUICK} --every 2", ""),
            ("inception_mnist", QUICK, ""),
        ],
    ),
    (
        "What a convolution does",
        [
            ("image_filters", f"{QUICK} --output sheet.png", "`sheet.png` has the photographs, the filters and their spectra."),
            ("parameter_sharing", QUICK, ""),
            ("translation", f"{QUICK} --output moved.png --most 2", "`moved.png` has the maps side by side."),
        ],
    ),
    (
        "How fast, and how exact",
        [
            ("mnist_speedrun", f"{QUICK} --epochs 3", ""),
            ("accuracy_against_pytorch", f"{QUICK} --epochs 12", "It needs PyTorch."),
            ("rounded_training", "--quick", ""),
        ],
    ),
]
# What others print is shown where it is explained.
ELSEWHERE = {
    "against_pytorch": "It needs PyTorch. Its figures are in [performance.md](performance.md#on-a-cpu).",
    "steps_on_gpu": "It compares with PyTorch if that is installed. Its figures are in [performance.md](performance.md#on-an-h100).",
    "first_step": "Its figures are in [kernels/README.md](../kernels/README.md#around-a-step).",
    "profile_kernels": "[kernels/PROFILING.md](../kernels/PROFILING.md) explains every column.",
    "predict": "Its tables are in [kernels/README.md](../kernels/README.md#predicted-and-not-yet-measured).",
    "predicted_beside_measured": "[kernels/PROFILING.md](../kernels/PROFILING.md) explains predictions.",
    "measure_chip": "It needs a GPU. Its figures are in [kernels/measured](../kernels/measured/README.md).",
    "measured_tables": "It prints nothing: the tables are in the documents.",
    "scale": "It prints the tables of [scale.md](scale.md).",
}


def first_line(name: str) -> str:
    """What an example says that one sees, as its docstring begins."""
    said = ast.get_docstring(ast.parse((ROOT / "examples" / f"{name}.py").read_text(encoding="utf-8"))) or ""
    return " ".join(said.split("\n\n")[0].split())


def shown(text: str) -> dict[str, str]:
    """What docs/examples.md shows: the output of each command, by the example's name and arguments."""
    found = re.findall(r"^```\n\$ python examples/(\w+)\.py ?([^\n]*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return {f"{name} {arguments}".strip(): printed for name, arguments, printed in found}


def without_numbers(text: str) -> str:
    """`text` with 0 for each number, and without the lengths of spaces and rules and the sizes of bytes, which depend on them."""
    text = re.sub(r"\d(?:[\d.,]*\d)?( [KM]iB)?", "0", text)
    return re.sub(r" +", " ", re.sub(r"─+", "─", text.replace("0 B", "0")))


def output(name: str, arguments: str) -> str:
    command = [sys.executable, str(ROOT / "examples" / f"{name}.py"), *arguments.split()]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout


def main() -> int:
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args()
    parts = [HEAD]
    for heading, examples in SECTIONS:
        parts.append(f"## {heading}\n")
        for name, arguments, words in examples:
            said = f"{first_line(name)}{f' {words}' if words else ''}"
            command = f"$ python examples/{name}.py {arguments}".strip()
            parts.append(f"### [{name}.py](../examples/{name}.py)\n\n{said}\n\n```\n{command}\n{output(name, arguments)}```\n")
    parts.append("## Shown elsewhere\n")
    parts += [f"**[{name}.py](../examples/{name}.py)** {first_line(name)} {words}\n" for name, words in ELSEWHERE.items()]
    TARGET.write_text("\n".join(parts), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
