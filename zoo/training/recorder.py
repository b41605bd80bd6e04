"""What a run records after each epoch, for TensorBoard too."""

import math
import statistics
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

import keras_adaptact as ka
from zoo import files, folders, manifest
from zoo.errors import UserError
from zoo.training.metrics import CROSS_ENTROPY

ADDED = [CROSS_ENTROPY]  # columns that a run of version 0.1.0 doesn't have, and doesn't get when it resumes


def activations(model: keras.Model) -> Iterator[tuple[str, ka.TrainableActivation]]:
    """The trainable activations of a network, by the names of their sites."""
    for path, layer in ka.trainable_activations(model).items():
        yield path.removesuffix("_activation"), layer


class Recorder:
    """Writes history.csv, timing.csv, mixing_weights.csv and parameters.csv after each epoch.

    Times are in timing.csv alone, so that the same seed gives the same bytes in the other files. mixing_weights.csv has
    a row for each epoch (0: the start), site, member and, if weights are per channel, channel; its column `held` says
    whether the weight is learned or fixed. parameters.csv has a row for each parameter of activations with parameters
    per layer, at epochs 0, 1, 2, 5, 10, 20, 50... and the last.
    """

    def __init__(self, folder: Path, tensorboard: bool = False):
        self.folder, self.tensorboard = folder, tensorboard
        self.events: Events | None = None
        self.history: list[dict[str, Any]] = []
        self.left_out: list[str] = []  # columns of the history
        self.timing: list[tuple[int, float, float, float]] = []
        self.mixing: list[tuple] = []
        self.parameters: list[tuple] = []

    def state(self) -> dict[str, Any]:
        """Everything recorded so far, as JSON."""
        return {name: getattr(self, name) for name in ("history", "left_out", "timing", "mixing", "parameters")}

    def restore(self, state: dict[str, Any]) -> None:
        self.history = state["history"]
        self.left_out = state.get("left_out", ADDED)
        for name in ("timing", "mixing", "parameters"):
            setattr(self, name, [tuple(row) for row in state[name]])

    def epoch(self, row: dict[str, Any], seconds: float, training: float, images: int) -> None:
        """Records the history of an epoch, and the time that all of it and its training on `images` images took."""
        self.history.append({name: value for name, value in row.items() if name not in self.left_out})
        if self.tensorboard:
            self._for_tensorboard(row)
        rate = round(images / training, 4)
        self.timing.append((row["epoch"], round(seconds, 4), round(training, 4), rate))

    def activations(self, model: keras.Model, epoch: int, epochs: int) -> None:
        """Records the parameters of the activations after an epoch."""
        self._mixing_weights(model, epoch)
        if epoch == epochs or str(epoch).rstrip("0") in ("", "1", "2", "5"):
            for site, layer in activations(model):
                if layer.granularity == "layer":
                    for name, value in layer.get_parameters().items():
                        for index, number in enumerate(np.atleast_1d(value)):
                            self.parameters.append((epoch, site, name, index if np.ndim(value) else "", float(number)))

    def _mixing_weights(self, model: keras.Model, epoch: int) -> None:
        given = {
            site: layer.get_config()["weights"] for site, layer in activations(model) if isinstance(layer, ka.Mixture)
        }
        for row in ka.mixing_weights(model):
            site, channel = row["site"].removesuffix("_activation"), "" if row["channel"] is None else row["channel"]
            held = "learned" if given[site] == "learned" else "fixed"
            self.mixing.append((epoch, site, row["member"], channel, row["weight"], held))

    def write(self) -> None:
        if self.history:
            columns = list(self.history[0])  # a resumed run may have them in another order, as Keras 3.12 does
            rows = [[row[name] for name in columns] for row in self.history]
            files.write_csv(self.folder / "history.csv", columns, rows)
        timing = ("epoch", "seconds", "training_seconds", "images_per_second")
        files.write_csv(self.folder / "timing.csv", timing, self.timing)
        mixing = ("epoch", "site", "member", "channel", "weight", "held")
        files.write_csv(self.folder / "mixing_weights.csv", mixing, self.mixing)
        parameters = ("epoch", "site", "parameter", "index", "value")
        files.write_csv(self.folder / "parameters.csv", parameters, self.parameters)

    def _for_tensorboard(self, row: dict[str, Any]) -> None:
        if self.events:
            self.events.epoch(row)
        else:
            self.events = Events(self.folder, self.history)

    def diverged(self) -> bool:
        """Whether a value of the last epoch is NaN or infinite."""
        return bool(self.history) and not all(map(math.isfinite, self.history[-1].values()))

    def report_measure(self) -> dict[str, Any]:
        """The report's measure over the run: its maximum, the epoch of the maximum, and the last value."""
        values = [row["report_precision"] for row in self.history if "report_precision" in row]
        if not values:
            return {}
        return {
            "report_precision_max": max(values),
            "report_precision_max_epoch": values.index(max(values)) + 1,
            "report_precision_last": values[-1],
        }

    def seconds(self) -> float:
        return sum(seconds for _, seconds, _, _ in self.timing)

    def images_per_second(self) -> float:
        """Median over epochs, without the first, which compiles, if there are more."""
        rates = [rate for *_, rate in self.timing]
        return statistics.median(rates[1:] or rates)


class Events:
    """Writes rows of history.csv into the folder `tensorboard` of the run; starts over when the run is resumed.

    Raises:
        UserError: if the package isn't installed.
    """

    def __init__(self, folder: Path, rows: Iterable[dict[str, Any]]):
        writer = tensorboard_writer()
        place = folders.check_inside(folder / "tensorboard", folder)
        place.mkdir(exist_ok=True)
        manifest.adopt(place)
        for path in manifest.own(place):
            path.unlink()
        before = set(place.iterdir())
        self.writer = writer(str(place))
        manifest.note(place, [path.name for path in set(place.iterdir()) - before])
        for row in rows:
            self.epoch(row)

    def epoch(self, row: dict[str, Any]) -> None:
        for name, value in row.items():
            if name != "epoch" and math.isfinite(value):
                self.writer.add_scalar(name, value, row["epoch"])
        self.writer.flush()


def tensorboard_writer() -> type:
    """TensorBoard's writer, which doesn't need TensorFlow."""
    try:
        from tensorboard.summary import Writer
    except ModuleNotFoundError:
        raise UserError(
            "metrics.tensorboard: the package tensorboard is not installed; pip install '.[tensorboard]'"
        ) from None
    return Writer
