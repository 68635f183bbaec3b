"""Where a training step's time goes, in ten lines; and the same operation on chips that are not here.

    python examples/profile_kernels.py [--html profile.html]

On a machine with a GPU the kernels are measured, on any other NumPy's operations. What follows is compiled and worked out for a row of
chips, none of which has to be there: bounds, and no measurements. `gpucnn profile` does all of this from the command line.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from gpucnn.device import why_not_auto
from gpucnn.profiling import run
from gpucnn.profiling.show import page, report
from gpucnn.profiling.show.units import seconds_text
from gpucnn.profiling.what import roofline

CHIPS = ("T4", "A100", "RTX 4090", "H100", "B200")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--html", type=Path, help="also write a page with the roofline and the timeline")
    options = parser.parse_args()

    here = "cuda" if why_not_auto() is None else "cpu"
    profile = run.make(run.Options(model="keras", batch_size=64, device=here), say=lambda text: None)
    print("\n".join(report.lines(profile)))
    if options.html:
        page.write(profile, options.html)

    print("\npooling of 256 images, 64 channels, 32×32, at least (not measured):")
    for chip in CHIPS:
        bounds = run.make(run.Options(op="pool", shape="256,64,32x32,2x2", arch=chip), say=lambda text: None)
        for row in bounds.rows:
            print(
                f"{chip:9} {row.phase:9} {seconds_text(row.roofline):>8}  {row.registers:3} registers, "
                f"{100 * (row.occupancy or 0):.0f} % occupancy, {roofline.WORDS[row.wall].partition(':')[0]}"
            )


if __name__ == "__main__":
    main()
