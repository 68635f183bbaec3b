"""Where a training step's time goes, kernel by kernel; and the same operation on chips that you do not have.

    python examples/profile_kernels.py [--device auto] [--html profile.html] [--quick]

On a machine with a GPU the kernels are measured, on any other NumPy's operations. What follows is compiled and worked out for a row of
chips, none of which has to be there: bounds, and no measurements. `gpucnn profile` does all of this from the command line.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from common import few_repetitions, finish, not_measured, parse  # beside this file

from gpucnn.device import get_device
from gpucnn.profiling import run
from gpucnn.profiling.show import page, report
from gpucnn.profiling.show.units import seconds_text
from gpucnn.profiling.what import roofline

CHIPS = ("T4", "A100", "RTX 4090", "H100", "B200")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda [auto]")
    parser.add_argument("--html", type=Path, metavar="FILE", help="also write a page with the roofline and the timeline")
    options = parse(parser)
    run.Outputs(html=options.html).check()  # before anything is measured

    device = get_device(options.device)
    with few_repetitions(options.quick):
        asked = run.Options(model="keras", batch_size=4 if options.quick else 64, device=device.kind)
        profile = run.make(asked, say=lambda text: None)
    print("\n".join(report.lines(profile)))
    if options.html:
        page.write(profile, options.html)
    if note := not_measured(device, options.quick):
        print(f"\n{note}")

    print("\npooling of 256 images, 64 channels, 32×32, at least (not measured):")
    for chip in CHIPS[-2:-1] if options.quick else CHIPS:
        bounds = run.make(run.Options(op="pool", shape="256,64,32x32,2x2", arch=chip), say=lambda text: None)
        for row in bounds.rows:
            print(
                f"{chip:9} {row.phase:9} {seconds_text(row.roofline):>8}  {row.registers:3} registers, "
                f"{100 * (row.occupancy or 0):.0f} % occupancy, {roofline.WORDS[row.wall].partition(':')[0]}"
            )
    return 0


if __name__ == "__main__":
    finish(main)
