"""What activations learn, epoch by epoch."""

import csv
import io
import os
from typing import Any

import keras
import numpy as np

from keras_adaptact.files import write_whole
from keras_adaptact.inspection import Record, activation_table, arguments, sites


class ActivationHistory(keras.callbacks.Callback):
    """Keeps the numbers of a model's trainable activations after each epoch, and before the first one.

    ```python
    history = ka.ActivationHistory("activations.csv")
    model.fit(x, y, epochs=20, callbacks=[history])
    pandas.DataFrame(history.records)
    ```

    `records` has the rows of `activation_table` with their `epoch`: parameters, and mixing weights (X, Y, Z) as
    `weight[tanh]` and so on. Epoch 0 is the state before training, or `initial_epoch` is where `fit` is given one.
    A further `fit` with the same callback goes on counting. A model whose activations are replaced in between needs a
    new one.

    Args:
        path: a CSV file for the records, written whole after each epoch. None by default.
        log_dir: a folder for TensorBoard, which shows each number of a layer, and of numbers for each channel the
            smallest, the mean and the largest. None by default.

    Raises:
        ImportError: for a `log_dir` without the package tensorboard.
        TypeError: for a `path` that is none.
        ValueError: when training starts, where the model has no trainable activation.
    """

    def __init__(self, path: str | os.PathLike | None = None, log_dir: str | os.PathLike | None = None):
        super().__init__()
        self.path = None if path is None else os.fspath(path)
        self.records: list[Record] = []
        self.snapshots: dict[int, dict[str, dict[str, np.ndarray]]] = {}  # by epoch, site and parameter
        self._writer = None if log_dir is None else _tensorboard(log_dir)

    def on_epoch_begin(self, epoch: int, logs=None):
        if not self.snapshots:
            self._keep(epoch)

    def on_epoch_end(self, epoch: int, logs=None):
        self._keep(max(self.snapshots) + 1)

    def _keep(self, epoch: int):
        found = {site: arguments(layer) for site, layer in sites(self.model).items()}
        if not found:
            raise ValueError(f"ActivationHistory needs a model with trainable activations. Received: {self.model.name}")
        self.snapshots[epoch] = found
        self.records += [{"epoch": epoch} | row for row in activation_table(self.model)]
        if self.path is not None:
            write_whole(self.path, lambda file: file.write_text(self._csv(), encoding="utf-8", newline=""))
        if self._writer is not None:
            for site, values in found.items():
                for name, value in values.items():
                    if not np.ndim(value):
                        self._writer.add_scalar(f"{site}/{name}", value, epoch)
                        continue
                    for statistic in (np.min, np.mean, np.max):
                        self._writer.add_scalar(f"{site}/{name}/{statistic.__name__}", statistic(value), epoch)
            self._writer.flush()

    def _csv(self) -> str:
        text = io.StringIO()
        writer = csv.DictWriter(text, list(self.records[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.records)
        return text.getvalue()


def _tensorboard(log_dir: str | os.PathLike) -> Any:
    try:
        from tensorboard.summary import Writer
    except ImportError as error:
        raise ImportError("`log_dir` needs TensorBoard: pip install tensorboard") from error
    return Writer(os.fspath(log_dir))
