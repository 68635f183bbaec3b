"""Changes one operator, number or statement of a module at a time, and runs the tests that should notice. `make mutants` runs it all.

    python tests/mutants.py [--all] [--seed N] [--line L] [--part I/N] [MODULE ...]

Which modules, and which tests for each, is in mutation.toml, and why the mutants that live are no gaps; docs/mutation.md says what came
out. The operators are cosmic-ray's (pip install cosmic-ray) and two of our own, for what it leaves out: augmented assignments, and
statements that are deleted. It is used for these alone: it starts Python anew for each mutant, and writes each into the tree. Here a
mutant is a fork of this process, which has imported NumPy, SciPy, hypothesis and pytest but nothing of gpucnn, and the changed module is
handed to it by an importer: no file changes, and one takes half a second.

What is no behaviour is left out, by comparing syntax trees without it: annotations, type aliases, docstrings, what an exception says,
which arguments must be given by name, `strict=True` of zip, which asserts and decides nothing, `is` where there was `==`, which
CPython's caches decide, and which negative number asks `reshape` for a size. Where a module has many mutants, a sample of a fixed seed
is taken.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import gc
import importlib.abc
import importlib.machinery
import os
import random
import signal
import sys
import tempfile
import time
import tomllib
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
CONFIG = Path(__file__).with_name("mutation.toml")
OTHER_OF = {ast.Add: (b"+=", b"-="), ast.Sub: (b"-=", b"+="), ast.Mult: (b"*=", b"/="), ast.Div: (b"/=", b"*="), ast.BitXor: (b"^=", b"|=")}
HEAVY = ("numpy", "scipy.signal", "hypothesis", "pytest", "threadpoolctl", "rich.progress", "torch")  # imported once, before all forks


class Mutant(NamedTuple):
    """A changed source, with the first line that differs as it was and as it becomes."""

    line: int
    was: str
    becomes: str
    source: str


def _negative(node: ast.AST) -> bool:
    """Whether a number is written with a minus or a tilde, and so is below zero."""
    if not isinstance(node, ast.UnaryOp) or not isinstance(node.operand, ast.Constant):
        return False
    return isinstance(node.op, ast.Invert) or (isinstance(node.op, ast.USub) and node.operand.value > 0)


class _Behaviour(ast.NodeTransformer):
    """Leaves out of a syntax tree what decides nothing."""

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_arguments(self, node: ast.arguments) -> ast.AST:
        node.args = [*node.posonlyargs, *node.args, *node.kwonlyargs]
        node.defaults = [*node.defaults, *(value for value in node.kw_defaults if value is not None)]
        node.posonlyargs, node.kwonlyargs, node.kw_defaults = [], [], []
        self.generic_visit(node)
        return node

    def _function(self, node: Any) -> ast.AST:
        node.returns = None
        return self._body(node)

    def _body(self, node: Any) -> ast.AST:
        if ast.get_docstring(node, clean=False) is not None:
            node.body[0] = ast.Pass()
        self.generic_visit(node)
        return node  # type: ignore[no-any-return]

    visit_FunctionDef = visit_AsyncFunctionDef = _function
    visit_ClassDef = visit_Module = _body

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        alias = isinstance(node.annotation, ast.Name) and node.annotation.id == "TypeAlias"
        node.annotation = ast.Constant(None)
        if alias:
            node.value = None
        self.generic_visit(node)
        return node

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        if isinstance(node.exc, ast.Call):
            node.exc.args = []
        return node

    def visit_Is(self, node: ast.Is) -> ast.AST:
        return ast.Eq()

    def visit_IsNot(self, node: ast.IsNot) -> ast.AST:
        return ast.NotEq()

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if isinstance(node.func, ast.Attribute) and node.func.attr == "reshape":
            node.args = [ast.Constant(-1) if _negative(size) else size for size in node.args]
        self.generic_visit(node)
        return node

    def visit_keyword(self, node: ast.keyword) -> ast.AST:
        if node.arg == "strict":
            node.value = ast.Constant(True)
        self.generic_visit(node)
        return node


def behaviour(source: str) -> str:
    """What of a source decides something, as text. SyntaxError where it is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        return ast.dump(_Behaviour().visit(ast.parse(source)))


