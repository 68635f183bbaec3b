"""The processor that loops are compiled for, and machine code made ready to run: LLVM alone does both, without Numba.

Importing Numba takes half a second and 80 MB, and only compiling needs it. A process that finds its loops on the disk does without it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from typing import Any

import llvmlite.binding

llvm: Any = llvmlite.binding  # which has no type annotations worth the name
# Numba considers AVX slow, or a mistake of a virtual machine, on these.
_WITHOUT_AVX = ("corei7-avx", "core-avx-i", "sandybridge", "ivybridge", "nocona")


@functools.cache
def processor() -> tuple[str, str, str]:
    """The target of compilation: (kind of machine, processor, its features as +this,-that).

    It is this machine, or what NUMBA_CPU_NAME and NUMBA_CPU_FEATURES name (set both: with the name alone the features are this machine's).
    """
    given = os.environ.get("NUMBA_CPU_NAME")
    name = given or str(llvm.get_host_cpu_name())
    features = os.environ.get("NUMBA_CPU_FEATURES")
    if not features:
        features = "" if name.lower() == "generic" else _features(name)
    return str(llvm.get_process_triple()), name, features


def _features(name: str) -> str:
    try:
        found = llvm.get_host_cpu_features()
    except RuntimeError:  # LLVM does not know how to ask
        return ""
    asked = os.environ.get("NUMBA_ENABLE_AVX", "")
    if not int(asked) if asked.isdecimal() else name in _WITHOUT_AVX:
        found.update({feature: False for feature in found if feature.startswith("avx")})
    return str(found.flatten())


FEATURES = frozenset(name[1:] for name in processor()[2].split(",") if name.startswith("+"))

_lock = threading.Lock()
_engines: list[Any] = []  # the one, when there is one
_kept: list[Any] = []  # what it reads from


def load(code: bytes, symbol: str, way_in: str) -> int:
    """Loads an object file, and returns the address of its function `way_in`. Files that are loaded later can call `symbol`."""
    with _lock:
        if not _engines:
            _engines.append(_engine())
        file = llvm.object_file.ObjectFileRef.from_data(code)
        _kept.extend((file, code))
        _engines[0].add_object_file(file)
        _engines[0].finalize_object()
        address, entry = (int(_engines[0].get_function_address(name)) for name in (symbol, way_in))
    if not (address and entry):
        raise ImportError(f"there is no {symbol} in its machine code")
    llvm.add_symbol(symbol, address)
    return entry


def known(symbol: str) -> bool:
    """Whether machine code may call a function by this name. Calling an unknown one would end the process."""
    return bool(llvm.address_of_symbol(symbol))


def _engine() -> Any:
    with contextlib.suppress(RuntimeError):  # older ones say that they have been asked before
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
    kind, name, features = processor()
    target = llvm.Target.from_triple(kind).create_target_machine(name, features, codemodel="jitdefault", jit=True)
    module = llvm.parse_assembly("")
    module.triple, module.data_layout = kind, str(target.target_data)
    return llvm.create_mcjit_compiler(module, target)
