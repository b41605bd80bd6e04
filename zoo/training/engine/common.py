"""What the engines share."""

from collections.abc import Callable

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
