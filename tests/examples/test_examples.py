"""Each example does its work on the CPU, with --quick where it would take long, and refuses what it cannot do in one sentence."""

from __future__ import annotations

import ast
import importlib
import re
import runpy
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpucnn as gc
from gpucnn.networks import NETWORKS
from gpucnn.ops import cpu
from gpucnn.ops.shapes import conv_window

ROOT = Path(__file__).parents[2]
ALL = (
    "accuracy_against_pytorch",
    "against_pytorch",
    "first_step",
    "image_filters",
    "inception_mnist",
    "keras_mnist",
    "lenet5x5_mnist",
    "measure_chip",
    "measured_tables",
    "mnist_speedrun",
    "parameter_sharing",
    "predict",
    "predicted_beside_measured",
    "profile_kernels",
    "rounded_training",
    "scale",
    "steps_on_gpu",
    "tf2_mnist",
    "translation",
)
# What the others import.
HELPERS = {"common", "cpu_tables", "in_pytorch", "kept", "large", "machine", "predicted_tables", "predictions", "rivals"}
NOTHING = "a run with --quick: the figures mean nothing"
Example = Callable[..., Any]


def test_every_example_is_here() -> None:
    """None is added without a test: what is in the folder is one of these, or what they import."""
    names = {path.stem for path in (ROOT / "examples").glob("*.py")}
    assert names == {*ALL, "quickstart", *HELPERS}


@pytest.mark.parametrize("name", ALL)
def test_help(example: Example, name: str) -> None:
    result = example(name, "--help")
    assert result.status == 0 and result.out.startswith(f"usage: {name}.py") and not result.err


def test_every_example_is_in_the_documents() -> None:
    """With its first line, and with what it prints, or the place where that is explained."""
    maker: Any = runpy.run_path(str(ROOT / "docs" / "make_examples.py"))
    text = maker["TARGET"].read_text(encoding="utf-8")
    listed = [name for _, examples in maker["SECTIONS"] for name, _, _ in examples]
    assert sorted([*listed, *maker["ELSEWHERE"]]) == sorted([*ALL, "quickstart"])
    for name in (*ALL, "quickstart"):
        line = maker["first_line"](name)
        assert line in text and len(line) > 40 and line[-1] in ".?", line
    shown = maker["shown"](text)
    assert list(shown) == [f"{name} {arguments}".strip() for _, examples in maker["SECTIONS"] for name, arguments, _ in examples]
    assert all(printed.count("\n") >= 1 for printed in shown.values())
    source = Path(__file__).read_text(encoding="utf-8")  # each is run below, where the fixture compares what it prints
    for command in shown:
        words = [word if word.isdigit() else f'"{word}"' for word in command.split()]
        assert f"example({', '.join(words)})" in source, command


def test_quickstart(example: Example) -> None:
    pytest.importorskip("sklearn")
    result = example("quickstart")
    assert result.status == 0 and float(result.out.split()[-2]) > 95


def test_quickstart_is_the_program_of_the_documents() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "library.md").read_text(encoding="utf-8"), re.DOTALL)
    printed = next(block for block in blocks if "load_dataset" in block)
    program = ast.parse((ROOT / "examples" / "quickstart.py").read_text(encoding="utf-8"))
    program.body = program.body[1:]  # without the docstring
    assert ast.dump(program) == ast.dump(ast.parse(printed))


def test_keras_mnist(example: Example) -> None:
    result = example("keras_mnist", "--quick", "--device", "cpu")
    assert result.status == 0, result.err
    assert "x_train shape: (96, 1, 12, 12)\n96 train samples, 32 test samples\n" in result.out
    losses = [float(loss) for loss in re.findall(r"^epoch \d/4  loss ([\d.]+)  accuracy .*  val_accuracy ", result.out, re.MULTILINE)]
    assert len(losses) == 4 and losses[-1] < losses[0] / 4 and float(result.out.split()[-2]) > 90


