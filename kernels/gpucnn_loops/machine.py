"""The processor that loops are compiled for, and machine code made ready to run.

Only compiling needs Numba, which takes half a second and 80 MB to import. LLVM knows the processor's name and its features, and can load
machine code; that takes 60 MB. So its answer about the processor is kept beside the loops, and they are placed in memory without it where
that is possible (`image.py`). A process that finds its loops on the disk needs neither.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import os
import threading
from pathlib import Path
from typing import Any

from gpucnn_loops import disk_cache, image

# Numba considers AVX slow, or a mistake of a virtual machine, on these.
_WITHOUT_AVX = ("corei7-avx", "core-avx-i", "sandybridge", "ivybridge", "nocona")


@functools.cache
def processor() -> tuple[str, str, str]:
    """The target of compilation: (kind of machine, processor, its features as +this,-that).

    It is this machine, or what NUMBA_CPU_NAME and NUMBA_CPU_FEATURES name (set both: with the name alone the features are this machine's).
    """
    kind, host, own = _host()
    name = os.environ.get("NUMBA_CPU_NAME") or host
    features = os.environ.get("NUMBA_CPU_FEATURES")
    if not features:
        features = "" if name.lower() == "generic" else _used(name, own)
    return kind, name, features


def _used(name: str, features: str) -> str:
    """The features that Numba uses of a processor of that name."""
    asked = os.environ.get("NUMBA_ENABLE_AVX", "")
    if not int(asked) if asked.isdecimal() else name in _WITHOUT_AVX:
        return ",".join("-" + each[1:] if each[1:].startswith("avx") else each for each in features.split(","))
    return features


def _host() -> tuple[str, str, str]:
    """What LLVM says of this machine: as `processor`. It is kept on the disk for as long as the system says the same of it."""
    about = _about()
    path = disk_cache.path("processor", (about, importlib.metadata.version("llvmlite")), __file__, "text") if about else None
    kept = (disk_cache.read(path) or b"").decode().split("\n")
    if len(kept) != 3:
        kept = [str(_llvm().get_process_triple()), str(_llvm().get_host_cpu_name()), _features()]
        disk_cache.keep(path, "processor", "\n".join(kept).encode(), quietly=True)
    kind, name, features = kept
    return kind, name, features


def _about(file: str = "/proc/cpuinfo") -> str:
    """What Linux says of the first x86 processor, without what changes from one moment to the next; nothing on other machines."""
    if not image.HERE:
        return ""
    with contextlib.suppress(OSError):
        lines = Path(file).read_text(errors="replace").partition("\n\n")[0].splitlines()
        found = [" ".join(line.split()) for line in lines if line.startswith(("vendor", "cpu family", "model", "stepping", "flags"))]
        return "\n".join(found) if any(line.startswith("flags") for line in found) else ""
    return ""


def _features() -> str:
    try:
        return str(_llvm().get_host_cpu_features().flatten())
    except RuntimeError:  # LLVM does not know how to ask
        return ""


def _llvm() -> Any:
    import llvmlite.binding

    return llvmlite.binding


FEATURES = frozenset(name[1:] for name in processor()[2].split(",") if name.startswith("+"))

_lock = threading.Lock()
_addresses: dict[str, int] = {}  # of the functions that have been loaded, by symbol
_engines: list[Any] = []  # LLVM's, if it had to load one
_kept: list[Any] = []  # what it reads from


def load(code: bytes, symbol: str, way_in: str) -> int:
    """Loads an object file, and returns the address of its function `way_in`. Files that are loaded later can call `symbol`."""
    with _lock:
        found = dict[str, int]()
        if image.HERE:
            with contextlib.suppress(image.Unplaced, OSError):
                found = image.place(code, _address_of)
        if not found:
            found = _loaded_by_llvm(code, (symbol, way_in))
        if not (found.get(symbol) and found.get(way_in)):
            raise ImportError(f"there is no {symbol} in its machine code")
        _addresses[symbol] = found[symbol]
        return found[way_in]


def known(symbol: str) -> bool:
    """Whether machine code may call a function by this name. Calling an unknown one would end the process."""
    return bool(_address_of(symbol))


def _address_of(symbol: str) -> int:
    """The address of a function that was loaded, or of one in C; 0 where there is none."""
    return _addresses.get(symbol) or (image.HERE and image.address_in_libraries(symbol)) or int(_llvm().address_of_symbol(symbol) or 0)


def _loaded_by_llvm(code: bytes, names: tuple[str, ...]) -> dict[str, int]:
    llvm = _llvm()
    if not _engines:
        _engines.append(_engine())
    for name, address in _addresses.items():
        llvm.add_symbol(name, address)
    file = llvm.object_file.ObjectFileRef.from_data(code)
    _kept.extend((file, code))
    _engines[0].add_object_file(file)
    _engines[0].finalize_object()
    return {name: int(_engines[0].get_function_address(name)) for name in names}


def _engine() -> Any:
    llvm = _llvm()
    with contextlib.suppress(RuntimeError):  # older ones say that they have been asked before
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
    kind, name, features = processor()
    target = llvm.Target.from_triple(kind).create_target_machine(name, features, codemodel="jitdefault", jit=True)
    module = llvm.parse_assembly("")
    module.triple, module.data_layout = kind, str(target.target_data)
    return llvm.create_mcjit_compiler(module, target)
