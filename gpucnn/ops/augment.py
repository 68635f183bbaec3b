"""Random changes to the images of a batch, described by plain numbers for the operations of every device."""

from __future__ import annotations

from dataclasses import dataclass

from gpucnn.checks import fraction, integer, positive
from gpucnn.errors import ArgumentError


@dataclass(frozen=True, slots=True)
class Augment:
    """Random changes to images (N, C, H, W), different for each image, applied in this order; zero or False leaves a change out.

    warp: rotates, scales and moves each image about its centre, by up to ± `rotate_degrees`, a factor of 1 ± `scale` and ± `translate`
        pixels on each axis, and distorts it by `elastic`: a grid of `elastic_grid`² displacements of up to ± `elastic` pixels on each axis,
        whose corners are the corners of the image; displacements in between are interpolated. Bilinear, zeros outside.
    shift: moves by up to ± `shift` whole pixels on each axis, zeros outside.
    flip: exchanges left and right in half of the images.
    cutout: sets a square with sides of that many pixels to zero, its centre anywhere in the image (T. DeVries and G. Taylor, "Improved
        Regularization of Convolutional Neural Networks with Cutout", 2017). It begins at row centre − cutout // 2.

    All draws are uniform. P. Simard, D. Steinkraus and J. Platt ("Best Practices for Convolutional Neural Networks Applied to Visual
    Document Analysis", ICDAR 2003) draw a displacement for each pixel and smooth the field with a Gaussian. A coarse grid gives a field
    that is as smooth except for kinks at the grid's lines, and each pixel needs only four draws instead of all those under the Gaussian,
    so no field is ever stored. The grid's spacing replaces their σ; `elastic` is a bound, their α a scale.
    """

    shift: int = 0
    rotate_degrees: float = 0.0
    scale: float = 0.0
    translate: float = 0.0
    flip: bool = False
    cutout: int = 0
    elastic: float = 0.0
    elastic_grid: int = 4

    def __post_init__(self) -> None:
        integer(self.shift, "shift", 0)
        integer(self.cutout, "cutout", 0)
        integer(self.elastic_grid, "elastic_grid", 2)
        for name, value in (("translate", self.translate), ("elastic", self.elastic), ("rotate_degrees", self.rotate_degrees)):
            positive(value, name, zero=True)
        fraction(self.scale, "scale")
        if self.rotate_degrees > 360:
            raise ArgumentError(f"rotate_degrees must be 0 to 360, got {self.rotate_degrees!r}")

    @property
    def warps(self) -> bool:
        """Whether pixels are interpolated."""
        return any((self.rotate_degrees, self.scale, self.translate, self.elastic))

    @property
    def moves(self) -> bool:
        """Whether whole pixels are moved."""
        return self.shift > 0 or self.flip
