"""LeNet for 32x32x3 images.

After LeCun et al., "Gradient-Based Learning Applied to Document Recognition", 1998. As in the reference
implementation of Hu et al., and unlike the paper: three channels, 'same' padding, max pooling, every filter
sees every map, one hidden dense layer, dropout before the last one; batch norm is an option. Unlike that
implementation, whose second kernel is 14x14, both are 5x5 as in the paper.
"""

import keras
from keras import layers

from zoo.config.schema import LeNet
from zoo.models.blocks import Builder, Factory, Shape


def build(config: LeNet, activation: Factory, classes: int, shape: Shape) -> keras.Model:
    net = Builder(config.norm, activation, initializer="glorot_uniform")
    inputs = keras.Input(shape)
    x = net.conv(inputs, "conv1", 6, 5)  # 32x32x6
    x = layers.MaxPooling2D(name="pool1")(x)  # 16x16x6
    x = net.conv(x, "conv2", 16, 5)  # 16x16x16
    x = layers.MaxPooling2D(name="pool2")(x)  # 8x8x16
    x = layers.Flatten(name="flatten")(x)  # 1024
    x = net.dense(x, "fc3", 120)
    x = layers.Dropout(config.dropout, name="dropout")(x)
    outputs = layers.Dense(classes, dtype="float32", name="logits")(x)
    return keras.Model(inputs, outputs, name="lenet")
