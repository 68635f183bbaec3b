"""Ranks as processes: what starts them, what they print, and what has become of them."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import time
from pathlib import Path

import gpucnn as gc
from gpucnn import surroundings
from gpucnn.cli import together

STARTER = together._starter()
LIMIT = 120  # seconds, after which a test is stuck

PROGRAM = """
import json, sys, zlib
import numpy as np
import gpucnn as gc
from gpucnn.training.parallel import join

def model():
    layers = gc.Conv2D(4, 3, activation="relu"), gc.MaxPool2D(2), gc.BatchNorm2D(), gc.Flatten(), gc.Dropout(0.3), gc.Dense(3)
    return gc.Sequential(*layers).build((1, 8, 8), seed=1, device="cpu").compile(gc.SGD(0.01, momentum=0.9))

def train(parallel, epochs=10):
    random = np.random.default_rng(0)
    x, y = random.integers(0, 256, (49, 1, 8, 8)).astype(np.uint8), random.integers(0, 3, 49)
    own = model()
    history = own.fit(x, y, batch_size=12, epochs=epochs, augment="shift", validation_data=(x, y), verbose=False, parallel=parallel)
    return own, x, y, history
"""
RANK = (
    PROGRAM
    + """
ranks = join("mpi")
found = []
for _ in range(2):
    own, x, y, history = train(ranks)
    found.append(own.buffers.copy())
array = np.full(5, ranks.rank + 1.0)
ranks.sum(array)
sent = np.full(3, float(ranks.rank))
ranks.broadcast(sent, 1)
def fails():
    raise gc.errors.DataError("only rank 0 looks")
try:
    ranks.once(fails)
    said = ""
except gc.errors.DataError as error:
    said = str(error)
import os
mine = {
    "sizes": [ranks.rank, ranks.size, ranks.local_rank, ranks.local_size], "same again": bool((found[0] == found[1]).all()),
    "bits": zlib.crc32(found[0].tobytes()), "sum": array.tolist(), "sent": sent.tolist(), "once": ranks.once(lambda: ranks.rank),
    "raised": said, "in turn": ranks.in_turn(lambda: ranks.rank), "measured": own.evaluate(x, y, 8, parallel=ranks),
    "alone": own.evaluate(x, y, 8), "threads": os.environ["GPUCNN_NUM_THREADS"], "rows": len(history.rows),
}
everybody = ranks.gather(mine)
if ranks.rank == 0:
    np.save(sys.argv[1], found[0])
    print(json.dumps(everybody))
"""
)


def environment() -> dict[str, str]:
    """That of a process which nobody has started as a rank, with the CPU's loops left out: compiling takes longer than all else."""
    kept = {name: value for name, value in os.environ.items() if name not in (*surroundings.RANKS, *surroundings.LOCAL)}
    here = Path(gc.__file__).parents[1]
    paths = [str(here), str(here / "kernels"), *filter(None, [kept.get("PYTHONPATH")])]
    return {**kept, "PYTHONPATH": os.pathsep.join(paths), "GPUCNN_CPU": "numpy", "GPUCNN_DEVICE": "cpu", "MPLBACKEND": "agg"}


def alive(number: int) -> bool:
    """Whether there is such a process that has not ended. Open MPI leaves one that was killed to whoever takes in orphans, and in a
    container that may never ask how it ended: it stays, as a number with nothing behind it."""
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    with contextlib.suppress(OSError):
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return not Path("/proc/self").exists()


class Started:
    """A run on ranks, under way: what it has printed, and its processes."""

    def __init__(self, line: list[str], folder: Path) -> None:
        self.log = folder / "log.txt"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(line, cwd=folder, env=environment(), stdout=log, stderr=subprocess.STDOUT)

    def wait_for(self, text: str) -> None:
        limit = time.monotonic() + LIMIT
        while text not in self.log.read_text():
            assert self.process.poll() is None and time.monotonic() < limit, self.log.read_text()
            time.sleep(0.05)

    def ranks(self) -> list[int]:
        """The numbers of its processes, as it has printed them itself."""
        return [int(number) for number in re.findall(r"rank \d+: CPU, process (\d+) on ", self.log.read_text())]

    def end(self) -> tuple[int, list[str]]:
        """Its status and its last lines, without those of epochs."""
        try:
            status = self.process.wait(LIMIT)
        finally:
            self.process.kill()
        limit = time.monotonic() + LIMIT / 4  # on another machine they end a moment later
        while left := [number for number in self.ranks() if alive(number)]:
            assert time.monotonic() < limit, left
            time.sleep(0.05)
        return status, [line for line in self.log.read_text().splitlines() if not line.startswith("epoch")]
