"""One training run in Keras, and the files that it writes as it goes."""

import math
import time
from pathlib import Path
from typing import Any, Literal, NamedTuple

import keras
import numpy as np

from zoo import data, metrics, models, results
from zoo.config import Config
from zoo.recorder import Recorder


class Arrays(NamedTuple):
    """A split as a network takes it: float32 images (n, 32, 32, 3) or (n, 3, 32, 32), and int32 labels (n,)."""

    images: np.ndarray
    labels: np.ndarray


def check(config: Config) -> None:
    """Builds the network once, so that a config's mistakes show before any data is read or folder made."""
    models.build(config, classes=10)
    keras.utils.clear_session()


def prepare(dataset: data.Dataset, how: Literal["channel", "per_image"]) -> dict[str, Arrays]:
    """The splits of a data set, standardized, in Keras's image data format."""
    channels_first = keras.config.image_data_format() == "channels_first"
    known = data.channel_statistics(dataset.train.images) if how == "channel" else None
    splits = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    return {
        name: Arrays(_arranged(data.standardize(split.images, how, known), channels_first), split.labels)
        for name, split in splits.items()
        if split is not None
    }


def _arranged(images: np.ndarray, channels_first: bool) -> np.ndarray:
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)) if channels_first else images


def train(config: Config, seed: int, classes: tuple[str, ...], arrays: dict[str, Arrays], folder: Path) -> dict:
    """Trains one seed, writes its files into `folder`, and returns what stands in its metrics.json."""
    settings = config.training
    keras.utils.clear_session()
    keras.config.set_dtype_policy(settings.dtype)
    keras.utils.set_random_seed(seed)
    model = models.build(config, len(classes))
    steps = settings.epochs * math.ceil(len(arrays["train"].labels) / settings.batch_size)
    model.compile(
        _optimizer(config, steps),
        keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=settings.label_smoothing),
        metrics=["accuracy"],
    )
    recorder = Recorder(config, seed, len(arrays["train"].labels), arrays["test"], folder)
    targets = {name: np.eye(len(classes), dtype="float32")[split.labels] for name, split in arrays.items()}
    held_out = arrays.get("validation")
    started = time.perf_counter()
    model.fit(
        arrays["train"].images,
        targets["train"],
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        validation_data=None if held_out is None else (held_out.images, targets["validation"]),
        callbacks=[recorder],
        verbose=0,
    )
    seconds = time.perf_counter() - started
    found = {"seed": seed, "epochs": settings.epochs, "parameters": model.count_params()}
    for name in ("validation", "test"):
        if name in arrays:
            logits = model.predict(arrays[name].images, batch_size=500, verbose=0)
            found |= metrics.sound(logits, arrays[name].labels, classes, name)
    found |= recorder.report_measure()
    found |= {"seconds": round(seconds, 3), "images_per_second": recorder.images_per_second()}
    results.write_whole(folder / "model.keras", model.save)
    results.write_json(folder / "metrics.json", found)
    return found


def summarize(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and standard deviation (of a sample) over runs, of each number in their metrics."""
    numbers = [k for k, v in found[0].items() if isinstance(v, float) and k != "seconds"]
    values = {key: np.array([metrics[key] for metrics in found]) for key in numbers}
    return {"seeds": [metrics["seed"] for metrics in found]} | {
        key: {"mean": float(each.mean()), "std": float(each.std(ddof=1))} for key, each in values.items()
    }


def _optimizer(config: Config, steps: int) -> keras.optimizers.Optimizer:
    chosen, schedule = config.training.optimizer, config.training.schedule
    rate = chosen.learning_rate
    warmup = min(round(schedule.warmup * steps), steps - 1)
    floor = {"cosine": 0.0, "constant": 1.0}[schedule.name]  # of the cosine, as a share of the peak rate
    learning_rate = keras.optimizers.schedules.CosineDecay(
        0.0 if warmup else rate,
        steps - warmup,
        alpha=floor,
        warmup_target=rate if warmup else None,
        warmup_steps=warmup,
    )
    options = chosen.model_dump(exclude={"name", "learning_rate"})
    return {"sgd": keras.optimizers.SGD, "adam": keras.optimizers.Adam}[chosen.name](learning_rate, **options)
