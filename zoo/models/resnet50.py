"""ResNet50 for 32x32x3 images. Map sizes are those of the reference stem; in brackets those of the cifar stem.

After He et al., "Deep Residual Learning for Image Recognition", 2016, with the bottleneck's stride in its first
convolution as there; many later implementations have it in the second. Unlike the reference implementation of Hu et
al., which follows the paper too: kernels start He-normal (as in the paper) instead of Glorot-uniform, batch norm's
momentum and epsilon are 0.9 and 1e-5 instead of 0.999 and 1e-3. The cifar stem is neither's: conv1 is 3x3 with
stride 1, and pool1 is left out.
"""

import keras
from keras import layers

from zoo.config.schema import ResNet50
from zoo.models.blocks import Builder, Factory, Shape


def build(config: ResNet50, activation: Factory, classes: int, shape: Shape) -> keras.Model:
    net = Builder(config.norm, activation)
    inputs = keras.Input(shape)
    kernel, strides = (7, 2) if config.stem == "reference" else (3, 1)
    x = net.conv(inputs, "conv1", config.width, kernel, strides)  # 16x16x64 (32x32)
    if config.stem == "reference":
        x = layers.MaxPooling2D(3, 2, padding="same", name="pool1")(x)  # 8x8x64
    for stage, blocks in enumerate(config.blocks):  # 8x8x256, 4x4x512, 2x2x1024, 1x1x2048 (32x32, 16x16, 8x8, 4x4)
        for block in range(blocks):
            name, first = f"conv{stage + 2}_block{block + 1}", block == 0
            x = bottleneck(net, x, name, config.width * 2**stage, 2 if first and stage else 1, project=first)
    x = layers.GlobalAveragePooling2D(name="pool5")(x)  # 2048
    outputs = layers.Dense(classes, dtype="float32", name="logits")(x)
    return keras.Model(inputs, outputs, name="resnet50")


def bottleneck(net: Builder, x, name: str, width: int, strides: int, project: bool):
    """Three convolutions added to their input, which is projected if the size or number of maps changes."""
    y = net.conv(x, f"{name}_1", width, 1, strides)
    y = net.conv(y, f"{name}_2", width, 3)
    y = net.normalize(net.convolve(y, f"{name}_3", 4 * width, 1), f"{name}_3")
    if project:
        x = net.normalize(net.convolve(x, f"{name}_0", 4 * width, 1, strides), f"{name}_0")
    x = layers.Add(name=f"{name}_add")([x, y])
    return net.activation(f"{name}_out")(x)
