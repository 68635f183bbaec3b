"""The arrows of the architecture: which module may import which, and what `import gpucnn` must not bring along."""

from __future__ import annotations

import ast
import functools
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import gpucnn
from gpucnn.ops import cpu

OPERATIONS = set(cpu.__all__)
ROOT = Path(gpucnn.__file__).parents[1]
KERNELS = ROOT / "kernels" / "gpucnn_kernels"
LOOPS = ROOT / "kernels" / "gpucnn_loops"

# Imports go from a higher number to a lower or an equal one. The longest prefix of a module's name decides.
LEVELS = {
    "gpucnn": 100,  # the public names
    "gpucnn.__main__": 100,
    "gpucnn.cli": 90,
    "gpucnn.profiling": 80,
    "gpucnn.viewing": 80,
    "gpucnn.exchange": 75,
    "gpucnn.answers": 70,
    "gpucnn.experiment": 70,
    "gpucnn.plots": 70,
    "gpucnn.report": 70,
    "gpucnn.recipes": 70,
    "gpucnn.registry": 67,
    "gpucnn.words": 66,
    "gpucnn.networks": 65,
    "gpucnn.model": 60,
    "gpucnn.saving": 59,
    "gpucnn.layered": 58,
    "gpucnn.built": 57,
    "gpucnn.summary": 55,
    "gpucnn.training": 50,
    "gpucnn.functional": 45,
    "gpucnn.arguments": 44,
    "gpucnn.foreign": 44,
    "gpucnn.memory": 45,
    "gpucnn.layers": 40,
    "gpucnn.losses": 40,
    "gpucnn.weighted": 42,
    "gpucnn.optimizers": 40,
    "gpucnn.schedules": 30,
    "gpucnn.initializers": 30,
    "gpucnn.metrics": 30,
    "gpucnn.datasets": 26,
    "gpucnn.utils": 26,
    "gpucnn.data": 25,
    "gpucnn.device": 20,  # below what it hands out: it loads gpucnn.ops by name, when a device is asked for
    "gpucnn.ops": 10,
    "gpucnn.names": 6,
    "gpucnn.layout": 7,
    "gpucnn.checks": 5,
    "gpucnn.files": 4,
    "gpucnn.reservation": 4,
    "gpucnn.arrays": 3,
    "gpucnn.surroundings": 2,
    "gpucnn.errors": 0,
    "gpucnn.notebook": 0,
    "gpucnn.diagram": 50,
    "gpucnn.signatures": 0,
    "gpucnn.precision": 6,
    "gpucnn.text": -1,
    "gpucnn.starting": -1,
    "gpucnn_kernels": -10,  # one operation per file
    "gpucnn_kernels.choose": -11,
    "gpucnn_kernels.conv": -12,
    "gpucnn_kernels.dense": -12,
    "gpucnn_kernels.tensor": -13,
    "gpucnn_kernels.engine": -14,
    "gpucnn_kernels.core": -15,
    "gpucnn_loops": -10,
}
# What stands below everything: one door each for arguments, arrays, files, surroundings, and the words of others.
DOORS = {f"gpucnn.{name}" for name in ("errors", "checks", "names", "arrays", "files", "surroundings", "text")}
ONLY = {  # folders that may import these of gpucnn and nothing else, besides themselves
    "gpucnn.data": {*DOORS, "gpucnn.ops.augment", "gpucnn.ops.cpu.batch"},
    "gpucnn.ops": {*DOORS, "gpucnn_kernels", "gpucnn_loops"},
    "gpucnn_kernels": set(),
    "gpucnn_loops": set(),
    "gpucnn.checks": {"gpucnn.errors", "gpucnn.text"},
    "gpucnn.names": {"gpucnn.checks", "gpucnn.errors", "gpucnn.text"},
    "gpucnn.files": {"gpucnn.errors", "gpucnn.surroundings", "gpucnn.text"},
    "gpucnn.arrays": {"gpucnn.errors", "gpucnn.text"},
    "gpucnn.surroundings": {"gpucnn.errors", "gpucnn.text"},
    "gpucnn.errors": {"gpucnn.text"},
    "gpucnn.text": set(),
}
NEVER = {"gpucnn.training": {"gpucnn.model", "gpucnn.layered", "gpucnn.built", "gpucnn.networks"}}


def modules() -> dict[str, Path]:
    found = {}
    for base, folder in ((ROOT, ROOT / "gpucnn"), (ROOT / "kernels", KERNELS), (ROOT / "kernels", LOOPS)):
        for path in folder.rglob("*.py"):
            parts = path.relative_to(base).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()
