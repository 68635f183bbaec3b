"""A whole program in ten lines: trains a small network on scikit-learn's digits and prints its test accuracy."""

import gpucnn as gc

data = gc.load_dataset("digits")
model = gc.Sequential(gc.Conv2D(32, 3, activation="relu"), gc.MaxPool2D(2), gc.Flatten(), gc.Dense(256, activation="relu"), gc.Dense(10))
model.build(data.image_shape, seed=0, device="auto")
model.compile(optimizer=gc.Adam(1e-3), loss="categorical_crossentropy", metrics=["accuracy"])
model.fit(data.train_images, data.train_labels, batch_size=32, epochs=20)
loss, accuracy = model.evaluate(data.test_images, data.test_labels)
print(f"test loss {loss:.4f}, test accuracy {100 * accuracy:.2f} %")
