"""What is profiled, and who is told of each call."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import gpucnn as gc
from gpucnn.device import get_device
from gpucnn.errors import ArgumentError, CheckpointError, DeviceError, GpucnnError, ShapeError, UnknownNameError
from gpucnn.profiling import run
from gpucnn.profiling.chip import bounds, chips
from gpucnn.profiling.what import memory, workload
from gpucnn.profiling.what.observe import Call, Observer
from gpucnn.profiling.what.operations import kind_of
from gpucnn.profiling.what.workload import Selection, Workload


def calls_of(work: Workload) -> list[Call]:
    found: list[Call] = []

    def listener(call: Call) -> object:
        found.append(call)
        return call.run()

    with work.observer.listening(listener):
        work.step()
    return found


def model(name: str = "keras", batch: int = 4) -> Workload:
    return workload.of_model(name, batch, get_device("cpu"), Observer())


def test_every_call_knows_its_layer_and_its_phase() -> None:
    calls = calls_of(model())
    assert {call.phase for call in calls} == {"forward", "loss", "backward", "update"}
    assert calls[0].layer.startswith("conv2d_1") and calls[0].phase == "forward"
    assert (calls[-1].layer, calls[-1].phase, calls[-1].op) == ("adam", "update", "adam_update")
    assert [call.phase for call in calls].index("loss") < [call.phase for call in calls].index("backward")
    assert all(call.layer for call in calls)


def test_observed_training_is_the_same_training() -> None:
    """With nobody listening, and with somebody: to the bit what `fit` makes of a model that is not observed."""
    own = model()
    batches = workload._batches(own.model, 4, get_device("cpu"))
    plain = gc.network("keras").build((1, 28, 28), seed=0, device="cpu")
    plain.compile(gc.Adam(1e-3))
    for step in range(2 * batches.steps_per_epoch):
        if step % 2:
            own.step()
        else:
            calls_of(own)
    plain.fit(batches.images, batches.labels, batch_size=4, epochs=2)
    np.testing.assert_array_equal(own.model.buffers.values, plain.buffers.values)


def test_a_step_is_all_that_fit_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same operations in the same order, on the CPU and on a GPU that is not there."""
    calls = calls_of(model())
    assert [(call.layer, call.phase) for call in calls if call.op == "tally"] == [("categorical_crossentropy", "loss")]
    chip = chips.find("A100")
    with bounds.as_if_there(chip):
        there = workload.of_model("keras", 4, bounds.device_of(chip), Observer())
        found = [call for call, _, _ in bounds.record(there, chip)]
        again = [call.op for call, _, _ in bounds.record(there, chip)]
    assert (found[0].op, found[0].layer, found[0].phase) == ("gather_batch", "batch", "batch")
    assert again == [call.op for call in found]
    ops = [call.op for call in found[1:]]
    place = ops.index("dense_cross_entropy")  # the gradient of its inputs comes with it
    head = [*ops[:place], "dense", "softmax_cross_entropy", *ops[place + 1 : place + 3], "dense_input_grad"]
    assert ops[place + 1 : place + 3] == ["tally", "dense_weight_grad"]
    assert [*head, *ops[place + 3 :]] == [call.op for call in calls]
    assert "next_call" in {call.op for call in calls_of(model("lenet5x5"))}


def test_an_epoch_that_is_over_is_begun_anew_unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workload, "BATCHES", 2)
    chip = chips.find("A100")
    with bounds.as_if_there(chip) as launches:
        work = workload.of_model("keras", 4, bounds.device_of(chip), Observer())
        seen = [len(calls_of(work)) for _ in range(5)]
    assert len(set(seen)) == 1
    assert sum(launch.name == "permutation" for launch in launches) == 3, "at the beginning of each epoch"


def test_a_saved_model_is_profiled_as_it_was_compiled(tmp_path: Path) -> None:
    saved = gc.Sequential(gc.Conv2D(4, 3), gc.Flatten(), gc.Dense(1, activation="sigmoid")).build((2, 6, 6), device="cpu")
    saved.compile(gc.SGD(0.1), "binary_crossentropy")
    saved.save(tmp_path / "own.safetensors")
    calls = calls_of(workload.of_model(str(tmp_path / "own.safetensors"), 3, get_device("cpu"), Observer()))
    assert "binary_cross_entropy" in {call.op for call in calls} and calls[-1].op == "sgd_update"