def test_tf2_mnist(example: Example) -> None:
    result = example("tf2_mnist", "--quick", "--device", "cpu")
    assert result.status == 0, result.err
    assert len(re.findall(r"^epoch \d: accuracy [\d.]+, val_accuracy [\d.]+$", result.out, re.MULTILINE)) == 4
    assert float(re.findall(r"test accuracy ([\d.]+) %", result.out)[0]) > 90
    found = re.findall(r"^predicted '(.+)' with probability ([\d.]+); the label is '(.+)'$", result.out, re.MULTILINE)
    assert len(found) == 5 and sum(best == label for best, _, label in found) >= 4 and all(0.1 < float(part) <= 1 for _, part, _ in found)


def test_lenet5x5_mnist(example: Example) -> None:
    result = example("lenet5x5_mnist", "--quick", "--device", "cpu", "--every", 2)
    assert result.status == 0, result.err
    found = re.findall(r"^epoch (\d), batch (\d): loss (\d\.\d{4}), validation accuracy [\d.]+ %$", result.out, re.MULTILINE)
    assert [(int(epoch), int(batch)) for epoch, batch, _ in found] == [(epoch, batch) for epoch in range(1, 7) for batch in (2, 3)]
    assert float(found[-1][2]) < float(found[0][2]) and float(result.out.split()[-2]) > 60


def test_lenet5x5_mnist_refuses_to_keep_nothing(example: Example) -> None:
    assert "rate must be at least 0 and below 1" in example("lenet5x5_mnist", "--quick", "--device", "cpu", "--keep", 0).sentence


def test_inception_mnist(example: Example) -> None:
    result = example("inception_mnist", "--quick", "--device", "cpu")
    assert result.status == 0, result.err
    assert "  branch_4" in result.out and float(result.out.split()[-2]) > 60


def test_parameter_sharing(example: Example) -> None:
    result = example("parameter_sharing", "--quick", "--device", "cpu")
    assert result.status == 0, result.err
    assert "20 × 14 × 14 outputs, 3,860 parameters" in result.out and "20 × 14 × 14 outputs, 756,560 parameters" in result.out
    assert len(re.findall(r"parameters: [\d.]+ % of test images, [\d.]+ % of them moved$", result.out, re.MULTILINE)) == 2


def test_image_filters(example: Example, tmp_path: Path) -> None:
    for needed in ("sklearn", "PIL", "matplotlib"):
        pytest.importorskip(needed)
    result = example("image_filters", "--quick", "--device", "cpu", "--output", "sheet.png")
    assert result.status == 0, result.err
    deviation = {
        name.strip(): float(value) for name, value in re.findall(r"^(.{14}) \d+ × .*deviation ([\d.]+)$", result.out, re.MULTILINE)
    }
    assert len(deviation) == 9 and deviation["low-pass"] < deviation["blur"] < deviation["unchanged"] < deviation["sharpen"]
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")
    assert "cannot be written" in example("image_filters", "--quick", "--device", "cpu", "--output", tmp_path / "no" / "a.png").sentence


