"""Arrays of other libraries in gpucnn.functional: the same numbers as NumPy's, answered in kind, and a sentence for what cannot be had."""

import inspect

import numpy as np
import pytest

import gpucnn.functional as F
from gpucnn import foreign
from gpucnn.errors import DeviceError, ShapeError

RNG = np.random.default_rng(0)
X, WEIGHT, BIAS = (RNG.standard_normal(shape).astype(np.float32) for shape in ((2, 3, 6, 7), (4, 3, 3, 3), (4,)))
FLAT, LOGITS, ROWS = (RNG.standard_normal(shape).astype(np.float32) for shape in ((2, 5), (3, 4), (3, 5)))
LABELS = np.array([0, 3, 1])
POOLED, INDICES = F.max_pool2d(X, 2)
MEAN, VARIANCE = np.zeros(3, np.float32), np.ones(3, np.float32)
CALLS = {
    "conv2d": lambda a: F.conv2d(a(X), a(WEIGHT), a(BIAS), stride=2, padding=1),
    "conv2d_input_grad": lambda a: F.conv2d_input_grad(a(F.conv2d(X, WEIGHT)), a(WEIGHT), X.shape),
    "conv2d_weight_grad": lambda a: F.conv2d_weight_grad(a(F.conv2d(X, WEIGHT)), a(X), WEIGHT.shape),
    "conv_transpose2d": lambda a: F.conv_transpose2d(a(X), weight=a(np.ascontiguousarray(WEIGHT[:3]))),
    "max_pool2d": lambda a: F.max_pool2d(a(X), 2),
    "max_pool2d_grad": lambda a: F.max_pool2d_grad(a(POOLED), a(INDICES), X.shape, 2),
    "avg_pool2d": lambda a: F.avg_pool2d(a(X), (2, 3), padding=1),
    "avg_pool2d_grad": lambda a: F.avg_pool2d_grad(a(F.avg_pool2d(X, 2)), X.shape, 2),
    "global_avg_pool2d": lambda a: F.global_avg_pool2d(a(X)),
    "global_max_pool2d": lambda a: F.global_max_pool2d(a(X)),
    "zero_pad2d": lambda a: F.zero_pad2d(a(X), 1),
    "batch_norm": lambda a: F.batch_norm(a(X), a(MEAN), a(VARIANCE)),
    "dense": lambda a: F.dense(a(FLAT), a(ROWS)),
    "softmax_cross_entropy": lambda a: F.softmax_cross_entropy(a(LOGITS), a(LABELS)),
    **{name: (lambda a, name=name: getattr(F, name)(a(FLAT))) for name in ("relu", "sigmoid", "softmax", "tanh", "leaky_relu", "elu")},
    **{
        name: (lambda a, name=name: getattr(F, name)(a(FLAT)))
        for name in ("gelu", "silu", "relu6", "hard_sigmoid", "hard_swish", "flatten")
    },
}


def parts(result):
    return result if isinstance(result, tuple) else (result,)


def libraries():
    def torch():
        library = pytest.importorskip("torch", reason="PyTorch is not installed")
        return lambda array: library.from_numpy(np.array(array)), library.Tensor

    def strict():
        library = pytest.importorskip("array_api_strict", reason="array-api-strict is not installed")
        return library.asarray, type(library.asarray([1.0]))

    def jax():
        library = pytest.importorskip("jax", reason="JAX is not installed")
        return library.numpy.asarray, library.Array

    return {"torch": torch, "array_api_strict": strict, "jax": jax}


@pytest.mark.parametrize("library", libraries())
@pytest.mark.parametrize("name", CALLS)
def test_the_same_numbers_in_kind(name, library):
    made, kind = libraries()[library]()
    expected, found = parts(CALLS[name](lambda array: array)), parts(CALLS[name](made))
    assert len(expected) == len(found)
    for one, other in zip(expected, found, strict=True):
        assert isinstance(other, kind), type(other)
        back = np.asarray(other.numpy() if library == "torch" else np.from_dlpack(other))
        if library == "jax" and np.asarray(one).dtype == np.float64:  # of which JAX has none, unless it is told to
            one = np.float32(one)
        assert back.dtype == np.asarray(one).dtype and back.shape == np.shape(one)
        np.testing.assert_array_equal(back, one)