@pytest.mark.parametrize(
    ("op", "shape", "ops"),
    [
        ("conv", "2,3,8x8,4,3x3", {"conv2d", "conv2d_weight_grad", "conv2d_input_grad"}),
        ("conv", "2,4,8x9,4,3x3,2,same,2", {"conv2d", "conv2d_weight_grad", "conv2d_input_grad"}),
        ("conv", "2,3,8,4,3,1,1", {"conv2d", "conv2d_weight_grad", "conv2d_input_grad"}),
        ("pool", "2,3,8×8,2×2", {"max_pool2d", "max_pool2d_grad"}),
        ("pool", "2,3,8x8,3x3,2,1", {"max_pool2d", "max_pool2d_grad"}),
        ("avg_pool", "2,3,8x8,2x2", {"avg_pool2d", "avg_pool2d_grad"}),
        ("dense", "2, 5, 3", {"dense", "dense_weight_grad", "dense_input_grad"}),
        ("relu", "2,3,8x8", {"relu", "relu_grad"}),
        ("sigmoid", "2,7", {"sigmoid", "sigmoid_grad"}),
        ("softmax", "2,7", {"softmax", "softmax_grad"}),
        ("dropout", "2,7", {"dropout"}),
    ],
)
def test_an_operation_of_a_shape_is_forward_and_backward(op: str, shape: str, ops: set[str]) -> None:
    work = workload.of_operation(op, shape, get_device("cpu"), Observer())
    assert work.batch == 2
    assert ops <= {call.op for call in calls_of(work)}
    assert ops <= {call.op for call in calls_of(work)}, "a second step does the same"


@pytest.mark.parametrize(
    ("op", "shape", "reason"),
    [
        ("conv", "2,3,8x8", "has 3 parts and does not fit 'conv': write N,C,HxW,K,RxS"),
        ("conv", "2,3,8x8,4,3x3,1,0,1,1", "has 9 parts"),
        ("conv", "2,3,8x8,4,9x9", "the kernel is 9 pixels high"),
        ("conv", "2,3,8x8,4,3x3,0", "stride"),
        ("conv", "2,3,8x8,4,3x3,1,some", "'some' is neither a number nor HxW"),
        ("conv", "2,3,8x8,4,3x3,1,1,2", "divisible by groups"),
        ("conv", "0,3,8x8,4,3x3", "N must be at least 1"),
        ("conv", "2x2,3,8x8,4,3x3", "N must be an integer"),
        ("conv", "-2,3,8x8,4,3x3", "'-2' is neither"),
        ("conv", "", "has 1 parts"),
        ("pool", "2,3,8x8,2x2,1,2", "over half of a pooling window"),
        ("dense", "2,5,3x3", "integer"),
        ("softmax", "2,0", "at least 1"),
    ],
)
def test_a_shape_that_does_not_fit_is_refused(op: str, shape: str, reason: str) -> None:
    with pytest.raises(ShapeError) as caught:
        workload.of_operation(op, shape, get_device("cpu"), Observer())
    assert reason in str(caught.value), caught.value


def test_unknown_names_are_refused_with_those_that_there_are() -> None:
    with pytest.raises(UnknownNameError, match=r"keras, tf2, lenet5x5.*model\.safetensors"):
        model("kera")
    with pytest.raises(UnknownNameError, match="--shape goes with --op conv, pool"):
        workload.of_operation("loss", "2,3", get_device("cpu"), Observer())
    with pytest.raises(GpucnnError, match=r"none\.safetensors"):
        model("none.safetensors")
    with pytest.raises(ArgumentError, match="batch size must be at least 1"):
        model(batch=0)