def test_translation(example: Example, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    result = example("translation", "--quick", "--device", "cpu", "--output", "moved.png", "--most", 2)
    assert result.status == 0, result.err
    rows = re.findall(r"^moved by (\d): changed feature maps ([\d.]+), pooled maps ([\d.]+), maximum", result.out, re.MULTILINE)
    assert [row[0] for row in rows] == ["0", "1", "2"] and float(rows[0][1]) == 0 and float(rows[1][1]) > float(rows[1][2]) > 0
    assert (tmp_path / "moved.png").read_bytes().startswith(b"\x89PNG")


def test_mnist_speedrun(example: Example) -> None:
    result = example("mnist_speedrun", "--quick", "--device", "cpu", "--epochs", 3)
    assert result.status == 0, result.err
    assert "data: bars drawn for --quick" in result.out and NOTHING in result.out
    assert len(re.findall(r"^seed [01]: \d+\.\d\d % after \d+\.\d{3} s$", result.out, re.MULTILINE)) == 2
    assert result.out.splitlines()[-3:] == [line for line in result.out.splitlines() if re.match(r"9[\d.]+ %: .*\(\d of 2 seeds\)", line)]


def test_mnist_speedrun_beside_pytorch(example: Example) -> None:
    pytest.importorskip("torch")
    result = example("mnist_speedrun", "--quick", "--device", "cpu", "--seeds", 1, "--filters", 4, "--pytorch")
    assert result.status == 0, result.err
    for library in ("", "PyTorch, "):
        assert re.search(rf"^{library}seed 0: \d+\.\d\d % after \d+\.\d{{3}} s$", result.out, re.MULTILINE)
    assert len(re.findall(r"^9[\d.]+ %: .*\(\d of 1 seeds\)$", result.out.partition("\nPyTorch:\n")[2], re.MULTILINE)) == 3


def test_mnist_speedrun_takes_the_digits_where_there_is_no_mnist(example: Example) -> None:
    pytest.importorskip("sklearn")
    result = example("mnist_speedrun", "--device", "cpu", "--epochs", 1, "--seeds", 1)
    assert result.status == 0, result.err
    assert result.out.startswith("data: MNIST is not available, so these are scikit-learn's 8×8 digits")
    assert NOTHING not in result.out


@pytest.mark.parametrize("name", [*NETWORKS, "resnet18", "resnet50", "mobilenet224"])
def test_against_pytorch_compares_networks_that_compute_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.syspath_prepend(ROOT / "examples")
    large = importlib.import_module("large").NETWORKS
    if name in large:  # smaller images, for NumPy computes in float64
        model = gc.Sequential(large[name]()).build((3, 32, 32), device="cpu", dtype="float64")
        theirs = importlib.import_module("in_pytorch").pytorch_of(model).double().eval()
    else:
        model = gc.network(name).build((1, 28, 28), device="cpu", dtype="float64")
        theirs = importlib.import_module("against_pytorch").torch_model(name).double().eval()
    for own, place in zip(model.parameters.values(), theirs.parameters(), strict=True):
        place.data.copy_(torch.from_numpy(own.value))
    x = np.random.default_rng(0).random((2, *model.input_shape))
    expected = theirs(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(model.forward(x), expected, rtol=0, atol=1e-12 * np.abs(expected).max())


def test_profile_kernels(example: Example, tmp_path: Path) -> None:
    pytest.importorskip("numba_cuda", reason="the kernels are compiled with numba-cuda")
    result = example("profile_kernels", "--quick", "--device", "cpu", "--html", tmp_path / "profile.html")
    assert result.status == 0, result.err
    assert all(words in result.out for words in ("conv2d_relu_max_pool2d", "adam_update", NOTHING, "pooling of 256 images"))
    assert [line.split()[:2] for line in result.out.splitlines()[-2:]] == [["H100", "forward"], ["H100", "backward"]]
    assert "adam_update" in (tmp_path / "profile.html").read_text(encoding="utf-8")


def test_steps_on_the_cpu(example: Example) -> None:
    result = example("steps_on_gpu", "--quick", "--device", "cpu")
    assert result.status == 0, result.err
    assert "CPU: keras, batch 4, float32" in result.out and "gpucnn, kernel by kernel" in result.out and NOTHING in result.out


def test_against_pytorch(example: Example) -> None:
    pytest.importorskip("torch", reason="compares with PyTorch")
    result = example("against_pytorch", "--quick", "--profile")
    assert result.status == 0, result.err
    assert NOTHING in result.out and all(re.search(rf"^{name} .*×$", result.out, re.MULTILINE) for name in ("keras", "tf2", "lenet5x5"))
    assert re.search(r"^ +conv2d\w* .* %$", result.out, re.MULTILINE)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("resnet18", 11_689_512),
        ("resnet50", 25_557_032),
        pytest.param("vgg11", 132_863_336, marks=pytest.mark.slow),  # half a GB
        ("mobilenet224", 4_231_976),
    ],
)
def test_large_networks_have_the_sizes_of_their_papers(name: str, parameters: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "examples")
    model = importlib.import_module("large").built(name)
    assert sum(each.value.size for each in model.parameters.values()) == parameters
    assert model.output_shape == (1000,)


