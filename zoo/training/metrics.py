"""What is minimized and measured: for labels cross-entropy and precision, for numbers squared errors and R²."""

import math
from typing import Any

import keras
import numpy as np
from scipy.special import log_softmax
from sklearn.metrics import accuracy_score, precision_score

from zoo.data.splits import Form

CROSS_ENTROPY = "cross_entropy"  # of the training batches: the loss without penalty and label smoothing


def sound(logits: np.ndarray, labels: np.ndarray, classes: tuple[str, ...], prefix: str) -> dict:
    """Loss, accuracy and precisions over a whole split.

    Args:
        logits: float (n, classes).
        labels: int (n,).
        prefix: of the keys, such as "test".

    The loss is the mean cross-entropy in nats. A class that is never predicted has precision 0.
    """
    predicted = logits.argmax(axis=1)
    each = range(len(classes))

    def precision(average):
        return precision_score(labels, predicted, labels=each, average=average, zero_division=0)

    return loss_and_accuracy(logits, labels, prefix) | {
        f"{prefix}_precision_macro": float(precision("macro")),
        f"{prefix}_precision_weighted": float(precision("weighted")),
        f"{prefix}_precision_per_class": dict(zip(classes, map(float, precision(None)), strict=True)),
    }


def loss_and_accuracy(logits: np.ndarray, labels: np.ndarray, prefix: str) -> dict[str, float]:
    logs = log_softmax(logits.astype("float64"), axis=1)
    return {
        f"{prefix}_loss": float(-logs[np.arange(len(labels)), labels].mean()),
        f"{prefix}_accuracy": float(accuracy_score(labels, logits.argmax(axis=1))),
    }


def flat(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels at places, such as pixels, as so many labels."""
    return logits.reshape(-1, logits.shape[-1]), labels.reshape(-1)


def errors(outputs: np.ndarray, targets: np.ndarray, prefix: str) -> dict[str, float]:
    """Of numbers (n, ...): the mean square error as loss, R², and the mean absolute and root mean square error.

    R² = 1 - sum (y - f)**2 / sum (y - mean y)**2, for several numbers a sample the mean of theirs; one that is constant
    over the samples has none and is left out (0, where all are).
    """
    y, f = (np.asarray(x, "float64").reshape(len(x), -1) for x in (targets, outputs))
    square = np.square(y - f)
    spread = np.square(y - y.mean(axis=0)).sum(axis=0)
    varies = spread > 0
    r2 = (1 - square.sum(axis=0)[varies] / spread[varies]).mean() if varies.any() else 0.0
    return {
        f"{prefix}_loss": float(square.mean()),
        f"{prefix}_r2": float(r2),
        f"{prefix}_mae": float(np.abs(y - f).mean()),
        f"{prefix}_rmse": float(np.sqrt(square.mean())),
    }


def report_batch(labels: np.ndarray, size: int, seed: int, epoch: int) -> np.ndarray:
    """Indices of an epoch's test images for the report's measure, drawn from the seed and the epoch."""
    size = min(size, len(labels))
    return np.random.default_rng([seed, epoch]).choice(len(labels), size, replace=False)


def report(logits: np.ndarray, labels: np.ndarray) -> float:
    """The report's measure: weighted precision on one small batch of test images.

    It is noisy, and its maximum over epochs lies far above the precision on all images. It is there to be compared
    with the report's tables.
    """
    return float(precision_score(labels, logits.argmax(axis=1), average="weighted", zero_division=0))


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
        return loss_and_accuracy(*flat(outputs, labels), prefix)

    def sound(self, outputs: np.ndarray, labels: np.ndarray, prefix: str) -> dict[str, Any]:
        return sound(*flat(outputs, labels), self.classes, prefix)

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
        return errors(outputs, labels, prefix)

    sound = held_out

    def predicted(self, outputs: np.ndarray) -> np.ndarray:
        return outputs


def task_of(form: Form) -> Classification | Regression:
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