def test_a_selection_is_of_an_operation_or_a_layer() -> None:
    work = model()
    calls = calls_of(work)

    def taken(**options: str) -> list[Call]:
        selection = Selection(**options)
        selection.check(work.model)
        return [call for call in calls if selection.takes(call, work.model)]

    assert len(taken()) == len(calls)
    assert {kind_of(call.op) for call in taken(op="dense")} == {"dense"}
    assert {call.layer for call in taken(layer="5")} == {call.layer for call in taken(layer="dense_2")} == {"dense_2"}
    assert taken(layer="1") and taken(layer="2"), "of a stage of two layers, each is a name"
    for wrong in ({"op": "sum"}, {"layer": "6"}, {"layer": "0"}, {"layer": "dense_3"}):
        with pytest.raises(UnknownNameError):
            taken(**wrong)


def test_memory_is_what_the_arrays_take() -> None:
    work = model(batch=64)
    work.step()
    found = memory.of_step(work)
    parameters = work.model.buffers.values.nbytes
    assert found["parameters"] == found["gradients"] == parameters
    assert found["optimizer state"] == 2 * parameters
    assert found["batch and labels"] == 64 * (28 * 28 * 4 + 4)
    kept = 64 * 32 * 13 * 13 * 4  # the pooled values, kept for the dense layer
    assert found["activations kept for backward"] >= 2 * kept  # and where they came from
    assert found["gradients on the way and workspaces"] >= kept


def test_a_virtual_gpu_is_measured_only_where_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its times are those of the CPU that imitates it."""
    monkeypatch.setattr(run, "why_no_cuda", lambda: None)
    monkeypatch.setattr(run, "why_not_auto", lambda: "virtual H100 (CPU) runs on the CPU")
    with pytest.raises(DeviceError, match=r"there is no GPU to measure \(virtual H100 .*--arch H100"):
        run.make(run.Options(device="auto"), say=lambda text: None)


def test_a_model_is_named_by_its_file_or_the_folder_of_its_run(tmp_path: Path) -> None:
    net = gc.Sequential(gc.Flatten(), gc.Dense(3)).build((1, 8, 8), device="cpu").compile("sgd")
    net.save(tmp_path / "model.safetensors")
    calls = [[(call.layer, call.op) for call in calls_of(model(str(name)))] for name in (tmp_path, tmp_path / "model.safetensors")]
    assert calls[0] == calls[1] != []
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(CheckpointError, match=r"is a folder without model\.safetensors"):
        model(str(empty))
    with pytest.raises(UnknownNameError, match=r"or name a model\.safetensors that train wrote, or its folder"):
        model(str(tmp_path / "nothing"))


def test_calls_of_layers_within_others_are_theirs(tmp_path: Path) -> None:
    block = gc.Residual(gc.Stack(gc.Conv2D(2, 3, padding="same", activation="relu"), gc.MaxPool2D(3, stride=1, padding=1)), gc.Conv2D(1, 1))
    net = gc.Sequential(gc.SeparableConv2D(1, 3, padding="same"), block, gc.Flatten(), gc.Dense(3))
    net.build((1, 8, 8), device="cpu").compile("sgd").save(tmp_path / "model.safetensors")
    work = model(str(tmp_path / "model.safetensors"))
    found = {(call.layer, call.op) for call in calls_of(work)}
    fused = "residual_1.stack_1.conv2d_1+residual_1.stack_1.maxpool2d_1"
    assert {
        ("separableconv2d_1.depthwise", "conv2d"),
        ("separableconv2d_1.pointwise", "conv2d"),
        (fused, "conv2d_relu_max_pool2d"),
        ("residual_1.conv2d_1", "conv2d_weight_grad"),
        ("residual_1", "add"),
        ("sgd", "sgd_update"),
    } <= found
    assert {call.layer for call in calls_of(work) if Selection(layer="residual_1").takes(call, work.model)} == {
        "residual_1",
        "residual_1.conv2d_1",
        fused,
    }
    taken = {call.op for call in calls_of(work) if Selection(layer="separableconv2d_1.pointwise").takes(call, work.model)}
    assert taken == {"conv2d", "conv2d_weight_grad", "conv2d_input_grad"}
    with pytest.raises(UnknownNameError, match=r"there is no layer 'residual_1\.dense_1'"):
        Selection(layer="residual_1.dense_1").check(work.model)