def test_other_libraries_are_beside_it_or_the_reason_is_said(example: Example) -> None:
    pytest.importorskip("torch", reason="compares with PyTorch")
    result = example("against_pytorch", "--quick", "--others", "--models", "lenet5x5")
    assert result.status == 0, result.err
    for library, row in (("ONNX Runtime", "forward"), ("JAX", "step")):
        compared = re.search(rf"^lenet5x5 +{row} .*{library} +[\d.]+ ms .*×$", result.out, re.MULTILINE)
        missing = re.search(rf"^lenet5x5 +{library} is not installed \(", result.out, re.MULTILINE)
        assert (compared is None) != (missing is None), result.out


@pytest.mark.slow
def test_memory_against_pytorch(example: Example) -> None:
    pytest.importorskip("torch", reason="compares with PyTorch")
    pytest.importorskip("resource")
    result = example("against_pytorch", "--quick", "--memory", "--models", "keras")
    assert result.status == 0, result.err
    assert re.search(r"^keras +gpucnn +\d+ MiB \(\d+\) +PyTorch +\d+ MiB \(\d+\)", result.out, re.MULTILINE)


def test_accuracy_against_pytorch(example: Example) -> None:
    pytest.importorskip("torch", reason="compares with PyTorch")
    result = example("accuracy_against_pytorch", "--quick", "--device", "cpu", "--epochs", 12)
    assert result.status == 0, result.err
    means = dict(re.findall(r"^mean +(\w+) +(\d+\.\d\d) %", result.out, re.MULTILINE))
    assert means.keys() == {"gpucnn", "PyTorch"} and all(float(mean) > 90 for mean in means.values())


def test_rounded_training(example: Example, monkeypatch: pytest.MonkeyPatch) -> None:
    result = example("rounded_training", "--quick")
    assert result.status == 0, result.err
    assert re.findall(r"^mean +(\w+) +\d+\.\d\d %", result.out, re.MULTILINE) == ["float32", "TF32", "bfloat16"]
    monkeypatch.syspath_prepend(ROOT / "examples")
    script: Any = runpy.run_path(str(ROOT / "examples" / "rounded_training.py"))
    inf = np.inf
    given = np.array([1 + 2**-11, -1 - 2**-11, 1 + 2**-12, 1 + 2**-8, 1 + 3 * 2**-8, 0, inf, -inf], np.float32)
    np.testing.assert_array_equal(script["to_tf32"](given), [1 + 2**-10, -1 - 2**-10, 1, 1 + 2**-8, 1 + 3 * 2**-8, 0, inf, -inf])
    np.testing.assert_array_equal(script["to_bfloat16"](given), [1, -1, 1, 1, 1 + 2**-6, 0, inf, -inf])
    assert np.isnan(script["to_tf32"](np.full(2, np.nan, np.float32))).all()
    random = np.random.default_rng(0)
    x, weight, bias = (random.normal(size=size).astype(np.float32) for size in ((2, 3, 6, 6), (4, 3, 3, 3), 4))
    ops, window = script["device_of"](script["to_bfloat16"]).ops, conv_window((6, 6), (3, 3))
    found, exact = ops.conv2d(x, weight, bias, window), cpu.conv2d(x, weight, bias, window)
    np.testing.assert_array_equal(found, cpu.conv2d(*map(script["to_bfloat16"], (x, weight)), bias, window))
    assert 2**-12 < np.abs(found - exact).max() < 2**-4
    x, weight = x.reshape(2, -1), random.normal(size=(4, 108)).astype(np.float32)
    np.testing.assert_array_equal(ops.dense(x, weight, bias), cpu.dense(*map(script["to_bfloat16"], (x, weight)), bias))


