"""Trains a compiled Keras model on images that stay on the device; one `Engine` for each backend.

An `Engine(model, pipeline, images, targets, batch_size)` has

* `train(plan, start, stop)`: takes the steps of a `pipeline.Plan` from start to stop, without waiting for the device;
* `synchronize()`: waits for them, and puts the results into the model's variables;
* `dispatch`: how many steps go to the device at once; start is a multiple of it;
* `predict(images)`: the logits of uint8 images, NumPy float32.

Keras's `fit` cuts arrays into batches on the host and copies each batch to the device; here only indices of images are
copied. The step itself is Keras's `train_step`, with its losses, metrics and loss scaling.
"""

from collections.abc import Callable
from importlib import import_module

import keras
import numpy as np

from zoo.data.pipeline import Plan
from zoo.data.splits import Rows


def read(images: Rows, targets: np.ndarray, plan: Plan, step: int) -> list[np.ndarray]:
    """What `Pipeline.batch` takes for a step: the samples of that step alone, read from the disk, and their numbers."""
    chosen, *others = (part[step] for part in plan.parts)
    return [images[chosen], targets[chosen], np.arange(len(chosen), dtype="int32"), *others]


def in_batches(forward: Callable[[np.ndarray], np.ndarray], images: np.ndarray, size: int) -> np.ndarray:
    """Applies `forward` to batches of one size, so that it compiles once; pads the last with its first image."""
    found = []
    for start in range(0, len(images), size):
        batch = images[start : start + size]
        full = np.concatenate([batch, np.repeat(batch[:1], size - len(batch), axis=0)])
        found.append(np.asarray(forward(full), "float32")[: len(batch)])
    return np.concatenate(found)


Engine = import_module(f"zoo.training.engine.{keras.config.backend()}").Engine
