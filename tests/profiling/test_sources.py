"""The files that a kernel is made of: all that it calls is in them, and no more than that."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gpucnn.device import simulated
from gpucnn.profiling.chip import sources

if simulated():
    pytest.skip("the simulator compiles nothing", allow_module_level=True)

from gpucnn.profiling.chip import chips, samples
from gpucnn.profiling.chip.compiled import Compiler
from gpucnn_kernels.core.launch import Launch


def names(function: Any) -> list[str]:
    return ["/".join(file.parts[-2:]) for file in sources.files_of(function)]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package of which `made.kernel` is the function: it closes over one of `part`, and `part` imports in three ways."""
    folder = tmp_path / "built_of"
    for name, text in {
        "__init__": "",
        "made": "from built_of.part import helper\nfrom built_of import launcher\ndef kernel(): return helper()\n",
        "part": "import os\nfrom . import one\nfrom .deep.two import two\ndef helper():\n    import built_of.three\n",
        "one": "",
        "three": "",
        "launcher": "",
        "unused": "",
        "deep/__init__": "",
        "deep/two": "def two(): pass\n",
    }.items():
        file = folder / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "built_of"]:
        del sys.modules[name]
    for cached in (sources.reached, sources._imports, sources._path, sources.content):
        cached.cache_clear()


def test_files_are_those_that_are_imported(package: Path) -> None:
    made = importlib.import_module("built_of.made")
    found = ["built_of/launcher.py", "built_of/made.py", "built_of/one.py", "built_of/part.py", "built_of/three.py", "deep/two.py"]
    assert sorted(names(made.kernel)) == found


def test_packages_that_warn_when_they_are_imported_are_not_heard(package: Path) -> None:
    (package / "deep/__init__.py").write_text("import warnings\nwarnings.warn('deep is new')\n")
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        assert sources.reached("built_of.deep.two") == (package / "deep/two.py",)
    assert not heard


def test_what_a_function_closes_over_counts(package: Path) -> None:
    part, two = (importlib.import_module(f"built_of.{name}").__dict__ for name in ("part", "deep.two"))

    def kernel() -> Any:
        return inside[0][0]()

    inside = ((part["helper"], 3), [two["two"], "text"])
    assert {"built_of/three.py", "deep/two.py", "profiling/test_sources.py"} <= set(names(kernel))


def test_a_hash_is_of_content_and_name(package: Path) -> None:
    one, three = package / "one.py", package / "three.py"
    assert sources.content((one,)) != sources.content((three,))
    before = sources.content((one, three))
    sources.content.cache_clear()
    one.write_text("x = 1\n")
    assert sources.content((one, three)) != before


def test_a_kernel_is_compiled_again_where_a_file_of_its_own_has_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The compilers' results of pooling outlast a change of the engine; those of its kernels, and of others that use its files, do not."""
    chip = chips.find("H100")
    wanted = {"max_pool2d_2x2": False, "conv2d-tile128x64": True, "dense-tile64x64": True, "conv2d-tensor128x128": True, "adam": False}
    found = {each.part.name: each.launch for each in samples.kernels(chip) if each.part.name in wanted}
    compiler = Compiler("sm_90", lambda line: None, None)
    before = {name: compiler.mark(launch) for name, launch in found.items()}
    assert found.keys() == wanted.keys() and None not in before.values()

    def changed(files: tuple[Path, ...]) -> bytes:
        return b"changed" if any(file.parts[-2:] == ("engine", "operands.py") for file in files) else real(files)

    real = sources.content
    monkeypatch.setattr(sources, "content", changed)
    assert {name: compiler.mark(launch) != before[name] for name, launch in found.items()} == wanted
    assert Compiler("sm_80", lambda line: None, None).mark(found["adam"]) != before["adam"]


def test_numbas_files_are_not_read_as_its_version_says_as_much(monkeypatch: pytest.MonkeyPatch) -> None:
    def of_numba(launch: Launch) -> bool:  # the kernel closes over a type of Numba's
        return any(name.partition(".")[0] == "numba" for name in sources._modules(launch.kernel.py_func))

    launch = next(each.launch for each in samples.kernels(chips.find("H100")) if of_numba(each.launch))
    assert all("gpucnn_kernels" in file.parts for file in sources.files_of(launch.kernel.py_func))
    compiler = Compiler("sm_90", lambda line: None, None)
    before = compiler.mark(launch)
    monkeypatch.setattr("gpucnn.profiling.chip.compiled.versions", lambda: "numba 0.0")
    assert None not in (before, compiler.mark(launch)) and compiler.mark(launch) != before