@pytest.mark.parametrize("name", ["against_pytorch", "accuracy_against_pytorch"])
def test_without_pytorch_there_is_nothing_to_compare_with(example: Example, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert example(name, "--quick").sentence == f"{name}: PyTorch is not installed (pip install torch), so there is nothing to compare with"


def test_the_tables_of_scale_are_those_of_its_figures(example: Example) -> None:
    assert example("scale", "--check").status == 0
    printed = example("scale").out
    assert "| keras | 5.55 MB | 99.8 % dense_1 | 148 µs | 317 µs |" in printed
    # 2·(7/8)·5,550,592 bytes at 450 GB/s and six messages of 2 µs are 33.6 µs beside a step of 148.5 µs.
    assert "34 µs: 82–100 %" in printed


def test_a_table_of_scale_that_was_changed_by_hand_is_found(example: Example, tmp_path: Path) -> None:
    for name in ("docs/scale.md", "kernels/measured", "examples"):
        target = tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, target)
    run, document = Path("..") / tmp_path / "examples" / "scale", tmp_path / "docs" / "scale.md"
    text = document.read_text(encoding="utf-8")
    document.write_text(text.replace("450 GB/s", "900 GB/s"), encoding="utf-8")
    assert (
        example(run, "--check").sentence
        == "scale: the tables in docs/scale.md do not match the figures: run python examples/scale.py --write"
    )
    assert example(run, "--write").status == 0 and document.read_text(encoding="utf-8") == text
    document.write_text("<!-- scale: speed -->\n<!-- end of scale -->\n", encoding="utf-8")
    assert example(run, "--check").sentence.startswith("scale: there is no table 'speed': the tables are networks, links,")
    document.unlink()
    assert example(run, "--check").sentence == "scale: scale.md cannot be read: No such file or directory"


def test_first_step_says_what_it_does_not_know(example: Example) -> None:
    assert "'H1000'" in example("first_step", "--arch", "H1000").sentence
    assert "'kers'" in example("first_step", "--model", "kers").sentence


@pytest.mark.slow
def test_first_step(example: Example) -> None:
    pytest.importorskip("resource")
    result = example("first_step", "--quick", "--processes", 2)
    assert result.status == 0, result.err
    assert re.search(r"^ +2 processes, predicted +\d+\.\d s, measured ", result.out, re.MULTILINE)


def test_without_pytorch_steps_are_measured_alone(example: Example, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    result = example("steps_on_gpu", "--quick", "--device", "cpu")
    assert result.status == 0 and "nothing to compare with: PyTorch is not installed" in result.out


def test_a_figure_that_was_changed_by_hand_is_found(example: Example, tmp_path: Path) -> None:
    """In a copy of the documents and the figures, with the example beside them."""
    documents = (
        "README.md",
        "docs/performance.md",
        "docs/view.md",
        "kernels/README.md",
        "kernels/PROFILING.md",
        "kernels/gpucnn_loops/README.md",
    )
    for name in (*documents, "kernels/measured", "kernels/predicted", "examples"):
        target = tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile)(ROOT / name, target)
    run = Path("..") / tmp_path / "examples" / "measured_tables"
    assert example(run, "--check").status == 0
    document = tmp_path / "docs" / "performance.md"
    right = document.read_text(encoding="utf-8")
    document.write_text(re.sub(r"(\| 98 % \| )[\d.]+", r"\g<1>0.001", right), encoding="utf-8")
    result = example(run, "--check")
    assert result.status == 1 and result.err.startswith("the tables do not match the figures: docs/performance.md; run")
    assert example(run).status == 0 and document.read_text(encoding="utf-8") == right
    document.write_text(right.replace("figures: speedrun", "figures: speed"), encoding="utf-8")
    assert example(run).sentence.startswith("measured_tables: there is no table 'speed': the tables are about, shapes,")
    document.write_text(right, encoding="utf-8")
    (tmp_path / "kernels/measured/nvidia-h100-80gb-hbm3.json").write_text("{")
    assert "measured_tables: nvidia-h100-80gb-hbm3.json cannot be read: " in example(run, "--check").sentence


