"""What makes Numba compile a kernel in two thirds of its time, without changing an instruction.

Numba compiles any function for anybody; a kernel here is dozens of small functions that use little of it. Some shortcuts do what Numba
does, with less work, and are for whoever compiles. The others are for kernels alone, within `quickly`: passes that only serve what kernels
do not use are left out. A function that needs one of them fails, and is compiled by all of Numba.

They reach into Numba's inside, and are right for the versions of numba-cuda that pyproject.toml allows.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

from numba.core.types.functions import BaseFunction
from numba.cuda import compiler as _compiler
from numba.cuda import lowering as _lowering
from numba.cuda import types as _types
from numba.cuda.codegen import CUDACodeLibrary as _Library
from numba.cuda.core import base as _base
from numba.cuda.core import compiler as _core_compiler
from numba.cuda.core import compiler_machinery as _machinery
from numba.cuda.core import errors as _errors
from numba.cuda.core import ir as _ir
from numba.cuda.core import postproc as _postproc
from numba.cuda.core import typed_passes as _typed
from numba.cuda.core import untyped_passes as _untyped
from numba.cuda.core.targetconfig import TargetConfig as _TargetConfig
from numba.cuda.typing import context as _context
from numba.cuda.typing import npydecl as _npydecl

# For kernels alone.


class _State(threading.local):
    """The state of each thread: whether it compiles `quickly`, whether it makes no PTX, and how deep in functions that call functions."""

    quickly = False
    without_ptx = False
    depth = 0
    refreshed = False


_own = _State()


@contextlib.contextmanager
def quickly() -> Iterator[None]:
    """Inside, this thread takes all shortcuts, and Python does not look for garbage: a compilation creates many objects that live until
    its end, and scanning them again and again takes a sixth of its time."""
    before, enabled, _own.quickly = _own.quickly, gc.isenabled(), True
    gc.disable()
    try:
        yield
    finally:
        _own.quickly = before
        if enabled:
            gc.enable()


@contextlib.contextmanager
def without_ptx() -> Iterator[None]:
    """Inside, kernels that this thread compiles get no PTX: a launch needs the link-time code only."""
    before, _own.without_ptx = _own.without_ptx, True
    try:
        yield
    finally:
        _own.without_ptx = before


class _Passes(_machinery.PassManager):  # type: ignore[misc]
    """Runs passes without timing each, and without Numba's checks of them. After any failure the next pipeline has a try."""

    def run(self, state: Any) -> None:
        for kind, _ in self.passes:
            each = _machinery._pass_registry.get(kind).pass_inst
            each.analysis = self._analysis
            try:
                each.run_initialization(state)
                each.run_pass(state)
                each.run_finalizer(state)
            except _errors.NumbaError:
                raise
            except Exception as error:
                raise _errors.CompilerError(f"{type(error).__name__} in {each.name()}: {error}") from error


_LEFT_OUT = {
    _untyped.WithLifting,  # with statements
    _untyped.InlineClosureLikes,  # functions within a function
    _untyped.MakeFunctionToJitFunction,
    _untyped.InlineInlinables,  # functions that are to be inlined before they have types
    _untyped.FindLiterallyCalls,  # literally, literal_unroll, and indices of tuples whose elements differ
    _untyped.LiteralUnroll,
    _untyped.LiteralPropagationSubPipelinePass,
    _untyped.RewriteDynamicRaises,  # exceptions
    _typed.InlineOverloads,
    _typed.NopythonRewrites,  # expressions of whole arrays
}
_all_passes = _compiler.CUDACompiler.define_pipelines
_pipelines: dict[tuple[Any, ...], list[Any]] = {}  # by what Numba's choice of passes depends on


def _define_pipelines(self: Any) -> list[Any]:
    """The pipelines to try in turn."""
    if not _own.quickly:
        return list(_all_passes(self))
    key = self.state.func_ir is None, self.state.flags.no_rewrites, self.state.flags.enable_ssa
    if key not in _pipelines:
        every, few = _all_passes(self), _Passes("cuda")
        for kind, description in every[0].passes:
            if kind not in _LEFT_OUT:
                few.add_pass(kind, description)
        few.finalize()
        _pipelines[key] = [few, *every]
    return _pipelines[key]


def _asked(refresh: Any) -> Any:
    def refresh_unless_known(self: Any) -> None:
        if not _own.refreshed:
            refresh(self)

    return refresh_unless_known


def _compiler_begins(self: Any, *arguments: Any, **options: Any) -> None:
    """Numba looks for new modules that tell it of types before each function. Within a kernel there are none since the kernel's own."""
    before, _own.refreshed = _own.refreshed, _own.quickly and _own.depth > 0
    try:
        _begin(self, *arguments, **options)
    finally:
        _own.refreshed = before


def _compile_deeper(self: Any) -> Any:
    _own.depth += 1
    try:
        return _compile(self)
    finally:
        _own.depth -= 1


def _call_type(self: Any, context: Any, arguments: Any, named: Any) -> Any:
    """What a function returns for arguments of some types, which Numba finds out again for every call."""
    if not _own.quickly or named:
        return _resolve(self, context, arguments, named)
    known = self.__dict__.setdefault("_gpucnn_known", {})
    key = context, len(self.templates), arguments
    if key not in known:
        known[key] = _resolve(self, context, arguments, named)
    return known[key]


