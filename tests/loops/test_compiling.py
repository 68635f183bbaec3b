"""What a network needs is compiled before its first step, said in a line on a terminal, and nothing of that is left in the model."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpucnn as gc
from gpucnn.losses import get_loss
from gpucnn_loops import direct, loops, machine, tile
from gpucnn_loops.loops import rehearsal

Program = Callable[..., subprocess.CompletedProcess[str]]

TRAIN = """
import sys
import numpy as np, gpucnn as gc
import gpucnn.ops.cpu._engine as engine
engine.is_terminal = lambda stream: {terminal}
x, y = np.zeros((4, 1, 12, 12), "float32"), np.zeros(4, int)
model = gc.Sequential(gc.Conv2D(16, 3, activation="relu"), gc.MaxPool2D(2), gc.Flatten(), gc.Dropout(0.5), gc.Dense(10))
model.build((1, 12, 12), seed=1, device="cpu").compile("adam")
steps = []
class Watch(gc.Callback):
    def on_train_begin(self, run):
        from gpucnn_loops import loops
        steps.append(set(loops.compiled))
model.fit(x, y, batch_size=4, epochs=2, verbose=False, callbacks=[Watch()])
model.fit(x, y, batch_size=4, epochs=1, verbose=False)
from gpucnn_loops import loops
print(len(loops.compiled), len(steps[0]))
"""


def test_before_the_first_step_with_one_line(program: Program, tmp_path: Path) -> None:
    done = program(TRAIN.format(terminal=True), GPUCNN_LOOP_CACHE=str(tmp_path))
    assert done.returncode == 0, done.stderr
    whole, before = map(int, done.stdout.split())
    assert whole == before > 5
    assert re.fullmatch(rf"compiling {whole} loops for this machine, once: \d+ s\n", done.stderr)
    again = program(TRAIN.format(terminal=True), GPUCNN_LOOP_CACHE=str(tmp_path))
    assert again.returncode == 0 and again.stdout.split() == ["0", "0"] and again.stderr == ""


def test_a_second_network_has_a_line_of_its_own(program: Program, tmp_path: Path) -> None:
    """Also one that comes to a machine where others have been compiled: in the library, and in the same process."""
    text = """
import numpy as np, gpucnn as gc
import gpucnn.ops.cpu._engine as engine
from gpucnn_loops import loops
engine.is_terminal = lambda stream: True
def fit(*layers):
    before = len(loops.compiled)
    model = gc.Sequential(*layers, gc.Flatten(), gc.Dense(3)).build((1, 12, 12), seed=1, device="cpu").compile("sgd")
    model.fit(np.zeros((4, 1, 12, 12), "float32"), np.zeros(4, int), epochs=1, verbose=False)
    print(len(loops.compiled) - before)
for layers in [LAYERS]:
    fit(*layers)
"""
    first = program(text.replace("[LAYERS]", "[[]]"), GPUCNN_LOOP_CACHE=str(tmp_path))
    assert first.returncode == 0, first.stderr
    layers = "[[], [gc.AvgPool2D(2)], [gc.AvgPool2D(2)], [gc.MaxPool2D(2)]]"
    done = program(text.replace("[LAYERS]", layers), GPUCNN_LOOP_CACHE=str(tmp_path))
    assert done.returncode == 0, done.stderr
    counts = [int(count) for count in done.stdout.split()]
    assert counts[0] == counts[2] == 0 and min(counts[1], counts[3]) > 0
    assert re.findall(r"compiling (\d+) loops? for this machine, once: \d+ s\n", done.stderr) == [str(counts[1]), str(counts[3])]
    assert done.stderr.count("\n") == 2


def test_a_large_model_is_not_copied_to_find_out(program: Program, tmp_path: Path) -> None:
    text = """
