"""Array operations, once for each kind of device, under the same names and signatures.

    shapes      sizes and padding of sliding windows, checked
    cpu         NumPy and BLAS
    cuda        CuPy arrays and the kernels of gpucnn_kernels

The operations check nothing: callers (layers at build, gpucnn.functional at every call) pass C-contiguous arrays of one dtype on one
device, with sizes that fit the `Window`. The result is written to `out` if that is given; otherwise it is allocated.
"""
