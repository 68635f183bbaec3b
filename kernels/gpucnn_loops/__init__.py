"""The CPU's loops: Python that Numba compiles for the processor it runs on. Importable without gpucnn; README.md explains them.

    language, loops, _numba         the language of loops; a loop and its calls; the compiler
    disk_cache, machine             machine code on the disk, and made ready to run
    vector, tile, turn              sixteen numbers at a time; the inner loop of all products; transposition
    tables                          the offsets of the outputs and the taps of a window
    direct                          convolution of any kind
    winograd, winograd_plan, transforms
                                    convolution of 3×3 and 5×5 kernels at stride 1
    pixels                          convolution at stride 1 with few output channels or taps
    pooled, windows                 convolution with ReLU and 2×2 pooling, and with any other max pooling
    after                           what follows a convolution's sums in the same pass
    depthwise, dense, whole         depthwise convolution, dense layers, convolution of one window
    pool, average, norm             max and average pooling, batch normalization
    elementwise, update, loss       ReLU, sums and dropout; optimizers; cross-entropy
    exponential, tanh, softmax      eˣ, and what is made of it: tanh; softmax and sigmoid
    sums                            what groups of images have summed up is added; copies
    threads, crew, handing          the number of threads and their memory; sharing work out among them; handing it over
    replay, chunks                  a pass recorded once, and run again without Python between its loops; some images at a time

A file has its loops first and behind them plain functions on arrays: float32, C-contiguous, outputs allocated by the caller.
"""
