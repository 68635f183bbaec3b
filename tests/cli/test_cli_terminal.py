"""On a terminal: the bar, in the middle of a run, after it, after Ctrl-C, and where there is little room."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

pexpect = pytest.importorskip("pexpect", reason="pexpect, which plays the terminal, is not installed")
if sys.platform == "win32":
    pytest.skip("pexpect has no terminals on Windows", allow_module_level=True)

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
BAR = re.compile(r"epoch \d+/\d+ [━╸╺ ]+ +\d+ %[^\r\n]*")


def start(columns: int, *arguments: object, term: str = "xterm-256color", dataset: object = "digits"):
    environment = os.environ | {"TERM": term, "OPENBLAS_NUM_THREADS": "1"}
    for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        environment.pop(name, None)
    # Without the pictures, which take longer than the training.
    program = "import sys; sys.modules['matplotlib'] = None; from gpucnn.cli import main; main()"
    command = ["-c", program, "train", "--dataset", str(dataset), "--device", "cpu", "--output", "run", *map(str, arguments)]
    return pexpect.spawn(sys.executable, command, env=environment, dimensions=(30, columns), encoding="utf-8", timeout=60)


def end(child) -> str:
    child.expect(pexpect.EOF)
    child.close()
    return child.before


def frames(text: str) -> list[str]:
    """What was drawn as the bar, frame by frame, without control characters."""
    return BAR.findall(CONTROL.sub("", text.replace("\x1b[2K", "\r")))


def test_a_run_on_a_terminal():
    child = start(100, "--epochs", 3, "--batch-size", 2)  # small steps: no epoch is over before the bar is drawn again
    text = end(child)
    assert child.exitstatus == 0
    shown = frames(text)
    assert len(shown) >= 3 and max(map(len, shown)) <= 96  # the ^C that a terminal echoes has room beside it
    whole = r"epoch 2/3 [━╸╺]{6,50} +\d+ %  loss \d\.\d{4}  accuracy \d+\.\d\d %  [\d,]+ images/s  \d:\d\d left"
    assert any(re.fullmatch(whole, frame.rstrip()) for frame in shown), shown
    lines = [line for line in re.split(r"[\r\n]+", CONTROL.sub("", text)) if line]
    assert len([line for line in lines if re.match(r"epoch \d/3  loss .*val_accuracy", line)]) == 3
    assert re.fullmatch(r"test accuracy \d+\.\d\d %", lines[-1])
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")  # the cursor is back
    assert text.rindex("\x1b[2K") > text.rindex("━")  # and the bar is gone


@pytest.mark.parametrize("columns", [60, 40])
def test_a_narrow_terminal(columns):
    child = start(columns, "--epochs", 2)
    text = end(child)
    shown = frames(text)
    assert child.exitstatus == 0 and shown and max(map(len, shown)) <= columns
    plain = CONTROL.sub("", text)
    rows = [row for row in re.split(r"[\r\n]+", plain) if row.startswith("epoch ") and "━" not in row and "╸" not in row]
    assert len(rows) == 2 and max(map(len, rows)) <= columns and all("val_accuracy" in row for row in rows)


def test_ctrl_c_and_going_on():
    child = start(100, "--epochs", 30)
    child.expect("epoch 3/30 ")
    child.sendintr()
    text = end(child)
    assert child.exitstatus == 130
    last = [line for line in re.split(r"[\r\n]+", CONTROL.sub("", text)) if line.strip()][-1]
    assert last == f"gpucnn: stopped: the same command with --resume continues from {Path('run/checkpoint.safetensors')}"
    assert text.rindex("\x1b[?25h") > text.rfind("\x1b[?25l") and "Traceback" not in text
    assert text.rindex("\x1b[2K") > text.rindex("━")

    child = start(100, "--epochs", 30, "--resume")
    child.expect(r"resumed   at epoch \d+, step \d+")
    child.expect(r"\d:\d\d left")  # of the steps that are left, at the speed of this process
    child.sendintr()
    child.expect("stopped: the same command")
    end(child)
    assert child.exitstatus == 130


def test_a_terminal_that_cannot_go_back_gets_lines(folder):
    child = start(100, "--epochs", 1, term="dumb", dataset=folder)
    text = end(child)
    assert child.exitstatus == 0 and "\x1b" not in text and "━" not in text and "epoch 1/1  loss" in text
