"""state_dicts of PyTorch's, from both kinds of files, into networks here; and files that mean harm."""

from __future__ import annotations

import json
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import gpucnn as gc
from gpucnn.errors import ArgumentError, CheckpointError
from gpucnn.exchange import NotTakenError, import_model, import_state

APART = 1e-5


@pytest.fixture(scope="module")
def torch() -> Any:
    return pytest.importorskip("torch", reason="PyTorch is not installed")


def theirs(torch: Any) -> Any:
    """Two convolutions of one shape, two normalizations of one shape, a transposed convolution, a dense layer behind a flatten."""
    nn = torch.nn
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3, groups=2),
        nn.ReLU(),
        nn.ConvTranspose2d(4, 3, 2),
        nn.Flatten(),
        nn.Linear(3 * 5 * 4, 7, bias=False),
        nn.Linear(7, 2),
    )
    for name, array in (*module.named_parameters(), *module.named_buffers()):
        if array.is_floating_point() and array.ndim == 1:
            array.data.uniform_(0.5 if "var" in name else -0.3, 1.0)
    return module.eval()


def ours() -> gc.Sequential:
    return gc.Sequential(
        gc.Conv2D(4, 3),
        gc.BatchNorm2D(activation="relu"),
        gc.Conv2D(4, 3),
        gc.BatchNorm2D(activation="relu"),
        gc.Conv2D(4, 3, groups=2, activation="relu"),
        gc.ConvTranspose2D(3, 2),
        gc.Flatten(),
        gc.Dense(7, use_bias=False),
        gc.Dense(2),
    ).build((1, 10, 9), device="cpu")


def check(torch: Any, model: gc.Sequential, module: Any, within: float = APART) -> None:
    x = np.random.default_rng(0).normal(0, 1, (3, 1, 10, 9)).astype(np.float32)
    with torch.no_grad():
        np.testing.assert_allclose(model.predict(x), module(torch.tensor(x)).numpy(), rtol=within, atol=within)


def test_both_kinds_of_files(torch: Any, tmp_path: Path) -> None:
    from safetensors.torch import save_file as save_torch

    module = theirs(torch)
    save_torch(module.state_dict(), str(tmp_path / "m.safetensors"))
    torch.save(module.state_dict(), tmp_path / "m.pt")
    torch.save({"epoch": 3, "lr": [0.1, None, True], "state_dict": module.state_dict()}, tmp_path / "run.pth")
    for name in ("m.safetensors", "m.pt", "run.pth"):
        model = ours()
        pairs = import_state(tmp_path / name, model)
        check(torch, model, module)
        assert pairs["conv2d_2.weight"] == "3.weight" and pairs["batchnorm2d_2.running_variance"] == "4.running_var"
        assert set(pairs) == {*model.parameters, *model.arrays}
        model.parameters["dense_2.bias"].value = [0, 0]  # or a network that had been right before would be as good
        with pytest.raises(AssertionError):
            check(torch, model, module)


