"""Networks by name: their sizes, that they learn, and, in the slow tests, what an epoch of MNIST makes of them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpucnn as gc
from gpucnn.device import simulated
from gpucnn.errors import ArgumentError, DataError, ShapeError
from gpucnn.networks import NETWORKS
from gpucnn.ops import cpu
from gpucnn.ops.cpu import _engine, roads
from gpucnn.profiling.chip import bounds, chips
from gpucnn.profiling.what import workload
from gpucnn.profiling.what.observe import Observer
from gpucnn_kernels import join

PARAMETERS = {  # on grey images of 28 × 28
    "keras": 1_387_594,
    "tf2": 1_030_218,
    "lenet5x5": 3_274_634,
    "lenet5": 61_706,
    "alexnet": 380_042,
    "vgg": 584_170,
    "inception": 93_670,
    "resnet": 174_970,
    "mobilenet": 36_874,
}
FAMILIES = ("lenet5", "alexnet", "vgg", "inception", "resnet", "mobilenet")


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_build_for_grey_and_colour_of_both_sizes(name: str) -> None:
    for shape in ((1, 28, 28), (3, 28, 28), (1, 32, 32), (3, 32, 32)):
        model = gc.network(name, classes=7).build(shape, device="cpu")
        assert model.output_shape == (7,) and model.layers[-1].activation is None
    assert gc.network(name).build((1, 28, 28), device="cpu").parameter_count == PARAMETERS[name]


@pytest.mark.parametrize("name", FAMILIES)
def test_families_learn_and_come_back_from_a_file(name: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 48)
    images = rng.random((48, 1, 28, 28), np.float32) * 0.2
    images[labels == 1, :, 4:14, 4:14] += 0.8
    images[labels == 0, :, 14:24, 14:24] += 0.8
    model = gc.network(name, classes=2).build((1, 28, 28), seed=1, device="cpu").compile(gc.Adam(2e-3))
    loss = model.fit(images, labels, batch_size=12, epochs=5, verbose=False)["loss"]
    assert loss[-1] < 0.7 * loss[0]
    model.save(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(gc.load(tmp_path / "m.safetensors", device="cpu").predict(images), model.predict(images))


@pytest.mark.skipif(_engine.modules() is None, reason="NumPy writes to arrays of its own")
@pytest.mark.parametrize("name", NETWORKS)
def test_a_step_on_a_cpu_copies_no_part(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where branches stand side by side, each writes to its part of the output, and reads its part of the gradient there."""
    copied = cpu.copied
    copies: list[Any] = []
    monkeypatch.setattr(cpu, "copied", lambda x, **more: copies.append(x.shape) or copied(x, **more))
    model = gc.network(name).build((1, 28, 28), device="cpu").compile()
    x, labels = np.zeros((2, 1, 28, 28), np.float32), np.zeros(2, np.int64)
    model.fit(x, labels, batch_size=2, verbose=False)
    assert copies == []
    plans = [roads.convolution(layer.input_shape[0], layer.filters, layer.window, 1) for layer in ends(model)]
    assert all(plan.parts for plan in plans) and bool(plans) == (name == "inception")


def ends(model: gc.Sequential) -> list[gc.Conv2D]:
    """The last layers of branches."""
    return [branch.layers[-1] for layer in model.layers if isinstance(layer, gc.Concat) for branch in layer.branches]


@pytest.mark.skipif(simulated(), reason="nothing is chosen for another chip in the simulator")
@pytest.mark.parametrize("chip", ["H100", "T4"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_step_on_a_gpu_launches_no_copy(name: str, chip: str) -> None:
    there = chips.find(chip)
    with bounds.as_if_there(there) as launches:
        workload.of_model(name, 128, bounds.device_of(there), Observer()).step()
    assert {"adam", "sgd"} & {launch.name for launch in launches}, "to the end of it"
    assert not any(launch.kernel is join.copy_images_kernel for launch in launches)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_an_epoch_of_mnist(name: str) -> None:
    try:
        data = gc.load_dataset("mnist", download=False)
    except (DataError, FileNotFoundError) as error:
        pytest.skip(f"MNIST is not here: {error}")
    model = gc.network(name).build((1, 28, 28), seed=0, device="cpu").compile(gc.Adam(1e-3))
    model.fit(data.train_images, data.train_labels, batch_size=128, verbose=False)
    # Average pooling and tanh learn more slowly than the rest, and so do means of whole planes: an epoch is not their end.
    least = {"resnet": 0.92, "lenet5": 0.94, "inception": 0.95, "mobilenet": 0.96}.get(name, 0.97)
    accuracy = model.evaluate(data.test_images, data.test_labels)[1]
    # Another processor rounds otherwise, which after an epoch is like another seed: resnet has had 93.6 and 94.1 %.
    assert accuracy > least and abs(accuracy - measured()[name][1]) < 0.015


def measured() -> dict[str, tuple[int, float]]:
    """The measured table of networks after an epoch of MNIST: parameters and test accuracy."""
    figures = json.loads((Path(__file__).parents[2] / "docs" / "measured" / "cpu.json").read_text(encoding="utf-8"))
    return {name: (each["parameters"], each["accuracy"] / 100) for name, each in figures["epoch"]["networks"].items()}


def test_every_network_was_measured_after_an_epoch() -> None:
    assert {name: count for name, (count, _) in measured().items()} == PARAMETERS and list(PARAMETERS) == list(NETWORKS)


def test_an_inception_block_is_four_branches() -> None:
    model = gc.Sequential(gc.inception(4, (2, 6), (3, 5), 7)).build((8, 9, 9), device="cpu")
    assert model.output_shape == (4 + 6 + 5 + 7, 9, 9)
    text = io.StringIO()
    model.summary(file=text)
    rows = [line.split()[0] for line in text.getvalue().splitlines()]
    assert [row for row in rows if row.startswith("branch")] == [f"branch_{i}" for i in range(1, 5)]
    assert model.parameters["concat_1.branch_3.conv2d_2.weight"].shape == (5, 3, 5, 5)
    with pytest.raises(ArgumentError, match=r"threes must be two numbers, \(filters of the reduction, filters\), got 3"):
        gc.inception(4, 3, (3, 5), 7)  # type: ignore[arg-type]


def test_a_residual_block_projects_where_it_must() -> None:
    assert gc.residual_block(8).shortcut is None and gc.residual_block(8, stride=2).shortcut is not None
    model = gc.Sequential(gc.residual_block(8, project=True), gc.residual_block(8, stride=2)).build((3, 7, 7), device="cpu")
    assert model.output_shape == (8, 4, 4)
    with pytest.raises(ShapeError, match="give a shortcut with the same output shape"):
        gc.Sequential(gc.residual_block(8)).build((3, 7, 7), device="cpu")


def test_a_depthwise_block_is_cheaper_than_a_convolution() -> None:
    block = gc.Sequential(gc.depthwise_block(64, stride=2)).build((32, 8, 8), device="cpu")
    assert block.output_shape == (64, 4, 4)
    assert block.parameter_count == 32 * 9 + 2 * 32 + 32 * 64 + 2 * 64 < 32 * 64 * 9