import copy
import numpy as np, gpucnn as gc
import gpucnn.ops.cpu._engine as engine
engine.is_terminal, engine.MOST_COPIED = lambda stream: True, 100
gc.functional.relu(np.zeros(3, "float32"))
engine.compile_for(lambda: print("rehearsed"), 100)
engine.compile_for(lambda: print("too large"), 101)
"""
    assert program(text, GPUCNN_LOOP_CACHE=str(tmp_path)).stdout.split() == ["rehearsed", "too", "large"]  # it has compiled something
    assert program(text, GPUCNN_LOOP_CACHE=str(tmp_path)).stdout.split() == ["rehearsed"]


def test_a_processor_that_numba_takes_for_another_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from gpucnn_loops import _numba

    monkeypatch.setattr(machine, "processor", lambda: ("x86_64", "znver9", "+fast"))
    with pytest.raises(ImportError, match="this machine is taken for znver9: processors are named in NUMBA_CPU_NAME and"):
        _numba.compile(tile.product)


def test_a_loop_that_needs_more_of_numba_gets_it(program: Program, tmp_path: Path) -> None:
    """The smallest of floats, which Numba has in Python; and a loop of this package after it."""
    (tmp_path / "more.py").write_text("""
import numpy as np
from gpucnn_loops import _numba, turn
from gpucnn_loops.loops import loop
from gpucnn_loops.threads import address
from gpucnn_loops.vector import load, store
@loop("f* f*")
def smallest(x, y):
    store(y, 0, load(x, 0) + load(x, 0))
    y[16] = min(x[3], x[1])
x, y = np.arange(16, dtype=np.float32) + np.float32(0.5), np.zeros(17, np.float32)
smallest(address(x), address(y))
assert y.tolist() == [*(2 * x), 1.5] and len(_numba._targets) == 2
turn.fill(address(y), 17, 5)
assert (y == 5).all()
""")
    done = program(f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import more", GPUCNN_LOOP_CACHE="0")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("otherwise", "targets", "reason"),
    [
        (
            "from gpucnn_loops import _target\n"
            "def missing(self): raise AttributeError('there is no such pass\\nany more')\n"
            "_target.Pipeline.define_pipelines = missing",
            2,
            "AttributeError: there is no such pass",
        ),
        (
            "sys.modules['gpucnn_loops._target'] = None",
            1,
            "ModuleNotFoundError: import of gpucnn_loops._target halted; None in sys.modules",
        ),
    ],
    ids=["while-it-compiles", "when-it-is-imported"],
)
def test_a_numba_that_is_made_otherwise_compiles_as_a_whole(program: Program, otherwise: str, targets: int, reason: str) -> None:
    """Whatever the target of this package's own finds missing, Numba's takes its place, which is said once."""
    text = f"""
import sys
import numpy as np
from gpucnn_loops import _numba, disk_cache, norm, turn
from gpucnn_loops.threads import address
said, x = [], np.zeros(3, np.float32)
disk_cache.complain = said.append
{otherwise}
turn.fill(address(x), 3, 5)
norm.channel_moments.prepare()
assert (x == 5).all() and len(_numba._targets) == {targets}
print(*said, sep="\\n")
"""
    done = program(text, GPUCNN_LOOP_CACHE="0")
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(rf"loops are compiled by all of Numba [\d.]+, in twice the time \({re.escape(reason)}\)\n", done.stdout), (
        done.stdout
    )


def test_a_model_is_rehearsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rehearsals = []
    monkeypatch.setattr(gc.Sequential, "_rehearse", lambda model, *_: rehearsals.append(model))
    monkeypatch.setitem(loops.compiled, "one", 0.0)  # there has been something to compile
    x, y = np.zeros((4, 1, 6, 6), np.float32), np.zeros(4, int)
    first, second = (gc.Sequential(gc.Flatten(), gc.Dense(4), gc.Dense(3)).build((1, 6, 6), device="cpu").compile("adam") for _ in range(2))
    for model in (first, second, first, second, first):
        model.fit(x, y, batch_size=4, verbose=False)
    assert rehearsals == [first, second]
    first.compile("sgd").fit(x, y, verbose=False)
    second.layers[1].trainable = False
    second.compile("adam").fit(x, y, verbose=False)
    assert rehearsals == [first, second, first, second]
    for count in (4, 3, 1, 4, 3, 2, 1):  # batches of as many: other loops may suit them
        first.fit(x[:count], y[:count], verbose=False)
    assert rehearsals == [first, second, first, second, first, first, first]


def test_nothing_is_said_where_nobody_looks(program: Program, tmp_path: Path) -> None:
    layers = re.sub(r"Sequential\(.*\)", "Sequential(gc.Flatten(), gc.Dense(10))", TRAIN.format(terminal=False))
    done = program(layers, GPUCNN_LOOP_CACHE=str(tmp_path))
    assert done.returncode == 0 and done.stderr == "" and int(done.stdout.split()[0]) > 0


def test_one_operation_alone_says_that_it_compiles(program: Program, tmp_path: Path) -> None:
    text = """