def test_a_residual_network_by_name(torch: Any, tmp_path: Path) -> None:
    """As PyTorch's users write it: the blocks of the network that is called resnet here, in modules of names of their own."""
    nn = torch.nn

    class Block(nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self, i: int, o: int, stride: int) -> None:
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o)
            self.conv2, self.bn2 = nn.Conv2d(o, o, 3, 1, 1, bias=False), nn.BatchNorm2d(o)
            self.downsample = nn.Sequential(nn.Conv2d(i, o, 1, stride, bias=False), nn.BatchNorm2d(o)) if stride > 1 else nn.Identity()

        def forward(self, x: Any) -> Any:
            y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
            return torch.relu(y + self.downsample(x))

    torch.manual_seed(0)
    sizes = ((16, 16, 1), (16, 16, 1), (16, 32, 2), (32, 32, 1), (32, 64, 2), (64, 64, 1))
    stem = (nn.Conv2d(1, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
    module = nn.Sequential(*stem, *(Block(*each) for each in sizes), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))
    for name, array in (*module.named_parameters(), *module.named_buffers()):
        if array.is_floating_point() and array.ndim == 1:
            array.data.uniform_(0.5 if "var" in name else -0.3, 1.0)
    torch.save(module.eval().state_dict(), tmp_path / "m.pt")
    # On sides of 29 PyTorch's padding, one pixel all round, is what "same" is at a stride of 2; on even ones it is not.
    model = gc.network("resnet").build((1, 29, 29), device="cpu")
    import_state(tmp_path / "m.pt", model)
    x = np.random.default_rng(0).random((2, 1, 29, 29), np.float32)
    with torch.no_grad():
        np.testing.assert_allclose(model.predict(x), module(torch.tensor(x)).numpy(), rtol=1e-4, atol=1e-4)
    # Its names alone do not tell the second normalization of a block from that of the shortcut.
    save_file({name: array.numpy() for name, array in module.state_dict().items()}, tmp_path / "m.safetensors")
    with pytest.raises(NotTakenError, match=r"5\.bn2 and 5\.downsample\.1 have the same shapes, and their order is unknown"):
        import_state(tmp_path / "m.safetensors", model)


def test_floats_of_other_widths_and_tensors_that_share_a_storage(torch: Any, tmp_path: Path) -> None:
    from safetensors.torch import save_file as save_torch

    for kind, within in (("float16", 0), ("bfloat16", 0), ("float64", APART)):
        module = theirs(torch).to(getattr(torch, kind))
        save_torch(module.state_dict(), str(tmp_path / "m.safetensors"))
        torch.save(module.state_dict(), tmp_path / "m.pt")
        back = module.to(torch.float32)
        for name in ("m.safetensors", "m.pt"):
            model = ours()
            import_state(tmp_path / name, model)
            check(torch, model, back, within or APART)
    module = theirs(torch)
    flat = torch.arange(40.0)
    state = module.state_dict()
    state["10.weight"] = torch.arange(420.0).reshape(60, 7).T / 100  # transposed: its rows are not one behind the other
    state["1.weight"], state["4.weight"] = flat[3:7], flat[0:16:4]
    module.load_state_dict(state)
    torch.save(state, tmp_path / "m.pt")
    model = ours()
    import_state(tmp_path / "m.pt", model)
    check(torch, model, module, 1e-4)
    np.testing.assert_array_equal(model.parameters["dense_1.weight"].value, state["10.weight"].numpy())
    np.testing.assert_array_equal(model.parameters["batchnorm2d_2.weight"].value, [0, 4, 8, 12])


def state(**shapes: tuple[int, ...]) -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(0)
    return {name.replace("__", "."): rng.normal(0, 1, shape).astype(np.float32) for name, shape in shapes.items()}


def two() -> gc.Sequential:
    return gc.Sequential(gc.Conv2D(2, 3, padding="same", use_bias=False), gc.Conv2D(2, 3, use_bias=False)).build((2, 5, 5), device="cpu")


def test_names_that_do_not_say_the_order_ask_for_a_map(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    tensors = state(stem__weight=(2, 2, 3, 3), last__weight=(2, 2, 3, 3))
    save_file(tensors, path)
    model = two()
    before = {name: array.value.copy() for name, array in model.parameters.items()}
    with pytest.raises(NotTakenError, match=r"last and stem have the same shapes, and their order is unknown: give it in a map"):
        import_state(path, model)
    for name, value in before.items():
        np.testing.assert_array_equal(model.parameters[name].value, value)
    for names in ({"stem": "conv2d_1", "last": "conv2d_2"}, {"stem.weight": "conv2d_1.weight"}):
        import_state(path, model, names)
        np.testing.assert_array_equal(model.parameters["conv2d_1.weight"].value, tensors["stem.weight"])
        np.testing.assert_array_equal(model.parameters["conv2d_2.weight"].value, tensors["last.weight"])
    for wrong, words in (
        ({"sten": "conv2d_1"}, r"refers to 'sten', and .* has last\.weight, stem\.weight"),
        ({"stem": "conv_1"}, r"refers to 'conv_1\.weight', and the network has conv2d_1\.weight"),
        ({"stem": "conv2d_1", "last": "conv2d_1"}, r"gives 'conv2d_1\.weight' two tensors"),
        ({"stem": 1}, "has strings for strings"),
    ):
        with pytest.raises(ArgumentError, match=words):
            import_state(path, model, wrong)


def test_a_built_model_can_be_what_they_go_into(tmp_path: Path) -> None:
    tensors = state(a1__weight=(2, 2, 3, 3), a2__weight=(2, 2, 3, 3))
    save_file(tensors, tmp_path / "m.safetensors")
    model = two()
    assert import_model(tmp_path / "m.safetensors", network=model) is model
    np.testing.assert_array_equal(model.parameters["conv2d_2.weight"].value, tensors["a2.weight"])
    with pytest.raises(ArgumentError, match="has its own input shape"):
        two().save(tmp_path / "own.safetensors")
        import_model(tmp_path / "m.safetensors", network=str(tmp_path / "own.safetensors"), input_shape=(2, 5, 5), device="cpu")
    for more in ({"input_shape": (2, 5, 5)}, {"classes": 3}):
        with pytest.raises(ArgumentError, match="a built network has its own input shape and number of classes: leave out yours"):
            import_model(tmp_path / "m.safetensors", network=model, **more)


def test_numbers_in_names_count_as_numbers(tmp_path: Path) -> None:
    tensors = state(**{f"layers__{number}__weight": (2, 2, 3, 3) for number in (10, 9)})
    save_file(tensors, tmp_path / "m.safetensors")
    model = two()
    import_state(tmp_path / "m.safetensors", model)
    np.testing.assert_array_equal(model.parameters["conv2d_1.weight"].value, tensors["layers.9.weight"])


def test_shapes_that_occur_once_need_no_order(tmp_path: Path) -> None:
    tensors = state(b__weight=(3, 2, 3, 3), a__weight=(2, 3, 1, 1), z__weight=(4, 18), z__bias=(4,))
    save_file(tensors, tmp_path / "m.safetensors")
    layers = [gc.Conv2D(3, 3, use_bias=False), gc.Conv2D(2, 1, use_bias=False), gc.Flatten(), gc.Dense(4)]
    model = gc.Sequential(layers).build((2, 5, 5), device="cpu")
    import_state(tmp_path / "m.safetensors", model)
    np.testing.assert_array_equal(model.parameters["conv2d_1.weight"].value, tensors["b.weight"])
    np.testing.assert_array_equal(model.parameters["conv2d_2.weight"].value, tensors["a.weight"])


def test_what_does_not_fit_is_named_and_nothing_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    cases = (
        (state(a__weight=(2, 2, 3, 3)), "the network has 2 convolution modules and the file 1"),
        (state(a1__weight=(2, 2, 3, 3), a2__weight=(2, 2, 5, 5)), r"conv2d_2 \(2, 2, 3, 3\) is where the file has a2 \(2, 2, 5, 5\)"),
        (state(a1__weight=(2, 2, 3, 3), a2__weight=(2, 2, 3, 3), fc__weight=(3, 4)), "0 dense layer modules and the file 1"),
        (state(a1__weight=(2, 2, 3, 3), a2__weight=(2, 2, 3, 3), a2__bias=(2,)), "conv2d_2 .* is where the file has a2"),
        (
            state(a1__weight=(2, 2, 3, 3), a2__weight=(2, 2, 3, 3), scale=()),
            "0 other layer modules and the file 1: here none, there scale ()",
        ),
    )
    for tensors, words in cases:
        save_file(tensors, path)
        model = two()
        before = model.parameters["conv2d_1.weight"].value.copy()
        with pytest.raises(NotTakenError, match=words):
            import_state(path, model)
        np.testing.assert_array_equal(model.parameters["conv2d_1.weight"].value, before)
    bad = state(a1__weight=(2, 2, 3, 3), a2__weight=(2, 2, 3, 3))
    bad["a2.weight"][0, 0, 0, 0] = np.inf
    save_file(bad, path)
    with pytest.raises(CheckpointError, match=r"a2\.weight contains NaN or infinity"):
        import_state(path, model)
    np.testing.assert_array_equal(model.parameters["conv2d_1.weight"].value, before)


def test_safetensors_that_are_none_or_ours_already(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_file(state(a1__weight=(2, 2, 3, 3), a2__weight=(2, 2, 3, 3)), path)
    whole = path.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + length])
    header["a1.weight"]["shape"] = [1 << 62, 4]
    huge = json.dumps(header).encode()
    grown = struct.pack("<Q", len(huge)) + huge + whole[8 + length :]
    for content in (b"", b"x", whole[:-1], whole[:50], struct.pack("<Q", 1 << 63) + whole[8:], grown):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"is not a safetensors file, or was cut short|is empty"):
            import_state(path, two())
    two().save(path)
    with pytest.raises(CheckpointError, match="is already a gpucnn model"):
        import_state(path, two())
    with pytest.raises(ArgumentError, match=r"must end in \.safetensors, \.pt, \.pth"):
        import_state(tmp_path / "m.bin", two())


