"""One of a user's own of each kind, each one class or function and one line: named, trained with, saved, loaded and resumed."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpucnn as gc
from gpucnn import cli, experiment, plots, recipes
from gpucnn.data import augment, datasets
from gpucnn.data.dataset import DATASETS
from gpucnn.device import simulated
from gpucnn.errors import ArgumentError, UnknownNameError
from gpucnn.initializers import INITIALIZERS
from gpucnn.layers import LAYERS
from gpucnn.layers.base import Array
from gpucnn.layers.parameter import Buffers
from gpucnn.losses import LOSSES
from gpucnn.metrics import METRICS
from gpucnn.names import Registry
from gpucnn.networks import NETWORKS
from gpucnn.optimizers import OPTIMIZERS
from gpucnn.schedules import SCHEDULES

ROOT = Path(gc.__file__).parents[1]
KINDS: dict[str, dict[str, Any]] = {
    "optimizer": OPTIMIZERS,
    "loss": LOSSES,
    "metric": METRICS,
    "schedule": SCHEDULES,
    "initializer": INITIALIZERS,
    "layer": LAYERS,
    "augmentation": augment.AUGMENTATIONS,
    "dataset": DATASETS,
    "network": NETWORKS,
}


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    """Whatever a test registers is gone afterwards."""
    before = {kind: dict(known) for kind, known in KINDS.items()}
    yield
    for kind, known in KINDS.items():
        known.clear()
        known.update(before[kind])


def toys() -> None:
    """One of each kind. What stands here is all that there is to write."""

    @gc.register(optimizer="signed")
    class Signed(gc.Optimizer):
        """A step of one size, against the gradient's sign, with a memory of it."""

        slots = ("memory",)
        peak = 2e-3

        def _update(self, buffers: Buffers, gradients: Array, rates: Array) -> None:
            memory = self.state["memory"]
            memory *= 0.5
            memory += gradients
            buffers.values -= rates[0] * buffers.device.xp.sign(memory)

    @gc.register(schedule="falling")
    class Falling(gc.Schedule):
        def __init__(self, learning_rate: float, steps: int) -> None:
            self.learning_rate, self.steps = learning_rate, steps

        def __call__(self, step: int) -> float:
            return self.learning_rate * max(0.1, 1 - step / self.steps)

    @gc.register
    class Absolute(gc.MeanSquaredError):
        """|y − t|, on arrays of any device."""

        name = "absolute"

        def __call__(self, device: Any, outputs: Array, labels: Array) -> tuple[Array, Array, Array]:
            _, correct, _ = super().__call__(device, outputs, labels)
            difference = outputs - labels
            return abs(difference).mean(), correct, device.xp.sign(difference) / difference.size

    @gc.register
    class Doubled(gc.Layer):
        def _build(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
            return input_shape

        def _forward(self, x: Array, training: bool) -> Array:
            return 2 * x

        def _backward(self, dy: Array, input_grad: bool) -> Array | None:
            return 2 * dy if input_grad else None

    @gc.register(metric="sure")
    def sure(scores: Any, labels: Any) -> float:
        """The mean probability of the right class."""
        return float(scores[np.arange(len(labels)), labels].mean())

    @gc.register(initializer="tenth")
    def tenth(shape: tuple[int, ...], rng: np.random.Generator, groups: int = 1) -> Any:
        return rng.uniform(-0.1, 0.1, shape)

    @gc.register(augmentation="darker")
    class Darker(gc.data.RandomChange):
        def __call__(self, x: Any, rng: np.random.Generator) -> Any:
            return x * rng.uniform(0.5, 1, (len(x), 1, 1, 1)).astype(x.dtype)

    @gc.register(network="small")
    def small(classes: int) -> list[gc.Layer]:
        return [gc.Conv2D(4, 3, activation="relu", initializer="tenth"), Doubled(), gc.Flatten(), gc.Dense(classes)]

    @gc.register(dataset="corners")
    def corners(request: gc.data.Request) -> gc.data.Dataset:
        """A bright corner: which one is the class."""
        rng = np.random.default_rng(request.seed)
        labels = np.arange(64, dtype=np.int32) % 4
        images = rng.integers(0, 60, (64, 1, 8, 8)).astype(np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[0, 4 * (label // 2) :, 4 * (label % 2) :][:4, :4] += 150
        return gc.data.Dataset("corners", images[:48], labels[:48], images[48:], labels[48:], ("a", "b", "c", "d"), "made here")


def options(output: Path, **more: Any) -> experiment.Options:
    recipe = recipes.OpenRecipe(optimizer="signed", schedule="falling", epochs=6, batch_size=8, augment="darker")
    return experiment.Options(dataset="corners", model="small", recipe=recipe, device="cpu", output=output, **more)


def bits(folder: Path) -> bytes:
    return gc.load(folder / "model.safetensors", device="cpu").buffers.values.tobytes()  # type: ignore[no-any-return]


@pytest.mark.filterwarnings("error")
def test_a_run_of_nothing_but_toys_is_trained_saved_loaded_and_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toys()
    for name in ("save_curves", "save_confusion", "save_filters", "save_features"):
        monkeypatch.setattr(plots, name, lambda *arguments: False)
    said: list[str] = []
    outcome = experiment.train(options(tmp_path / "whole"), said.append)
    assert outcome.accuracy > 0.9
    assert any(line.startswith("recipe    signed, learning rate 0.002 (falling)") for line in said)
    assert any("augmentation darker" in line for line in said)

    class Killed(Exception):
        pass

    def kill(self: Any, run: Any) -> None:
        if run.epoch == 2 and run.step == 3:
            self.save(self.path)
            raise Killed

    with monkeypatch.context() as during:
        during.setattr(gc.Checkpoint, "on_step_end", kill)
        with pytest.raises(Killed):
            experiment.train(options(tmp_path / "halves"), said.append)
    experiment.train(options(tmp_path / "halves", resume=True), said.append)
    assert any(line.startswith("resumed   at epoch 3, step 4") for line in said)
    assert bits(tmp_path / "halves") == bits(tmp_path / "whole")

    loaded = gc.load(tmp_path / "whole" / "model.safetensors", device="cpu")
    assert type(loaded.layers[1]).__name__ == "Doubled" and loaded.config()["optimizer"]["optimizer"] == "signed"
    data = gc.load_dataset("corners")
    _, accuracy = loaded.evaluate(data.test_images, data.test_labels)
    assert accuracy == outcome.accuracy


def test_a_loss_and_a_metric_go_by_name(tmp_path: Path) -> None:
    toys()
    data = gc.load_dataset("corners")
    model = gc.network("small", 4).build(data.image_shape, device="cpu").compile(gc.Adam(3e-3), "absolute", ["accuracy"])
    losses = model.fit(data.train_images, data.train_labels, epochs=5, verbose=False)["loss"]
    assert losses[-1] < losses[0]
    model.save(tmp_path / "m")
    assert type(gc.load(tmp_path / "m", device="cpu").loss).__name__ == "Absolute"

    model.compile(gc.Adam(3e-3), metrics=["sure", "accuracy"])
    validation = (data.test_images, data.test_labels)
    watch = gc.EarlyStopping("val_sure", patience=100)
    history = model.fit(data.train_images, data.train_labels, epochs=3, verbose=False, validation_data=validation, callbacks=[watch])
    loss, sure, accuracy = model.evaluate(*validation)
    probabilities = model.predict(data.test_images)
    assert sure == pytest.approx(float(probabilities[np.arange(16), data.test_labels].mean()), rel=1e-6)
    assert watch.best == -max(history["val_sure"])  # what is watched is the lower the better
    assert {"loss", "accuracy", "val_loss", "val_sure", "val_accuracy"} <= set(history) and "sure" not in history
    assert 0 <= accuracy <= 1 and loss > 0
    model.save(tmp_path / "m")
    assert gc.load(tmp_path / "m", device="cpu").metrics == ["sure", "accuracy"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_name_is_in_the_sentence_about_a_wrong_one(kind: str) -> None:
    toys()
    asks: dict[str, Any] = {
        "optimizer": lambda: built().compile("non"),
        "loss": lambda: built().compile("adam", "non"),
        "metric": lambda: built().compile("adam", metrics=["non"]),
        "schedule": lambda: recipes.OpenRecipe(schedule="non"),
        "initializer": lambda: gc.Dense(1, initializer="non"),
        "layer": lambda: gc.layers.layer_from_config({"layer": "non"}),
        "augmentation": lambda: gc.data.augmentation("non"),
        "dataset": lambda: gc.load_dataset("non"),
        "network": lambda: gc.network("non"),
    }
    with pytest.raises(UnknownNameError) as caught:
        asks[kind]()
    assert all(name in str(caught.value) for name in KINDS[kind])


def built() -> gc.Sequential:
    return gc.Sequential(gc.Flatten(), gc.Dense(2)).build((1, 2, 2), device="cpu")


def test_help_is_made_of_the_registries() -> None:
    texts = " ".join(re.sub(r"\s+", " ", str(parameter.help)) for parameter in train_options())
    for names in (OPTIMIZERS, SCHEDULES, augment.choices(), NETWORKS, DATASETS):
        assert all(name in texts for name in names)
    assert [*datasets.names()] == [*DATASETS]
    assert recipes.optimizers_text().startswith("sgd (momentum 0.9, nesterov True), adam")


def train_options() -> list[Any]:
    import typer

    return list(typer.main.get_command(cli.app).commands["train"].params)  # type: ignore[attr-defined]


def test_a_command_is_a_file_and_a_line() -> None:
    """Every file with a command is listed, and the help names them in that order."""
    import typer

    folder = Path(cli.__file__).parent
    files = {path.stem.rstrip("_") for path in folder.glob("*.py") if "@app.command(" in path.read_text(encoding="utf-8")}
    listed = re.findall(r"^from gpucnn\.cli import (\w+?)_? as ", (folder / "__init__.py").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(listed) == files
    assert list(typer.main.get_command(cli.app).commands) == listed  # type: ignore[attr-defined]


def test_defaults_of_the_command_line_are_those_of_the_options() -> None:
    given = {parameter.name: parameter.default for parameter in train_options()}
    assert {name: given[name] for name in ("dataset", "model", "seed", "checkpoint_every", "device", "precision")} == {
        name: getattr(experiment.Options(), name) for name in ("dataset", "model", "seed", "checkpoint_every", "device", "precision")
    }
    assert Path(given["output"]) == experiment.Options().output
    assert (given["optimizer"], given["schedule"]) == (recipes.OpenRecipe().optimizer, recipes.OpenRecipe().schedule)
    assert set(experiment.OPTIONS) <= set(given)


def test_the_profilers_kinds_are_those_of_the_help_text() -> None:
    import typer

    from gpucnn.profiling.what import operations

    commands = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
    (op,) = (parameter for parameter in commands["profile"].params if parameter.name == "op")
    assert f"{', '.join(operations.KINDS)}." in op.help


NEW_LAYER = """
from gpucnn.layers.base import Array, Layer, Shape

__all__ = ["Doubled"]


class Doubled(Layer):
    def _build(self, input_shape: Shape) -> Shape:
        return input_shape

    def _forward(self, x: Array, training: bool) -> Array:
        return 2 * x

    def _backward(self, dy: Array, input_grad: bool) -> Array | None:
        return 2 * dy if input_grad else None
"""
USE = """
import gpucnn as gc
assert gc.__file__.startswith({folder!r}), gc.__file__
from gpucnn import *
model = gc.Sequential(gc.Flatten(), Doubled(), gc.layers.Dense(2)).build((1, 2, 2), device="cpu")
model.save("m.safetensors")
print(gc.load("m.safetensors", device="cpu"))
"""


@pytest.mark.parametrize("family", [None, "activation.py"])
def test_a_layer_is_its_file(tmp_path: Path, family: str | None) -> None:
    """In a copy of the library: a layer in a file of its own, or in one that is there, is public, and can be saved and loaded; type
    checkers see it once the reference has been written."""
    shutil.copytree(ROOT / "gpucnn", tmp_path / "gpucnn", ignore=shutil.ignore_patterns("__pycache__"))
    layers = tmp_path / "gpucnn" / "layers"
    if family is None:
        (layers / "doubled.py").write_text(NEW_LAYER)
    else:
        with (layers / family).open("a") as file:
            file.write(NEW_LAYER.replace("__all__ =", "__all__ +="))
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT / 'kernels'}"}
    program = [sys.executable, "-c", USE.format(folder=str(tmp_path))]
    done = subprocess.run(program, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Sequential(Flatten(), Doubled(), Dense(")

    before = (layers / "kinds.py").read_text().splitlines()
    make_reference().list_layers(layers)
    added = [line for line in (layers / "kinds.py").read_text().splitlines() if line not in before]
    assert added == ([] if family else ["from gpucnn.layers.doubled import *"])


def make_reference() -> Any:
    spec = importlib.util.spec_from_file_location("make_reference", ROOT / "docs" / "make_reference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_type_checkers_see_every_file_of_layers(tmp_path: Path) -> None:
    copy = shutil.copytree(ROOT / "gpucnn" / "layers", tmp_path / "layers")
    make_reference().list_layers(copy)
    assert (copy / "kinds.py").read_text() == (ROOT / "gpucnn" / "layers" / "kinds.py").read_text(), "python docs/make_reference.py"


NEW_OPERATION = {
    "kernels/gpucnn_kernels/twice.py": """
from gpucnn_kernels.core._numba import cuda, float32, uint32
from gpucnn_kernels.core.compile import kernel
from gpucnn_kernels.core.launch import floats, run_each


@kernel
def twice_kernel(x, y):
    i = uint32(cuda.grid(1))
    if i < x.size:
        y[i] = float32(2) * x[i]


def twice(x, y, stream=0):
    run_each(twice_kernel, x.size, stream, floats(x, "x"), floats(y, "y"))
""",
    "gpucnn/ops/cuda/twice.py": """
from __future__ import annotations

from gpucnn.ops.cuda._arrays import Array, empty, stream
from gpucnn_kernels import twice as kernels

__all__ = ["twice"]


def twice(x: Array, *, out: Array | None = None) -> Array:
    y = empty(x, x.shape) if out is None else out
    kernels.twice(x, y, stream(x))
    return y
""",
    "gpucnn/ops/cpu/twice.py": """
from __future__ import annotations

import numpy as np

from gpucnn.ops.cpu._threads import Array

__all__ = ["twice"]
PER_NUMBER = {"twice": 1}


def twice(x: Array, *, out: Array | None = None) -> Array:
    return np.multiply(x, 2, out=out)
""",
    "gpucnn/layers/doubled.py": NEW_LAYER.replace("2 * x", "self.device.ops.twice(x)").replace("2 * dy", "self.device.ops.twice(dy)"),
}
SUMS = {  # one whose result has another shape: the CPU's file says how much it computes, and gives an example
    "kernels/gpucnn_kernels/row_sums.py": """
from gpucnn_kernels.core._numba import cuda, float32, uint32
from gpucnn_kernels.core.compile import kernel
from gpucnn_kernels.core.launch import floats, run_each


@kernel
def row_sums_kernel(x, y, C):
    i = uint32(cuda.grid(1))
    if i < y.size:
        total = float32(0)
        for c in range(C):
            total += x[uint32(i * uint32(C) + uint32(c))]
        y[i] = total


def row_sums(x, y, stream=0):
    import numpy as np
    run_each(row_sums_kernel, x.shape[0], stream, floats(x, "x"), floats(y, "y", (x.shape[0], 1)), np.uint32(x.shape[1]))
""",
    "gpucnn/ops/cuda/row_sums.py": """
from __future__ import annotations

from gpucnn.ops.cuda._arrays import Array, empty, stream
from gpucnn_kernels import row_sums as kernels

__all__ = ["row_sums"]


def row_sums(x: Array, *, out: Array | None = None) -> Array:
    y = empty(x, (x.shape[0], 1)) if out is None else out
    kernels.row_sums(x, y, stream(x))
    return y
""",
    "gpucnn/ops/cpu/row_sums.py": """
from __future__ import annotations

import numpy as np

from gpucnn.ops.cpu._threads import Array

__all__ = ["row_sums"]
WORK = {"row_sums": lambda a: (a["x"].size, a["x"].size + len(a["x"]), a["x"].shape[1])}
EXAMPLES = {"row_sums": lambda floats: {"x": floats(128, 1000)}}


def row_sums(x: Array, *, out: Array | None = None) -> Array:
    return np.sum(x, axis=1, keepdims=True, out=out)
""",
    "gpucnn/layers/summed.py": """
from __future__ import annotations

from gpucnn.layers.base import Array, Layer, Shape

__all__ = ["Summed"]


class Summed(Layer):
    \"\"\"The sum of each row.\"\"\"

    def _build(self, input_shape: Shape) -> Shape:
        return (1,)

    def _forward(self, x: Array, training: bool) -> Array:
        return self.device.ops.row_sums(x)

    def _backward(self, dy: Array, input_grad: bool) -> Array | None:
        return dy.repeat(self.input_shape[0], axis=1) if input_grad else None
""",
}
USE_OPERATION = """
import inspect
import gpucnn as gc, gpucnn_kernels, numpy as np
assert gc.__file__.startswith({folder!r}) and gpucnn_kernels.__file__.startswith({folder!r})
from gpucnn.ops import cpu, cuda
from gpucnn.profiling.chip import samples, chips
from gpucnn.profiling.what import correct
from gpucnn.profiling.what.operations import kind_of
assert cpu.__all__ == cuda.__all__ and {op!r} in cpu.__all__
assert inspect.signature(cpu.{op}) == inspect.signature(cuda.{op})
(kernel,) = [each for sample in samples.SAMPLES for each in samples.launched(sample, chips.find("H100")) if each.part.name == {op!r}]
x = kernel.call.arguments["x"]
x[...] = 3
expected = correct.expect(kernel.call)
assert expected.error(gc.device.get_device("cpu").ops.{op}(x)) <= 1
model = gc.Sequential(gc.Flatten(), gc.{layer}(), gc.Dense(2)).build((1, 2, 2), device="cpu").compile("sgd")
model.fit(np.ones((4, 1, 2, 2), np.float32), np.arange(4) % 2, verbose=False)
work = kernel.part.work
print(kernel.name, kernel.launch.blocks, kernel.launch.threads, work.flops, work.least_bytes, kind_of({op!r}))
"""
ADDED = {
    "elementwise": (NEW_OPERATION, {"op": "twice", "layer": "Doubled"}, "twice 1024 128 131072 1048576 activation\n"),
    "of another structure": (SUMS, {"op": "row_sums", "layer": "Summed"}, "row_sums 1 128 128000 512512 other\n"),
}


@pytest.mark.skipif(simulated(), reason="the simulator knows no types")
@pytest.mark.parametrize("kind", ADDED)
def test_a_layer_with_an_operation_and_its_kernel_is_four_files(kind: str, tmp_path: Path) -> None:
    """In a copy: the layer, the operation on each device and its kernel are all there is to write, and with the test they are five: it is
    trained, and the profiler counts, checks and compiles it."""
    pytest.importorskip("gpucnn.ops.cuda", reason="Numba's CUDA target is not installed")
    files, names, printed = ADDED[kind]
    program = USE_OPERATION.format(folder=str(tmp_path), **names)
    run = copied(("gpucnn", "kernels/gpucnn_kernels", "kernels/gpucnn_loops"), tmp_path, program)
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert len(files) == 4 and run() == printed


def copied(trees: tuple[str, ...], folder: Path, program: str) -> Callable[[], str]:
    """A copy of the library, and what a program that uses it prints."""
    for tree in trees:
        shutil.copytree(ROOT / tree, folder / tree, ignore=shutil.ignore_patterns("__pycache__"))

    def run() -> str:
        environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{folder / 'kernels'}"}
        done = subprocess.run([sys.executable, "-c", program], cwd=folder, env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def changed(file: Path, *pairs: tuple[str, str]) -> None:
    text = file.read_text()
    for before, after in pairs:
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    file.write_text(text)


USE_VARIANT = """
from gpucnn.profiling.chip import bounds, chips
from gpucnn.profiling.what.launches import parts
from gpucnn.profiling.what import workload
from gpucnn.profiling.what.observe import Observer
from gpucnn_kernels.choose import problems, select
chip = chips.find("H100")
with bounds.as_if_there(chip), select.override(dense="mine"):
    work = workload.of_operation("dense", "64,512,100", bounds.device_of(chip), Observer())
    print(select.choose(problems.dense(64, 512, 100)).name, end=" ")
    print(*[part.name for call, launches, _ in bounds.record(work, chip) if call.op == "dense" for part in parts(call, launches)])
"""


@pytest.mark.slow
@pytest.mark.skipif(simulated(), reason="the simulator knows no types")
def test_a_variant_is_its_file_and_one_line(tmp_path: Path) -> None:
    """In a copy: it is selected by its name, and launched."""
    pytest.importorskip("gpucnn.ops.cuda", reason="Numba's CUDA target is not installed")
    run = copied(("gpucnn", "kernels/gpucnn_kernels", "kernels/gpucnn_loops"), tmp_path, USE_VARIANT)
    kernels = tmp_path / "kernels" / "gpucnn_kernels"
    (kernels / "dense" / "mine.py").write_text(
        "from gpucnn_kernels.core.variant import Variant\n"
        "from gpucnn_kernels.dense import plain\n\n\n"
        "def dense(*arguments, **more):\n    plain.dense(*arguments, **more)\n\n\n"
        'FORWARD = Variant("mine", dense)\n'
    )
    listed = "[narrow_dense.FORWARD, plain_dense.FORWARD, "
    changed(kernels / "choose" / "variants.py", (listed, f"{listed}__import__('gpucnn_kernels.dense.mine').dense.mine.FORWARD, "))
    assert run() == "mine gemm\n"


USE_OPTION = """
from pathlib import Path
from typer.testing import CliRunner
import gpucnn as gc
from gpucnn import experiment, recipes
from gpucnn.cli import app
text = CliRunner().invoke(app, ["train", "--help"], env={"COLUMNS": "200"}).output
begun = experiment.Options(author="Ada").noted("digits", recipes.OpenRecipe())
print("--author" in text, begun["author"], set(begun) == set(experiment.OPTIONS))
"""


@pytest.mark.slow
def test_an_option_of_train_is_two_files(tmp_path: Path) -> None:
    """In a copy: it is in the help text, and a part of what a run notes."""
    run = copied(("gpucnn", "kernels/gpucnn_loops"), tmp_path, USE_OPTION)
    changed(
        tmp_path / "gpucnn" / "experiment" / "options.py",
        ('    "seed",\n', '    "seed",\n    "author",\n'),
        ("    seed: int = 0\n", '    seed: int = 0\n    author: str = ""\n'),
        ('            "seed": self.seed,\n', '            "seed": self.seed,\n            "author": self.author,\n'),
    )
    changed(
        tmp_path / "gpucnn" / "cli" / "train.py",
        (
            "    resume: Annotated[\n",
            '    author: Annotated[str, typer.Option(help="Who.")] = DEFAULTS.author,\n    resume: Annotated[\n',
        ),
        ("        seed=seed,\n", "        seed=seed,\n        author=author,\n"),
    )
    assert run() == "True Ada True\n"


def test_every_layer_that_has_a_public_name_is_gpucnn_s() -> None:
    found = {}
    for path in (ROOT / "gpucnn" / "layers").glob("*.py"):
        module = importlib.import_module(f"gpucnn.layers.{path.stem}") if path.stem != "__init__" else gc.layers
        own = [thing for thing in vars(module).values() if isinstance(thing, type) and issubclass(thing, gc.Layer)]
        found |= {kind.__name__: kind for kind in own if kind.__name__[0] != "_" and kind is not gc.Layer}
    assert {name: kind for name, kind in LAYERS.items() if kind.__module__.startswith("gpucnn.")} == found
    assert all(getattr(gc, name) is kind and name in gc.__all__ for name, kind in found.items())


def test_the_documents_name_everything() -> None:
    text = (ROOT / "docs" / "library.md").read_text(encoding="utf-8")
    classes = [*LAYERS.values(), *OPTIMIZERS.values(), *SCHEDULES.values()]
    assert [kind.__name__ for kind in classes if f"`{kind.__name__}`" not in text] == []
    assert [name for name in NETWORKS if name not in text] == []


def test_names_that_cannot_be() -> None:
    toys()
    toys()  # the same ones, defined anew
    for name in ("sgd", "", 3, "a\nb", "\x1b[2J"):
        with pytest.raises(ArgumentError, match="the name"):
            gc.register(optimizer=name)(OPTIMIZERS["adam"])  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="register takes a class or one name"):
        gc.register(optimizer="a", loss="b")
    with pytest.raises(UnknownNameError, match="unknown kind of thing to register 'wheel': there are optimizer"):
        gc.register(wheel="a")
    for kind, thing in (("optimizer", gc.Dense), ("schedule", 3), ("metric", "f"), ("augmentation", lambda x, rng: x)):
        with pytest.raises(TypeError, match=rf"register\({kind}=...\) must be above a"):
            gc.register(**{kind: "mine"})(thing)


def test_a_registry_is_a_mapping_with_a_decorator() -> None:
    known: Registry[Any] = Registry("thing")

    @known.add("one")
    def one() -> None: ...

    assert known.pick("one") is one and known.name_of(one) == "one" and known.name_of(known) is None and str(known) == "one"
    with pytest.raises(UnknownNameError, match="unknown thing 'oen': there are one; did you mean 'one'"):
        known.pick("oen")


def test_the_kernels_and_the_library_have_one_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels import nothing of gpucnn, and say for themselves where it is."""
    tuned = pytest.importorskip("gpucnn_kernels.choose.tuned", reason="the kernels are not here")
    from gpucnn.surroundings import cache_folder

    monkeypatch.delenv("GPUCNN_TUNED", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for given in (str(tmp_path), "a/relative/one", "", None):
        monkeypatch.setenv("XDG_CACHE_HOME", given) if given is not None else monkeypatch.delenv("XDG_CACHE_HOME")
        assert tuned.folder() == (cache_folder() or Path()) / "tuned"


def test_a_run_notes_names_as_they_are_called_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toys()
    for name in ("save_curves", "save_confusion", "save_filters", "save_features"):
        monkeypatch.setattr(plots, name, lambda *arguments: False)
    recipe = recipes.OpenRecipe(optimizer="Signed", schedule="Falling", epochs=1, batch_size=8, augment="none")
    experiment.train(experiment.Options(dataset="Corners", model="Small", recipe=recipe, device="cpu", output=tmp_path / "r"), print)
    noted = experiment.run_notes(tmp_path / "r" / "checkpoint.safetensors")["options"]
    assert (noted["dataset"], noted["model"], noted["optimizer"], noted["schedule"]) == ("corners", "small", "signed", "falling")
