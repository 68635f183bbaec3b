"""Every kernel, with the types that its launcher gives it and the sizes that matter: what the compile check and the profiler walk over."""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from typing import Any

from gpucnn.profiling.measure import fma as ceilings
from gpucnn_kernels import activations, batch, dropout, loss, pool, tally, update
from gpucnn_kernels.conv import depthwise, direct, parts, pooled, pooled_grad
from gpucnn_kernels.conv import plain as conv
from gpucnn_kernels.conv import tensor as tensor_conv
from gpucnn_kernels.conv import tiled as implicit_gemm
from gpucnn_kernels.core._numba import float32, int32, types, uint32
from gpucnn_kernels.core.launch import THREADS, Pair, Window
from gpucnn_kernels.core.reduce import BLOCK_LANES, LANES
from gpucnn_kernels.dense import plain as gemm
from gpucnn_kernels.engine import bias, product
from gpucnn_kernels.engine.loop import tile_kernel
from gpucnn_kernels.engine.operands import GRADIENT, IMAGES, MATRIX, PIXELS, TAPS, gradients, matrix
from gpucnn_kernels.engine.tiles import TILES, Operand, Store
from gpucnn_kernels.tensor import product as tensor_product
from gpucnn_kernels.tensor import weight_grad as tensor_grad
from gpucnn_kernels.tensor.product import TensorTile
from gpucnn_kernels.tensor.weight_grad import TensorGradTile


@dataclass(frozen=True, slots=True)
class _Window:
    """What launchers want to know of a window: launch.Window. Users' windows are checked; these are few, and a test compares them."""

    input: Pair
    kernel: Pair
    stride: Pair
    padding: tuple[Pair, Pair]
    output: Pair
    dilation: Pair = (1, 1)
    same: bool = False


