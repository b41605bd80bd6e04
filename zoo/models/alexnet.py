"""AlexNet for 32x32x3 images. Map sizes are those of the reference stem; in brackets those of the cifar stem.

After Krizhevsky et al., "ImageNet Classification with Deep Convolutional Neural Networks", 2012. As in the
reference implementation of Hu et al., and unlike the paper: batch norm before each activation, stride 2 instead of
4 in a padded conv1, dense layers of 1024 and 2048 instead of 4096 and 4096, each followed by less dropout than 0.5.
Unlike that implementation: conv4 is there, local response normalization sums over the paper's 5 channels instead of
11, kernels start He-normal instead of with a deviation of 0.01 and have no bias, batch norm's momentum and epsilon
are 0.9 and 1e-5 instead of 0.999 and 1e-3. The cifar stem is neither's: conv1 is 3x3 with stride 1, and pool1 is
left out.
"""

import keras
from keras import layers

from zoo.config.schema import AlexNet
from zoo.models.blocks import Builder, Factory, LocalResponseNormalization, Shape, channel_axis


def build(config: AlexNet, activation: Factory, classes: int, shape: Shape) -> keras.Model:
    net = Builder(config.norm, activation)
    inputs = keras.Input(shape)
    kernel, strides = (11, 2) if config.stem == "reference" else (3, 1)
    x = net.conv(inputs, "conv1", 96, kernel, strides)  # 16x16x96 (32x32)
    x = LocalResponseNormalization(axis=channel_axis(), name="lrn1")(x)
    if config.stem == "reference":
        x = layers.MaxPooling2D(3, 2, name="pool1")(x)  # 7x7x96
    x = net.conv(x, "conv2", 256, 5, groups=2)  # 7x7x256 (32x32)
    x = LocalResponseNormalization(axis=channel_axis(), name="lrn2")(x)
    x = layers.MaxPooling2D(3, 2, name="pool2")(x)  # 3x3x256 (15x15)
    x = net.conv(x, "conv3", 384, 3)  # 3x3x384 (15x15)
    x = net.conv(x, "conv4", 384, 3, groups=2)  # 3x3x384 (15x15)
    x = net.conv(x, "conv5", 256, 3, groups=2)  # 3x3x256 (15x15)
    x = layers.MaxPooling2D(3, 2, name="pool5")(x)  # 1x1x256 (7x7)
    x = layers.Flatten(name="flatten")(x)  # 256 (12544)
    for site, width in zip(("fc6", "fc7"), config.widths, strict=True):
        x = net.dense(x, site, width)
        x = layers.Dropout(config.dropout, name=f"{site}_dropout")(x)
    outputs = layers.Dense(classes, dtype="float32", name="logits")(x)
    return keras.Model(inputs, outputs, name="alexnet")