def test_every_function_is_tried():
    assert set(CALLS) == set(F.__all__)
    assert list(inspect.signature(F.conv2d).parameters)[:3] == ["x", "weight", "bias"]


def test_tensors_of_pytorch():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    x = torch.from_numpy(FLAT).clone().requires_grad_()
    y = F.relu(x)
    assert not y.requires_grad and y.dtype == torch.float32
    torch.testing.assert_close(y, torch.relu(x.detach()))
    torch.testing.assert_close(F.relu(x.detach().double()), torch.relu(x.detach().double()))  # float64 as well
    turned = torch.from_numpy(X).transpose(2, 3)  # not contiguous
    torch.testing.assert_close(
        F.conv2d(turned, torch.from_numpy(WEIGHT)), torch.conv2d(turned, torch.from_numpy(WEIGHT)), rtol=1e-4, atol=1e-5
    )
    y = F.dense(torch.from_numpy(FLAT), ROWS)  # NumPy's beside it
    assert isinstance(y, torch.Tensor)
    with pytest.raises(TypeError, match="float16"):
        F.relu(x.detach().half())
    with pytest.raises(ShapeError, match="x must have 4 axes"):
        F.conv2d(x, torch.from_numpy(WEIGHT))


def test_running_statistics_of_a_tensor_are_moved_in_place():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    mean, variance = torch.zeros(3), torch.ones(3)
    F.batch_norm(torch.from_numpy(X), mean, variance, training=True)
    layer = torch.nn.BatchNorm2d(3)
    layer(torch.from_numpy(X))
    torch.testing.assert_close(mean, layer.running_mean, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(variance, layer.running_var, rtol=1e-4, atol=1e-6)
    fixed = np.zeros(3, np.float32)
    fixed.flags.writeable = False
    for statistics in (fixed, [0.0, 0.0, 0.0]):
        with pytest.raises(TypeError, match=r"running_mean is updated in place, and .* cannot be written to"):
            F.batch_norm(X, statistics, VARIANCE.copy(), training=True)


class Elsewhere:
    """What has DLPack, and lies somewhere."""

    def __init__(self, kind):
        self.kind = kind

    def __dlpack__(self, **_):
        raise BufferError("not today")

    def __dlpack_device__(self):
        if self.kind is None:
            raise RuntimeError("who knows")
        return self.kind, 0


@pytest.mark.parametrize(
    ("kind", "error", "match"),
    [
        (1, TypeError, "cannot be used .not today."),
        (10, TypeError, "DLPack's kind 10, and only the CPU and CUDA can be read"),
        (None, TypeError, "does not tell its device .who knows."),
    ],
)
def test_what_cannot_be_had_is_a_sentence(kind, error, match):
    with pytest.raises(error, match=match) as caught:
        F.relu(Elsewhere(kind))
    assert "\n" not in str(caught.value)


def test_an_array_on_a_gpu_where_there_is_none(monkeypatch):
    def none(name):
        raise DeviceError(f"no {name} here")

    monkeypatch.setattr(foreign, "get_device", none)
    with pytest.raises(DeviceError, match="no cuda here"):
        F.relu(Elsewhere(2))


def test_two_libraries_in_one_call():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    with pytest.raises(TypeError, match=r"must be from one library, got .* and torch"):
        F.dense(torch.from_numpy(FLAT), Elsewhere(1))


@pytest.mark.parametrize("given", ["three", None, {}, object(), [["a"]], [[1.0], [2.0, 3.0]], memoryview(b"abc")])
def test_what_is_no_array_is_a_sentence(given):
    with pytest.raises((TypeError, ValueError), match="x must") as caught:
        F.relu(given)
    assert "\n" not in str(caught.value)


def test_lists_and_memories_of_numbers():
    np.testing.assert_array_equal(F.relu([[-1.0, 2.0]]), [[0, 2]])
    np.testing.assert_array_equal(F.relu(memoryview(np.array([[-1, 2]], np.float32))), [[0, 2]])
