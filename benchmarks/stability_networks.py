"""The networks of `benchmarks/stability.py`, small enough for a training of seconds."""

from collections.abc import Callable

import keras
from keras import layers

Make = Callable[[], keras.layers.Layer]  # a new activation


def mlp(x, make: Make, classes: int):
    x = layers.Flatten()(x)
    for _ in range(3):
        x = make()(layers.Dense(64, kernel_initializer="he_normal")(x))
    return layers.Dense(classes)(x)


def lenet(x, make: Make, classes: int, norm: bool = False):
    def act(x):
        return make()(layers.BatchNormalization(momentum=0.9)(x) if norm else x)

    x = layers.MaxPooling2D()(act(layers.Conv2D(6, 5, padding="same")(x)))
    x = layers.MaxPooling2D()(act(layers.Conv2D(16, 5, padding="same")(x)))
    x = act(layers.Dense(120)(layers.Flatten()(x)))
    return layers.Dense(classes)(x)


def lenet_bn(x, make: Make, classes: int):
    return lenet(x, make, classes, norm=True)


def convolutions(x, make: Make, classes: int):
    for filters in (8, 8, 16, 16, 32, 32):
        strides = 2 if filters > x.shape[-1] > 3 else 1
        x = make()(layers.Conv2D(filters, 3, strides, padding="same", kernel_initializer="he_normal")(x))
    return layers.Dense(classes)(layers.Flatten()(x))


def resnet(x, make: Make, classes: int):
    def convolve(x, filters, strides=1, size=3):
        x = layers.Conv2D(filters, size, strides, "same", kernel_initializer="he_normal", use_bias=False)(x)
        return layers.BatchNormalization(momentum=0.9)(x)

    x = make()(convolve(x, 8))
    for filters, strides in ((8, 1), (16, 2), (32, 2)):
        y = convolve(make()(convolve(x, filters, strides)), filters)
        x = make()(layers.add([y, x if strides == 1 else convolve(x, filters, strides, 1)]))
    return layers.Dense(classes)(layers.GlobalAveragePooling2D()(x))


def transformer(x, make: Make, classes: int):
    x = layers.Conv2D(32, 4, 4)(x)
    x = layers.Reshape((-1, 32))(x)
    for _ in range(2):
        y = layers.LayerNormalization()(x)
        x = layers.add([x, layers.MultiHeadAttention(2, 16)(y, y)])
        y = make()(layers.Dense(64)(layers.LayerNormalization()(x)))
        x = layers.add([x, layers.Dense(32)(y)])
    return layers.Dense(classes)(layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x)))


NETWORKS = {f.__name__: f for f in (lenet, mlp, lenet_bn, convolutions, resnet, transformer)}
