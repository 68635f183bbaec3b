"""The compiler: what the loops take from Numba, imported when something is to be compiled.

Numba is made for any function on any machine. Most of the time that it would take for a loop goes into what a loop has no use for: arrays,
objects, wrappers for calls from Python, proofs between its passes, machine code of each helper. So the loops have a target of their own
(`_target.py`), with what numbers, addresses and records need. What goes beyond that is compiled by Numba's own target, in twice the time.

Also the vector type as Numba knows it: `<16 x float>`, with +, -, * and /.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import importlib
import operator
from typing import Any

import llvmlite.binding
import numba
import numpy as np
from numba import extending
from numba.core import cgutils as _cgutils
from numba.core import codegen, compiler, config, errors, imputils, registry
from numba.core.compiler_lock import global_compiler_lock
from numba.core.typing import templates

from gpucnn_loops import disk_cache, machine
from gpucnn_loops.language import PACKED, Declared, Helper, Intrinsic, Late, intrinsics, ir, kinds_of
from gpucnn_loops.vector import V

# Numba has no type annotations worth the name.
types: Any = numba.types
cgutils: Any = _cgutils
floats: Any = types.CPointer(types.float32)
words: Any = types.CPointer(types.int64)
_KINDS = {
    "i": types.int64,
    "u": types.uint64,
    "f": types.float32,
    "d": types.float64,
    "i*": types.CPointer(types.int32),
    "w*": words,
    "f*": floats,
    "d*": types.CPointer(types.float64),
}

if config.DISABLE_JIT:
    raise ImportError("Numba is told to compile nothing")


# The target: what Numba knows of types and of instructions, and the passes from Python to machine code.

_own_types, _own_code = templates.Registry(), imputils.Registry("gpucnn_loops")  # filled at the end of this file
_targets: list[tuple[Any, Any, Any]] = []  # the last is in use: types, code, passes
_why: list[str] = []  # the reason for Numba's own target, until `compile` has said it


def _target() -> tuple[Any, Any, Any]:
    if not _targets:
        try:
            own = importlib.import_module("gpucnn_loops._target")
            known = own.Types(_own_types)
            _targets.append((known, own.Code(known, _own_code), own.Pipeline))
        except Exception as error:
            _take_everything(error)
    return _targets[-1]


def _take_everything(error: Exception) -> None:
    """From now on, Numba's own target compiles: a loop needs more of Numba, or this Numba is not what the target was made for."""
    known, code = registry.cpu_target.typing_context, registry.cpu_target.target_context
    for context, added in ((known, _own_types), (code, _own_code)):
        context.refresh()
        context.install_registry(added)
    _targets.append((known, code, compiler.Compiler))
    _called.clear()
    if not isinstance(error, (errors.NumbaError, NotImplementedError)):
        _why.append(f"{type(error).__name__}: {error}".partition("\n")[0])


class _Library(codegen.AOTCodeLibrary):  # type: ignore[misc]
    """A loop with its helpers, optimized once, as a whole. It is not loaded: `machine.py` does that."""

    def _optimize_functions(self, module: Any) -> None:
        module.data_layout = self._codegen._data_layout

    def _optimize_final_module(self) -> None:
        """Runs LLVM's passes once, at level 2. Numba's two runs, the second at level 3, take a third longer and make no loop faster."""
        options = llvmlite.binding.create_pipeline_tuning_options(speed_level=2)
        options.loop_vectorization = options.slp_vectorization = True
        builder = llvmlite.binding.create_pass_builder(self._codegen._tm, options)
        builder.getModulePassManager().run(self._final_module, builder)

    def _finalize_final_module(self) -> None:
        self._finalized = True


class _Part(_Library):
    """A helper."""

    def _optimize_final_module(self) -> None:
        pass


