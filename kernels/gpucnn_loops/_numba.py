"""The compiler: everything that the loops take from Numba, imported in this one place, when something is to be compiled.

Also the vector type as Numba knows it: `<16 x float>`, with +, -, * and /.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numba
from numba import extending
from numba.core import cgutils as _cgutils
from numba.core import config, registry
from numba.core import dispatcher as _dispatcher
from numba.core.compiler import Compiler
from numba.core.compiler_lock import global_compiler_lock
from numba.core.typing import templates

from gpucnn_loops import machine
from gpucnn_loops.language import PACKED, Declared, Helper, Intrinsic, Late, intrinsics, ir, kinds_of
from gpucnn_loops.vector import V

# Numba has no type annotations worth the name.
types: Any = numba.types
cgutils: Any = _cgutils
dispatcher: Any = _dispatcher
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
_OPTIONS = {"error_model": "numpy", "boundscheck": False}  # no fastmath: sums keep their order, NaN and infinity stay

if config.DISABLE_JIT:
    raise ImportError("Numba is told to compile nothing")


class _Compiler(dispatcher._FunctionCompiler):  # type: ignore[misc]
    def _customize_flags(self, flags: Any) -> Any:
        flags.no_cpython_wrapper = flags.no_cfunc_wrapper = flags.no_compile = True  # the way in is made below
        flags.enable_pyobject = False
        return flags


@global_compiler_lock  # type: ignore[untyped-decorator]
def compile(loop: Declared) -> tuple[bytes, list[str], Any]:
    """(an object file with the loop under its symbol, the functions that it calls, Numba's library)."""
    target: Any = registry.cpu_target
    context = target.target_context
    if context.codegen().magic_tuple() != machine.processor():
        raise ImportError(
            f"Numba compiles for {context.codegen().magic_tuple()[1]}, this machine is taken for {machine.processor()[1]}: processors are "
            "named in NUMBA_CPU_NAME and NUMBA_CPU_FEATURES, not in a configuration file"
        )
    _make_known(target)
    made = _Compiler(loop.function, target, dict(_OPTIONS), {}, pipeline_class=Compiler).compile(_types_of(loop), types.void)
    library = made.library
    library.add_ir_module(_way_in(context, made.fndesc, loop))
    library.enable_object_caching()
    code = library.serialize_using_object_code()[2][0]
    needs = [one.name for one in library._final_module.functions if one.is_declaration and not one.name.startswith("llvm.")]
    return bytes(code), needs, library


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


def _make_known(target: Any) -> None:
    """Makes known to Numba the intrinsics that have been added since the last time."""
    new = [each for each in intrinsics if each not in _types]
    for module in {id(names): names for names in (each.function.__globals__ for each in new)}.values():
        module.update({name: globals()[value.name] for name, value in module.items() if isinstance(value, Late)})
    real = [(each, (extending.intrinsic(**each.options) if each.options else extending.intrinsic)(each.function)) for each in new]
    target.typing_context.refresh()
    _types.update({each: target.typing_context.resolve_value_type(its) for each, its in real})


_types: dict[Intrinsic, Any] = {}
_dispatchers: dict[Helper, Any] = {}
_calls: dict[Declared, Any] = {}


@extending.typeof_impl.register(Declared)  # type: ignore[untyped-decorator]
def _type_of_loop(value: Declared, context: Any) -> Any:
    if value not in _calls:
        kinds = _types_of(value)

        def call(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            flat: list[Any] = []
            for argument, own in zip(arguments, map(kinds_of, value.given), strict=True):
                flat += [argument] if own is None else cgutils.unpack_tuple(builder, argument)
            function = ir.FunctionType(ir.VoidType(), [each.type for each in flat])
            builder.call(cgutils.get_or_insert_function(builder.module, function, value.symbol), flat)
            return context.get_dummy_value()

        _calls[value] = types.Function(templates.make_concrete_template(value.symbol, value, [types.void(*kinds)]))
        registry.cpu_target.target_context.insert_func_defn([(call, value, kinds)])
    return _calls[value]


@extending.typeof_impl.register(Intrinsic)  # type: ignore[untyped-decorator]
def _type_of_intrinsic(value: Intrinsic, context: Any) -> Any:
    return _types[value]


@extending.typeof_impl.register(Helper)  # type: ignore[untyped-decorator]
def _type_of_helper(value: Helper, context: Any) -> Any:
    if value not in _dispatchers:
        _dispatchers[value] = numba.njit(**_OPTIONS)(value.py_func)
    return types.Dispatcher(_dispatchers[value])


class Vector(types.Type):  # type: ignore[misc]
    """Numba's name for the type."""

    def __init__(self) -> None:
        super().__init__("float32x16")


vector = Vector()
extending.register_model(Vector)(lambda manager, kind: extending.models.PrimitiveModel(manager, kind, V))


def _define(symbol: Any, name: str) -> None:
    @extending.intrinsic
    def both(typing, a, b):
        return vector(vector, vector), lambda c, bl, s, args: getattr(bl, name)(*args)

    @extending.overload(symbol)  # type: ignore[untyped-decorator]
    def implementation(a, b) -> Callable[..., Any] | None:
        if isinstance(a, Vector) and isinstance(b, Vector):
            return lambda a, b: both(a, b)
        return None


for _symbol, _name in ((operator.add, "fadd"), (operator.sub, "fsub"), (operator.mul, "fmul"), (operator.truediv, "fdiv")):
    _define(_symbol, _name)
