"""Ranks on GPUs as processes: CuPy's own bindings of NCCL, MPI, and a virtual GPU for each rank. The library they call is a stand-in
(tests/nccl_stand_in.c), which sums through shared memory: this holds our calls and their order, and says nothing of NCCL or its speed."""

from __future__ import annotations

import glob
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from process_ranks import LIMIT, STARTER, environment

TESTS = Path(__file__).parents[1]
RUN = TESTS / "vgpu" / "vgpu-run"
MISSING = [name for name in ("mpi4py", "cupy") if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING) or STARTER is None or not shutil.which("gcc"), reason="needs mpi4py, mpiexec, CuPy and gcc"),
]

PROGRAM = """
import json, sys, zlib
import numpy as np
import gpucnn as gc
from gpucnn.device import to_numpy
from gpucnn.training.parallel import join

random = np.random.default_rng(6)
x, y = random.integers(0, 256, (17, 1, 8, 8)).astype(np.uint8), random.integers(0, 4, 17)
ranks = join("mpi")

def train():
    layers = gc.Conv2D(4, 3, activation="relu"), gc.MaxPool2D(2), gc.BatchNorm2D(), gc.Flatten(), gc.Dropout(0.3), gc.Dense(8), gc.Dense(4)
    model = gc.Sequential(*layers).build((1, 8, 8), seed=3, device="cuda").compile(gc.SGD(0.05, momentum=0.9))
    model.fit(x, y, batch_size=7, epochs=5, augment="shift", validation_data=(x, y), verbose=False, parallel=ranks)
    return model, to_numpy(model.buffers.values).copy()

(model, values), (_, again) = train(), train()
mine = {
    "bits": zlib.crc32(values.tobytes()), "same again": bool((values == again).all()), "kind": type(ranks.on(model.device)).__name__,
    "measured": model.evaluate(x, y, 5, parallel=ranks), "alone": model.evaluate(x, y, 5),
}
everybody = ranks.gather(mine)
if ranks.rank == 0:
    np.save(sys.argv[1], values)
    print(json.dumps(everybody))
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the stand-in."""
    folder = tmp_path_factory.mktemp("nccl")
    include = next((f for path in sys.path for f in glob.glob(f"{path}/nvidia/cu1*/include") if Path(f, "cuda.h").exists()), None)
    if include is None:
        pytest.skip("needs cuda.h (numba-cuda[cu13])")
    check = subprocess.run([RUN, "--check", sys.executable], capture_output=True, text=True, check=False)
    if check.returncode:
        pytest.skip(check.stdout.strip())
    line = ["gcc", "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-Wl,-soname,libnccl.so.2", f"-I{include}", "-o"]
    subprocess.run([*line, folder / "libnccl.so.2", TESTS / "nccl_stand_in.c", "-lrt"], check=True)
    yield folder


def run(count: int, library: Path, *words: object, **variables: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join(filter(None, [str(library), os.environ.get("LD_LIBRARY_PATH")]))
    own = environment() | {"LD_LIBRARY_PATH": paths, "NCCL_STAND_IN_LOG": str(library / "rank"), "GPUCNN_DEVICE": "cuda"} | variables
    line = [str(STARTER), "-n", str(count), str(RUN), sys.executable, "-m", "mpi4py", *map(str, words)]
    return subprocess.run(line, cwd=library, env=own, capture_output=True, text=True, timeout=4 * LIMIT)


def test_processes_on_a_gpu_each_train_as_one_would_with_recorded_sums(library: Path) -> None:
    done = {count: run(count, library, "-c", PROGRAM, library / f"{count}.npy") for count in (1, 2)}
    assert [said.returncode for said in done.values()] == [0, 0], done[2].stderr + done[1].stderr
    (one,), found = (json.loads(said.stdout) for said in done.values())
    assert one["kind"] == "Communicator" and [mine["kind"] for mine in found] == ["NCCL", "NCCL"]
    assert len({mine["bits"] for mine in found}) == 1 and all(mine["same again"] for mine in (one, *found))
    for mine in found:
        assert mine["measured"] == mine["alone"] == pytest.approx(one["alone"], rel=1e-4)
    np.testing.assert_allclose(np.load(library / "2.npy"), np.load(library / "1.npy"), rtol=1e-5, atol=1e-5)
    calls = [(library / f"rank{rank}").read_text().splitlines() for rank in range(2)]
    # Two trainings, two sizes of batches: a step launched and a step recorded of each; the other eleven steps are replayed. In each the
    # batch's mean and variance, dweight and dbias, and two buckets, whatever the order.
    assert calls[0] == calls[1] and len(calls[0]) == 2 * 2 * 2 * 5
    assert sum(line.endswith(" recorded") for line in calls[0]) == len(calls[0]) // 2
    assert "without a CUDA graph" not in done[2].stderr


def test_each_rank_says_which_gpu_it_has(library: Path) -> None:
    said = run(2, library, "-m", "gpucnn", "info")
    assert said.returncode == 0, said.stderr
    assert [int(rank) for rank in re.findall(r"rank (\d): virtual H100 \(CPU\), process \d+ on ", said.stdout)] == [0, 1]


def test_more_ranks_than_gpus_are_refused(library: Path) -> None:
    said = run(3, library, "-m", "gpucnn", "train", "--device", "cuda", "--output", "out", CUDA_VISIBLE_DEVICES="0,1")
    told = [line for line in said.stderr.splitlines() if line.startswith("gpucnn: ")]
    assert said.returncode != 0 and len(told) == 1 and not (library / "out").exists()
    assert re.match(r"gpucnn: rank 2 of 3 on \S+: .*this machine has no GPU for its rank 2: start at most as many ranks", told[0])
