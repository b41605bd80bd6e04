"""LeNet for 32x32x3 images.

After LeCun et al., "Gradient-Based Learning Applied to Document Recognition", 1998. As in the reference
implementation of Hu et al., and unlike the paper: three channels, 'same' padding, max pooling, every filter
sees every map, one hidden dense layer, dropout before the last one. Unlike that implementation, whose second
kernel is 14x14, both are 5x5 as in the paper.
"""

import keras
from keras import layers

from zoo.config import LeNet
from zoo.models import Factory, image_shape


def build(config: LeNet, activation: Factory, classes: int) -> keras.Model:
    inputs = keras.Input(image_shape())
    x = layers.Conv2D(6, 5, padding="same", name="conv1")(inputs)  # 32x32x6
    x = activation("conv1")(x)
    x = layers.MaxPooling2D(name="pool1")(x)  # 16x16x6
    x = layers.Conv2D(16, 5, padding="same", name="conv2")(x)  # 16x16x16
    x = activation("conv2")(x)
    x = layers.MaxPooling2D(name="pool2")(x)  # 8x8x16
    x = layers.Flatten(name="flatten")(x)  # 1024
    x = layers.Dense(120, name="fc3")(x)
    x = activation("fc3")(x)
    x = layers.Dropout(config.dropout, name="dropout")(x)
    outputs = layers.Dense(classes, dtype="float32", name="logits")(x)
    return keras.Model(inputs, outputs, name="lenet")