@global_compiler_lock  # type: ignore[untyped-decorator]
def compile(loop: Declared) -> tuple[bytes, list[str], Any]:
    """(an object file with the loop under its symbol, the functions that it calls, Numba's library)."""
    named = _target()[1].codegen().magic_tuple()
    if named != machine.processor():
        raise ImportError(
            f"Numba compiles for {named[1]}, this machine is taken for {machine.processor()[1]}: processors are "
            "named in NUMBA_CPU_NAME and NUMBA_CPU_FEATURES, not in a configuration file"
        )
    for each in intrinsics:  # of modules that have been imported since the last time
        names = each.function.__globals__
        names.update({name: globals()[value.name] for name, value in names.items() if isinstance(value, Late)})
    try:
        library = _whole(loop)
    except Exception as error:
        if _targets[-1][2] is compiler.Compiler:
            raise
        _take_everything(error)
        library = _whole(loop)
    code = library.emit_native_object()
    while _why:
        disk_cache.say_once(f"loops are compiled by all of Numba {numba.__version__}, in twice the time ({_why.pop()})")
    needs = [one.name for one in library._final_module.functions if one.is_declaration and not one.name.startswith("llvm.")]
    return bytes(code), needs, library


def _whole(loop: Declared) -> Any:
    """The library of a loop, with the ways in."""
    made = _made(loop.function, _types_of(loop), types.void, _Library)
    made.library.add_ir_module(_way_in(_target()[1], made.fndesc, loop))
    made.library.finalize()
    return made.library


def _made(function: Any, arguments: tuple[Any, ...], returned: Any, kind: type[_Library]) -> Any:
    """What Numba makes of a function: its signature, its descriptor and its library."""
    known, code, pipeline = _target()
    flags = compiler.Flags()
    flags.error_model, flags.boundscheck, flags.enable_pyobject = "numpy", False, False  # no fastmath: sums keep their order, NaN stays
    flags.no_cpython_wrapper = flags.no_cfunc_wrapper = flags.no_compile = True  # the ways in are made below
    flags.forceinline = kind is _Part
    library = kind(code.codegen(), function.__qualname__)
    return compiler.compile_extra(known, code, function, arguments, returned, flags, {}, library, pipeline)


def _types_of(loop: Declared) -> tuple[Any, ...]:
    """Numba's types of a loop's arguments."""
    own = ((kind, kinds_of(kind)) for kind in loop.given)
    return tuple(
        _KINDS[kind] if fields is None else types.BaseTuple.from_types([_KINDS[field] for field in fields], kind) for kind, fields in own
    )


def _way_in(context: Any, made: Any, loop: Declared) -> Any:
    """Adds a C function under the loop's symbol, which calls Numba's function, and the one that Python calls.

    A loop raises no exception, so the status that Numba's function returns is not read.
    """
    module = context.create_module(loop.symbol)
    inner = ir.Function(module, context.call_conv.get_function_type(made.restype, made.argtypes), made.llvm_func_name)
    kinds = [context.get_value_type(_KINDS[kind]) for kind in loop.arguments]
    outer = ir.Function(module, ir.FunctionType(ir.VoidType(), kinds), loop.symbol)
    builder = ir.IRBuilder(outer.append_basic_block())
    fields = iter(outer.args)
    arguments = [
        next(fields) if own is None else context.make_tuple(builder, kind, [next(fields) for _ in own])
        for kind, own in zip(made.argtypes, map(kinds_of, loop.given), strict=True)
    ]
    context.call_conv.call_function(builder, inner, made.restype, made.argtypes, arguments, attrs=("noinline",))
    builder.ret_void()
    _packed(module, outer, loop.arguments)
    return module


def _packed(module: Any, function: Any, arguments: list[str]) -> None:
    """A function that takes the address of the arguments, of eight bytes each; float32 numbers are passed as float64."""
    word = ir.IntType(64)
    outer = ir.Function(module, ir.FunctionType(ir.VoidType(), [word.as_pointer()]), function.name + PACKED)
    builder, given = ir.IRBuilder(outer.append_basic_block()), []
    for index, (kind, argument) in enumerate(zip(arguments, function.args, strict=True)):
        place = builder.gep(outer.args[0], [ir.Constant(word, index)])
        if kind in ("f", "d"):
            number = builder.load(builder.bitcast(place, ir.DoubleType().as_pointer()))
            given.append(builder.fptrunc(number, ir.FloatType()) if kind == "f" else number)
        else:
            number = builder.load(place)
            given.append(builder.inttoptr(number, argument.type) if kind.endswith("*") else number)
    builder.call(function, given)
    builder.ret_void()


