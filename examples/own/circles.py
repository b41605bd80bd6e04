"""A small U-Net and made pictures of discs, for `python -m zoo.train examples/own/circles.json`."""

import keras
import numpy as np
from keras import layers


def load(train=256, test=64, size=16):
    """Noisy pictures (n, size, size, 1) of a disc, and for each pixel whether it is in it: 0 or 1."""
    rng = np.random.default_rng(0)
    count = train + test
    rows, columns = np.mgrid[:size, :size]
    centre, radius = rng.uniform(4, size - 4, (count, 2, 1, 1)), rng.uniform(2, 4, (count, 1, 1))
    inside = (rows - centre[:, 0]) ** 2 + (columns - centre[:, 1]) ** 2 < radius**2
    pictures = (inside + rng.normal(scale=0.7, size=inside.shape))[..., None].astype("float32")
    labels = inside.astype("int32")
    return {
        "x_train": pictures[:train],
        "y_train": labels[:train],
        "x_test": pictures[train:],
        "y_test": labels[train:],
    }


def small_unet(activation, width=8):
    """One step down and up again; two logits for each pixel."""
    inputs = keras.Input((16, 16, 1))
    fine = activation("fine")(layers.Conv2D(width, 3, padding="same")(inputs))  # 16x16
    x = layers.MaxPooling2D()(fine)
    x = activation("coarse")(layers.Conv2D(2 * width, 3, padding="same")(x))  # 8x8
    x = layers.Concatenate()([layers.UpSampling2D()(x), fine])  # 16x16
    x = activation("last")(layers.Conv2D(width, 3, padding="same")(x))
    return keras.Model(inputs, layers.Conv2D(2, 1)(x))