if not KERNELS.is_dir():
    pytest.skip("the source tree is not here: the arrows are a matter of the sources", allow_module_level=True)


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(name: str) -> set[str]:
    """Every module that `name` imports, wherever in the file, and under TYPE_CHECKING too."""
    found: set[str] = set()
    for node in ast.walk(tree(MODULES[name])):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name} has a relative import: name the module in full"
            # `from package import module` imports the module; `from module import thing` the module it is in.
            found.update(full if (full := f"{node.module}.{alias.name}") in MODULES else str(node.module) for alias in node.names)
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in ("import_module", "__import__"):
            found.update(argument.value for argument in node.args[:1] if isinstance(argument, ast.Constant))
    return found


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def level(name: str) -> int:
    if name != "gpucnn" and not any(within(name, package) for package in LEVELS if package != "gpucnn"):
        raise AssertionError(f"{name} has no place in the architecture: give it one in LEVELS")
    return LEVELS[max((package for package in LEVELS if within(name, package)), key=len)]


def test_the_walk_sees_imports_of_every_kind() -> None:
    assert "gpucnn.ops.shapes" in imports("gpucnn.functional")
    assert "cupy" in imports("gpucnn.device")
    assert "gpucnn.layers" in imports("gpucnn.built")
    assert {"numpy", "gpucnn.device"} <= imports("gpucnn.model")
    assert len(MODULES) > 50


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_point_one_way(name: str) -> None:
    for other in imports(name):
        if not any(within(other, package) for package in ("gpucnn", "gpucnn_kernels", "gpucnn_loops")):
            continue
        if name == "gpucnn.device" and within(other, "gpucnn.ops"):
            continue  # loaded by name
        if other == "gpucnn":
            assert level(name) >= 70, f"{name} imports the whole package"  # programs on top may use it as anyone does
            continue
        assert other in MODULES, f"{name} imports {other}, which is not there"
        same = any(within(name, package) and within(other, package) for package in LEVELS if package != "gpucnn")
        assert same or level(other) <= level(name), f"{name} imports {other}, which stands above it"
        assert same or level(other) != level(name) or level(name) in (40, 70), f"{name} imports {other}, which stands beside it"
        for package, allowed in ONLY.items():
            if within(name, package) and not within(other, package):
                assert any(within(other, each) for each in allowed), f"{name} imports {other}: {package} may import {sorted(allowed)} only"
        for package, forbidden in NEVER.items():
            if within(name, package):
                assert not any(within(other, each) for each in forbidden), f"{name} imports {other}"


def test_there_are_no_circles() -> None:
    """Imports within functions and by name count."""
    graph = {name: imports(name) & MODULES.keys() for name in MODULES}
    graphlib.TopologicalSorter(graph).prepare()  # raises a CycleError that names the circle
    graph["gpucnn.checks"] = {"gpucnn"}
    with pytest.raises(graphlib.CycleError):
        graphlib.TopologicalSorter(graph).prepare()


COMPILED = {"kernel", "device", "loop", "helper", "intrinsic"}
MOST_ARGUMENTS = 7  # by position
MOST_OF_A_KERNEL = 10  # each array is one, up to eight of them; sizes and settings travel as tuples
LONGER = {"gpucnn.functional.batch_norm"}  # as in PyTorch


def decorators(function: ast.FunctionDef) -> set[str]:
    called = [each.func if isinstance(each, ast.Call) else each for each in function.decorator_list]
    return {getattr(each, "id", getattr(each, "attr", "")) for each in called}


