"""What Numba would do again and again while it compiles is done once, or not at all, and nothing else comes of it."""

from __future__ import annotations

import contextlib
import importlib
import random
import re
import threading
from collections import Counter
from typing import Any

import pytest
from compile_harness import kernels, needs_compilers

from gpucnn.profiling.chip import sass, static
from gpucnn.profiling.chip.chips import ARCHITECTURES

pytestmark = needs_compilers

CAPABILITY = (9, 0, "a")


def library_of(function: Any, arguments: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch) -> Any:
    """What a dispatcher would launch on an H100."""
    dispatcher, codegen = (importlib.import_module(f"numba.cuda.{name}") for name in ("dispatcher", "codegen"))
    monkeypatch.setattr(codegen.CUDACodeLibrary, "_ensure_cc", lambda self, cc: CAPABILITY)
    with static.as_if_present(ARCHITECTURES["sm_90"]):
        return dispatcher._Kernel(function, arguments, lto=True)._codelibrary


def diamond() -> Any:
    """A function that two others call, which a third one calls: along with each of them Numba would hand it over."""
    from gpucnn_kernels.core.compile import device

    @device
    def last(x: Any) -> Any:
        return x * x

    @device
    def left(x: Any) -> Any:
        return last(x) + 1

    @device
    def right(x: Any) -> Any:
        return last(x) - 1

    def kernel(x: Any) -> None:
        x[0] = left(x[0]) * right(x[0])

    return kernel


