"""The reference networks in libraries other than PyTorch, for against_pytorch.py: ONNX Runtime, for predictions only, and JAX.

A library that is not installed, or does not work here, is left out, and the reason is said. Chainer is not among them: its last version, of
2022, neither builds nor imports beside NumPy 2.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Run = Callable[[], Any]
PACKAGES = {"ONNX Runtime": "onnxruntime", "JAX": "jax"}


def found(model: Any, x: Array, labels: Array, threads: int, sgd: bool) -> dict[str, tuple[Run | None, Run] | str]:
    """(a step, or None; a forward pass) in each library that works here, or the reason why it does not. model: the network in PyTorch."""
    result: dict[str, tuple[Run | None, Run] | str] = {}
    for title, make in (
        ("ONNX Runtime", lambda: (None, onnx_forward(model, x, threads))),
        ("JAX", lambda: jax_runs(model, x, labels, threads, sgd)),
    ):
        try:
            result[title] = make()
        except ImportError as error:
            result[title] = f"{title} is not installed ({error})"
        except Exception as error:  # of any kind: it is another library's
            result[title] = f"{title} does not work here ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''})"
    return result


def onnx_forward(model: Any, x: Array, threads: int) -> Run:
    """The exported network in ONNX Runtime."""
    import onnxruntime
    import torch

    file = io.BytesIO()
    model = model.eval()
    torch.onnx.export(model, (torch.from_numpy(x),), file, input_names=["x"], dynamo=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(file.getvalue(), options, providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        np.testing.assert_allclose(session.run(None, {"x": x})[0], model(torch.from_numpy(x)).numpy(), rtol=1e-3, atol=1e-4)
    return lambda: session.run(None, {"x": x})


def jax_runs(model: Any, x: Array, labels: Array, threads: int, sgd: bool) -> tuple[Run, Run]:
    """(a training step, a forward pass) compiled in JAX: the layers of the network in PyTorch, with its weights."""
    if threads == 1:  # read when JAX is imported; of several it takes as many as there are cores
        os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
    import jax
    import jax.numpy as jnp
    from torch import nn

    def of(layer: Any) -> list[Any]:
        return [jnp.asarray(each.detach().numpy()) for each in (layer.weight, layer.bias)]

    layers = list(model)
    weights = [of(layer) for layer in layers if isinstance(layer, nn.Conv2d | nn.Linear)]

    def forward(weights: Any, x: Any, key: Any) -> Any:
        own = iter(weights)
        for layer in layers:
            if isinstance(layer, nn.Conv2d):
                weight, bias = next(own)
                padding = [(side, side) for side in layer.padding]
                x = jax.lax.conv_general_dilated(x, weight, (1, 1), padding) + bias[:, None, None]
            elif isinstance(layer, nn.ReLU):
                x = jax.nn.relu(x)
            elif isinstance(layer, nn.MaxPool2d):
                x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
            elif isinstance(layer, nn.Flatten):
                x = x.reshape(len(x), -1)
            elif isinstance(layer, nn.Linear):
                weight, bias = next(own)
                x = x @ weight.T + bias
            elif key is not None:  # dropout, when it trains
                x = jnp.where(jax.random.bernoulli(key, 1 - layer.p, x.shape), x / (1 - layer.p), 0)
        return x

    def loss_of(weights: Any, x: Any, labels: Any, key: Any) -> Any:
        scores = jax.nn.log_softmax(forward(weights, x, key))
        return -scores[jnp.arange(len(x)), labels].mean()

    def step(state: Any, x: Any, labels: Any) -> Any:
        weights, first, second, count = state
        loss, gradients = jax.value_and_grad(loss_of)(weights, x, labels, jax.random.key(count))
        each, count = jax.tree.map, count + 1
        if sgd:
            first = each(lambda v, g: 0.9 * v + g, first, gradients)
            weights = each(lambda w, v: w - 0.01 * v, weights, first)
        else:
            first = each(lambda m, g: 0.9 * m + 0.1 * g, first, gradients)
            second = each(lambda v, g: 0.999 * v + 0.001 * g * g, second, gradients)
            size = 1e-3 * jnp.sqrt(1 - 0.999**count) / (1 - 0.9**count)
            weights = each(lambda w, m, v: w - size * m / (jnp.sqrt(v) + 1e-8), weights, first, second)
        return (weights, first, second, count), loss

    first, second = (jax.tree.map(jnp.zeros_like, weights) for _ in range(2))
    state = [(weights, first, second, jnp.int32(0))]
    compiled, predicted = jax.jit(step, donate_argnums=0), jax.jit(lambda weights, x: forward(weights, x, None))
    kept = jax.tree.map(jnp.copy, weights)

    def run_step() -> float:
        state[0], loss = compiled(state[0], x, labels)
        return float(loss)

    return run_step, lambda: predicted(kept, x).block_until_ready()
