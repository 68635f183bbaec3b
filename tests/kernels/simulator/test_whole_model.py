"""A whole training step on the kernels, against the same step on NumPy: layers, loss and optimizer fit the device as well."""

import numpy as np
import pytest

import gpucnn as gc
from gpucnn.device import get_device


def model_on(device):
    model = gc.Sequential(
        gc.Conv2D(2, 2, padding="same", activation="relu"),
        gc.MaxPool2D(2),
        gc.Conv2D(1, 1),
        gc.ReLU(),
        gc.AvgPool2D(1),
        gc.Flatten(),
        gc.Dropout(0.4),
        gc.Dense(3, activation="softmax"),
    )
    return model.build((1, 4, 4), seed=3, device=device)


def test_training_steps_are_those_of_the_cpu():
    optimizer = gc.SGD(0.1, momentum=0.9, nesterov=True)
    x = np.random.default_rng(0).standard_normal((2, 1, 4, 4)).astype(np.float32)
    labels = np.array([0, 2])
    results = []
    for device in (get_device("cpu"), get_device("cuda")):
        model = model_on(device).compile(gc.optimizers.get_optimizer(optimizer.config()), "categorical_crossentropy")
        history = model.fit(x, labels, batch_size=2, epochs=2, verbose=False)
        results.append((gc.to_numpy(model.buffers.values), history["loss"], model.predict(x)))
    (values, loss, probabilities), (other_values, other_loss, other_probabilities) = results
    # Two steps of under a hundred float32 operations each: a hundred roundings of numbers around 1.
    np.testing.assert_allclose(other_values, values, rtol=0, atol=100 * np.finfo(np.float32).eps)
    np.testing.assert_allclose(other_loss, loss, rtol=100 * np.finfo(np.float32).eps)
    np.testing.assert_allclose(other_probabilities, probabilities, atol=100 * np.finfo(np.float32).eps)


@pytest.mark.parametrize(
    ("loss", "outputs", "optimizer"),
    [("binary_crossentropy", 1, "adamw"), ("binary_crossentropy", 2, "rmsprop"), ("mean_squared_error", 2, "sgd")],
)
def test_the_other_losses_train_on_the_kernels(loss, outputs, optimizer):
    x = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)
    y = np.random.default_rng(1).integers(0, 2, (2, outputs)).astype(np.float32)
    values = []
    for device in ("cpu", "cuda"):
        model = gc.Sequential(gc.Dense(outputs)).build((3,), seed=0, device=get_device(device)).compile(optimizer, loss)
        model.fit(x, y, batch_size=2, verbose=False)
        values.append(gc.to_numpy(model.buffers.values))
    np.testing.assert_allclose(values[1], values[0], rtol=0, atol=10 * np.finfo(np.float32).eps)
