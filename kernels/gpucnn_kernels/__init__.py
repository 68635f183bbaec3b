"""CUDA kernels for convolutional networks in plain Python (Numba). Needs neither gpucnn nor CuPy.

Each file holds one operation: device functions, kernels, launchers, in that order. A launcher takes arrays that are already
allocated, checks them, and launches; what it launches on is whatever Numba accepts (CuPy arrays, PyTorch tensors, NumPy arrays under
the simulator). Importing this package compiles nothing and needs no driver.
"""
