"""The compiler's way from Python's bytecode to LLVM's text: Numba's passes, without what only arrays, objects and other people's code need.

Numba keeps a variable that is used in several blocks in memory, reads what it held before each assignment, and leaves it to LLVM to find
out that none of this matters. Here a variable that is assigned in one place is a value (`_Lowering`). The types of calls, and the code for
them, are looked up once (`Types`, `Code`). Only `_numba.py` imports this module; if that fails, because Numba has changed, all of Numba
compiles.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from collections import Counter
from typing import Any

from numba.core import (
    compiler,
    cpu,
    imputils,
    interpreter,
    lowering,
    ssa,
    transforms,
    typed_passes,
    typeinfer,
    types,
    typing,
    untyped_passes,
)
from numba.core import ir as numba_ir
from numba.core.analysis import compute_cfg_from_blocks
from numba.core.intrinsics import fix_divmod
from numba.core.ir_utils import build_definitions
from numba.core.rewrites.static_getitem import RewriteConstGetitems
from numba.core.typing import builtins, collections, mathdecl, npydecl, templates

# What Numba knows of types and of instructions.

_number_types, _builtin_types = templates.Registry(), templates.Registry()
npydecl.register_number_classes(_number_types.register_global)  # calls of np.float32 and the like
_NEEDED = builtins, collections  # they add the types of operators, and of records, to Numba's registry when they are imported


class Types(typing.Context):  # type: ignore[misc]
    """The types of what a loop calls. own: those of this package."""

    def __init__(self, own: templates.Registry) -> None:
        self._own = own
        self._found: dict[Any, Any] = {}  # what a function returns for arguments of some types
        super().__init__()

    def load_additional_registries(self) -> None:
        for each in (self._own, _number_types, mathdecl.registry):
            self.install_registry(each)

    def _load_builtins(self) -> None:
        """Installs Numba's registry without what Numba would compile for its own target only: implementations in Python."""
        if not _builtin_types.functions:
            found = templates.builtin_registry
            _builtin_types.functions += found.functions
            _builtin_types.attributes += [each for each in found.attributes if not issubclass(each, templates._OverloadAttributeTemplate)]
            _builtin_types.globals += [(name, kind) for name, kind in found.globals if not _in_python(kind)]
        self.install_registry(_builtin_types)

    def resolve_function_type(self, function, arguments, named):
        key = function, arguments
        if named or key not in self._found:
            found = super().resolve_function_type(function, arguments, named)
            if named or found is None:
                return found
            self._found[key] = found
        return self._found[key]


def _in_python(kind: Any) -> bool:
    return isinstance(kind, types.Function) and any(issubclass(each, templates._OverloadFunctionTemplate) for each in kind.templates)


class Code(cpu.CPUContext):  # type: ignore[misc]
    """The instructions of what a loop calls. own: those of this package."""

    def __init__(self, known: Types, own: imputils.Registry) -> None:
        self._own = own
        self._found: dict[Any, Any] = {}  # the code of a function for a signature
        super().__init__(known)

    def load_additional_registries(self) -> None:  # the first time, these modules fill Numba's registry
        from numba.cpython import builtins, mathimpl, numbers, rangeobj, tupleobj  # noqa: F401

        for each in (self._own, mathimpl.registry):
            self.install_registry(each)

    def get_function(self, function, signature, _firstcall=True):
        key = function, signature
        if key not in self._found:
            self._found[key] = super().get_function(function, signature, _firstcall)
        return self._found[key]

    def post_lowering(self, module: Any, library: Any) -> None:
        """Adds nothing to a function: Numba adds its runtime, which counts references."""
        if self.is32bit:
            fix_divmod(module)


# The passes.


