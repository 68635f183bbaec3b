"""Ranks on two machines: each with a network, a name and a home folder of its own, joined by a wire, on which MPI speaks TCP.

They are namespaces of this kernel (`ip netns`, `unshare`), which takes the rights of root: what differs from two machines is that they
have the same files, unless a test gives them others, and the same processor.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpucnn as gc
from process_ranks import LIMIT, PROGRAM, RANK, STARTER, Started, environment

HYDRA = None if STARTER is None else Path(STARTER).with_name("mpiexec.hydra")  # takes any program for ssh
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("mpi4py") is None or HYDRA is None or not HYDRA.exists(), reason="needs mpi4py and mpich"),
]

MACHINE = """#!/bin/bash
# on NAME COMMAND...: runs it on one of the two machines.
name=$1; shift
exec nsenter --net=/run/netns/{prefix}$name unshare --uts --mount --ipc bash -c '
    name=$1; shift
    hostname $name && mount --bind {folder}/hosts /etc/hosts && mount -t tmpfs tmpfs /dev/shm || exit 99
    export HOME={folder}/home-$name
    [ -e $HOME/setup ] && . $HOME/setup
    exec "$@"' on $name "$@"
"""
SSH = """#!/bin/bash
# As mpiexec calls it: ssh [-x] NAME COMMAND
while [[ $1 == -* ]]; do shift; done
name=$1; shift
exec {folder}/on $name bash -c "$*"
"""


class Two:
    """Two machines, "left" and "right"."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.prefix = folder, f"gpucnn-{os.getpid()}-"

    def up(self) -> None:
        names = {"left": "10.87.0.1", "right": "10.87.0.2"}
        (self.folder / "hosts").write_text("127.0.0.1 localhost\n" + "".join(f"{at} {name}\n" for name, at in names.items()))
        for name, text in (("on", MACHINE), ("ssh", SSH)):
            (self.folder / name).write_text(text.format(folder=self.folder, prefix=self.prefix))
            (self.folder / name).chmod(0o755)
        for name in names:
            (self.folder / f"home-{name}").mkdir()
            self._do("ip", "netns", "add", self.prefix + name)
        left, right = (self.prefix + name for name in names)
        self._do("ip", "link", "add", "eth0", "netns", left, "type", "veth", "peer", "name", "eth0", "netns", right)
        for name, at in names.items():
            for words in (("link", "set", "lo", "up"), ("addr", "add", f"{at}/24", "dev", "eth0"), ("link", "set", "eth0", "up")):
                self._do("ip", "-n", self.prefix + name, *words)
        assert subprocess.run([self.folder / "on", "right", "hostname"], check=True, capture_output=True, text=True).stdout == "right\n"

    def down(self) -> None:
        for name in ("left", "right"):
            subprocess.run(["ip", "netns", "del", self.prefix + name], check=False, capture_output=True)

    def _do(self, *words: str) -> None:
        subprocess.run(words, check=True, capture_output=True)

    def mpi(self, count: int, *words: object) -> list[str]:
        """The line that starts `count` ranks from the left one, two on each."""
        ssh = ["-launcher", "ssh", "-launcher-exec", str(self.folder / "ssh")]
        hosts = ["-hosts", "left,right", "-ppn", "2"]
        return [
            str(self.folder / "on"),
            "left",
            str(HYDRA),
            *ssh,
            *hosts,
            "-n",
            str(count),
            sys.executable,
            "-m",
            "mpi4py",
            *map(str, words),
        ]

    def run(self, count: int, *words: object) -> subprocess.CompletedProcess[str]:
        line = self.mpi(count, *words)
        return subprocess.run(line, cwd=self.folder, env=environment(), capture_output=True, text=True, timeout=LIMIT)

    def put(self, name: str, source: Path, place: Path) -> None:
        """Has a file or a folder of its own at `place` on one machine."""
        with open(self.folder / f"home-{name}" / "setup", "a") as file:
            file.write(f"mount --bind {shlex.quote(str(source))} {shlex.quote(str(place))} || exit 99\n")


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Two]:
    machines = Two(tmp_path)
    try:
        machines.up()
    except (OSError, subprocess.CalledProcessError) as error:
        machines.down()
        pytest.skip(f"needs namespaces, which take the rights of root ({error})")
    yield machines
    machines.down()