def by_cosmic_ray(source: str) -> Iterator[Callable[[], str]]:
    """What makes the source with one operator, number, keyword, decorator or loop changed, for each that there is."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator, operator_names

    nodes = list(ast_nodes(get_ast(source)))
    for name in operator_names():
        kind = get_operator(name)
        if not kind.arguments():
            operator = kind()
            for occurrence in range(sum(1 for node in nodes for _ in operator.mutation_positions(node))):
                yield partial(mutate_code, source, operator, occurrence)


def by_hand(source: str) -> Iterator[Callable[[], str]]:
    """What makes the source with `+=` as `-=` and the like, or without one statement that changes something in place or calls something."""
    raw, starts = source.encode(), [0]
    for line in raw.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))

    def span(node: Any) -> tuple[int, int]:
        return starts[node.lineno - 1] + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset

    def spliced(begin: int, end: int, text: bytes) -> str:
        return (raw[:begin] + text + raw[end:]).decode()

    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.AugAssign) and type(node.op) in OTHER_OF:
            begin, end = span(node.target)[1], span(node.value)[0]
            was, becomes = OTHER_OF[type(node.op)]
            yield partial(spliced, begin, end, raw[begin:end].replace(was, becomes))
        changes = isinstance(node, ast.AugAssign) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call))
        if changes or (isinstance(node, ast.Assign) and not isinstance(node.targets[0], ast.Name | ast.Tuple)):
            yield partial(spliced, *span(node), b"pass")


def mutants_of(path: Path, seed: str, most: int | None, lines: list[int] | None) -> tuple[list[Mutant], int]:
    """`most` mutants (all of them where it is None) that differ from the module, and from one another, in what they do; by line. And of how
    many changes they were drawn, duplicates and what is no behaviour among them."""
    source = path.read_text()
    before, seen, found = source.splitlines(), {behaviour(source)}, []
    makers = [*by_cosmic_ray(source), *by_hand(source)]
    random.Random(seed).shuffle(makers)
    for make in makers:
        try:
            text = make()
            same = behaviour(text)
        except SyntaxError:
            continue
        after = text.splitlines()
        place = next((number for number, (one, other) in enumerate(zip(before, after, strict=False)) if one != other), 0)
        if same in seen or (lines and place + 1 not in lines):
            continue
        seen.add(same)
        found.append(Mutant(place + 1, before[place].strip(), after[place].strip(), text))
        if len(found) == most:
            break
    return sorted(found), len(makers)


class _Importer(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Hands out one module with another source."""

    def __init__(self, path: Path, source: str) -> None:
        parts = path.relative_to(ROOT).with_suffix("").parts
        self.package = parts[-1] == "__init__"
        self.name = ".".join(parts[:-1] if self.package else parts)
        self.path, self.source = path, source

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> importlib.machinery.ModuleSpec | None:
        if name != self.name:
            return None
        spec = importlib.machinery.ModuleSpec(name, self, origin=str(self.path), is_package=self.package)
        spec.has_location = True
        if self.package:
            spec.submodule_search_locations = [str(self.path.parent)]
        return spec

    def exec_module(self, module: ModuleType) -> None:
        exec(compile(self.source, str(self.path), "exec"), module.__dict__)


def run(path: Path, source: str, tests: list[str], seconds: float) -> str:
    """ "lives", or how the tests noticed: "fails", "timeout", "dies" of a signal."""
    child = os.fork()
    if not child:
        try:
            os.setpgid(0, 0)
            nothing = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(nothing, stream)
            sys.meta_path.insert(0, _Importer(path, source))
            os._exit(_tested(tests))
        finally:
            os._exit(99)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            if os.WIFSIGNALED(status):
                return "dies"
            return {0: "lives", 5: "no tests"}.get(os.WEXITSTATUS(status), "fails")
        time.sleep(0.01)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "timeout"


