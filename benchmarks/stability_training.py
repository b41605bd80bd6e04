"""What a cell of `benchmarks/stability.py` is, and how it runs: networks small enough for a training of seconds."""

import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers, optimizers

import keras_adaptact as ka
from keras_adaptact.graphs import activations_of
from zoo.data import datasets

EPOCHS, BATCH = 8, 32
CHANCE = {"digits": 0.5, "cifar10": 0.22}  # a network with less has not trained

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
OPTIMIZERS = {  # each, and the step that the search for a plain limit begins with
    "momentum": (lambda rate: optimizers.SGD(rate, momentum=0.9, nesterov=True), -4),
    "adam": (optimizers.Adam, -6),
    "sgd": (optimizers.SGD, -1),
    "rmsprop": (optimizers.RMSprop, -7),
    "adamw": (optimizers.AdamW, -6),
    "lamb": (optimizers.Lamb, -5),
    "muon": (lambda rate: optimizers.Muon(rate, exclude_layers=["activation"]), -5),
}
TRAININGS = ("bare", "limited")  # as in version 0.1.0, and with the limit of the zoo's recipes
LIMITS = {"sgd": 0.1}  # of each optimizer; where one gradient moves them once only
LIMIT = 0.01  # of the others


class Cell(NamedTuple):
    """One training; the rate is 2**step."""

    backend: str
    network: str
    data: str
    optimizer: str
    activation: str
    granularity: str
    training: str
    step: int
    seed: int


class Outcome(NamedTuple):
    """How it went: the farthest that a parameter moved, and the share of parameters that lie on a bound."""

    accuracy: float
    loss: float
    moved: float
    bound: float
    seconds: float


def trained(cell: Cell, outcome: Outcome) -> bool:
    return outcome.loss < np.log(10) and outcome.accuracy >= CHANCE[cell.data]


@cache
def images(name: str, data_dir: Path | None) -> tuple[np.ndarray, ...]:
    """Training and test images, standardized: digits of 16x16, or 2,000 and 1,000 of CIFAR-10."""
    if name == "digits":
        from sklearn.datasets import load_digits

        digits = load_digits()
        x = digits.images.repeat(2, 1).repeat(2, 2)[..., None].astype("float32")
        order = np.random.default_rng(0).permutation(len(x))
        x, y = (x[order] - x.mean()) / x.std(), digits.target[order].astype("int32")
        return x[:1440], y[:1440], x[1440:], y[1440:]
    found = datasets.load("cifar10", data_dir=data_dir)
    x, y = found.train.images[:2016], found.train.labels[:2016].astype("int32")
    tx, ty = found.test.images[:1000], found.test.labels[:1000].astype("int32")
    mean, std = x.mean((0, 1, 2)), x.std((0, 1, 2))
    return ((x - mean) / std).astype("float32"), y, ((tx - mean) / std).astype("float32"), ty


class StopAtNaN(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        if not np.isfinite(logs["loss"]):
            self.model.stop_training = True


def spec(group: Cell) -> dict[str, Any]:
    if not group.training:
        slope = {"negative_slope": 0.1} if group.activation == "leaky_relu" else {}
        return {"name": group.activation} | slope
    return {"name": group.activation, "granularity": group.granularity}


class Group:
    """A network with its activation and optimizer, compiled once for all its rates and seeds."""

    def __init__(self, group: Cell, data_dir: Path | None):
        self.group, self.data = group, images(group.data, data_dir)
        self.model = self.build(0)
        self.starts = {0: self.model.get_weights()}
        kind, first = OPTIMIZERS[group.optimizer]
        optimizer = kind(2.0**first)
        if group.training == "limited":
            optimizer = ka.optimizer_for(self.model, optimizer, step_limit=LIMITS.get(group.optimizer, LIMIT))
        per_epoch = len(self.data[0]) // BATCH if keras.backend.backend() == "tensorflow" else 1
        self.model.compile(
            optimizer,
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            steps_per_execution=per_epoch,
            jit_compile=keras.backend.backend() == "jax",
        )
        self.optimizer = self.model.optimizer
        self.optimizer.build(self.model.trainable_variables)
        self.fresh = [keras.ops.convert_to_numpy(v.value) for v in self.optimizer.variables]

    def build(self, seed: int) -> keras.Model:
        keras.utils.set_random_seed(seed)
        chosen = spec(self.group)
        inputs = keras.Input(self.data[0].shape[1:])
        outputs = NETWORKS[self.group.network](inputs, lambda: ka.get(chosen), 10)
        return keras.Model(inputs, outputs)

    def run(self, cell: Cell) -> Outcome:
        began = time.perf_counter()
        x, y, tx, ty = self.data
        if cell.seed not in self.starts:
            self.starts[cell.seed] = self.build(cell.seed).get_weights()
        self.model.set_weights(self.starts[cell.seed])
        for variable, value in zip(self.optimizer.variables, self.fresh, strict=True):
            variable.assign(value)
        self.optimizer.learning_rate = 2.0**cell.step
        keras.utils.set_random_seed(cell.seed)
        before = self.parameters()
        fitted = self.model.fit(x, y, BATCH, EPOCHS, verbose=0, callbacks=[StopAtNaN()])
        loss = fitted.history["loss"][-1]
        accuracy = 0.0
        if np.isfinite(loss):
            logits = keras.ops.convert_to_numpy(self.model(tx, training=True))
            accuracy = float(np.mean(np.argmax(logits, -1) == ty)) if np.all(np.isfinite(logits)) else 0.0
        return Outcome(accuracy, loss, *self.motion(before), time.perf_counter() - began)

    def parameters(self) -> list[np.ndarray]:
        layers = activations_of(self.model)
        return [keras.ops.convert_to_numpy(v.value) for layer in layers for v in layer.trainable_variables]

    def motion(self, before: list[np.ndarray]) -> tuple[float, float]:
        after = self.parameters()
        if not after:
            return 0.0, 0.0
        moved = max(float(np.max(np.abs(a - b))) for a, b in zip(after, before, strict=True))
        return moved, self.on_bounds()

    def on_bounds(self) -> float:
        """The share of parameters that lie on a bound of theirs."""
        hits = []
        for layer in activations_of(self.model):
            config = layer.get_config()
            for name, value in layer.get_parameters().items() if hasattr(layer, "get_parameters") else ():
                bounds = (config.get(f"{name}_constraint") or {}).get("config", {})
                low, high = bounds.get("minimum", -np.inf), bounds.get("maximum", np.inf)
                hits += list((np.ravel(value) <= low) | (np.ravel(value) >= high))
        return float(np.mean(hits)) if hits else 0.0