def _window(hw: Pair, rs: Pair, stride: int, padding: int | str, dilation: int = 1) -> _Window:
    """Padding is a number, "valid" or, for a stride of 1 and an odd kernel, "same"."""
    h, w = (padding, padding) if isinstance(padding, int) else ((rs[0] - 1) // 2, (rs[1] - 1) // 2) if padding == "same" else (0, 0)
    rows, columns = ((taps - 1) * dilation + 1 for taps in rs)
    output = (hw[0] + 2 * h - rows) // stride + 1, (hw[1] + 2 * w - columns) // stride + 1
    return _Window(hw, rs, (stride, stride), ((h, h), (w, w)), output, (dilation, dilation), same=padding == "same")


@dataclass(frozen=True, slots=True)
class ConvShape:
    """A convolution worth measuring: images (N, C, H, W), K filters of R × S."""

    name: str
    n: int
    c: int
    hw: tuple[int, int]
    k: int
    rs: tuple[int, int]
    stride: int
    padding: int | str

    @property
    def window(self) -> Window:
        return _window(self.hw, self.rs, self.stride, self.padding)


@dataclass(frozen=True, slots=True)
class PoolShape:
    """A pooling worth measuring: images (N, C, H, W), square windows."""

    name: str
    n: int
    c: int
    hw: tuple[int, int]
    kernel: int
    stride: int
    padding: int

    @property
    def window(self) -> Window:
        return _window(self.hw, (self.kernel, self.kernel), self.stride, self.padding)


CONV_SHAPES = (
    ConvShape("m1", 128, 1, (28, 28), 32, (5, 5), 1, "same"),
    ConvShape("m2", 128, 32, (14, 14), 64, (5, 5), 1, "same"),
    ConvShape("k1", 128, 1, (28, 28), 32, (3, 3), 1, "valid"),
    ConvShape("k2", 128, 64, (13, 13), 64, (3, 3), 1, "valid"),
    ConvShape("c1", 256, 64, (32, 32), 128, (3, 3), 1, 1),
    ConvShape("c2", 256, 128, (16, 16), 256, (3, 3), 1, 1),
    ConvShape("c3", 256, 256, (8, 8), 256, (3, 3), 1, 1),
    ConvShape("r1", 64, 64, (56, 56), 64, (3, 3), 1, 1),
    ConvShape("r2", 64, 64, (56, 56), 128, (3, 3), 2, 1),
    ConvShape("p1", 64, 256, (56, 56), 64, (1, 1), 1, 0),
)

POOL_SHAPES = tuple(
    PoolShape(f"{shape.name}-{kernel}x{kernel}", shape.n, shape.k, shape.hw, kernel, 2, padding)
    for shape in CONV_SHAPES
    if shape.name in ("c1", "r1")
    for kernel, padding in ((2, 0), (3, 1))
)

# Depthwise layers as MobileNet, EfficientNet and ConvNeXt have them.
DEPTHWISE_WINDOWS: dict[str, Window] = {
    "3x3": _window((112, 112), (3, 3), 1, 1),
    "3x3-stride-2": _window((112, 112), (3, 3), 2, 1),
    "5x5-stride-2": _window((56, 56), (5, 5), 2, 2),
    "3x3-dilation-2": _window((14, 14), (3, 3), 1, 2, dilation=2),
    "7x7": _window((56, 56), (7, 7), 1, 3),
}


@dataclass(frozen=True, slots=True)
class Entry:
    """A kernel, the types of its arguments, the threads of a block, and the registers per thread that it may take.

    The limits on registers are plans, not measurements: 64 lets an SM of 65 536 registers hold 1024 threads, and 40 as many as most
    chips can schedule (1536). The elementwise kernels are bound by memory and want the latter.
    """

    name: str
    kernel: Any
    signature: tuple[Any, ...]
    threads_per_block: int = THREADS
    max_registers: int = 40
    blocks_per_sm: int | None = None  # launch bounds: the compiler leaves registers for so many blocks
    more_shared: int = 0  # bytes of shared memory per block, beside what the kernel itself declares
    chips: tuple[str, ...] = ()  # the only architectures that it is for; none: all of them
    shapes: tuple[ConvShape, ...] | tuple[PoolShape, ...] = ()


_F = types.Array(float32, 1, "C")
_I = types.Array(int32, 1, "C")
_U = types.Array(uint32, 1, "C")
_GEOMETRY = (int32,) * 12

ENTRIES = (
    Entry(
        "conv2d",
        conv.conv2d_kernel,
        (_F, _F, _F, _F, int32, int32, int32, *_GEOMETRY, int32, int32),
        max_registers=64,
        shapes=CONV_SHAPES,
    ),
    Entry(
        "conv2d_input_grad",
        conv.conv2d_input_grad_kernel,
        (_F, _F, _F, _F, int32, int32, int32, *_GEOMETRY, int32),
        max_registers=96,  # NVVM unrolls the loop over filters
        shapes=CONV_SHAPES,
    ),
    Entry(
        "conv2d_weight_grad",
        conv.conv2d_weight_grad_kernel,
        (_F, _F, _F, int32, int32, int32, int32, *_GEOMETRY),
        LANES,
        max_registers=64,
        shapes=CONV_SHAPES,
    ),
    Entry("bias_grad", bias.bias_grad_kernel, (_F, _F, int32, int32, int32), BLOCK_LANES, shapes=CONV_SHAPES),
    Entry("max_pool2d", pool.max_pool2d_kernel, (_F, _F, _I, *_GEOMETRY), max_registers=64, shapes=POOL_SHAPES),
    Entry(
        "max_pool2d_grad",
        pool.max_pool2d_grad_kernel,
        (_F, _I, _F, _F, *_GEOMETRY, int32, *(uint32,) * 8),
        max_registers=64,
        shapes=POOL_SHAPES,
    ),
    Entry("avg_pool2d", pool.avg_pool2d_kernel, (_F, _F, *_GEOMETRY, int32, int32, int32), max_registers=64, shapes=POOL_SHAPES),
    Entry("avg_pool2d_grad", pool.avg_pool2d_grad_kernel, (_F, _F, *_GEOMETRY, int32, int32, int32), max_registers=64, shapes=POOL_SHAPES),
    Entry("gemm", gemm.gemm_kernel, (_F, _F, _F, _F, *(int32,) * 9), gemm.THREADS, max_registers=64),
    Entry("relu", activations.relu_kernel, (_F, _F)),
    Entry("relu_grad", activations.relu_grad_kernel, (_F, _F, _F)),
    Entry("sigmoid", activations.sigmoid_kernel, (_F, _F)),
    Entry("sigmoid_grad", activations.sigmoid_grad_kernel, (_F, _F, _F)),
    Entry("softmax", activations.softmax_kernel, (_F, _F, int32), LANES),
    Entry("softmax_grad", activations.softmax_grad_kernel, (_F, _F, _F, int32), LANES),
    Entry("class_cross_entropy", loss.class_cross_entropy_kernel, (_F, _I, _F, _F, _I, int32, float32), LANES),
    Entry("row_cross_entropy", loss.row_cross_entropy_kernel, (_F, _F, _F, _F, _I, int32, float32), LANES),
    Entry("binary_cross_entropy", loss.binary_cross_entropy_kernel, (_F, _F, _F, _F, _I, int32, float32), LANES),
    Entry("mean_squared_error", loss.mean_squared_error_kernel, (_F, _F, _F, _F, _I, int32, float32), LANES),
    Entry("add_rows", loss.add_rows_kernel, (_F, _I, _F, _I, float32), BLOCK_LANES),
    Entry("tally", tally.tally_kernel, (_F, _I, _F, _F, _I, _F, float32), 1),
    Entry("sgd", update.sgd_kernel, (_F, _F, _F, _F, float32, int32, float32, int32)),
    Entry("adam", update.adam_kernel, (_F, _F, _F, _F, _F, *(float32,) * 6)),
    Entry("dropout", dropout.dropout_kernel, (_F, _F, _U, uint32, float32, uint32, uint32)),
    Entry("next_call", dropout.next_call_kernel, (_U,), 1),
    Entry("permutation", batch.permutation_kernel, (_I, *(uint32,) * 5)),
    Entry("fma", ceilings.fma_kernel, (_F, int32, float32), ceilings.THREADS),
)


def _numbers(unsigned: int, signed: int = 0, more: int = 0) -> Any:
    return types.Tuple((uint32,) * unsigned + (int32,) * signed + (uint32,) * more)


# What the launchers hand over with each operand and store, in the order in which operands.py takes it apart.
_MATRIX = _numbers(5)
_ARGUMENTS = {
    "pixels": types.Tuple((_numbers(9, 4), _numbers(6, 2, 4))),
    "taps": types.Tuple((_numbers(8, 4, 2), _numbers(8, 2, 2))),
    "gradients": _numbers(6),
    "matrix": _MATRIX,
}


def _engine(name: str, a: Operand, b: Operand, store: Store, tiles: tuple[str, ...] = tuple(TILES)) -> list[Entry]:
    put = _numbers(13) if store is IMAGES else types.Tuple(())
    entries = []
    for variant in tiles:
        tile = TILES[variant]
        arguments = (_ARGUMENTS[operand.name.split()[0]] for operand in (a, b))
        signature = (_F, _F, _F, _F, _numbers(7), _numbers(3), *arguments, put)
        limit = 65536 // tile.threads // tile.blocks_per_sm
        entries.append(
            Entry(f"{name}-{variant}", tile_kernel(tile, a, b, store), signature, tile.threads, min(limit, 255), tile.blocks_per_sm)
        )
    return entries


ENGINE_ENTRIES = (
    *_engine("conv2d", PIXELS, matrix("rows", 4), IMAGES),  # and conv2d_input_grad
    *_engine("conv2d_weight_grad", gradients(4), TAPS, GRADIENT),
    *_engine("conv2d_weight_grad_odd", gradients(1), TAPS, GRADIENT),
    *_engine("dense", matrix("depths", 4), matrix("depths", 4), MATRIX),
    *_engine("dense_input_grad", matrix("depths", 4), matrix("rows", 4), MATRIX),
    *_engine("dense_weight_grad", matrix("rows", 4), matrix("rows", 4), GRADIENT),
    *_engine("dense_odd", matrix("depths", 1), matrix("depths", 1), MATRIX),
    Entry("pack", implicit_gemm.pack_kernel, (_F, _F, *(uint32,) * 14)),
    # Eight reads on their way: up to 40, and 44 on Turing, which has registers for 48 in each of all the threads that it holds.
    Entry("sum_slices", product.sum_slices_kernel, (_F, _F, _F, *(uint32,) * 3), max_registers=48),
)


def direct_entries(name: str, n: int, c: int, k: int, window: Window, masked: bool = True) -> tuple[Entry, ...]:
    """The kernels that direct.py, pooled.py and pooled_grad.py make for a convolution of few channels: forward, gradient of weight and,
    where they fit, both with 2 × 2 pooling; `masked`: the gradient of the latter takes ReLU's along."""
    plan, grad = direct.plan_of(c, k, window), direct.grad_plan_of(n, c, k, window)
    if plan is None or grad is None:
        raise ValueError(f"the direct convolution is not for {name}: see direct.fits")
    numbers = (uint32, *(int32,) * 4)  # K, H, W, top, left
    entries = [
        Entry(
            f"conv2d-direct-{name}",
            direct.forward_kernel(plan),
            (_F, _F, _F, _F, *numbers, uint32, uint32, int32, int32),
            plan.threads,
            max_registers=80,
        ),
        Entry(
            f"conv2d_weight_grad-direct-{name}",
            direct.weight_grad_kernel(grad),
            (_F, _F, _F, *numbers, uint32, uint32, uint32, uint32),
            grad.threads,
            max_registers=168,  # 112 sums and what they are made of: three blocks
        ),
    ]
    # Stride and pooling together may take more pixels than fit.
    pooling = _window(window.output, (2, 2), 2, 0)
    pooled_plan, pooled_grad_plan = direct.plan_of(c, k, window, side=2), pooled_grad.grad_plan_of(n, c, k, window, pooling)
    if pooled_plan is not None:
        entries.append(
            Entry(
                f"conv2d_relu_max_pool2d-direct-{name}",
                pooled.fused_kernel(pooled_plan),
                (_F, _F, _F, _F, _I, uint32, int32, int32, uint32, int32, int32, uint32, uint32, int32),
                pooled_plan.threads,
                max_registers=80,
            )
        )
    if pooled_grad_plan is not None:
        entries.append(
            Entry(
                f"conv2d_relu_max_pool2d_weight_grad-direct-{name}",
                pooled_grad.weight_grad_kernel(pooled_grad_plan, masked),
                (_F, _I, _F, _F, _F, uint32, int32, int32, uint32, int32, int32, uint32, uint32, uint32, uint32),
                pooled_grad_plan.threads,
                max_registers=168,  # 112 sums, four reads' addresses and what the next position needs: three blocks
            )
        )
    return tuple(entries)


def depthwise_entries(name: str, images: int, filters: int, window: Window, masked: bool = True) -> tuple[Entry, ...]:
    """The kernels that depthwise.py makes for a window: forward, gradient of the input, with ReLU's if `masked`, gradient of weight."""
    strip, input_strip, plan = depthwise.strip_of(window), depthwise.input_strip_of(window), depthwise.grad_plan_of(images, filters, window)
    if strip is None or input_strip is None or plan is None:
        raise ValueError(f"the depthwise convolution is not for {name}: see depthwise.fits")
    sizes = (uint32, *(int32,) * 4)  # K or C, H, W, top, left
    most = 128  # of which the taps are 9 to 49, and a strip's results 8 to 32
    return (
        Entry(
            f"conv2d-depthwise-{name}",
            depthwise.forward_kernel(strip),
            (_F, _F, _F, _F, uint32, *sizes, *(uint32,) * 11, int32, int32),
            max_registers=most,
        ),
        Entry(
            f"conv2d_input_grad-depthwise-{name}",
            depthwise.input_grad_kernel(input_strip, masked),
            (_F, _F, _F, _F, uint32, *sizes, int32, int32, *(uint32,) * 9),
            max_registers=most,
        ),
        Entry(
            f"conv2d_weight_grad-depthwise-{name}",
            depthwise.weight_grad_kernel(plan.strip, plan.threads),
            (_F, _F, _F, *sizes, *(uint32,) * 11),
            plan.threads,
            max_registers=most,
        ),
    )


@functools.cache
def shape_entries() -> tuple[Entry, ...]:
    """Kernels that are made for a shape: for the first layers among CONV_SHAPES, for 2 × 2 pooling, for losses of small batches. A
    function, because making them takes longer than an import should; so are the following."""
    pairs = {False: "", True: "-pairs"}
    labels = {True: ("classes", _I), False: ("rows", _F)}
    return (
        *(
            entry
            for shape in CONV_SHAPES
            if direct.fits(shape.c, shape.window)
            for entry in direct_entries(shape.name, shape.n, shape.c, shape.k, shape.window)
        ),
        Entry("add_parts", parts.add_parts_kernel(32, 8), (_F, _F, _F, *(uint32,) * 4), 256),
        *(Entry(f"max_pool2d-2x2{pairs[each]}", pool.max_pool2x2(each), (_F, _F, _I, *(uint32,) * 8)) for each in pairs),
        *(Entry(f"max_pool2d_grad-2x2{pairs[each]}", pool.max_pool2x2_grad(each, False), (_F, _I, _F, *(uint32,) * 8)) for each in pairs),
        *(
            Entry(f"max_pool2d_relu_grad-2x2{pairs[each]}", pool.max_pool2x2_grad(each, True), (_F, _I, _F, _F, *(uint32,) * 8))
            for each in pairs
        ),
        *(
            Entry(
                f"softmax_cross_entropy-{name}",
                loss.one_block(loss.ONE_BLOCK_THREADS, of_classes),
                (_F, array, _F, _F, _I, uint32, uint32, uint32, float32),
                loss.ONE_BLOCK_THREADS,
                max_registers=64,
            )
            for of_classes, (name, array) in labels.items()
        ),
    )


@functools.cache
def tensor_entries() -> tuple[Entry, ...]:
    """The kernels on Hopper's tensor cores, with whole blocks of channels and without, and with dy read by fours and one by one."""
    gather = tuple(
        Entry(
            f"conv2d-{name}{'' if whole else '-ragged'}",
            tensor_product.tensor_kernel(tile, IMAGES, whole),
            (_F, _F, _F, _F, _numbers(6), _numbers(2), _ARGUMENTS["pixels"], _numbers(13)),
            tile.threads,
            168,  # before they are shared out among the warpgroups
            1,
            tile.shared,
            ("sm_90",),
        )
        for name, tile in ((f"tensor128x{columns}", TensorTile(columns)) for columns in tensor_conv.BEST)
        for whole in (True, False)
    )
    grad = tuple(
        Entry(
            f"conv2d_weight_grad-{name}{'' if width == 4 else '-odd'}",
            tensor_grad.tensor_grad_kernel(tile, width),
            (_F, _F, _F, _F, _numbers(7), uint32, _ARGUMENTS["gradients"], _ARGUMENTS["taps"]),
            tile.threads,
            128,
            1,
            tile.shared,
            ("sm_90",),
        )
        for name, tile in ((f"tensor128x{columns}", TensorGradTile(columns)) for columns in tensor_conv.BEST)
        for width in (4, 1)
    )
    return *gather, *grad, Entry("pack_split", tensor_product.pack_split_kernel, (_F, _F, *(uint32,) * 15))


@functools.cache
def batch_entries() -> tuple[Entry, ...]:
    """The kernels of batch.py that gather the examples of a step: of bytes or floats, as they are or changed at random."""
    kinds = {True: "bytes", False: "floats"}
    changes = {  # moves, warps, bends, cuts
        "move": (True, False, False, False),
        "cutout": (False, False, False, True),
        "warp": (False, True, False, False),
        "elastic": (False, True, True, False),
        "all": (True, True, True, True),
    }

    def arrays(of_bytes: bool, labels: Any) -> tuple[Any, ...]:
        """Images, labels, order, position, x and targets; then the batch's size, and rows of labels with their magic."""
        return (types.Array(types.uint8, 1, "C") if of_bytes else _F, labels, _I, _I, _F, labels, *(uint32,) * 4)

    copying = (
        Entry(
            f"gather_batch-{kinds[of_bytes]}{'-fours' if fours else ''}{'' if of_classes else '-rows'}",
            batch.copying(of_bytes, fours),
            (*arrays(of_bytes, _I if of_classes else _F), *(uint32,) * 4),
        )
        for of_bytes, fours, of_classes in itertools.product((True, False), repeat=3)
    )
    numbers = (uint32, int32, int32, *(uint32,) * 7, int32, int32, *(float32,) * 4, uint32, float32, float32, int32)
    changing = (
        Entry(
            f"gather_batch-{kinds[of_bytes]}-{name}",
            batch.changing(of_bytes, *each),
            (*arrays(of_bytes, _I), *numbers),
            max_registers=64,  # on Blackwell the channels are written out by fours
        )
        for of_bytes in kinds
        for name, each in changes.items()
    )
    return (*copying, *changing)


@functools.cache
def all_entries() -> tuple[Entry, ...]:
    """Every kernel, those of DEPTHWISE_WINDOWS for 64 images of 32 channels."""
    made = (depthwise_entries(name, 64, 32, window) for name, window in DEPTHWISE_WINDOWS.items())
    return (*ENTRIES, *ENGINE_ENTRIES, *tensor_entries(), *shape_entries(), *itertools.chain(*made), *batch_entries())