_begin, _compile = _core_compiler.CompilerBase.__init__, _core_compiler.CompilerBase._compile_core
_Function: Any = BaseFunction
_resolve = _Function.get_call_type
_compiler.CUDACompiler.define_pipelines = _define_pipelines
_core_compiler.CompilerBase.__init__, _core_compiler.CompilerBase._compile_core = _compiler_begins, _compile_deeper
_Function.get_call_type = _call_type
_base.BaseContext.refresh, _context.BaseContext.refresh = _asked(_base.BaseContext.refresh), _asked(_context.BaseContext.refresh)

# For whoever compiles.

_all_modules, _ptx_of, _same_options = _Library.modules.fget, _Library.get_asm_str, _TargetConfig.__eq__
_post_process, _of_arrays = _postproc.PostProcessor.run, _npydecl.NumpyRulesArrayOperator.generic


def _modules(self: Any) -> list[Any]:
    """Each module once. Numba lists a function twice if two others call it, and everything that it calls as well."""
    return list({id(module): module for module in _all_modules(self)}.values())


def _asm(self: Any, cc: Any = None) -> Any:
    """Numba generates PTX only to search it for two helpers that need linking. The LLVM text, which exists already, names them too."""
    if cc is None and self._lto and _own.without_ptx:
        return self.get_llvm_str()
    return _ptx_of(self, cc)


def _post_processed(self: Any, emit_dels: bool = False, extend_lifetimes: bool = False) -> None:
    """Computes the lifetimes of variables when a pass asks for them. Most passes, after which Numba computes them, do not."""
    function = self.func_ir
    if emit_dels or function.is_generator:
        _post_process(self, emit_dels, extend_lifetimes)
        return
    function.blocks = _postproc.transforms.canonicalize_cfg(function.blocks)
    function.variable_lifetime = _postproc.VariableLifetime(function.blocks)
    function.generator_info = None


def _equal_options(self: Any, other: Any) -> Any:
    """Compares the options that were set first: if these are equal, so are the others."""
    return (type(self) is type(other) and self._values == other._values) or _same_options(self, other)


def _hash_of_options(self: Any) -> int:
    """The hash of the options' names, as in Numba."""
    kind: Any = type(self)
    return _hash_of_names(kind)


@functools.cache
def _hash_of_names(kind: Any) -> int:
    return hash(tuple(sorted(kind.options)))


def _of_arrays_only(self: Any, arguments: Any, named: Any) -> Any:
    """None without an array among the arguments, which Numba says after it has looked through all that NumPy can add up."""
    if any(isinstance(each, (_types.ArrayCompatible, _types.Optional)) for each in arguments):
        return _of_arrays(self, arguments, named)
    return None


_VARIABLES, _INSTRUCTIONS = _ir.var_types, _ir.inst_types
_without_variables: set[type] = set()  # kinds of values that were met, and have none


def _find_variables(value: Any, found: list[Any]) -> None:
    kind = type(value)
    if kind is _ir.Var:
        found.append(value)
    elif kind in _without_variables:
        return
    elif isinstance(value, _VARIABLES):
        found.append(value)
    elif isinstance(value, _INSTRUCTIONS):
        found.extend(value.list_vars())
    elif isinstance(value, (list, tuple)):
        for each in value:
            _find_variables(each, found)
    elif isinstance(value, dict):
        for each in value.values():
            _find_variables(each, found)
    else:
        _without_variables.add(kind)


def _variables(self: Any, value: Any) -> list[Any]:
    """The variables within a value, in one list; Numba makes one for each part of it, down to each number."""
    found: list[Any] = []
    _find_variables(value, found)
    return found


def _find_assigned_once(self: Any) -> None:
    """Finds the variables that need no memory: assigned once, and used in the same block. Numba looks through a block for each of them."""
    self._blk_local_varmap, self._singly_assigned_vars = {}, set()
    if self.func_ir.func_id.is_generator:
        return
    found, in_memory = _lowering.compute_use_defs(self.func_ir.blocks), _lowering.must_use_alloca(self.func_ir.blocks)
    elsewhere = set(in_memory).union(*found.usemap.values())
    where = defaultdict[str, list[Any]](list)
    for block, names in found.defmap.items():
        for name in names:
            where[name].append(block)
    times = {
        offset: Counter(statement.target.name for statement in block.find_insts(_ir.assign_types)) for offset, block in self.blocks.items()
    }
    self._singly_assigned_vars.update(
        name for name, blocks in where.items() if name not in elsewhere and len(blocks) == 1 and times[blocks[0]][name] == 1
    )


# Whether code for a call takes its place in the source: asked for each call, of the same few hundred functions.
_base._has_loc = functools.lru_cache(maxsize=4096)(_base._has_loc)
_Library.modules = property(_modules)
_Library.get_asm_str = _asm
_postproc.PostProcessor.run = _post_processed
_TargetConfig.__eq__, _TargetConfig.__hash__ = _equal_options, _hash_of_options
_npydecl.NumpyRulesArrayOperator.generic = _of_arrays_only
_ir.Inst._rec_list_vars = _variables
_lowering.Lower._find_singly_assigned_variable = _find_assigned_once
