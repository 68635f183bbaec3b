"""What every kernel stands on: Numba in one place, compiling and its cache on disk, launching, and the smallest device functions."""
