"""Trains the network of a run for each of its seeds, from the last checkpoint if there is one."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

import keras_adaptact as ka
from zoo import files, models
from zoo.config.schema import Config
from zoo.data import datasets
from zoo.data.pipeline import Pipeline, Plan, plan, steps_of_an_epoch
from zoo.data.splits import PICTURES, Form
from zoo.errors import ConfigError
from zoo.training import checkpoint, memory, metrics, recorder
from zoo.training.engine import Engine
from zoo.training.optimizers import optimizer_of, penalize_kernels
from zoo.training.progress import Progress
from zoo.training.recorder import Recorder

LONG = 2.0  # seconds of a chunk of steps, between two looks at the clock
ENOUGH = 2.0  # seconds of steps that their pace is measured on


class Stopped(Exception):
    """A run stopped at a checkpoint, as it was asked to."""


class Trainer:
    """A network, built and compiled once for all seeds of a run.

    Args:
        config: of the run.
        form: of the data; by default images and ten classes.

    Raises:
        ConfigError: for an activation, a site or devices that don't exist, or a network that doesn't fit the data.
    """

    def __init__(self, config: Config, form: Form = PICTURES):
        self.config, self.form, self.task = config, form, metrics.task_of(form)
        self.data_format = models.data_format(config)
        if config.metrics.tensorboard:
            recorder.tensorboard_writer()
        keras.utils.clear_session()
        _share_batches(config.training.devices)
        keras.config.set_dtype_policy(config.training.dtype)
        self.seed = config.training.seeds[0]
        self.model = self._built(self.seed)

    def _built(self, seed: int) -> keras.Model:
        """A new network, initialized with a seed, in the fast image data format."""
        keras.utils.set_random_seed(seed)
        before = keras.config.image_data_format()
        keras.config.set_image_data_format(self.data_format)
        try:
            return models.build(self.config, form=self.form)
        finally:
            keras.config.set_image_data_format(before)

    def attach(self, dataset: datasets.Dataset) -> None:
        """Puts the images on the device and compiles the network."""
        settings = self.config.training
        self.dataset = dataset
        size = len(dataset.train.labels)
        steps = steps_of_an_epoch(size, settings.batch_size)
        penalize_kernels(self.model, settings.weight_decay)
        measured = self.task.metrics()
        self.plain_loss = measured[-1]
        self.model.compile(
            optimizer_of(self.config, steps, self.model), self.task.loss(settings.label_smoothing), metrics=measured
        )
        self.model.optimizer.build(self.model.trainable_variables)
        some = np.zeros((1, *self.form.outputs), "float32")
        self.model.compute_metrics(None, some, some)
        self.initial = [np.asarray(checkpoint.value(v)) for v in self.model.optimizer.variables]
        augment = self.config.dataset.augmentation == "crop_flip"
        self.pipeline = Pipeline.of(dataset, self.config.dataset.standardize, augment, self.data_format)
        batch = min(settings.batch_size, size)
        targets = self.pipeline.targets(dataset.train.labels)
        self.engine = Engine(self.model, self.pipeline, dataset.train.images, targets, batch)

    def train(
        self,
        seed: int,
        folder: Path,
        is_over: Callable[[], bool] = lambda: False,
        is_enough: Callable[[dict[str, Any]], bool] = lambda row: False,
    ) -> dict[str, Any]:
        """Trains one seed and returns the content of its metrics.json; resumes from a checkpoint in `folder`.

        A NaN or infinite loss ends training after its epoch, with the status "diverged" and what diverged first.

        Args:
            seed: of initial values, the order of images, augmentation and dropout.
            folder: of the run.
            is_over: called every few steps; if it returns True the run stops at a checkpoint.
            is_enough: called with each epoch's row of history.csv, those before a resume included; if it returns True
                training ends there, with the status "stopped".

        Raises:
            Stopped: if `is_over` returned True; a checkpoint is written first.
        """
        self.is_over, self.divergence = is_over, None
        files.write_json(folder / "preprocessing.json", self.pipeline.written())
        recorder = Recorder(folder, self.config.metrics.tensorboard)
        epochs = self.config.training.epochs
        self._start(seed)
        found = self._load(folder) or {"epoch": 0, "step": 0, "seconds": 0.0}
        if "recorded" in found:
            recorder.restore(found["recorded"])
        else:
            recorder.activations(self.model, 0, epochs)
        with Progress(f"seed {seed}", epochs) as progress:
            if found["epoch"] or found["step"]:
                progress.line(f"seed {seed} resumes after epoch {found['epoch']}, step {found['step']}")
            enough = any(map(is_enough, recorder.history))
            while found["epoch"] < epochs and not enough and not recorder.diverged():
                epoch = found["epoch"] + 1
                self._epoch(epoch, seed, found, recorder, progress, folder)
                if recorder.diverged():
                    self.divergence = self._explained(seed, folder)
                found = {"epoch": epoch, "step": 0, "seconds": 0.0}
                self._save(folder, found, recorder)
                recorder.write()
                enough = is_enough(recorder.history[-1])
                if epoch < epochs and not enough and is_over():
                    raise Stopped
        recorder.write()  # again: a kill may have come between the checkpoint and these files
        return self._finish(seed, folder, recorder)

    def _start(self, seed: int, trained: bool = False) -> None:
        """Resets the network, which may be trained already, and the optimizer to their initial values."""
        if trained or seed != self.seed:
            for variable, fresh in zip(self.model.variables, self._built(seed).variables, strict=False):
                variable.assign(fresh.value)
        self.seed = seed
        for variable, value in zip(self.model.optimizer.variables, self.initial, strict=True):
            variable.assign(value)

    def _epoch(self, epoch, seed, at, recorder, progress, folder) -> None:
        """Trains one epoch from the step in `at`, evaluates and records it."""
        settings = self.config.training
        batches = plan(len(self.dataset.train.labels), settings.batch_size, seed, epoch)
        step, before = at["step"], at["seconds"]
        if step == 0:
            self.model.reset_metrics()
            self._reseed_dropout(seed, epoch)
        began = saved = last = time.perf_counter()
        chunk = self.engine.dispatch
        while step < batches.steps:
            stop = min(step + chunk, batches.steps)
            self.engine.train(batches, step, stop)
            self.engine.synchronize()
            step = stop
            now = time.perf_counter()
            if now - last < LONG:
                chunk *= 2
            last = now
            progress.step(epoch, step, batches.steps)
            over = self.is_over()
            if (over or now - saved > settings.checkpoint_minutes * 60) and step < batches.steps:
                if not np.isfinite(self._loss()):
                    break
                at = {"epoch": epoch - 1, "step": step, "seconds": before + now - began}
                self._save(folder, at, recorder)
                saved = now
                if over:
                    raise Stopped
        trained = time.perf_counter()
        row = {"epoch": epoch} | {k: float(v) for k, v in self.model.get_metrics_result().items()}
        row |= self._held_out()
        row["learning_rate"] = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        if (size := self.config.metrics.report_batch) is not None and self.task.report:
            row["report_precision"] = self._report_precision(seed, epoch, size)
        recorder.activations(self.model, epoch, settings.epochs)
        seconds = before + time.perf_counter() - began
        recorder.epoch(row, seconds, before + trained - began, batches.parts[0].size)
        progress.epoch(row, seconds)

    def pace(self) -> tuple[float, float]:
        """How many seconds an epoch takes once everything is compiled, and how many it took to find out.

        It trains for a while.
        """
        size, batch = len(self.dataset.train.labels), self.config.training.batch_size
        batches = plan(size, batch, self.seed, 1)
        first = min(self.engine.dispatch, batches.steps)
        self._timed_steps(batches, 0, first)
        began, step, done, seconds = time.perf_counter(), first % batches.steps, 0, 0.0
        while seconds < ENOUGH:
            stop = min(step + self.engine.dispatch, batches.steps)
            seconds += self._timed_steps(batches, step, stop)
            done, step = done + stop - step, stop % batches.steps
        epoch = seconds / done * batches.steps
        if self.dataset.validation is not None:
            images = self.dataset.validation.images
            self.engine.predict(images[:batch])
            again = time.perf_counter()
            self.engine.predict(images[:batch])
            epoch += (time.perf_counter() - again) * len(images) / min(batch, len(images))
        return epoch, time.perf_counter() - began

    def _timed_steps(self, batches: Plan, start: int, stop: int) -> float:
        began = time.perf_counter()
        self.engine.train(batches, start, stop)
        self.engine.synchronize()
        return time.perf_counter() - began

    def _loss(self) -> float:
        """The mean over the epoch so far."""
        return float(self.model.get_metrics_result()["loss"])

    def _explained(self, seed: int, folder: Path) -> ka.Divergence | None:
        """What diverged first in an epoch of NaN loss: repeats it from the last checkpoint, step by step."""
        at = self._load(folder)
        if at is None:
            self._start(seed, trained=True)
            at = {"epoch": 0, "step": 0}
        epoch, first = at["epoch"] + 1, at["step"]
        if first == 0:
            self.model.reset_metrics()
            self._reseed_dropout(seed, epoch)
        batches = plan(len(self.dataset.train.labels), self.config.training.batch_size, seed, epoch)
        watch = ka.StopOnDivergence(verbose=0)
        watch.set_model(self.model)
        watch.on_train_begin()
        for step in range(first, batches.steps):
            self.engine.train(batches, step, step + 1)
            self.engine.synchronize()
            watch.on_train_batch_end(step - first, {"loss": self._loss()})
            if found := watch.divergence:
                before = (epoch - 1) * batches.steps + first
                return found._replace(step=found.step + before, value_step=found.value_step + before)
        return None

    def _reseed_dropout(self, seed: int, epoch: int) -> None:
        """Makes an epoch's dropout independent of whether the run was resumed before it."""
        states = [v for v in self.model.non_trainable_variables if v.path.endswith("seed_generator_state")]
        drawn = np.random.SeedSequence([seed, epoch]).generate_state(max(1, len(states))) >> 1  # torch's is signed
        for variable, value in zip(states, drawn, strict=False):
            variable.assign(np.array([value, 0], variable.dtype))

    def _held_out(self) -> dict[str, float]:
        if self.dataset.validation is None:
            return {}
        logits = self.engine.predict(self.dataset.validation.images)
        return self.task.held_out(logits, self.dataset.validation.labels, "val")

    def _report_precision(self, seed: int, epoch: int, size: int) -> float:
        test = self.dataset.test
        chosen = metrics.report_batch(test.labels, size, seed, epoch)
        return metrics.report(*metrics.flat(self.engine.predict(test.images[chosen]), test.labels[chosen]))

    def _variables(self) -> list:
        """The variables of a checkpoint, each once."""
        model = self.model
        every = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
        return list({id(v): v for v in every}.values())

    def _load(self, folder: Path) -> dict[str, Any] | None:
        return checkpoint.load(folder, self._variables(), len(self.plain_loss.variables))

    def _save(self, folder: Path, at: dict[str, Any], recorder: Recorder) -> None:
        checkpoint.save(folder, self._variables(), at | {"recorded": recorder.state()})

    def _finish(self, seed: int, folder: Path, recorder: Recorder) -> dict[str, Any]:
        diverged, epochs = recorder.diverged(), recorder.history[-1]["epoch"]
        status = "diverged" if diverged else "finished" if epochs == self.config.training.epochs else "stopped"
        found = {"seed": seed, "epochs": epochs, "status": status}
        found["parameters"] = self.model.count_params()
        predictions: dict[str, np.ndarray] = {}
        if self.divergence:
            found["divergence"] = self.divergence._asdict()
        for name in ("validation", "test") if self.config.metrics.test else ("validation",):
            split = getattr(self.dataset, name)
            if split is not None and not diverged:
                logits = self.engine.predict(split.images)
                found |= self.task.sound(logits, split.labels, name)
                predictions |= {name: self.task.predicted(logits), f"{name}_labels": split.labels}
        if not all(math.isfinite(value) for value in found.values() if isinstance(value, float)):
            found["status"] = "diverged"  # it overflows in evaluation only
        found |= recorder.report_measure()
        found |= {"seconds": round(recorder.seconds(), 3), "images_per_second": recorder.images_per_second()}
        found["peak_memory_mb"] = round(memory.peak_memory(), 1)
        files.write_whole(folder / "model.keras", self.model.save)
        if predictions:
            files.write_predictions(folder / "predictions.npz", predictions)
        files.write_json(folder / "metrics.json", found)
        return found


def summarize(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and sample standard deviation of each metric over the seeds that finished."""
    finished = [metrics for metrics in found if metrics["status"] == "finished"]
    seeds = {status: [m["seed"] for m in found if m["status"] == status] for status in ("finished", "diverged")}
    numbers = [k for k, v in finished[0].items() if isinstance(v, float) and k != "seconds"] if finished else []
    values = {key: np.array([metrics[key] for metrics in finished]) for key in numbers}
    return seeds | {
        key: {"mean": float(each.mean()), "std": float(each.std(ddof=1)) if len(each) > 1 else None}
        for key, each in values.items()
    }


def _share_batches(devices: int) -> None:
    """Distributes each batch over several devices, if the backend can."""
    keras.distribution.set_distribution(None)
    if devices == 1:
        return
    if keras.config.backend() != "jax":
        raise ConfigError(f"training.devices: {devices} devices need JAX; the backend is {keras.config.backend()}")
    found = keras.distribution.list_devices()
    if len(found) < devices:
        raise ConfigError(f"training.devices: {devices}, but JAX has {len(found)}: {', '.join(found)}")
    keras.distribution.set_distribution(keras.distribution.DataParallel(devices=found[:devices]))