# Files by hand: pickles are programs, and none of these is run.


def archive(path: Path, program: bytes, numbers: dict[str, bytes] | None = None, compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("m/data.pkl", program)
        for key, content in (numbers or {"0": bytes(4 * 36)}).items():
            file.writestr(f"m/data/{key}", content)
    return path


def program(shape: tuple[int, ...] = (2, 2, 3, 3), strides: tuple[int, ...] = (18, 9, 3, 1), count: int = 36, offset: int = 0) -> bytes:
    """What torch.save writes of {"a1.weight": a tensor, "a2.weight": the same}, with sizes as they are given."""

    def text(words: str) -> bytes:
        return b"X" + struct.pack("<I", len(words)) + words.encode()

    def whole(*values: int) -> bytes:
        parts = [value.to_bytes(9, "little", signed=True) for value in values]
        return b"".join(b"\x8a" + bytes([len(part)]) + part for part in parts)

    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + whole(count) + b"tQ"
    sizes = whole(offset) + b"(" + whole(*shape) + b"t(" + whole(*strides) + b"t"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + sizes + b"\x89}tR"
    return b"\x80\x02}(" + text("a1.weight") + tensor + text("a2.weight") + tensor + b"u."


def test_the_file_by_hand_is_right(tmp_path: Path) -> None:
    values = np.arange(36, dtype=np.float32)
    model = two()
    import_state(archive(tmp_path / "m.pt", program(), {"0": values.tobytes()}), model)
    np.testing.assert_array_equal(model.parameters["conv2d_2.weight"].value, values.reshape(2, 2, 3, 3))


class Harm:
    def __init__(self, *what: Any) -> None:
        self.what = what

    def __reduce__(self) -> Any:
        return self.what[0], self.what[1:]


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_programs_are_not_run(protocol: int, tmp_path: Path) -> None:
    mark = tmp_path / "run"
    for harm in (
        Harm(os.system, f"touch {mark}"),
        Harm(eval, f"open({str(mark)!r}, 'w')"),
        Harm(getattr, "x", "y"),
        {"a": Harm(os.mkdir, str(mark))},
    ):
        path = archive(tmp_path / "m.pt", pickle.dumps(harm, protocol))
        with pytest.raises(CheckpointError, match=r"contains more than tensors|is damaged"):
            import_state(path, two())
        assert not mark.exists()


def test_whole_models_are_told_what_to_save(torch: Any, tmp_path: Path) -> None:
    torch.save(theirs(torch), tmp_path / "m.pt")
    with pytest.raises(CheckpointError, match=r"an object of torch\.nn\.modules\.container\.Sequential: save model\.state_dict\(\)"):
        import_state(tmp_path / "m.pt", ours())
    torch.save([torch.zeros(2)], tmp_path / "m.pt")
    with pytest.raises(CheckpointError, match="contains a list, not a state_dict"):
        import_state(tmp_path / "m.pt", ours())
    torch.save({"a": torch.zeros(2), "b": 3}, tmp_path / "m.pt")
    with pytest.raises(CheckpointError, match="contains a int as 'b', not a tensor"):
        import_state(tmp_path / "m.pt", ours())
    torch.save(theirs(torch).state_dict(), tmp_path / "m.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match=r"is not a PyTorch file of version 1\.6 or later"):
        import_state(tmp_path / "m.pt", ours())


@pytest.mark.parametrize(
    "content, words",
    [
        (program(count=1 << 62), "is incomplete"),
        (program(shape=(1 << 31, 1 << 31, 1, 1)), "is where the file has"),
        (program(strides=(1 << 40, 9, 3, 1)), "is incomplete"),
        (program(strides=(-18, 9, 3, 1)), "is incomplete"),
        (program(offset=1), "is incomplete"),
        (program(offset=-1), "is incomplete"),
        (program(shape=(2, 2, 3, 4)), "is where the file has"),
        (b"", "is damaged"),
        (b"\x80\x02", "is damaged"),
        (b"\x80\x02}.", "contains no tensors"),
        (b"\x80\x02.", "is damaged"),
        (b"\x80\x02]q\x00h\x01.", "is damaged"),
        (b"\x80\x02}(K\x01u.", "is damaged"),
        (b"\x80\x02" + b"(" * 100_000 + b".", "is damaged"),
        (b"\x80\x02" + b"N" * 1_100_000 + b".", "more than 1,000,000 steps"),
        (b"\x80\x04\x8d" + struct.pack("<Q", 1 << 62) + b"x.", "is damaged"),
        (b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b"x.", "is damaged"),
        (b"\x80\x02}r" + struct.pack("<I", (1 << 31) - 1) + b".", "contains no tensors"),  # a place in the memo that C would make room for
    ],
)
def test_pickles_that_are_wrong(content: bytes, words: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=words):
        import_state(archive(tmp_path / "m.pt", content), two())


def test_archives_that_mean_harm(tmp_path: Path) -> None:
    path = archive(tmp_path / "m.pt", program(count=10 << 20), {"0": bytes(40 << 20)}, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 1 << 20
    with pytest.raises(CheckpointError, match=r"unpacks to 40\.0 MiB: models do not compress that much"):
        import_state(path, two())
    with pytest.raises(CheckpointError, match="leaves the archive"):
        import_state(archive(path, program(), {"../../0": b""}), two())
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("m/data.pkl", program())
        file.writestr("m/code/__torch__.py", "")
    with pytest.raises(CheckpointError, match="is a TorchScript model"):
        import_state(path, two())
    whole = archive(path, program()).read_bytes()
    for cut in (10, len(whole) // 2, len(whole) - 5):
        path.write_bytes(whole[:cut])
        with pytest.raises(CheckpointError, match="or was cut short"):
            import_state(path, two())
