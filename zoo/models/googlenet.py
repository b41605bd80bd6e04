"""GoogLeNet for 32x32x3 images. Map sizes are those of the reference stem; in brackets those of the cifar stem.

After Szegedy et al., "Going Deeper with Convolutions", 2015. As in the reference implementation of Hu et al., and
unlike the paper: batch norm before each activation instead of local response normalization, conv2 is 3x3x192
instead of 1x1x64, no auxiliary classifiers, less dropout than 0.4. Unlike that implementation: kernels start
He-normal instead of with a deviation of 0.01 and have no bias, batch norm's momentum and epsilon are 0.9 and 1e-5
instead of 0.999 and 1e-3. The cifar stem is neither's: conv1 is 3x3 with stride 1, and pool1 is left out.
"""

import keras
from keras import layers

from zoo.config.schema import GoogLeNet
from zoo.models.blocks import Builder, Factory, Shape, channel_axis

INCEPTIONS = {  # filters: 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
POOLED = {"3b": "pool3", "4e": "pool4"}  # inceptions before a pool


def build(config: GoogLeNet, activation: Factory, classes: int, shape: Shape) -> keras.Model:
    def scaled(filters: int) -> int:
        return max(1, round(config.width * filters))

    net = Builder(config.norm, activation)
    inputs = keras.Input(shape)
    kernel, strides = (7, 2) if config.stem == "reference" else (3, 1)
    x = net.conv(inputs, "conv1", scaled(64), kernel, strides)  # 16x16x64 (32x32)
    if config.stem == "reference":
        x = max_pool(x, "pool1")  # 8x8x64
    x = net.conv(x, "conv2", scaled(192), 3)  # 8x8x192 (32x32)
    x = net.conv(x, "conv3", scaled(192), 3)  # 8x8x192 (32x32)
    x = max_pool(x, "pool2")  # 4x4x192 (16x16)
    for name, filters in INCEPTIONS.items():  # 4x4x480, 2x2x832, 1x1x1024 (16x16, 8x8, 4x4)
        x = inception(net, x, f"inception_{name}", *map(scaled, filters))
        if name in POOLED:
            x = max_pool(x, POOLED[name])
    x = layers.GlobalAveragePooling2D(name="pool5")(x)  # 1024
    x = layers.Dropout(config.dropout, name="dropout")(x)
    outputs = layers.Dense(classes, dtype="float32", name="logits")(x)
    return keras.Model(inputs, outputs, name="googlenet")


def inception(net: Builder, x, name: str, conv1: int, reduce3: int, conv3: int, reduce5: int, conv5: int, pool: int):
    """Four parallel branches, concatenated."""
    by_1x1 = net.conv(x, f"{name}_1x1", conv1, 1)
    by_3x3 = net.conv(net.conv(x, f"{name}_3x3_reduce", reduce3, 1), f"{name}_3x3", conv3, 3)
    by_5x5 = net.conv(net.conv(x, f"{name}_5x5_reduce", reduce5, 1), f"{name}_5x5", conv5, 5)
    by_pool = net.conv(max_pool(x, f"{name}_pool", strides=1), f"{name}_pool_proj", pool, 1)
    return layers.Concatenate(channel_axis(), name=name)([by_1x1, by_3x3, by_5x5, by_pool])


def max_pool(x, name: str, strides: int = 2):
    return layers.MaxPooling2D(3, strides, padding="same", name=name)(x)
