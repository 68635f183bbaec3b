"""The CPU's loops: Python that Numba compiles for the processor it runs on. Importable without gpucnn; README.md explains them.

    language, loops, _numba         what loops are written in; what a loop is; its compiler
    disk_cache, machine             where its machine code is kept, and made ready to run
    vector, tile, turn              sixteen numbers at a time; the inner loop of all products; transposition
    tables                          where each output and each tap of a window lies
    direct, winograd, transforms    convolution: any; of 3×3 and 5×5 kernels at stride 1
    pooled                          convolution with ReLU and 2×2 pooling
    depthwise, dense, pool, norm    what they say
    elementwise, tanh, update, loss everything that is not a product
    threads, crew                   how many threads there are, and their memory; how they are handed work

A file has its loops first and behind them plain functions on arrays: float32, C-contiguous, outputs allocated by the caller.
"""