def test_two_machines_train_as_one_process_does(two: Two) -> None:
    said = two.run(4, "-c", RANK, two.folder / "values.npy")
    assert said.returncode == 0, said.stderr
    found = json.loads(said.stdout)
    space: dict[str, Any] = {}
    exec(PROGRAM, space)
    one, *_ = space["train"](None)
    np.testing.assert_allclose(np.load(two.folder / "values.npy"), one.buffers.copy(), rtol=1e-5, atol=1e-5)
    assert [mine["sizes"] for mine in found] == [[0, 4, 0, 2], [1, 4, 1, 2], [2, 4, 0, 2], [3, 4, 1, 2]]
    assert len({mine["bits"] for mine in found}) == 1 and all(mine["same again"] for mine in found)
    for mine in found:
        assert mine["sum"] == [10.0] * 5 and mine["sent"] == [1.0] * 3 and mine["once"] == 0 and mine["rows"] == 10
        assert mine["measured"] == mine["alone"]


IN_TURN = """
import time
from pathlib import Path
from gpucnn.training.parallel import join
ranks = join("mpi")
file = Path("own") / "downloaded"
def have():
    if file.exists():
        return "there"
    time.sleep(0.5)  # so that another rank of this machine would come too soon
    file.touch()
    return "downloaded"
found = ranks.gather((ranks.host, ranks.in_turn(have)))
if ranks.rank == 0:
    print(found)
"""


def test_one_rank_of_each_machine_downloads(two: Two) -> None:
    (two.folder / "own").mkdir()
    for name in ("left", "right"):
        two.put(name, two.folder / f"home-{name}", two.folder / "own")
    said = two.run(4, "-c", IN_TURN)
    assert said.returncode == 0, said.stderr
    assert said.stdout == f"{[(name, what) for name in ('left', 'right') for what in ('downloaded', 'there')]}\n"


def test_machines_with_other_versions_are_refused_with_both(two: Two, bars: Path) -> None:
    start = Path(gc.__file__)
    other = two.folder / "other.py"
    other.write_text(start.read_text().replace(f'"{gc.__version__}"', '"0.0.1"'))
    two.put("right", other, start)
    said = two.run(4, "-m", "gpucnn", "train", "--model", "lenet5", "--device", "cpu", "--dataset", bars, "--output", "out")
    assert said.returncode == 2
    told = [line for line in said.stderr.splitlines() if line.startswith("gpucnn: ")]
    assert told == [
        f"gpucnn: the ranks do not see the same version of gpucnn: which is '0.0.1' on rank 2 (right) and {gc.__version__!r} on rank 0 "
        "(left); start all of them with the same version, options, model and data"
    ]
    assert not (two.folder / "out").exists()


def test_machines_with_other_data_are_refused_with_both(two: Two, bars: Path) -> None:
    """The same path, with other images behind it."""
    shutil.copytree(bars, two.folder / "others")
    shutil.copy(two.folder / "others" / "down" / "1.png", two.folder / "others" / "down" / "0.png")
    two.put("right", two.folder / "others", bars)
    said = two.run(4, "-m", "gpucnn", "train", "--model", "lenet5", "--device", "cpu", "--dataset", bars, "--output", "out")
    told = [line for line in said.stderr.splitlines() if line.startswith("gpucnn: ")]
    assert said.returncode == 2 and len(told) == 1 and not (two.folder / "out").exists()
    assert re.match(r"gpucnn: the ranks do not see the same data set: .* on rank 2 \(right\) and .* on rank 0 \(left\)", told[0])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_what_ends_on_one_machine_ends_on_the_other(number: int, two: Two, bars: Path) -> None:
    words: tuple[Any, ...] = ("-m", "gpucnn", "train", "--model", "lenet5", "--device", "cpu", "--dataset", bars, "--schedule", "constant")
    started = Started(two.mpi(4, *words, "--checkpoint-every", 2, "--epochs", 5000, "--output", "out"), two.folder)
    started.wait_for("epoch 2/")
    begun = time.monotonic()
    os.kill(started.ranks()[3], number)
    status, lines = started.end()
    assert time.monotonic() - begun < 60
    told = [line for line in lines if "stopped" in line]
    if number == signal.SIGTERM:
        assert status == 128 + number and told == [
            "gpucnn: stopped: the same command with --resume continues from out/checkpoint.safetensors"
        ]
    else:
        assert status != 0 and not told and sum(str(started.ranks()[3]) in line for line in lines) >= 2, lines
    epochs = int(re.findall(r"epoch (\d+)/", started.log.read_text())[-1]) + 5
    done = two.run(3, *words, "--epochs", epochs, "--output", "out", "--resume")
    assert done.returncode == 0 and f"epoch {epochs}/{epochs}" in done.stdout and done.stdout.count("test accuracy") == 1, done.stderr
