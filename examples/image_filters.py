"""What nine hand-made filters do to a photograph: sharpen, blur, edges, emboss, low-pass and high-pass, each with its spectrum.

    python examples/image_filters.py [--output filters.png] [--device auto] [--quick]

A convolution with fixed weights is a filter of the classical kind (gpucnn.functional.conv2d). The sheet shows each photograph before and
after, with its spectrum beside it: how much there is of each frequency, the lowest in the middle. Blur takes the high ones away, edges the
low ones. The photograph is scikit-learn's sample (load_sample_image).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from common import finish, parse  # beside this file

import gpucnn as gc
import gpucnn.functional as F
from gpucnn.device import Device, get_device
from gpucnn.errors import DataError, MissingExtraError


def bell(size: int, width: float) -> Any:
    """A Gaussian of `size` × `size` with sum 1."""
    line = np.exp(-((np.arange(size) - size // 2) ** 2) / (2 * width**2))
    return np.outer(line, line) / line.sum() ** 2


def filters() -> dict[str, Any]:
    """Every filter as a square of weights."""
    low = bell(15, 3.0)
    high = -low
    high[7, 7] += 1  # what the low-pass leaves out
    return {
        "unchanged": np.ones((1, 1)),
        "sharpen": np.array([[0, -1, 0], [-1, 5, -1], [0, -1, 0]]),
        "blur": np.full((5, 5), 1 / 25),
        "Sobel, across": np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]),
        "Sobel, down": np.array([[-1, -2, -1], [0, 0, 0], [1, 2, 1]]),
        "Laplacian": np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]]),
        "emboss": np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]]),
        "low-pass": low,
        "high-pass": high,
    }


def applied(image: Any, weights: Any, device: Device) -> Any:
    """The image (C, H, W) after the filter, which is applied to each channel separately: as many groups as channels. Positions where the
    filter would extend past the edge have no output, because zeros outside would be the strongest edge of all."""
    channels = len(image)
    kernel = np.broadcast_to(weights.astype(np.float32), (channels, 1, *weights.shape))
    x, weight = device.array(image[None], "float32"), device.array(np.ascontiguousarray(kernel))
    return gc.to_numpy(F.conv2d(x, weight, groups=channels))[0]


def spectrum(image: Any) -> Any:
    """The logarithm of the amplitude of each frequency, scaled to 0 … 1, with the lowest frequency in the middle."""
    grey = image.mean(axis=0)
    power = np.log1p(np.abs(np.fft.fftshift(np.fft.fft2(grey - grey.mean()))))
    return power / max(float(power.max()), 1e-9)


def shown(image: Any, signed: bool) -> Any:
    """The image for matplotlib; for values of both signs, 0 is grey."""
    largest = max(float(np.percentile(np.abs(image), 99)), 1e-9)
    scaled = np.clip(image / (2 * largest) + 0.5 if signed else image, 0, 1)
    return scaled[0] if len(image) == 1 else scaled.transpose(1, 2, 0)


def photograph() -> Any:
    """scikit-learn's sample, (3, H, W) from 0 to 1."""
    try:
        from sklearn.datasets import load_sample_image

        pixels = load_sample_image("flower.jpg")
    except ImportError as error:
        raise MissingExtraError(f"the photograph comes with scikit-learn and is read by Pillow: pip install both ({error})") from None
    except OSError as error:
        raise DataError(f"scikit-learn's photograph cannot be read: {error}") from None
    return (pixels / np.float32(255)).transpose(2, 0, 1)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("filters.png"), help="file for the pictures [filters.png]")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda [auto]")
    options = parse(parser)
    device, colour = get_device(options.device), photograph()
    if options.quick:
        colour = colour[:, 100:196, 200:328]
    grey = colour.mean(axis=0, keepdims=True)
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError(f"the sheet is drawn with matplotlib: pip install matplotlib ({error})") from None
    every = filters()
    sheet = Figure(figsize=(10, 2.2 * len(every)), layout="constrained")
    axes = sheet.subplots(len(every), 4)
    for row, (name, weights) in enumerate(every.items()):
        signed = abs(weights.sum()) < 1e-6
        for column, image in enumerate((grey, colour)):
            result = applied(image, weights, device)
            axes[row, 2 * column].imshow(shown(result, signed), cmap="gray", vmin=0, vmax=1)
            axes[row, 2 * column + 1].imshow(spectrum(result), cmap="magma", vmin=0, vmax=1)
            if column == 0:
                deviation = float(result.std())
                print(f"{name:14} {weights.shape[0]} × {weights.shape[1]}, sum {round(weights.sum(), 2) + 0:g}: deviation {deviation:.4f}")
        axes[row, 0].set_title(name, loc="left", fontsize=9)
    for axis in axes.flat:
        axis.set_axis_off()
    try:
        sheet.savefig(options.output, dpi=60 if options.quick else 110)
    except OSError as error:
        raise DataError(f"{options.output} cannot be written: {error}") from None
    print(f"wrote {options.output}")
    return 0


if __name__ == "__main__":
    finish(main)
