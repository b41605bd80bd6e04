"""What activations learn, epoch by epoch."""

import csv
import io
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_adaptact.inspection import Record, activation_table, trainable_activations

Logs = dict[str, Any] | None


class ActivationHistory(keras.callbacks.Callback):
    """Records the parameters of a model's trainable activations before training and after each epoch.

    ```python
    history = ka.ActivationHistory("activations.csv")
    model.fit(x, y, epochs=20, callbacks=[history])
    pandas.DataFrame(history.records)
    ```

    In a loop without callbacks `record` does what they do:

    ```python
    history = ka.ActivationHistory()
    for step in range(1000):
        if step % 100 == 0:
            history.record(model, step)
        ...
    ```

    `records` has the rows of `activation_table` with their `epoch`: parameters, and mixing weights (X, Y, Z) as
    `weight[tanh]` and so on. Epoch 0 is the state before training, or `initial_epoch` is where `fit` is given one.
    A further `fit` with the same callback continues the count. A model whose activations were replaced in between needs
    a new callback.

    Args:
        path: a CSV file for the records, written whole after each epoch. None by default.
        log_dir: a folder for TensorBoard, which shows each parameter of a layer; of parameters by channel the minimum,
            mean and maximum. None by default.
        log: whether to put the same into the logs of each epoch, as `conv1/a`, for the callbacks after this one: those
            of Weights & Biases, MLflow and trackio, `CSVLogger`, and `fit`'s own history. Default: False.

    Raises:
        ImportError: for a `log_dir` without the package tensorboard.
        TypeError: for a `path` that is not one.
        ValueError: when training starts, where the model has no trainable activation.
    """

    def __init__(
        self, path: str | os.PathLike | None = None, log_dir: str | os.PathLike | None = None, log: bool = False
    ):
        super().__init__()
        self.path = None if path is None else os.fspath(path)
        self.records: list[Record] = []
        self.snapshots: dict[int, dict[str, dict[str, np.ndarray]]] = {}  # by epoch, site and parameter
        self._log = log
        self._writer = None if log_dir is None else _tensorboard(log_dir)

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        if not self.snapshots:
            self.record(self.model, epoch)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        step = max(self.snapshots, default=epoch) + 1
        self.record(self.model, step)
        if self._log and logs is not None:
            logs.update(_scalars(self.snapshots[step]))

    def record(self, model: keras.Model, step: int) -> None:
        """Records the current parameters of a model's activations under `step`, in place of an epoch.

        Args:
            model: the same at each step.
            step: any integer above that of the last record.

        Raises:
            ValueError: for a step that is not above the last one, or a model without trainable activations.
        """
        last = max(self.snapshots, default=None)
        if isinstance(step, bool) or not isinstance(step, int | np.integer) or (last is not None and step <= last):
            above = "" if last is None else f" above {last}, the last one"
            raise ValueError(f"`step` must be an integer{above}. Received: {step!r}")
        step = int(step)
        found = {site: layer.formula_parameters() for site, layer in trainable_activations(model).items()}
        if not found:
            raise ValueError(f"ActivationHistory needs a model with trainable activations. Received: {model.name}")
        if self.model is None:
            self.set_model(model)  # whose activations an animation shows
        self.snapshots[step] = found
        self.records += [{"epoch": step} | row for row in activation_table(model)]
        self._write(step, found)

    def _write(self, epoch: int, found: dict[str, dict[str, np.ndarray]]):
        if self.path is not None:
            write_whole(self.path, lambda file: file.write_text(self._csv(), encoding="utf-8", newline=""))
        if self._writer is not None:
            for name, value in _scalars(found).items():
                self._writer.add_scalar(name, value, epoch)
            self._writer.flush()

    def _csv(self) -> str:
        text = io.StringIO()
        writer = csv.DictWriter(text, list(self.records[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.records)
        return text.getvalue()


def _scalars(found: dict[str, dict[str, np.ndarray]]) -> dict[str, float]:
    """Each parameter of a layer; of parameters by channel the minimum, mean and maximum."""
    scalars = {}
    for site, values in found.items():
        for name, value in values.items():
            if not np.ndim(value):
                scalars[f"{site}/{name}"] = float(value)
                continue
            for statistic in (np.min, np.mean, np.max):
                scalars[f"{site}/{name}/{statistic.__name__}"] = float(statistic(value))
    return scalars


def _tensorboard(log_dir: str | os.PathLike) -> Any:
    try:
        from tensorboard.summary import Writer
    except ImportError as error:
        raise ImportError("`log_dir` needs TensorBoard: pip install tensorboard") from error
    return Writer(os.fspath(log_dir))


def write_whole(path: str | os.PathLike, write: Callable[[Path], Any]) -> None:
    """Has `write` fill a file beside `path`, then renames it: a reader sees the old file or the new one."""
    path = Path(path)
    unfinished = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        write(unfinished)
        unfinished.replace(path)
    finally:
        with suppress(OSError):  # a file system that became read-only: the error above says it
            unfinished.unlink(missing_ok=True)
