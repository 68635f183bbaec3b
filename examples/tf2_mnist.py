"""Two convolutions as in the TensorFlow 2 tutorials: the layers, the accuracy of every epoch, and five predictions.

    python examples/tf2_mnist.py [--epochs 2] [--device auto] [--quick]

The last layer gives raw scores (logits), and the loss is told so. For probabilities there is a second model, made of the first one with
softmax behind it: layers that go over to another model bring their weights along.
"""

from __future__ import annotations

import argparse

import numpy as np
from common import data_options, data_set, finish, parse, whole  # beside this file

import gpucnn as gc
from gpucnn import layers


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--epochs", type=whole(), default=2, help="passes over the training images [2]")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda [auto]")
    data_options(parser)
    options = parse(parser, epochs=4)

    # The data, and what the classes are called.
    data = data_set(options)
    train_images, train_labels, test_images, test_labels = data.train_images, data.train_labels, data.test_images, data.test_labels
    class_names = data.class_names
    train_images, test_images = train_images / np.float32(255), test_images / np.float32(255)

    # The convolutional base, and dense layers on top.
    model = gc.Sequential()
    model.add(layers.Conv2D(64, (3, 3), activation="relu", input_shape=data.image_shape))
    model.add(layers.MaxPooling2D((2, 2)))
    model.add(layers.Conv2D(64, (3, 3), activation="relu"))
    model.add(layers.Flatten())
    model.add(layers.Dense(128, activation="relu"))
    model.add(layers.Dense(len(class_names)))
    model.build(seed=0, device=options.device)
    model.summary()

    # Compile and train.
    model.compile(optimizer="adam", loss=gc.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    batch_size = min(64, len(train_images) // 6)
    history = model.fit(train_images, train_labels, batch_size, options.epochs, validation_data=(test_images, test_labels), verbose=0)
    for epoch, (accuracy, val_accuracy) in enumerate(zip(history["accuracy"], history["val_accuracy"], strict=True), 1):
        print(f"epoch {epoch}: accuracy {accuracy:.4f}, val_accuracy {val_accuracy:.4f}")

    # Evaluate, and predict.
    test_loss, test_acc = model.evaluate(test_images, test_labels, verbose=2)
    print(f"test loss {test_loss:.4f}, test accuracy {100 * test_acc:.2f} %")
    probability_model = gc.Sequential([model, layers.Softmax()]).build(data.image_shape, device=options.device)
    predictions = probability_model.predict(test_images[:5])
    for prediction, label in zip(predictions, test_labels, strict=False):
        best = int(np.argmax(prediction))
        print(f"predicted {class_names[best]!r} with probability {prediction[best]:.3f}; the label is {class_names[label]!r}")
    return 0


if __name__ == "__main__":
    finish(main)
