"""The Keras callback that writes a run's history as it goes."""

import statistics
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np

import keras_adaptact as ka
from zoo import metrics, results
from zoo.config import Config


class Recorder(keras.callbacks.Callback):
    """After each epoch, writes history.csv, timing.csv and mixing_weights.csv and says a line.

    What the clock says is in timing.csv alone, so that the same seed gives the same bytes of history.csv.
    mixing_weights.csv has a row for each epoch (0: the start), site, member and, by channel, channel.

    Args:
        size: how many training images there are.
        test: images and labels that the report's measure is taken on.
    """

    def __init__(self, config: Config, seed: int, size: int, test, folder: Path):
        super().__init__()
        self.config, self.seed, self.size, self.test, self.folder = config, seed, size, test, folder
        self.history: list[dict[str, Any]] = []
        self.timing: list[tuple[int, float, float, float]] = []
        self.mixing: list[tuple] = []
        self.began: float = 0.0
        self.trained: float | None = None

    def on_train_begin(self, logs=None):
        self._record_mixing_weights(epoch=0)

    def on_epoch_begin(self, epoch, logs=None):
        self.began, self.trained = time.perf_counter(), None

    def on_test_begin(self, logs=None):
        self.trained = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        now = time.perf_counter()
        seconds, training = now - self.began, (self.trained or now) - self.began
        self.timing.append((epoch + 1, round(seconds, 4), round(training, 4), round(self.size / training, 1)))
        row = {"epoch": epoch + 1} | {name: float(value) for name, value in (logs or {}).items()}
        row["learning_rate"] = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        if (size := self.config.metrics.report_batch) is not None:
            row["report_precision"] = self._report_precision(epoch + 1, size)
        self.history.append(row)
        self._record_mixing_weights(epoch + 1)
        self._write()
        results.note(self._line(row, seconds))

    def report_measure(self) -> dict[str, Any]:
        """The report's measure over the run: its maximum, the epoch of that, and its last value."""
        values = [row["report_precision"] for row in self.history if "report_precision" in row]
        if not values:
            return {}
        return {
            "report_precision_max": max(values),
            "report_precision_max_epoch": values.index(max(values)) + 1,
            "report_precision_last": values[-1],
        }

    def images_per_second(self) -> float:
        """Median over epochs of the training part; the first, which compiles, left out where there are more."""
        rates = [rate for *_, rate in self.timing]
        return statistics.median(rates[1:] or rates)

    def _report_precision(self, epoch: int, size: int) -> float:
        chosen = metrics.report_batch(self.test.labels, size, self.seed, epoch)
        logits = self.model.predict_on_batch(self.test.images[chosen])
        return metrics.report(np.asarray(logits), self.test.labels[chosen])

    def _record_mixing_weights(self, epoch: int) -> None:
        for layer in self.model.layers:
            if isinstance(layer, ka.Mixture):
                site = layer.name.removesuffix("_activation")
                for member, weights in zip(layer.member_names, layer.mixing_weights, strict=True):
                    for channel, weight in enumerate(np.atleast_1d(weights)):
                        where = channel if np.ndim(weights) else ""
                        self.mixing.append((epoch, site, member, where, float(weight)))

    def _write(self) -> None:
        header = list(self.history[0])
        rows = [list(row.values()) for row in self.history]
        results.write_csv(self.folder / "history.csv", header, rows)
        timing = ("epoch", "seconds", "training_seconds", "images_per_second")
        results.write_csv(self.folder / "timing.csv", timing, self.timing)
        mixing = ("epoch", "site", "member", "channel", "weight")
        results.write_csv(self.folder / "mixing_weights.csv", mixing, self.mixing)

    def _line(self, row: dict[str, Any], seconds: float) -> str:
        epochs = self.config.training.epochs
        shown = [f"{name} {row[name]:.4f}" for name in ("loss", "accuracy", "val_accuracy") if name in row]
        left = (epochs - row["epoch"]) * seconds
        return f"seed {self.seed}, epoch {row['epoch']}/{epochs}: {', '.join(shown)}; {left:.0f} s left"
