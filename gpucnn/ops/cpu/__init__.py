"""The operations on NumPy arrays, float32 or float64: roads/ decides what computes them. NumPy is the reference for every kernel.

The package exports the names in the `__all__` of its files. An operation in roads/ replaces the NumPy one of the same name.
"""

from gpucnn.arrays import quiet
from gpucnn.names import modules_in

_modules = modules_in(__name__)
_modules.sort(key=lambda module: module.__name__.endswith(".roads"))  # last, so that its operations replace the others
_found = {name: getattr(module, name) for module in _modules for name in module.__all__}

__all__ = sorted(_found)
globals().update({name: quiet(operation) for name, operation in _found.items()})  # whatever errors the caller has told NumPy to raise