import numpy as np
import gpucnn.functional as F, gpucnn.ops.cpu._engine as engine
engine.is_terminal = lambda stream: True
F.relu(np.zeros(3, "float32"))
"""
    done = program(text, GPUCNN_LOOP_CACHE=str(tmp_path))
    assert done.stderr == "gpucnn is compiling loops for this machine, which takes a few seconds, once\n"


def test_a_rehearsal_writes_nothing_and_lists_what_is_called_first() -> None:
    y = np.full((1, 2, 3, 3), 7, np.float32)
    x, weight = np.ones((1, 1, 5, 5), np.float32), np.ones((2, 1, 3, 3), np.float32)
    from gpucnn.ops.shapes import conv_window

    plan = direct.Direct(1, 2, conv_window((5, 5), 3))
    with rehearsal() as needed:
        plan.forward(x, weight, None, False, y)
    assert (y == 7).all()
    assert needed.index(tile.product) < needed.index(direct.gather)
    assert len(set(map(id, needed))) == len(needed)
    assert not loops.rehearsing()
    plan.forward(x, weight, None, False, y)
    assert (y == 9).all()


def test_a_rehearsal_leaves_the_model_as_it_was() -> None:
    def model() -> gc.Sequential:
        made = gc.Sequential(gc.Conv2D(3, 3, activation="relu"), gc.MaxPool2D(2), gc.Flatten(), gc.Dropout(0.5), gc.Dense(10))
        return made.build((1, 12, 12), seed=1, device="cpu").compile("adam")

    rng = np.random.default_rng(0)
    x, y = rng.random((8, 1, 12, 12), dtype=np.float32), rng.integers(0, 10, 8)
    first, second = model(), model()
    with rehearsal():
        first._rehearse(get_loss("categorical_crossentropy"), y.astype(np.int32), [1, 2])
    for each in (first, second):
        each.fit(x, y, batch_size=4, epochs=2, verbose=False)
    np.testing.assert_array_equal(first.buffers.values, second.buffers.values)


def test_a_layer_that_cannot_predict_yet_spoils_no_rehearsal_of_the_training() -> None:
    class Late(gc.ReLU):
        def forward(self, x: Any, training: bool = False, **options: Any) -> Any:
            if not training:
                raise RuntimeError("not trained yet")
            return super().forward(x, training, **options)

    model = gc.Sequential(gc.Dense(40), Late(), gc.Dense(10)).build((70,), seed=1, device="cpu").compile("adam")
    labels, loss = np.zeros(64, np.int32), get_loss("categorical_crossentropy")
    with rehearsal() as alone:
        model._rehearse(loss, labels, [64])
    with rehearsal() as both:
        model._rehearse(loss, labels, [64], labels[:1], [64, 6])
    assert "update.adam" in {loop.name for loop in alone} <= {loop.name for loop in both}


def test_all_that_a_fit_calls_is_compiled_before_its_first_step(program: Program) -> None:
    """For batches of its size, and for the last one, which other loops may suit better; and nothing that neither calls.

    No loop is ready at first, as if the disk had none; but those that it has are not compiled again.
    """
    text = """
import numpy as np
import gpucnn as gc
from gpucnn_loops import compilers, disk_cache, loops
late, ready, prepare = [], [], compilers.prepare
def prepared(needed, processes):
    prepare(needed, processes)
    ready[:] = [loop.name for loop in needed]
compilers.prepare = prepared
compiling, preparing = loops.Loop.compile, loops.Loop.prepare
def compile(self):
    self._made = disk_cache.read(self.path)
    if self._made is None:
        compiling(self)
