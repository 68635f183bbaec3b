"""Real processes: killed at random moments, and stopped with Ctrl-C. Whatever happens, resuming ends in the same bits."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import gpucnn as gc
from gpucnn.training.checkpoint import load_tensors

# Trains with a checkpoint after every step and writes a digest of all that it ends with. A line at every step tells how far it is.
PROGRAM = """
import hashlib, json, sys
import numpy as np
import gpucnn as gc

path, pause = sys.argv[1], float(sys.argv[2])

class Report(gc.Callback):
    def on_step_end(self, run):
        print("step", run.epoch, run.step, flush=True)
        if pause:
            import time
            time.sleep(pause)

rng = np.random.default_rng(0)
x, y = rng.random((64, 1, 8, 8), dtype=np.float32), rng.integers(0, 4, 64)
model = gc.Sequential(gc.Conv2D(8, 3, activation="relu"), gc.MaxPool2D(2), gc.Flatten(), gc.Dropout(0.3),
                      gc.Dense(512, activation="relu"), gc.Dense(4))
model.build((1, 8, 8), seed=1, device="cpu")
model.compile(gc.Adam(gc.OneCycle(0.01, 6 * 8)))
history = model.fit(x, y, batch_size=8, epochs=6, validation_data=(x[:8], y[:8]), augment=gc.data.augmentation("shift"), verbose=False,
                    callbacks=[Report(), gc.Checkpoint(path, every=1), gc.EarlyStopping(patience=5)], resume=path)
