"""DenseNet for 32x32x3 images. Map sizes are those of the reference stem; in brackets those of the cifar stem.

After Huang et al., "Densely Connected Convolutional Networks", 2017: DenseNet-BC with the blocks of its
DenseNet-201, a growth of 24, and dropout after each convolution but the first. As in the reference implementation of
Hu et al., and unlike the paper's DenseNet-201, neither batch norm and activation nor a pool follow conv1. Unlike that
implementation, kernels start He-normal (as in the paper) instead of Glorot-uniform, and batch norm's epsilon is 1e-5
instead of 1e-3. The cifar stem, a 3x3 conv1 with stride 1, is that of the paper's networks for CIFAR.
"""

import keras
from keras import layers

from zoo.config.schema import DenseNet
from zoo.models.blocks import Builder, Factory, Shape, channel_axis


def build(config: DenseNet, activation: Factory, classes: int, shape: Shape) -> keras.Model:
    net = Builder(config.norm, activation)
    inputs = keras.Input(shape)
    kernel, strides = (7, 2) if config.stem == "reference" else (3, 1)
    x = net.convolve(inputs, "conv1", 2 * config.growth, kernel, strides)  # 16x16x48 (32x32)
    for block, size in enumerate(config.blocks, 1):
        if block > 1:
            x = transition(net, x, f"transition{block - 1}", config)  # 8x8x96, 4x4x192, 2x2x672 (16x16, 8x8, 4x4)
        for layer in range(1, size + 1):  # to 16x16x192, 8x8x384, 4x4x1344, 2x2x1440 (32x32, 16x16, 8x8, 4x4)
            x = bottleneck(net, x, f"block{block}_layer{layer}", config)
    x = net.activate(x, "final")
    x = layers.GlobalAveragePooling2D(name="pool")(x)  # 1440
    outputs = layers.Dense(classes, dtype="float32", name="logits")(x)
    return keras.Model(inputs, outputs, name="densenet")


def bottleneck(net: Builder, x, name: str, config: DenseNet):
    """Concatenates `growth` new maps to all previous ones."""
    y = net.convolve(net.activate(x, f"{name}_1"), f"{name}_1", config.bottleneck * config.growth, 1)
    y = layers.Dropout(config.dropout, name=f"{name}_1_dropout")(y)
    y = net.convolve(net.activate(y, f"{name}_2"), f"{name}_2", config.growth, 3)
    y = layers.Dropout(config.dropout, name=f"{name}_2_dropout")(y)
    return layers.Concatenate(channel_axis(), name=f"{name}_concat")([x, y])


def transition(net: Builder, x, name: str, config: DenseNet):
    """Reduces the number and the size of the maps."""
    filters = max(1, int(config.compression * x.shape[channel_axis()]))
    x = net.convolve(net.activate(x, name), name, filters, 1)
    x = layers.Dropout(config.dropout, name=f"{name}_dropout")(x)
    return layers.AveragePooling2D(2, name=f"{name}_pool")(x)