def prepare_one(self):
    if ready and not self.ready:
        late.append(self.name)
    preparing(self)
loops.Loop.compile, loops.Loop.prepare, loops.Loop.waits = compile, prepare_one, property(lambda self: not self.ready)
layers = gc.Conv2D(5, 3, activation="relu"), gc.MaxPool2D(2), gc.Flatten(), gc.Dense(40, activation="relu"), gc.Dense(10)
model = gc.Sequential(*layers).build((1, 28, 28), seed=1, device="cpu").compile("adam")
rng = np.random.default_rng(0)
data = rng.random((SIZE, 1, 28, 28), dtype=np.float32), rng.integers(0, 10, SIZE)
model.fit(*data, batch_size=32 if SIZE != 100 else 100, verbose=False, OTHER)
print(late, "dense.forward" in ready, "dense.forward_by_output" in ready, "dense.few_lanes_of" in ready)
"""
    for size, expected in ((64, "[] True False False"), (69, "[] True True True"), (4, "[] False True True")):
        done = program(text.replace("SIZE", str(size)).replace("OTHER", ""), GPUCNN_COMPILERS="1")
        assert done.stdout.strip() == expected, (size, done.stdout, done.stderr)
    for size in (5, 9, 100):  # which loops suit these depends on the processor
        done = program(text.replace("SIZE", str(size)).replace("OTHER", ""), GPUCNN_COMPILERS="1")
        assert done.stdout.startswith("[] "), (size, done.stdout, done.stderr)
    chunks, together = "gc.inception(2, (2, 3), (2, 3), 2), gc.GlobalAvgPool2D(), gc.Dense(10)", "gc.Flatten(), gc.Dense(10)"
    for layers in (chunks, together):  # a thread takes some images through all layers, or all threads take all images through each
        validated = re.sub("layers = .*", f"layers = [{layers}]", text.replace("SIZE", "150"))
        other = "epochs=2, validation_data=tuple(each[:74] for each in data)"
        done = program(validated.replace("OTHER", other), GPUCNN_COMPILERS="1")
        assert done.stdout.startswith("[] "), (layers, done.stdout, done.stderr)
    scored = text.replace("SIZE", "150").replace('compile("adam")', 'compile("adam", metrics=["accuracy", "top_5_accuracy"])')
    rows = text.replace("rng.integers(0, 10, SIZE)", "np.eye(10, dtype=np.float32)[rng.integers(0, 10, SIZE)]").replace("SIZE", "150")
    numbers = "validation_data=(data[0][:74], data[1][:74].argmax(axis=1))"  # labels in another form than in training
    for program_text in (scored.replace("OTHER", "validation_split=0.3"), rows.replace("OTHER", numbers)):
        done = program(program_text, GPUCNN_COMPILERS="1")
        assert done.stdout.startswith("[] "), (done.stdout, done.stderr)
    batches = "model.fit([(data[0][at : at + 32], data[1][at : at + 32]) for at in range(0, SIZE, 32)], verbose=False, OTHER)"
    listed = re.sub(r"model\.fit\(.*\)", batches, text).replace("SIZE", "69")
    once = listed.replace("fit([", "fit(iter([").replace("32)], ", "32)]), steps_per_epoch=2, ")  # a generator
    for program_text, expected in ((listed, "[] True True True"), (once, "[] True False False")):
        done = program(program_text.replace("OTHER", ""), GPUCNN_COMPILERS="1")
        assert done.stdout.strip() == expected, (done.stdout, done.stderr)
    validated = re.sub("layers = .*", f"layers = [{chunks}]", listed)
    done = program(validated.replace("OTHER", "validation_data=tuple(each[:37] for each in data)"), GPUCNN_COMPILERS="1")
    assert done.stdout.startswith("[] "), (done.stdout, done.stderr)
    wide = text.replace("SIZE", "100").replace("OTHER", "")
    wide = wide.replace("Dense(40", "Dense(256")  # for which AVX2 has other loops than for 64 examples
    avx2 = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+fma"} if "avx2" in machine.FEATURES else {}
    done = program(wide, GPUCNN_COMPILERS="1", **avx2)
    assert done.stdout.startswith("[] "), (done.stdout, done.stderr)