def reshapes(x: Any, y: Any) -> None:
    y[0] = x.reshape((2, x.size // 2))[1, 1]


def array() -> Any:
    from gpucnn_kernels.core._numba import types

    return types.Array(types.float32, 1, "C")


def passes_of(function: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Compiles a function `quickly`, and returns the names of the passes that all of Numba ran for it."""
    machinery = importlib.import_module("numba.cuda.core.compiler_machinery")
    run, found = machinery.PassManager._runPass, []

    def noting(self: Any, index: int, each: Any, state: Any) -> Any:
        found.append(each.name())
        return run(self, index, each, state)

    from gpucnn_kernels.core._numba import quickly

    monkeypatch.setattr(machinery.PassManager, "_runPass", noting)
    with quickly():
        library_of(function, (array(),), monkeypatch)
    return found


@pytest.mark.skipif(sass.nvdisasm() is None, reason="no nvdisasm: pip install nvidia-cuda-nvdisasm")
@pytest.mark.parametrize("name", ["max_pool2d_2x2 odd", "adam", "dense-tile64x64 even"])
def test_the_machine_code_is_the_same_by_all_of_numba(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    launch, found = kernels()[name].launch, []
    for shortcuts in (static.quickly, contextlib.nullcontext):
        monkeypatch.setattr(static, "quickly", shortcuts)
        for made in (static._machine_code, static._intermediate):
            made.cache_clear()
        lines = re.sub(r"_ZN\w+", "name", sass.disassemble(static.machine_code(launch, "sm_90"))).splitlines()  # names count compilations
        found.append([line for line in lines if re.match(r"\s*(/\*[0-9a-f]{4,}\*/|\.L_x)", line)])
    assert len(found[0]) > 20 and found[0] == found[1]


def test_kernels_take_no_pass_of_numbas_own_pipeline(monkeypatch: pytest.MonkeyPatch) -> None:
    assert passes_of(diamond(), monkeypatch) == []


def closure(x: Any) -> None:
    def more(number: Any) -> Any:
        return number + 1

    x[0] = more(x[0])


def unrolled() -> Any:
    literal_unroll = importlib.import_module("numba.cuda.misc.special").literal_unroll

    def kernel(x: Any) -> None:
        for number in literal_unroll((1, 2.5)):
            x[0] += number

    return kernel


@pytest.mark.parametrize("function", [closure, unrolled()], ids=["a function within a function", "a loop over numbers of different types"])
def test_what_needs_more_is_compiled_by_all_of_numba(function: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "nopython_type_inference" in passes_of(function, monkeypatch)


def test_what_is_wrong_is_reported_as_numba_reports_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from gpucnn_kernels.core._numba import quickly

    def wrong(x: Any) -> None:
        x[0] = "one"

    reports = []
    for shortcuts in (quickly, contextlib.nullcontext):
        with pytest.raises(Exception, match="No implementation of function") as found, shortcuts():
            library_of(wrong, (array(),), monkeypatch)
        reports.append((found.type, str(found.value).split()))
    assert reports[0] == reports[1]


def test_another_thread_compiles_as_always() -> None:
    """The user's own kernels are none of our business."""
    from gpucnn_kernels.core._numba import quickly

    shortcuts: Any = importlib.import_module("gpucnn_kernels.core._shortcuts")
    found = []
    with quickly():
        thread = threading.Thread(target=lambda: found.append(shortcuts._own.quickly))
        thread.start()
        thread.join()
        found.append(shortcuts._own.quickly)
    assert [*found, shortcuts._own.quickly] == [False, True, False]


def branches(x: Any, n: Any) -> Any:
    total, factors = 0, (x[0], (x[1], x[2]))
    for i in range(n):
        if i > 3:
            total += x[i] * factors[1][0]
        else:
            once = x[i] + factors[0]
            total -= once * once
    return total


def test_variables_are_those_that_numba_finds() -> None:
    ir, compiler = importlib.import_module("numba.cuda.core.ir"), importlib.import_module("numba.cuda.compiler")

    def within(value: Any) -> list[Any]:
        if isinstance(value, ir.Var):
            return [value]
        parts = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
        return value.list_vars() if isinstance(value, ir.Inst) else [each for part in parts for each in within(part)]

    assert ir.Inst._rec_list_vars is importlib.import_module("gpucnn_kernels.core._shortcuts")._variables
    statements = [each for block in compiler.run_frontend(branches).blocks.values() for each in block.body]
    assert len(statements) > 40
    for each in statements:
        assert each.list_vars() == within(each.__dict__)
    variables = [ir.Var(None, name, statements[0].loc) for name in "abc"]
    random_values = random.Random(0)
    for _ in range(100):
        value: Any = None
        for _ in range(6):
            parts = [value, random_values.choice([*variables, 1, "b", None])]
            value = random_values.choice([parts, tuple(parts), dict(enumerate(parts))])
        assert statements[0]._rec_list_vars(value) == within(value)


def test_variables_that_need_no_memory_are_those_of_one_block(monkeypatch: pytest.MonkeyPatch) -> None:
    lowering, ir = importlib.import_module("numba.cuda.lowering"), importlib.import_module("numba.cuda.core.ir")
    find, checked = lowering.Lower._find_singly_assigned_variable, []

    def checking(self: Any) -> None:
        find(self)
        blocks = self.func_ir.blocks.values()
        assigned = Counter(each.target.name for block in blocks for each in block.find_insts(ir.Assign))
        used: dict[str, set[int]] = {}
        for block in blocks:
            for each in block.body:
                for name in [each.value] if isinstance(each, ir.Del) else [variable.name for variable in each.list_vars()]:
                    used.setdefault(name, set()).add(id(block))
        expected = {name for name, times in assigned.items() if times == 1 and len(used[name]) == 1}
        checked.append(len(expected))
        assert self._singly_assigned_vars == expected

    monkeypatch.setattr(lowering.Lower, "_find_singly_assigned_variable", checking)

    def kernel(x: Any) -> None:
        total = x[0] * x[1]
        for i in range(x.size):
            if i > 3:
                total += x[i]
            else:
                once = x[i] + 1
                total -= once * once
        x[0] = total

    library_of(kernel, (array(),), monkeypatch)
    assert checked and checked[0] > 10
    assert find is importlib.import_module("gpucnn_kernels.core._shortcuts")._find_assigned_once


def test_a_function_that_two_others_call_is_handed_over_once(monkeypatch: pytest.MonkeyPatch) -> None:
    library = library_of(diamond(), (array(),), monkeypatch)
    names = [function.name for module in library.modules for function in module.functions if not function.is_declaration]
    assert len(names) == len(set(names)) == 4
    assert len(library.llvm_strs) == 4 and library.get_cubin(cc=CAPABILITY)


def test_no_ptx_is_made_beside_the_link_time_code(monkeypatch: pytest.MonkeyPatch) -> None:
    from gpucnn_kernels.core._numba import without_ptx

    with without_ptx():
        library = library_of(diamond(), (array(),), monkeypatch)
    assert not library._ptx_cache
    assert ".entry" in library.get_asm_str() and library._ptx_cache  # for whoever asks


def test_helpers_that_need_linking_are_found_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    from gpucnn_kernels.core._numba import without_ptx

    found = []
    for quick in (False, True):
        if quick:
            with without_ptx():
                library = library_of(reshapes, (array(), array()), monkeypatch)
        else:
            library = library_of(reshapes, (array(), array()), monkeypatch)
        found.append({str(file).rpartition("/")[2] for file in library._linking_files})
    assert found[0] == found[1]
    assert found[0] == {"reshape_funcs.cu"}


def test_options_are_equal_as_they_were() -> None:
    flags = importlib.import_module("numba.cuda.flags").CUDAFlags
    first, second = flags(), flags()
    assert first == second and hash(first) == hash(second)
    second.fastmath = True
    assert first != second and hash(first) == hash(second)  # Numba's hash is of the names
    first.fastmath = True
    assert first == second
    second.forceinline = flags().forceinline  # said, and what it is unsaid
    assert first == second
    assert first != importlib.import_module("numba.cuda.flags").Flags() and first != 3


def test_the_lives_of_variables_are_there_for_whoever_asks() -> None:
    compiler, postproc = (importlib.import_module(f"numba.cuda.{name}") for name in ("compiler", "core.postproc"))

    def function(x: Any, n: Any) -> Any:
        total = 0
        for i in range(n):
            if i > 3:
                total += x[i]
        return total

    made = compiler.run_frontend(function)
    before = {offset: set(names) for offset, names in made.variable_lifetime.livemap.items()}
    assert any(before.values())
    postproc.PostProcessor(made).run(emit_dels=True)
    again = compiler.run_frontend(function, emit_dels=True)
    for blocks in (made.blocks, again.blocks):
        assert any(type(statement).__name__ == "Del" for block in blocks.values() for statement in block.body)
    assert {offset: set(names) for offset, names in again.variable_lifetime.livemap.items()} == before
