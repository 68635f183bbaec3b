"""What the compiler makes of the kernels that are made for a shape: those of the first layers of MNIST and CIFAR networks."""

from __future__ import annotations

import pytest

from gpucnn.device import simulated
from gpucnn.ops.shapes import Window, conv_window
from gpucnn_kernels import direct, fused, loss, pool, static
from gpucnn_kernels._numba import float32, int32, types, uint32
from gpucnn_kernels.catalogue import CONV_SHAPES, Entry


def missing() -> str | None:
    try:
        static._linker()
    except static.ToolchainError as error:
        return str(error)
    return None


pytestmark = pytest.mark.skipif(simulated() or missing() is not None, reason=f"cannot compile kernels: {missing()}")

_F = types.Array(float32, 1, "C")
_I = types.Array(int32, 1, "C")

SHAPES: dict[str, tuple[int, int, int, Window]] = {  # images, channels, filters
    shape.name: (shape.n, shape.c, shape.k, conv_window(shape.hw, shape.rs, shape.stride, shape.padding))
    for shape in CONV_SHAPES
    if shape.name in ("m1", "k1")
}
SHAPES["colour"] = (256, 3, 64, conv_window((32, 32), (3, 3), 1, 1))
SHAPES["stem"] = (64, 3, 64, conv_window((224, 224), (7, 7), 2, 3))


def entries(name: str) -> list[Entry]:
    images, channels, filters, window = SHAPES[name]
    plan = direct.plan_of(channels, filters, window)
    pooled = direct.plan_of(channels, filters, window, side=2)
    grad = direct.grad_plan_of(images, channels, filters, window)
    assert plan is not None and grad is not None
    found = [
        Entry(
            f"{name}_forward",
            direct.forward_kernel(plan),
            (_F, _F, _F, _F, uint32, int32, int32, int32, int32, uint32, uint32, int32, int32),
            plan.threads,
            max_registers=80,
        ),
        Entry(
            f"{name}_weight_grad",
            direct.weight_grad_kernel(grad),
            (_F, _F, _F, uint32, int32, int32, int32, int32, uint32, uint32, uint32, uint32),
            grad.threads,
            max_registers=168,  # 112 sums and what they are made of: three blocks
        ),
    ]
    if pooled is not None:  # stride and pooling together take more pixels than fit
        found.append(
            Entry(
                f"{name}_relu_max_pool2d",
                fused.fused_kernel(pooled),
                (_F, _F, _F, _F, _I, uint32, int32, int32, uint32, int32, int32, uint32, uint32, int32),
                pooled.threads,
                max_registers=80,
            )
        )
    return found


FOR_ALL = [
    Entry("add_parts", direct.add_parts_kernel(32, 8), (_F, _F, _F, uint32, uint32, uint32, uint32), 256),
    *(Entry(f"max_pool2d_2x2_{pairs}", pool.max_pool2x2(pairs), (_F, _F, _I, *(uint32,) * 8)) for pairs in (False, True)),
    *(Entry(f"max_pool2d_2x2_grad_{pairs}", pool.max_pool2x2_grad(pairs), (_F, _I, _F, *(uint32,) * 8)) for pairs in (False, True)),
    *(
        Entry(
            f"cross_entropy_in_one_block_{of_classes}",
            loss.one_block(loss.ONE_BLOCK_THREADS, of_classes),
            (_F, _I if of_classes else _F, _F, _F, _I, uint32, uint32, uint32, float32),
            loss.ONE_BLOCK_THREADS,
            max_registers=64,
        )
        for of_classes in (False, True)
    ),
]


# Every chip for the shapes of MNIST; three channels and large images, which take long to compile, for one.
@pytest.mark.parametrize(
    ("name", "arch"),
    [*((name, arch) for name in ("m1", "k1", "for-all") for arch in static.CHIPS), ("colour", "sm_90"), ("stem", "sm_90")],
)
def test_kernels_of_shapes_fit_the_chip(name: str, arch: str) -> None:
    for entry in FOR_ALL if name == "for-all" else entries(name):
        report = static.compile_kernel(entry, arch)
        assert report.spill_stores == report.spill_loads == 0, report
        assert report.stack == 0, report
        assert report.float64 == 0, report
        assert 0 < report.registers <= entry.max_registers, report
        assert report.shared <= 48 * 1024, report
        assert report.occupancy > 0, report
