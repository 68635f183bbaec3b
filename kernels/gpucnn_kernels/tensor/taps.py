"""Where the pixels of a weight's gradient lie: rows are channels and taps (c, r, s), the sum runs over positions (n, p, q).

The pixel of a row and a position lies at the sum of two offsets, one of the row alone, which a table in shared memory holds, and one of the
position alone. The table also has the row's tap as one bit: an AND with the taps inside the image, seen from the position, tells whether
there is a pixel.
"""

# Numba works out the types of kernels.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from gpucnn_kernels.core._numba import int32, uint32
from gpucnn_kernels.core.compile import device
from gpucnn_kernels.core.integers import divide
from gpucnn_kernels.tensor.instructions import number_of

MOST_TAPS = 32  # bits of a word


@device(forceinline=True)
def put_row(table, own, first_row, x_args):
    """Writes row first_row + own to the table: the offset in bytes from the pixel of the first tap and channel, and the tap's bit. Rows
    past the last repeat it."""
    (rows, taps_of, taps_by, taps_shift, S, S_by, S_shift, _, dilation_h, dilation_w, _, _, H, W), _ = x_args
    row = uint32(min(uint32(first_row + own), uint32(rows - uint32(1))))
    channel = divide(row, taps_by, taps_shift)
    tap = uint32(row - channel * taps_of)
    r = divide(tap, S_by, S_shift)
    down, right = uint32(r * uint32(dilation_h)), uint32(uint32(tap - r * S) * uint32(dilation_w))
    offset = uint32(uint32(channel * uint32(H * W)) + uint32(down * W) + right)
    table[uint32(own * uint32(2))] = number_of(uint32(offset * uint32(4)))
    table[uint32(own * uint32(2) + uint32(1))] = number_of(uint32(uint32(1) << tap))


@device(forceinline=True)
def first_pixel(position, x_args):
    """The image of a position, and the row and column of its first tap's pixel, which may lie outside it."""
    (_, _, _, _, _, _, _, _, _, _, top, left, _, _), walk = x_args
    _, plane, plane_by, plane_shift, Q, Q_by, Q_shift, _, stride_h, stride_w, _, _ = walk
    n = divide(position, plane_by, plane_shift)
    rest = uint32(position - n * plane)
    p = divide(rest, Q_by, Q_shift)
    return n, int32(int32(p) * stride_h - top), int32(int32(uint32(rest - p * Q)) * stride_w - left)


@device(forceinline=True)
def taps_inside(h0, w0, x_args):
    """A bit for each tap whose pixel is inside the image, of the position whose first tap is at h0, w0."""
    (_, taps_of, _, _, S, _, _, _, dilation_h, dilation_w, _, _, H, W), _ = x_args
    columns = uint32(0)  # of one row of taps
    for s in range(int32(S)):
        if uint32(w0 + int32(s) * dilation_w) < W:
            columns |= uint32(uint32(1) << uint32(s))
    inside, h = uint32(0), h0
    for first in range(0, int32(taps_of), int32(S)):
        if uint32(h) < H:
            inside |= uint32(columns << uint32(first))
        h = int32(h + dilation_h)
    return inside
