"""The same recipe here and in PyTorch: the keras network on MNIST, Adam at 1e-3, batch 128, pixels / 255, no augmentation.

    python examples/accuracy_against_pytorch.py [--epochs 5] [--seeds 3] [--data-dir FOLDER]

Prints the test accuracy of each seed and library, and the two means. Initial values are each library's own.
"""

from __future__ import annotations

import argparse
import statistics
import sys

import numpy as np

import gpucnn as gc


def train_here(data: gc.data.Dataset, seed: int, epochs: int) -> float:
    model = gc.network("keras").build(data.image_shape, seed=seed, device="auto")
    model.compile(gc.Adam(1e-3))
    model.fit(data.train_images, data.train_labels, batch_size=128, epochs=epochs, verbose=False)
    _, accuracy = model.evaluate(data.test_images, data.test_labels)
    return float(accuracy)


def train_pytorch(data: gc.data.Dataset, seed: int, epochs: int) -> float:
    import torch
    from torch import nn

    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(5408, 256), nn.ReLU(), nn.Linear(256, 10)
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    images = torch.from_numpy(data.train_images.astype(np.float32) / 255)
    labels = torch.from_numpy(data.train_labels.astype(np.int64))
    for _ in range(epochs):
        for batch in torch.randperm(len(images)).split(128):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()
    with torch.no_grad():
        parts = torch.from_numpy(data.test_images.astype(np.float32) / 255).split(1000)
        guesses = torch.cat([model(part).argmax(dim=1) for part in parts]).numpy()
    return float(np.mean(guesses == data.test_labels))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=5, help="passes over the 60,000 images [5]")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each library [3]")
    parser.add_argument("--data-dir", help="where MNIST is")
    options = parser.parse_args()
    try:
        import torch  # noqa: F401
    except ImportError:
        sys.exit("this comparison needs PyTorch: pip install torch")
    data = gc.load_dataset("mnist", options.data_dir)
    results: dict[str, list[float]] = {"gpucnn": [], "PyTorch": []}
    for seed in range(options.seeds):
        for name, train in (("gpucnn", train_here), ("PyTorch", train_pytorch)):
            results[name].append(100 * train(data, seed, options.epochs))
            print(f"seed {seed}  {name:<7}  {results[name][-1]:.2f} %", flush=True)
    for name, values in results.items():
        print(f"mean    {name:<7}  {statistics.mean(values):.2f} %  ({min(values):.2f}–{max(values):.2f})")


if __name__ == "__main__":
    main()
