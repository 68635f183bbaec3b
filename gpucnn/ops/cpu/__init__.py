"""The operations on NumPy arrays, float32 or float64: roads.py says what computes them. NumPy is the reference for every kernel.

They are what the files in this folder name in their `__all__`. The road to an operation, where there is one, stands in its place.
"""

from gpucnn.arrays import quiet
from gpucnn.names import modules_in

_modules = modules_in(__name__)
_modules.sort(key=lambda module: module.__name__.endswith(".roads"))  # last, in the place of what it leads to
_found = {name: getattr(module, name) for module in _modules for name in module.__all__}

__all__ = sorted(_found)
globals().update({name: quiet(operation) for name, operation in _found.items()})  # whatever the caller has told NumPy to raise