def made_loops(tree: ast.Module) -> set[str]:
    """Functions that `loop(…)(function)` makes loops of."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Call)]
    given = [part for call in calls if getattr(call.func.func, "id", "") == "loop" for one in call.args for part in ast.walk(one)]  # type: ignore[attr-defined]
    return {part.id for part in given if isinstance(part, ast.Name)}


@pytest.mark.parametrize("name", sorted(MODULES))
def test_argument_lists_are_short(name: str) -> None:
    """What has more arguments takes them by name, or some of them together. Not so: what Numba compiles, which knows numbers and arrays; an
    operation with its launchers, which has as many arrays as it has; a command, whose options are its arguments."""
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    loops = made_loops(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef) or node.name in loops or decorators(node) & {*COMPILED, "command"}:
            continue
        count = len([each for each in node.args.posonlyargs + node.args.args if each.arg not in ("self", "cls")])
        operation = any(within(name, package) for package in ("gpucnn.ops", "gpucnn_kernels", "gpucnn_loops")) and node.name in OPERATIONS
        assert count <= MOST_ARGUMENTS or operation or f"{name}.{node.name}" in LONGER, f"{name}.{node.name} has {count} arguments"


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("gpucnn_kernels")])
def test_argument_lists_of_kernels_are_short(name: str) -> None:
    for node in ast.walk(tree(MODULES[name])):
        if isinstance(node, ast.FunctionDef) and "kernel" in decorators(node):
            count = len(node.args.args)
            assert count <= MOST_OF_A_KERNEL, f"{name}.{node.name} has {count} arguments: give it its sizes as a tuple"


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("gpucnn_kernels")])
def test_shared_arrays_are_declared_by_kernels(name: str) -> None:
    """numba-cuda-mlir loses one that a device function declares."""
    for node in ast.walk(tree(MODULES[name])):
        if isinstance(node, ast.FunctionDef) and "device" in decorators(node):
            assert "cuda.shared.array(" not in ast.unparse(node), f"{name}.{node.name} declares a shared array: its kernel must pass one"


def test_nothing_is_kept_from_the_formatter() -> None:
    """Where an argument list fights it, some of the arguments travel together."""
    found = [path for folder in ("gpucnn", "kernels", "tests", "examples", "docs") for path in sorted((ROOT / folder).rglob("*.py"))]
    kept = re.compile("# fmt: " + "(skip|off)")
    assert len(found) > 300 and not [str(path) for path in found if kept.search(path.read_text(encoding="utf-8"))]


def test_cupy_is_imported_by_device_alone() -> None:
    assert {name for name in MODULES if any(within(other, "cupy") for other in imports(name))} == {"gpucnn.device"}


def test_numba_is_imported_by_the_kernels_numba_module_alone_and_by_device_to_ask() -> None:
    importing = {name for name in MODULES if any(within(other, "numba") for other in imports(name))}
    assert "gpucnn_kernels.core._numba" in importing
    # device.py asks Numba whether there is a GPU, static.py for its compilers: neither holds a kernel.
    assert {name for name in importing if within(name, "gpucnn")} <= {"gpucnn.device", "gpucnn.profiling.chip.static"}
    cuda = {name for name in MODULES if within(name, "gpucnn_kernels") and "cuda" in from_numba(name)}
    assert cuda == {"gpucnn_kernels.core._numba", "gpucnn_kernels.core._shortcuts"}  # the second makes it quicker
    compilers = {name for name in MODULES if any(within(other, package) for other in imports(name) for package in ("numba", "llvmlite"))}
    assert {name for name in importing if within(name, "gpucnn_loops")} == {"gpucnn_loops._numba", "gpucnn_loops._target"}
    loops = {"_numba", "_target", "language", "machine"}  # LLVM without Numba
    assert {name for name in compilers if within(name, "gpucnn_loops")} == {f"gpucnn_loops.{name}" for name in loops}


def from_numba(name: str) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree(MODULES[name])):
        if isinstance(node, ast.ImportFrom) and node.module == "numba":
            found.update(alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom) and within(str(node.module), "numba.cuda"):
            found.add("cuda")
        if isinstance(node, ast.Import) and any(within(alias.name, "numba.cuda") for alias in node.names):
            found.add("cuda")
    return found


def test_only_cuda_operations_import_the_kernels_and_only_those_of_the_cpu_the_loops() -> None:
    for name in MODULES:
        if within(name, "gpucnn") and any(within(other, "gpucnn_kernels") for other in imports(name)):
            assert within(name, "gpucnn.ops.cuda") or level(name) >= 80, name
        if within(name, "gpucnn") and any(within(other, "gpucnn_loops") for other in imports(name)):
            assert within(name, "gpucnn.ops.cpu"), name


def test_the_two_kinds_of_operations_have_the_same_names() -> None:
    """File by file, as each says in its `__all__`; the CPU's roads lead to operations of the other files."""

    def named(device: str) -> dict[str, list[str]]:
        start = f"gpucnn.ops.{device}."
        files = {name.removeprefix(start): MODULES[name] for name in MODULES if name.startswith(start)}
        return {
            file: names_of(path) for file, path in files.items() if file != "roads" and "_" not in (file[0], file.rpartition(".")[2][0])
        }

    def names_of(path: Path) -> list[str]:
        (found,) = (
            ast.literal_eval(node.value)
            for node in tree(path).body
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        )
        return sorted(found)

    cpu, cuda = named("cpu"), named("cuda")
    roads = {file: cpu.pop(file) for file in list(cpu) if file.startswith("roads.")}
    assert cpu == cuda and len(cpu) > 10
    every = [name for names in cpu.values() for name in names]
    assert len(set(every)) == len(every)
    assert len(roads) > 10 and all(set(names) <= set(cpu[file.removeprefix("roads.")]) for file, names in roads.items())


def test_importing_gpucnn_brings_nothing_heavy_along() -> None:
    heavy = ["numba", "cupy", "matplotlib", "sklearn", "PIL", "scipy", "rich", "typer", "torch", "gpucnn_kernels"]
    program = f"import sys; import gpucnn; print(*[name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_every_public_name_is_there_and_sorted_out() -> None:
    assert all(hasattr(gpucnn, name) for name in gpucnn.__all__)
    assert len(set(gpucnn.__all__)) == len(gpucnn.__all__)
    assert all(hasattr(gpucnn.functional, name) for name in gpucnn.functional.__all__)
