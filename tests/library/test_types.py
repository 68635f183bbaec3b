"""What a type checker says of programs that use gpucnn: nothing of right ones, and the right line of wrong ones."""

import inspect
import os
import subprocess
import sys
import typing
from pathlib import Path

import pytest

import gpucnn as gc
from gpucnn import signatures
from gpucnn.layers.activations import ACTIVATIONS
from gpucnn.layers.base import Layer

PROGRAM = """
import numpy as np
import gpucnn as gc
import gpucnn.functional as F

model = gc.Sequential(
    gc.Conv2D(32, 3, activation="relu"),
    gc.Conv2D(32, (3, 5), stride=2, padding="same", dilation=(1, 2)),
    gc.Conv2D(8, 1, padding=((1, 0), (2, 2))),
    gc.MaxPool2D(2, 2), gc.AvgPool2D(), gc.ZeroPad2D(((1, 1), (0, 2))),
    gc.Flatten(),
    gc.Dense(10, activation="softmax"),
)
model.build((1, 28, 28), data_format="channels_last")
model.compile(optimizer=gc.Adam(1e-3), loss="categorical_crossentropy", metrics=["accuracy"])
history: gc.History = model.fit(np.zeros((4, 1, 28, 28), np.uint8), np.zeros(4, np.int64), epochs=1, class_weight={0: 1.0})
losses: list[float] = history["loss"]
best: int = int(model.predict(np.zeros((1, 1, 28, 28), np.uint8)).argmax())
data: gc.data.Dataset = gc.load_dataset("digits", image_size=(8, 8))
shape: tuple[int, int, int] = data.image_shape
y = F.conv2d(np.zeros((1, 1, 5, 5)), np.zeros((2, 1, 3, 3)), stride=(1, 2), padding="same")
optimizer = gc.SGD(lambda step: 0.1 / (1 + step))
optimizer.learning_rate = gc.Cosine(0.1, 10)
optimizer.learning_rate = lambda step: 0.1
model.parameters["dense_1.bias"] = np.zeros(10)
model.parameters["dense_1.bias"].add_grad(np.zeros(10))
count: int = model.parameters["dense_1.bias"].size

gc.Conv2D(32, "three")  # wrong
gc.Conv2D(32, 3, activation="rellu")  # wrong
gc.Conv2D(32, "three", activation="rellu")  # wrong
gc.Conv2D(32, (3, 3, 3))  # wrong
gc.Conv2D(32, 3, padding="some")  # wrong
gc.Conv2D("32", 3)  # wrong
gc.Dense(10, activation="linera")  # wrong
gc.MaxPool2D("2")  # wrong
gc.ZeroPad2D("same")  # wrong
gc.ConvTranspose2D(8, 3, stride=1.5)  # wrong
gc.SeparableConv2D(8, 3, activation=3)  # wrong
gc.Adam("fast")  # wrong
gc.Adam(lambda: 0.1)  # wrong
model.fit(np.zeros(4), epochs="many")  # wrong
model.predict(np.zeros(4), data_format="last")  # wrong
model.compile(metrics=3)  # wrong
gc.load_dataset(3)  # wrong
F.conv2d(np.zeros((1, 1, 5, 5)), np.zeros((2, 1, 3, 3)), padding="all")  # wrong
text: str = history["loss"]  # wrong
"""


@pytest.mark.slow
def test_a_checker_finds_what_is_wrong_and_nothing_else(tmp_path):
    pytest.importorskip("mypy", reason="mypy is not installed")
    (tmp_path / "program.py").write_text(PROGRAM)
    root = Path(gc.__file__).parent.parent
    (tmp_path / "mypy.ini").write_text(
        "[mypy]\nstrict = True\n[mypy-numba.*,cupy.*,safetensors.*,threadpoolctl.*]\nignore_missing_imports = True\nfollow_imports = skip\n"
    )
    ran = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "program.py"],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": f"{root}{os.pathsep}{root / 'kernels'}"},
        capture_output=True,
        text=True,
    )
    said = {int(line.split(":")[1]) for line in ran.stdout.splitlines() if line.startswith("program.py:") and ": error: " in line}
    wrong = {number for number, line in enumerate(PROGRAM.splitlines(), 1) if line.endswith("# wrong")}
    assert said == wrong, ran.stdout + ran.stderr


def test_names_in_signatures_are_those_that_there_are():
    assert set(typing.get_args(signatures.ActivationName)) == set(ACTIVATIONS)
    for name in typing.get_args(signatures.ActivationName):
        gc.Dense(3, activation=name)
    for name in typing.get_args(typing.get_args(signatures.Padding)[-1]):
        gc.Conv2D(3, 3, padding=name)


@pytest.mark.parametrize("layer", [kind for kind in vars(gc).values() if isinstance(kind, type) and issubclass(kind, Layer)])
def test_no_argument_of_a_layer_is_of_any_type(layer):
    """But what takes arrays and layers, and what is handed on to the class below."""
    loose = [
        name
        for name, parameter in inspect.signature(layer.__init__).parameters.items()
        if name != "self" and parameter.kind is not parameter.VAR_KEYWORD and parameter.annotation in ("Any", inspect.Parameter.empty)
    ]
    assert loose == []