def test_the_roofline_is_drawn(example: Example, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert example("measured_tables", "--check", "--plot", tmp_path / "roofline.png").status == 0
    assert (tmp_path / "roofline.png").read_bytes().startswith(b"\x89PNG")


REFUSED = (
    ("mnist_speedrun --seeds 0", "argument --seeds: takes an integer of at least 1, got '0'"),
    ("mnist_speedrun --epochs two", "argument --epochs: takes an integer of at least 1, got 'two'"),
    ("mnist_speedrun --device tpu", "mnist_speedrun: unknown device 'tpu': the devices are auto, cpu, cuda"),
    ("mnist_speedrun --device cpu --dataset mnsit", "there is no data set 'mnsit', did you mean 'mnist'?"),
    ("mnist_speedrun --device cpu --dataset mnist --data-dir nowhere", "data_dir nowhere does not exist"),
    ("against_pytorch --steps 1", "argument --steps: takes an integer of at least 2, got '1'"),
    ("against_pytorch --models vvg", "argument --models: invalid choice: 'vvg'"),
    ("against_pytorch --memory-of jax keras", "--memory-of takes gpucnn or PyTorch, and a network"),
    ("accuracy_against_pytorch --seeds -1", "argument --seeds: takes an integer of at least 1, got '-1'"),
    ("steps_on_gpu --device cpu --batch-size 20000", "argument --batch-size: takes an integer from 1 to 10,000, got '20000'"),
    ("steps_on_gpu --rounds 0", "argument --rounds: takes an integer of at least 1, got '0'"),
    ("profile_kernels --html nowhere/profile.html", "profile_kernels: nowhere/profile.html cannot be written: there is no folder nowhere"),
    ("profile_kernels --device tpu", "unknown device 'tpu'"),
    ("measure_chip", "the following arguments are required: file"),
    ("measure_chip figures.json --parts shape", "argument --parts: invalid choice: 'shape'"),
    ("measure_chip nowhere/figures.json", "measure_chip: nowhere/figures.json cannot be written: there is no folder nowhere"),
    ("measured_tables --plot nowhere/roofline.png", "measured_tables: nowhere/roofline.png cannot be written"),
)


@pytest.mark.parametrize(("command", "words"), REFUSED, ids=[command for command, _ in REFUSED])
def test_what_cannot_be_done_is_said_in_a_sentence(example: Example, command: str, words: str) -> None:
    assert words in example(*command.split()).sentence


@pytest.mark.parametrize("command", ["measure_chip figures.json --quick", "steps_on_gpu --quick"])
def test_without_a_gpu_there_is_nothing_to_measure(example: Example, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str) -> None:
    from gpucnn import device

    monkeypatch.setattr(device, "why_no_cuda", lambda: "none is plugged in")
    assert 'device "cuda" cannot be used: none is plugged in' in example(*command.split()).sentence
    assert not (tmp_path / "figures.json").exists()


@pytest.mark.parametrize("command", ["measure_chip figures.json --quick", "steps_on_gpu --quick"])
def test_the_simulator_is_nothing_to_measure(example: Example, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setenv("NUMBA_ENABLE_CUDASIM", "1")
    assert "Numba's CUDA simulator is on" in example(*command.split()).sentence


MEASURED = ROOT / "kernels" / "measured" / "nvidia-h100-80gb-hbm3.json"


def test_predictions_beside_nothing(example: Example, tmp_path: Path) -> None:
    (tmp_path / "half.json").write_text('{"networks": {"keras": {}}, "shapes": {}}')
    (tmp_path / "none.json").write_text('{"networks": {}, "shapes": {}}')
    for file in (tmp_path / "no.json", ROOT / "pyproject.toml", tmp_path / "half.json"):
        assert f"{file} has no measured figures" in example("predicted_beside_measured", file).sentence
    assert "the same blocks and threads: name its own --arch" in example("predicted_beside_measured", tmp_path / "none.json").sentence
    assert "unknown chip 'H1000'" in example("predicted_beside_measured", MEASURED, "--arch", "H1000").sentence
    assert "takes an integer of at least 1, got '0'" in example("predicted_beside_measured", MEASURED, "--kernels", 0).err


@pytest.mark.slow
def test_predictions_beside_what_was_measured(example: Example) -> None:
    result = example("predicted_beside_measured", MEASURED, "--quick")
    if "disassembler" in result.err or "nvJitLink" in result.err:
        pytest.skip(result.err)
    lines = result.out.splitlines()
    rows = [line for line in lines if line.startswith("| keras |")]
    assert result.status == 0 and len(rows) == 2 and " of 2 within 1.5×; geometric mean" in lines[-1]
    assert all(0.3 < float(row.split("|")[6]) < 3 for row in rows)