# What a loop calls: other loops, intrinsics, helpers, and +, −, *, / of vectors.

_called: dict[Any, Any] = {}  # what they are to Numba


def _function(value: Any, name: str, base: Any, **more: Any) -> Any:
    if value not in _called:
        _called[value] = types.Function(type(name, (base,), {"key": value, **more}))
    return _called[value]


@extending.typeof_impl.register(Declared)  # type: ignore[untyped-decorator]
def _type_of_loop(value: Declared, context: Any) -> Any:
    if value not in _called:
        kinds = _types_of(value)

        def call(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            flat: list[Any] = []
            for argument, own in zip(arguments, map(kinds_of, value.given), strict=True):
                flat += [argument] if own is None else cgutils.unpack_tuple(builder, argument)
            function = ir.FunctionType(ir.VoidType(), [each.type for each in flat])
            builder.call(cgutils.get_or_insert_function(builder.module, function, value.symbol), flat)
            return context.get_dummy_value()

        _target()[1].insert_func_defn([(call, value, kinds)])
        _function(value, value.symbol, templates.ConcreteTemplate, cases=[types.void(*kinds)])
    return _called[value]


class _IntrinsicTemplate(templates.AbstractTemplate):  # type: ignore[misc]
    """An intrinsic is asked which types it takes, and which instructions it is."""

    def generic(self, arguments, named):
        if arguments not in self.known:
            signature, code = self.key.function(self.context, *arguments)
            _target()[1].insert_func_defn([(code, self.key, signature.args)])
            self.known[arguments] = signature
        return self.known[arguments]


@extending.typeof_impl.register(Intrinsic)  # type: ignore[untyped-decorator]
def _type_of_intrinsic(value: Intrinsic, context: Any) -> Any:
    return _function(value, value.function.__name__, _IntrinsicTemplate, known={}, **value.options)


class _HelperTemplate(templates.AbstractTemplate):  # type: ignore[misc]
    """A helper is made for the types that it is called with."""

    def generic(self, arguments, named):
        if arguments not in self.known:
            made = _made(self.key.py_func, arguments, None, _Part)
            _target()[1].insert_user_function(self.key, made.fndesc, [made.library])
            self.known[arguments] = made.signature
        return self.known[arguments]


@extending.typeof_impl.register(Helper)  # type: ignore[untyped-decorator]
def _type_of_helper(value: Helper, context: Any) -> Any:
    return _function(value, value.py_func.__name__, _HelperTemplate, known={})


class Vector(types.Type):  # type: ignore[misc]
    """Numba's name for the type."""

    def __init__(self) -> None:
        super().__init__("float32x16")


vector = Vector()
extending.register_model(Vector)(lambda manager, kind: extending.models.PrimitiveModel(manager, kind, V))


def _define(symbol: Any, kind: Any, count: int, code: Any) -> None:
    """Makes `symbol` of `count` values of a kind, which gives one more, the instructions that code(builder, *values) writes."""
    case = {"key": symbol, "cases": [kind(*[kind] * count)], "unsafe_casting": False}  # min of two floats is not an integer
    _own_types.register(type("own", (templates.ConcreteTemplate,), case))
    _own_types.register_global(symbol, types.Function(_own_types.functions[-1]))
    _own_code.lower(symbol, *[kind] * count)(lambda context, builder, signature, values: code(builder, *values))


_define(operator.add, vector, 2, lambda b, x, y: b.fadd(x, y))
_define(operator.sub, vector, 2, lambda b, x, y: b.fsub(x, y))
_define(operator.mul, vector, 2, lambda b, x, y: b.fmul(x, y))
_define(operator.truediv, vector, 2, lambda b, x, y: b.fdiv(x, y))
# Numba has these in Python, or among the arrays.
_define(min, types.int64, 2, lambda b, x, y: b.select(b.icmp_signed("<", y, x), y, x))
_define(max, types.int64, 2, lambda b, x, y: b.select(b.icmp_signed(">", y, x), y, x))
for _kind in (types.float32, types.float64):
    _define(np.sqrt, _kind, 1, lambda b, x: b.call(b.module.declare_intrinsic("llvm.sqrt", [x.type]), [x]))
