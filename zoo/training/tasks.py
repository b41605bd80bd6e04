"""What is minimized and measured: of labels cross-entropy and accuracy, of numbers squared errors and R²."""

import math
from typing import Any

import keras
import numpy as np

from zoo.data.splits import Form
from zoo.training import metrics

CROSS_ENTROPY = "cross_entropy"  # of the training batches: the loss without penalty and label smoothing


class Classification:
    """Logits and labels."""

    report = True  # whether the report's measure can be taken

    def __init__(self, form: Form):
        self.classes = form.classes

    def loss(self, smoothing: float) -> keras.losses.Loss:
        return keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing)

    def metrics(self) -> list[Any]:
        """Of the training batches; the last is the loss without penalty and label smoothing."""
        return ["accuracy", keras.metrics.CategoricalCrossentropy(CROSS_ENTROPY, from_logits=True)]

    def held_out(self, outputs: np.ndarray, labels: np.ndarray, prefix: str) -> dict[str, float]:
        return metrics.loss_and_accuracy(*metrics.flat(outputs, labels), prefix)

    def sound(self, outputs: np.ndarray, labels: np.ndarray, prefix: str) -> dict[str, Any]:
        return metrics.sound(*metrics.flat(outputs, labels), self.classes, prefix)

    def predicted(self, outputs: np.ndarray) -> np.ndarray:
        return outputs.argmax(axis=-1)


class Regression:
    """Numbers, and targets of the same shape."""

    report = False

    def loss(self, smoothing: float) -> keras.losses.Loss:
        return keras.losses.MeanSquaredError()

    def metrics(self) -> list[Any]:
        return [keras.metrics.MeanAbsoluteError("mae"), keras.metrics.MeanSquaredError("mse")]

    def held_out(self, outputs: np.ndarray, labels: np.ndarray, prefix: str) -> dict[str, float]:
        return metrics.errors(outputs, labels, prefix)

    sound = held_out

    def predicted(self, outputs: np.ndarray) -> np.ndarray:
        return outputs


def of(form: Form) -> Classification | Regression:
    return Classification(form) if form.classes else Regression()


def headline(found: dict[str, Any], split: str) -> str:
    """The result on a split in a few words."""
    if f"{split}_accuracy" in found:
        return (
            f"{split} accuracy {found[f'{split}_accuracy']:.4f}, macro precision "
            f"{found[f'{split}_precision_macro']:.4f}, loss {found[f'{split}_loss']:.4f}"
        )
    names = (("R²", "r2"), ("mean absolute error", "mae"), ("root mean square error", "rmse"))
    said = (f"{name} {found.get(f'{split}_{key}', math.nan):.4g}" for name, key in names)
    return f"{split} {', '.join(said)}"
