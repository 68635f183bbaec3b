"""Array operations, once for each kind of device, under the same names and signatures.

    shapes      sizes and padding of sliding windows, checked
    cpu         NumPy and BLAS
    cuda        CuPy arrays and the kernels of gpucnn_kernels

The operations check nothing: callers (layers at build, gpucnn.functional at every call) hand them arrays of one dtype, C-contiguous,
on one device, of sizes that fit the `Window`. Where `out` is given the result is written there; otherwise it is allocated.
"""
