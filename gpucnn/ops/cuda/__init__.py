"""The operations on CuPy arrays, float32: Numba kernels. Under Numba's simulator, on NumPy arrays.

The files in this folder name them in their `__all__`. Names and signatures are those of gpucnn.ops.cpu.
"""

from gpucnn.names import modules_in

_found = {name: getattr(module, name) for module in modules_in(__name__) for name in module.__all__}

__all__ = sorted(_found)
globals().update(_found)
