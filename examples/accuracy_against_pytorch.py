"""Test accuracy in gpucnn and in PyTorch, seed by seed: the keras network on MNIST, Adam at 1e-3, batch 128, no augmentation.

    python examples/accuracy_against_pytorch.py [--epochs 5] [--seeds 3] [--dataset NAME] [--data-dir FOLDER] [--device auto] [--quick]

Prints the test accuracy of each seed and library, and the two means. Each library draws its own initial values. If MNIST is not available,
scikit-learn's digits are used. PyTorch runs on the CPU: no time is shown.
"""

from __future__ import annotations

import argparse
import statistics

import numpy as np
from common import data_options, data_set, finish, parse, pytorch_on, whole  # beside this file

import gpucnn as gc
from gpucnn.device import Device, get_device

BATCH = 128


def train_here(data: gc.data.Dataset, seed: int, epochs: int, device: Device) -> float:
    model = gc.network("keras").build(data.image_shape, seed=seed, device=device)
    model.compile(gc.Adam(1e-3))
    model.fit(data.train_images, data.train_labels, batch_size=BATCH, epochs=epochs, verbose=False)
    _, accuracy = model.evaluate(data.test_images, data.test_labels)
    return float(accuracy)


def train_pytorch(data: gc.data.Dataset, seed: int, epochs: int) -> float:
    import torch
    from torch import nn

    torch.manual_seed(seed)
    channels, height, width = data.image_shape
    pooled = 32 * ((height - 2) // 2) * ((width - 2) // 2)
    model = nn.Sequential(
        nn.Conv2d(channels, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(pooled, 256), nn.ReLU(), nn.Linear(256, 10)
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    images = torch.from_numpy(data.train_images.astype(np.float32) / 255)
    labels = torch.from_numpy(data.train_labels.astype(np.int64))
    for _ in range(epochs):
        for batch in torch.randperm(len(images)).split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()
    with torch.no_grad():
        parts = torch.from_numpy(data.test_images.astype(np.float32) / 255).split(1000)
        guesses = torch.cat([model(part).argmax(dim=1) for part in parts]).numpy()
    return float(np.mean(guesses == data.test_labels))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--epochs", type=whole(), default=5, help="passes over the training images [5]")
    parser.add_argument("--seeds", type=whole(), default=3, help="runs of each library [3]")
    parser.add_argument("--device", default="auto", help="device of gpucnn: auto, cpu or cuda [auto]")
    data_options(parser)
    options = parse(parser, epochs=2, seeds=1)
    device = get_device(options.device)
    torch, missing = pytorch_on(get_device("cpu"))
    if torch is None:
        raise gc.MissingExtraError(f"{missing}, so there is nothing to compare with")
    data = data_set(options)
    if data.classes != 10:
        raise gc.ShapeError(f"the keras network has ten outputs, and {data.source} has {data.classes} classes")
    results: dict[str, list[float]] = {"gpucnn": [], "PyTorch": []}
    for seed in range(options.seeds):
        for name in results:
            accuracy = train_here(data, seed, options.epochs, device) if name == "gpucnn" else train_pytorch(data, seed, options.epochs)
            results[name].append(100 * accuracy)
            print(f"seed {seed}  {name:<7}  {results[name][-1]:.2f} %", flush=True)
    for name, values in results.items():
        print(f"mean    {name:<7}  {statistics.mean(values):.2f} %  ({min(values):.2f}–{max(values):.2f})")
    return 0


if __name__ == "__main__":
    finish(main)
