"""The base of all kernels: Numba in one module, compiling and its disk cache, launching, and the smallest device functions."""
