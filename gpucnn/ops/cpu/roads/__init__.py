"""Decides what computes an operation: compiled loops (gpucnn_loops) or NumPy. Files, names and signatures are those of the folder above.

Loops compute contiguous float32 arrays, the usual case. NumPy computes float64, shapes that no loop supports, and everything if GPUCNN_CPU
is numpy or Numba cannot compile. The choice depends on a shape without its batch, so it never changes in the middle of a run.
"""

import importlib

from gpucnn.names import modules_in
from gpucnn.ops.cpu.roads._plans import convolution as convolution
from gpucnn.ops.cpu.roads._plans import pooled as pooled

_found = {}
for _module in modules_in(__name__):
    _reference = importlib.import_module(f"gpucnn.ops.cpu.{_module.__name__.rpartition('.')[2]}")
    for _name in _module.__all__:
        _found[_name] = getattr(_module, _name)
        _found[_name].__doc__ = getattr(_reference, _name).__doc__

__all__ = sorted(_found)
globals().update(_found)
