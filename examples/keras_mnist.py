"""A first network, written with Keras's names: its layers, the loss and the accuracy of every epoch, and the test accuracy.

    python examples/keras_mnist.py [--epochs 3] [--batch-size 128] [--device auto] [--quick]

Two things differ besides the import: images have their channel first, (N, 1, 28, 28), and `build` says where the model runs. The model
would divide integers by 255 itself; here it is done by hand, as in Keras.
"""

from __future__ import annotations

import argparse

import numpy as np
from common import data_options, data_set, finish, parse, whole  # beside this file

import gpucnn as gc
from gpucnn.layers import Conv2D, Dense, Flatten, MaxPooling2D


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--epochs", type=whole(), default=3, help="passes over the training images [3]")
    parser.add_argument("--batch-size", type=whole(), default=128, help="images in a step [128]")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda [auto]")
    data_options(parser)
    options = parse(parser, epochs=4, batch_size=16)

    # The data: images scaled to [0, 1], labels as rows with a single one.
    data = data_set(options)
    num_classes, input_shape = len(data.class_names), data.image_shape
    x_train, x_test = data.train_images.astype("float32") / 255, data.test_images.astype("float32") / 255
    y_train, y_test = np.eye(num_classes)[data.train_labels], np.eye(num_classes)[data.test_labels]
    print("x_train shape:", x_train.shape)
    print(len(x_train), "train samples,", len(x_test), "test samples")

    # The model, layer by layer.
    model = gc.Sequential()
    model.add(Conv2D(32, kernel_size=(3, 3), activation="relu", input_shape=input_shape))
    model.add(MaxPooling2D(pool_size=(2, 2)))
    model.add(Flatten())
    model.add(Dense(256, activation="relu"))
    model.add(Dense(num_classes, activation="softmax"))
    model.build(seed=0, device=options.device)
    model.summary()

    # Training.
    model.compile(loss="categorical_crossentropy", optimizer="adam", metrics=["accuracy"])
    model.fit(x_train, y_train, batch_size=options.batch_size, epochs=options.epochs, validation_split=0.1, verbose=2)

    # What it has come to.
    score = model.evaluate(x_test, y_test, verbose=0)
    print(f"test loss {score[0]:.4f}")
    print(f"test accuracy {100 * score[1]:.2f} %")
    return 0


if __name__ == "__main__":
    finish(main)