rows = [{k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in history.rows]
digest = hashlib.sha256(model.buffers.values.tobytes())
for name in sorted(model.optimizer.state):
    digest.update(model.optimizer.state[name].tobytes())
print("digest", digest.hexdigest(), json.dumps([rows, model.optimizer.steps, model.state()]), flush=True)
"""


# Put before PROGRAM: the process kills itself at a given moment of writing its so-many-th checkpoint.
DYING = """
import os, signal, sys
from gpucnn.training import checkpoint

moment, count = sys.argv[3], int(sys.argv[4])
whole, calls = checkpoint.write_atomically, 0

def die(*args):
    os.kill(os.getpid(), signal.SIGKILL)

class Half:
    def __init__(self, file):
        self.file = file

    def write(self, content):
        self.file.write(content[: len(content) // 2])
        self.file.flush()
        die()

def write_atomically(path, write):
    global calls
    calls += 1
    if calls == count and moment != "write":
        setattr(os, moment, die)
    whole(path, (lambda file: write(Half(file))) if calls == count and moment == "write" else write)

checkpoint.write_atomically = write_atomically
"""


def start(path: Path, pause: float = 0.0, dying: tuple[str, int] | None = None) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "GPUCNN_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    program, arguments = (DYING + PROGRAM, [str(part) for part in dying]) if dying else (PROGRAM, [])
    command = [sys.executable, "-c", program, str(path), str(pause), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def finish(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return next(line for line in out.splitlines() if line.startswith("digest"))


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> str:
    return finish(start(tmp_path_factory.mktemp("unbroken") / "run.safetensors"))


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is a POSIX signal")
def test_a_process_killed_again_and_again_at_random_moments_ends_in_the_same_bits(unbroken: str, tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    moments = random.Random(4)
    killed = 0
    for _ in range(6):
        process = start(path)
        assert process.stdout is not None
        for _ in range(moments.randrange(1, 6)):
            if not process.stdout.readline().startswith("step"):
                break  # it is done
        time.sleep(moments.random() * 0.01)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
    assert killed >= 3
    assert finish(start(path)) == unbroken


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is a POSIX signal")
def test_a_process_killed_while_it_writes_a_checkpoint_leaves_the_one_before(unbroken: str, tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    done = 0
    for moment in ("write", "fsync", "replace"):
        process = start(path, dying=(moment, 5))
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
        done += 4  # of five checkpoints the last was never finished
        assert load_tensors(path)[1]["optimizer steps"] == done
    assert finish(start(path)) == unbroken


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT cannot be sent to one process on Windows")
def test_ctrl_c_writes_a_checkpoint_exits_by_keyboard_interrupt_and_resumes(unbroken: str, tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    process = start(path, pause=0.05)
    assert process.stdout is not None
    for _ in range(11):
        line = process.stdout.readline()
    assert line.split() == ["step", "1", "3"]  # eight lines an epoch
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    # Python ends by SIGINT itself after an uncaught KeyboardInterrupt, so that shells notice.
    assert process.returncode == -signal.SIGINT
    assert err.strip().endswith("KeyboardInterrupt")
    assert "digest" not in out
    assert os.listdir(tmp_path) == ["run.safetensors"]
    assert finish(start(path)) == unbroken


def small(callbacks: list[gc.Callback], path: Path | None = None, epochs: int = 2) -> gc.Sequential:
    rng = np.random.default_rng(0)
    model = gc.Sequential(gc.Dense(3)).build((4,), device="cpu").compile("adam")
    model.fit(rng.random((12, 4)), rng.integers(0, 3, 12), batch_size=4, epochs=epochs, callbacks=callbacks, resume=path, verbose=False)
    return model


class Press(gc.Callback):
    """Ctrl-C after a step, or after an epoch where step is 0."""

    def __init__(self, epoch: int, step: int, times: int = 1) -> None:
        self.moment, self.times = (epoch, step), times
        self.after = False

    def on_step_end(self, run: object) -> None:
        if (run.epoch, run.step) == self.moment:  # type: ignore[attr-defined]
            for _ in range(self.times):
                signal.raise_signal(signal.SIGINT)
            self.after = True

    on_epoch_end = on_step_end


@pytest.mark.parametrize("moment", [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0)])
def test_ctrl_c_at_any_moment_raises_after_the_checkpoint(moment: tuple[int, int], tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    expected = small([])
    press = Press(*moment)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        small([press, gc.Checkpoint(path, every=100)])
    assert press.after  # the first Ctrl-C is held back until the step is whole
    assert signal.getsignal(signal.SIGINT) is before
    counters = load_tensors(path)[1]["run"]
    assert (counters["epoch"], counters["step"]) == moment
    resumed = small([gc.Checkpoint(path)], path)
    np.testing.assert_array_equal(resumed.buffers.values, expected.buffers.values)


@pytest.mark.skipif(sys.platform == "win32", reason="SIGHUP is a POSIX signal")
@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 143), ("SIGHUP", 129)])
@pytest.mark.parametrize("moment", [(0, 2), (1, 0)])
def test_other_ends_write_a_checkpoint_too_and_exit_with_their_own_status(
    name: str, status: int, moment: tuple[int, int], tmp_path: Path
) -> None:
    number = getattr(signal, name)

    class End(Press):
        def on_step_end(self, run: object) -> None:
            if (run.epoch, run.step) == self.moment:  # type: ignore[attr-defined]
                signal.raise_signal(number)
                self.after = True

        on_epoch_end = on_step_end

    before = signal.signal(number, signal.SIG_DFL)
    try:
        end, path = End(*moment), tmp_path / "run.safetensors"
        with pytest.raises(SystemExit) as caught:
            small([end, gc.Checkpoint(path, every=100)])
        assert caught.value.code == status and end.after and signal.getsignal(number) is signal.SIG_DFL
        resumed = small([gc.Checkpoint(path)], path)
        np.testing.assert_array_equal(resumed.buffers.values, small([]).buffers.values)
        signal.signal(number, signal.SIG_IGN)
        ignored = small([End(*moment)])  # who has it ignored wants it to stay so
        np.testing.assert_array_equal(ignored.buffers.values, resumed.buffers.values)
    finally:
        signal.signal(number, before)


def test_a_second_ctrl_c_does_not_wait(tmp_path: Path) -> None:
    press = Press(0, 1, times=2)
    with pytest.raises(KeyboardInterrupt):
        small([press, gc.Checkpoint(tmp_path / "run.safetensors")])
    assert not press.after
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("numbers", [("SIGTERM", "SIGTERM"), ("SIGTERM", "SIGHUP"), ("SIGINT", "SIGTERM")])
def test_who_is_told_several_times_to_end_still_ends_after_the_step(numbers: tuple[str, str], tmp_path: Path) -> None:
    """As by a queueing system, which sends its signal to every process and to what started them, which passes it on. The first counts."""
    sent = [getattr(signal, name, signal.SIGTERM) for name in numbers]

    class End(Press):
        def on_step_end(self, run: object) -> None:
            if (run.epoch, run.step) == self.moment:  # type: ignore[attr-defined]
                for number in sent:
                    signal.raise_signal(number)
                self.after = True

    before = {number: signal.signal(number, signal.default_int_handler) for number in sent}
    try:
        end, path = End(0, 2), tmp_path / "run.safetensors"
        with pytest.raises(KeyboardInterrupt if numbers[0] == "SIGINT" else SystemExit):
            small([end, gc.Checkpoint(path, every=100)])
        assert end.after and load_tensors(path)[1]["run"]["step"] == 2
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_ctrl_c_is_as_before_after_a_run_that_fails() -> None:
    class Fail(gc.Callback):
        def on_step_end(self, run: object) -> None:
            raise ZeroDivisionError

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ZeroDivisionError):
        small([Fail()])
    assert signal.getsignal(signal.SIGINT) is before


def test_a_model_trains_in_a_thread_as_well() -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        model = pool.submit(small, []).result()
    np.testing.assert_array_equal(model.buffers.values, small([]).buffers.values)
