"""What Numba would do again and again while it compiles is done once, and nothing else comes of it."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
from compile_harness import needs_compilers

from gpucnn.profiling.chip import static
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