class _Lowering(lowering.Lower):  # type: ignore[misc]
    """Writes LLVM's text of a function. In a loop there are numbers, addresses and records, whose references nobody counts."""

    def _find_singly_assigned_variable(self) -> None:
        """A variable that is assigned in one place is a value: after Numba's pass for that, this place comes before every use of it. The
        others, which loops change, are in memory."""
        times = Counter(each.target.name for block in self.func_ir.blocks.values() for each in block.find_insts(numba_ir.Assign))
        self._blk_local_varmap: dict[str, Any] = {}
        self._singly_assigned_vars = {name for name, count in times.items() if count == 1}

    def lower_function_body(self) -> Any:
        """Writes a block after those that run before it, and returns the entry block."""
        for offset in self.blocks:
            self.blkmap[offset] = self.function.append_basic_block(f"B{offset}")
        self.pre_lower()
        entry = self.builder.basic_block
        for offset in compute_cfg_from_blocks(self.blocks).topo_order():
            self.builder.position_at_end(self.blkmap[offset])
            for statement in self.blocks[offset].body:
                self.loc = statement.loc
                self.lower_inst(statement)
        self.post_lower()
        return entry

    def lower_inst(self, statement: Any) -> None:
        if isinstance(statement, numba_ir.Assign):
            name = statement.target.name
            self.storevar(self.lower_assign(self.typeof(name), statement), name)
        else:
            super().lower_inst(statement)

    def storevar(self, value, name, argidx=None) -> None:
        if name in self._singly_assigned_vars:
            self._blk_local_varmap[name] = value
        else:
            self.builder.store(value, self.getvar(name))

    def loadvar(self, name: str) -> Any:
        known = self._blk_local_varmap.get(name)
        return self.builder.load(self.getvar(name)) if known is None else known

    def lower_binop(self, kind, expression, operation):
        if (expression.static_lhs, expression.static_rhs) != (numba_ir.UNDEFINED, numba_ir.UNDEFINED):  # a power of a known number
            return super().lower_binop(kind, expression, operation)
        code, known = self.context, self.context.typing_context
        signature, function = self.fndesc.calltypes[expression], known.resolve_value_type(operation)
        values = [
            code.cast(self.builder, self.loadvar(each.name), self.typeof(each.name), wanted)
            for each, wanted in zip((expression.lhs, expression.rhs), signature.args, strict=True)
        ]
        found = code.get_function(function, known.resolve_function_type(function, signature.args, {}))
        return code.cast(self.builder, found(self.builder, values), signature.return_type, kind)

    def incref(self, kind, value) -> None:
        pass

    def decref(self, kind, value) -> None:
        pass


class _Constraints(typeinfer.ConstraintNetwork):  # type: ignore[misc]
    """What is known of the types of variables from each statement. Numba collects warnings and errors; here the first error ends the
    compilation."""

    def propagate(self, inference):
        for each in self.constraints:
            each(inference)
        return []


class _Interpreter(interpreter.Interpreter):  # type: ignore[misc]
    def post_process(self, steps, function):
        """Leaves out one of Numba's steps, which takes as long as the others together: a loop has no with statement."""
        return super().post_process([each for each in steps if each is not interpreter.peep_hole_delete_with_exit], function)


def _simplify(state: Any) -> None:
    """Joins blocks, reads records by the places of their fields, and gives each assignment a variable of its own."""
    function = state.func_ir
    function.blocks = transforms.canonicalize_cfg(function.blocks)
    fields = RewriteConstGetitems(state)
    for offset, block in function.blocks.items():
        if fields.match(function, block, None, None):
            function.blocks[offset] = fields.apply()
    ssa.reconstruct_ssa(function)
    function._definitions = build_definitions(function.blocks)


def _find_types(state: Any) -> None:
    """Finds the type of each variable, and joins again what each assignment was given."""
    function = state.func_ir
    inference = typeinfer.TypeInferer(state.typingctx, function, None)
    inference.constraints = _Constraints()
    with state.typingctx.callstack.register(state.targetctx.target, inference, function.func_id, state.args):
        for place, (name, kind) in enumerate(zip(function.arg_names, state.args, strict=True)):
            inference.seed_argument(name, place, kind)
        if state.return_type is not None:
            inference.seed_return(state.return_type)
        inference.build_constraint()
        inference.propagate()
        state.typemap, state.return_type, state.calltypes = inference.unify()
    typed_passes.PreLowerStripPhis()._strip_phi_nodes(function)


class _Lower(typed_passes.BaseNativeLowering):  # type: ignore[misc]
    lowering_class = _Lowering


class _Passes:
    """The passes, as Numba calls a list of them."""

    pipeline_name, exec_times = "loop", dict[str, Any]()

    def run(self, state: Any) -> None:
        state.func_ir = _Interpreter(state.func_id).interpret(state.bc)
        untyped_passes.FixupArgs().run_pass(state)
        _simplify(state)
        _find_types(state)
        _Lower().run_pass(state)
        typed_passes.NoPythonBackend().run_pass(state)


class Pipeline(compiler.CompilerBase):  # type: ignore[misc]
    def define_pipelines(self) -> list[Any]:
        return [_Passes()]
