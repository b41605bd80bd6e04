"""What the engines share."""

from collections.abc import Callable

import numpy as np


def in_batches(forward: Callable[[np.ndarray], np.ndarray], images: np.ndarray, size: int) -> np.ndarray:
    """Applies `forward` to batches of one size, so that it compiles once; pads the last with its first image."""
    found = []
    for start in range(0, len(images), size):
        batch = images[start : start + size]
        full = np.concatenate([batch, np.repeat(batch[:1], size - len(batch), axis=0)])
        found.append(np.asarray(forward(full), "float32")[: len(batch)])
    return np.concatenate(found)
