"""Sizes and padding of sliding windows, computed once.

Everything that slides a window over an image (convolution and pooling, on every device) gets its sizes from here, as a `Window`
that has been checked and holds plain numbers only. The array code behind it computes no shapes and checks no arguments.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from gpucnn.checks import Pair, flag, pair, several
from gpucnn.errors import ShapeError
from gpucnn.text import shown

Sides: TypeAlias = tuple[Pair, Pair]  # (top, bottom), (left, right)
Padding: TypeAlias = int | Pair | tuple[Pair, Pair] | Literal["valid", "same"]


LIMIT = 2**31  # the kernels count in 32 bits: no side of an image, padding included, and no array has so many elements


@dataclass(frozen=True, slots=True)
class Window:
    """A window of R × S taps sliding over an H × W image, giving P × Q positions. Axes are (vertical, horizontal).

    The tap (r, s) of position (p, q) reads the image at row `p·stride[0] − padding[0][0] + r·dilation[0]`, and likewise for columns;
    rows and columns outside the image are padding.
    """

    input: Pair  # H, W
    kernel: Pair  # R, S
    stride: Pair
    padding: tuple[Pair, Pair]  # (top, bottom), (left, right)
    dilation: Pair
    output: Pair  # P, Q
    same: bool = False  # the padding came from "same": averages never count it

    @property
    def extent(self) -> Pair:
        """Rows and columns from the first tap to the last: d·(k − 1) + 1."""
        (r, s), (dh, dw) = self.kernel, self.dilation
        return dh * (r - 1) + 1, dw * (s - 1) + 1


def normalize_padding(padding: Any) -> tuple[Pair, Pair] | Literal["valid", "same"]:
    """An int, (vertical, horizontal) or ((top, bottom), (left, right)) as the last of these; "valid" and "same" as they are."""
    if isinstance(padding, str):
        if padding.lower() == "valid":
            return "valid"
        if padding.lower() == "same":
            return "same"
        raise ShapeError(f'padding must be "valid", "same" or integers, got {shown(padding)}')
    sides = several(padding)
    if sides is not None and any(several(side) is not None or isinstance(side, str) for side in sides):
        if len(sides) != 2 or any(several(side) is None for side in sides):
            raise ShapeError(f"padding must be one number, (vertical, horizontal) or ((top, bottom), (left, right)), got {shown(padding)}")
        return pair(sides[0], "padding", 0), pair(sides[1], "padding", 0)
    vertical, horizontal = pair(padding, "padding", 0)
    return (vertical, vertical), (horizontal, horizontal)


def resolve_padding(padding: Any, input: Pair, kernel: Pair, stride: Pair, dilation: Pair) -> tuple[Pair, Pair]:
    """((top, bottom), (left, right)) in pixels, for anything that `normalize_padding` takes.

    "same" is TensorFlow's rule at every stride and dilation: total = max((ceil(in / s) − 1)·s + d·(k − 1) + 1 − in, 0), the odd
    pixel at the bottom and right.
    """
    sides = normalize_padding(padding)
    if sides == "valid":
        return (0, 0), (0, 0)
    if sides == "same":
        totals = [
            max((-(-size // s) - 1) * s + d * (k - 1) + 1 - size, 0) for size, k, s, d in zip(input, kernel, stride, dilation, strict=True)
        ]
        top, left = totals[0] // 2, totals[1] // 2
        sides = (top, totals[0] - top), (left, totals[1] - left)
    for size, (begin, end) in zip(input, sides, strict=True):
        if size + begin + end >= LIMIT:
            raise ShapeError(f"an image side of {size} with padding {shown((begin, end))} has over 2³¹ pixels: use less padding")
    return sides


def _sides(input: Any, kernel: Any, stride: Any, dilation: Any, kernel_name: str) -> tuple[Pair, Pair, Pair, Pair]:
    return (
        _small(pair(input, "image size", 1), "image size"),
        _small(pair(kernel, kernel_name, 1), kernel_name),
        _small(pair(stride, "stride", 1), "stride"),
        _small(pair(dilation, "dilation", 1), "dilation"),
    )


def _small(sizes: Pair, name: str) -> Pair:
    """Sizes that the kernels can count with."""
    if max(sizes) >= LIMIT:
        raise ShapeError(f"{name} must be below 2³¹, got {shown(max(sizes))}")
    return sizes


def conv_window(input: Any, kernel: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1) -> Window:
    """The window of a convolution over images of `input` = (H, W).

    Raises ShapeError where the kernel does not fit the padded image, and for sizes below one.
    """
    hw, rs, stride, dilation = _sides(input, kernel, stride, dilation, "kernel size")
    pads = resolve_padding(padding, hw, rs, stride, dilation)
    output = []
    for axis, name in enumerate(("high", "wide")):
        padded = hw[axis] + sum(pads[axis])
        extent = dilation[axis] * (rs[axis] - 1) + 1
        if extent > padded:
            raise ShapeError(
                f"the kernel is {extent} pixels {name} (size {rs[axis]}, dilation {dilation[axis]}) and the padded image only {padded}: "
                "use a smaller kernel, more padding or larger images"
            )
        output.append((padded - extent) // stride[axis] + 1)
    return Window(hw, rs, stride, pads, dilation, (output[0], output[1]), padding == "same")


def transposed_window(input: Any, kernel: Any, stride: Any = 1, padding: Any = 0, output_padding: Any = 0, dilation: Any = 1) -> Window:
    """The window of the convolution whose gradient a transposed convolution over images of `input` = (H, W) is: its `output` is (H, W), its
    `input` what the transposed convolution gives, (H − 1) · stride − padding + dilation · (R − 1) + 1 + output_padding.

    padding="same" makes that H · stride. Raises ShapeError for an output_padding that is not below stride or
    dilation, and where nothing is left.
    """
    hw, rs, stride, dilation = _sides(input, kernel, stride, dilation, "kernel size")
    more, sides = pair(output_padding, "output_padding", 0), normalize_padding(padding)
    if any(pixels >= max(step, d) for pixels, step, d in zip(more, stride, dilation, strict=True)):
        raise ShapeError(f"output_padding must be below the stride or the dilation, got {more} with stride {stride}, dilation {dilation}")
    if sides == "same":
        if more != (0, 0):
            raise ShapeError('padding="same" settles the size: give output_padding with padding in numbers only')
        output = [size * step for size, step in zip(hw, stride, strict=True)]
    else:
        around = ((0, 0), (0, 0)) if isinstance(sides, str) else sides
        output = [
            (size - 1) * step - sum(cut) + d * (k - 1) + 1 + pixels
            for size, step, cut, d, k, pixels in zip(hw, stride, around, dilation, rs, more, strict=True)
        ]
    if min(output) < 1:
        raise ShapeError(f"padding {shown(padding)} leaves nothing of the output, {tuple(output)} pixels: use less")
    # An output_padding of a stride and more has room for further positions of the window, from which nothing comes.
    return replace(conv_window(tuple(output), rs, stride, padding, dilation), output=hw)


def _padding_alone(size: int, k: int, s: int, d: int, begin: int, count: int) -> int | None:
    """The first of `count` positions on an axis whose taps are all outside of the image; None where each has one in it.

    A position that starts behind the image has none. One that starts before it, by `before` pixels, has its first tap at or behind the
    image's edge: the tap t = ⌈before / d⌉, at r = t·d − before. From one position to the next t never grows, and r grows by the stride,
    until it is d or more and begins again near 0. So with d ≤ size all is well as soon as the first position is, and otherwise the next
    one that may fail is where r reaches the image's end; r begins again a few times at the most.
    """
    position, early = 0, min(count, -(-begin // s))
    while position < early:
        before = begin - position * s
        tap = -(-before // d)
        r = tap * d - before
        if tap >= k or r >= size:
            return position
        position = early if d <= size else position - (r - size) // s
    late = -(-(size + begin) // s)
    return late if late < count else None


def pool_window(input: Any, kernel: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False) -> Window:
    """The window of a pooling over images of `input` = (H, W); `stride` is the kernel's size unless given.

    `ceil_mode` is PyTorch's: the last window may run over the end of the padded image, but is dropped where it would start in the
    end padding. Raises ShapeError for explicit padding over half of the window, for a window that would hold nothing but padding,
    and where the window does not fit the padded image.
    """
    stride, ceil_mode = kernel if stride is None else stride, flag(ceil_mode, "ceil_mode")
    hw, rs, stride, dilation = _sides(input, kernel, stride, dilation, "pooling window")
    pads = resolve_padding(padding, hw, rs, stride, dilation)
    output = []
    for axis, name in enumerate(("high", "wide")):
        size, k, s, d, (begin, end) = hw[axis], rs[axis], stride[axis], dilation[axis], pads[axis]
        extent = d * (k - 1) + 1
        if not isinstance(padding, str) and 2 * max(begin, end) > k:
            raise ShapeError(f"padding {max(begin, end)} is over half of a pooling window {k} {name}: at most {k // 2} is allowed")
        room = size + begin + end - extent
        if room < 0 and not (ceil_mode and room > -s):
            raise ShapeError(
                f"the pooling window is {extent} pixels {name} and the padded image only {size + begin + end}: "
                "use a smaller window or larger images"
            )
        count = (-(-room // s) if ceil_mode else room // s) + 1
        if ceil_mode and (count - 1) * s >= size + begin:
            count -= 1
        empty = _padding_alone(size, k, s, d, begin, count)
        if empty is not None:
            raise ShapeError(
                f"pooling window {empty} of {count} ({name}) would hold nothing but padding: image {size}, window {k}, stride {s}, "
                f"padding {(begin, end)}, dilation {d}"
            )
        output.append(count)
    return Window(hw, rs, stride, pads, dilation, (output[0], output[1]), padding == "same")
