"""The operations on CuPy arrays, float32: Numba kernels. Under Numba's simulator, on NumPy arrays.

They are what the files in this folder name in their `__all__`: the same as those of gpucnn.ops.cpu, with the same signatures.
"""

from gpucnn.names import modules_in

_found = {name: getattr(module, name) for module in modules_in(__name__) for name in module.__all__}

__all__ = sorted(_found)
globals().update(_found)
