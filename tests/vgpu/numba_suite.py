"""numba-cuda's own tests on the virtual GPU: vgpu-run python tests/vgpu/numba_suite.py [WORD...], or make vgpu-numba.

They ship with the package, and no one here wrote them: where they fail, this instrument is wrong. What is known to fail, and why, is listed
in numba_known.txt, by kind; anything else ends the run with an error. WORD: only files whose names hold one of the words.
"""

from __future__ import annotations

import concurrent.futures
import importlib.util
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

where = importlib.util.find_spec("numba_cuda")
assert where is not None and where.submodule_search_locations
ROOT = Path(next(iter(where.submodule_search_locations))) / "numba" / "cuda" / "tests"
KNOWN = Path(__file__).with_name("numba_known.txt")
PARTS = ("cudapy", "cudadrv", "core", "nrt", "doc_examples")
SECONDS = 900  # for one file
FUNCTIONS = """
import importlib, sys, traceback
import numba.cuda
name = sys.argv[1]
tests = {key: value for key, value in vars(importlib.import_module(name)).items() if key.startswith("test_")}
for key, test in tests.items():
    try:
        test()
    except Exception:
        traceback.print_exc()
        print(f"FAIL: {key} ({name}.{key})")
print(f"Ran {len(tests)} tests")
"""  # a file without a class is written for pytest: unittest finds no tests in it, and runs all that Numba has


@dataclass
class Result:
    module: str
    ran: int = 0
    skipped: int = 0
    failed: list[str] = field(default_factory=list)
    trouble: str = ""


def known() -> dict[str, str]:
    """The tests that are known to fail, and the kind of each."""
    tests, kind = {}, ""
    for line in KNOWN.read_text().splitlines():
        if line.startswith("#") or not line.strip():
            continue
        if line.startswith(" "):
            tests[line.strip()] = kind
        else:
            kind = line.rstrip(":")
    return tests


def run(module: str) -> Result:
    # A cache of their own is what some of them test; a launch of millions of blocks says no more than its first and its last.
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    environment |= {"VGPU_STICKY": "0", "VGPU_BLOCKS": "4096"}
    result = Result(module)
    name, classes = f"numba.cuda.tests.{module}", re.search(r"^class ", (ROOT / f"{module.replace('.', '/')}.py").read_text(), re.MULTILINE)
    command = [sys.executable, *(("-m", "numba.runtests", "-v") if classes else ("-c", FUNCTIONS)), name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=SECONDS, errors="replace")
    except subprocess.TimeoutExpired:
        result.trouble = f"no end in {SECONDS} s"
        return result
    text = done.stdout + done.stderr
    ran = re.search(r"^Ran (\d+) test", text, re.MULTILINE)
    if ran is None:
        result.trouble = text.strip().splitlines()[-1] if text.strip() else f"ended with {done.returncode}"
        return result
    result.ran = int(ran[1])
    skipped = re.search(r"\(.*skipped=(\d+)", text)
    result.skipped = int(skipped[1]) if skipped else 0
    result.failed = sorted({name for name in re.findall(r"^(?:FAIL|ERROR): \w+ \(([\w.]+)\)", text, re.MULTILINE)})
    return result


def main() -> int:
    modules = [f"{part}.{file.stem}" for part in PARTS for file in sorted((ROOT / part).glob("test_*.py"))]
    modules = [module for module in modules if len(sys.argv) < 2 or any(word in module for word in sys.argv[1:])]
    expected, ran, skipped, failed, troubles, new = known(), 0, 0, 0, 0, []
    with concurrent.futures.ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for result in pool.map(run, modules):
            ran, skipped, failed = ran + result.ran, skipped + result.skipped, failed + len(result.failed)
            short = [name.removeprefix("numba.cuda.tests.") for name in result.failed]
            unknown = [name for name in short if name not in expected]
            if result.trouble and result.module not in expected:
                unknown.append(f"{result.module}: {result.trouble}")
            troubles += bool(result.trouble)
            new += unknown
            print(f"{result.module:45} {result.ran:4} run, {result.skipped:3} skipped, {len(short):3} failed {result.trouble}", flush=True)
            for name in short:
                print(f"    {name}  {expected.get(name, 'NEW')}", flush=True)
    print(f"{ran} tests in {len(modules)} files: {ran - skipped - failed} pass, {skipped} are skipped, {failed} fail;", end=" ")
    print(f"{troubles} files could not be run to their end")
    if new:
        print("not known to fail:", *new, sep="\n    ")
    return bool(new)


if __name__ == "__main__":
    sys.exit(main())