def _tested(tests: list[str]) -> int:
    import hypothesis
    import pytest

    # A failure is all that is asked for, and the same one in the next run; the smallest example of it would take long to find.
    phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
    hypothesis.settings.register_profile("mutants", database=None, derandomize=True, phases=phases, deadline=None)
    hypothesis.settings.load_profile("mutants")
    places = [str(ROOT / test) for test in tests]
    return int(pytest.main(["-x", "-q", "--tb=no", "-p", "no:cacheprovider", "--rootdir", str(ROOT), *places]))


def _part(text: str) -> tuple[int, int]:
    index, _, count = text.partition("/")
    if not 1 <= int(index) <= int(count):
        raise argparse.ArgumentTypeError(f"{text}: expected I/N with I from 1 to N, such as 2/3")
    return int(index), int(count)


def main() -> int:
    config = tomllib.loads(CONFIG.read_text())
    parser = argparse.ArgumentParser(description="Changes a module a little at a time, and runs the tests that should notice.")
    parser.add_argument("modules", nargs="*", help="as in mutation.toml; all of them where none is named")
    parser.add_argument("--all", action="store_true", help="no sample where a module has many")
    parser.add_argument("--seed", type=int, default=config["seed"], help="of the samples")
    parser.add_argument("--line", type=int, action="append", help="only mutants of these lines")
    parser.add_argument("--part", type=_part, default=(1, 1), metavar="I/N", help="every Nth mutant from the Ith on: N such runs do it all")
    options = parser.parse_args()
    for name in (str(ROOT / "kernels"), str(ROOT)):  # gpucnn as it is here, whatever is installed
        sys.path.insert(0, name)
    os.environ["PYTHONPATH"] = os.pathsep.join((str(ROOT), str(ROOT / "kernels"), os.environ.get("PYTHONPATH", "")))
    for name in HEAVY:
        with contextlib.suppress(ImportError):  # PyTorch need not be there: the tests that ask it are skipped then
            importlib.import_module(name)
    assert "gpucnn" not in sys.modules, "gpucnn is imported anew for each mutant"
    gc.collect()
    gc.freeze()  # a fork that collects garbage would copy all of this
    with tempfile.TemporaryDirectory() as folder:
        sys.dont_write_bytecode, sys.pycache_prefix = False, folder  # the tests are compiled once, and not beside their sources
        return tried(config, options)


def tried(config: dict[str, Any], options: argparse.Namespace) -> int:
    """Runs what was asked for, and prints what lives; 1 where that is a gap."""
    argued = {(entry["module"], entry["was"]): entry.get("becomes") for entry in config.get("alive", [])}
    total, gaps = Counter[str](), 0
    for module, settings in config["modules"].items():
        if options.modules and module not in options.modules:
            continue
        path, tests = ROOT / module, settings["tests"]
        begun = time.monotonic()
        if run(path, path.read_text(), tests, 600) != "lives":
            print(f"{module}: its tests fail without any change: {' '.join(tests)}", flush=True)
            gaps += 1
            continue
        limit = 10 + 3 * (time.monotonic() - begun)
        most = None if options.all or options.line else settings.get("sample", config["sample"])
        chosen, changes = mutants_of(path, f"{options.seed} {module}", most, options.line)
        chosen = chosen[options.part[0] - 1 :: options.part[1]]
        count: Counter[str] = Counter()
        for mutant in chosen:
            end = run(path, mutant.source, tests, limit)
            listed = argued.get((module, mutant.was), [])  # None: whatever becomes of that line
            end = "argued" if end == "lives" and (listed is None or mutant.becomes in listed) else end
            count[end] += 1
            if end == "lives":
                gaps += 1
                print(f"{module}:{mutant.line}\n  - {mutant.was}\n  + {mutant.becomes}", flush=True)
        killed = len(chosen) - count["lives"] - count["argued"] - count["no tests"]
        total += Counter(killed=killed, tried=len(chosen), argued=count["argued"], changes=changes)
        ways = ", ".join(f"{number} {end}" for end, number in sorted(count.items()))
        print(f"{module}: {killed} of {len(chosen)} killed ({ways}), of {changes} changes", flush=True)
    print(f"{total['killed']} of {total['tried']} killed, {total['argued']} argued, {gaps} are gaps; of {total['changes']} changes")
    return 1 if gaps else 0


if __name__ == "__main__":
    sys.exit(main())
