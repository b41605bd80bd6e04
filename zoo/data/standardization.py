"""Standardization of images: each by its own mean and deviation, or by those of the channels."""

import math
from collections.abc import Iterator
from typing import Literal

import numpy as np

CHUNK = 500  # images held as float64 at a time


def standardize(
    images: np.ndarray,
    how: Literal["per_image", "channel"],
    statistics: tuple[np.ndarray, np.ndarray] | None = None,
) -> np.ndarray:
    """Images (n, h, w, c) of any real dtype as float32 (n, h, w, c), shifted and scaled.

    "per_image": (x - mean) / max(std, 1/sqrt(N)) over the N = h*w*c values of each image, the definition of
    tf.image.per_image_standardization. "channel": (x - mean_c) / std_c with ``statistics`` = (mean, std),
    each (c,): the `channel_statistics` of the training images. Computed in float64, chunk by chunk.

    Raises:
        ValueError: another ``how``; ``statistics`` missing for "channel" or given for "per_image".
    """
    if how not in ("per_image", "channel") or (how == "channel") != (statistics is not None):
        raise ValueError(f"standardize(how={how!r}): expected 'per_image', or 'channel' with statistics")
    out = np.empty(images.shape, np.float32)
    for where, x in _chunks(images):
        if statistics is None:
            mean, std = x.mean(axis=(1, 2, 3), keepdims=True), x.std(axis=(1, 2, 3), keepdims=True)
            std = np.maximum(std, math.prod(x.shape[1:]) ** -0.5)
        else:
            mean, std = statistics
        out[where] = (x - mean) / std
    return out


def channel_statistics(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and population deviation of each channel of images (n, h, w, c), n >= 1: float64 (c,) each.

    The deviation is at least 1/sqrt(n*h*w), so that standardizing a constant channel gives zeros.
    """
    count = math.prod(images.shape[:3])
    zero = np.zeros(images.shape[3])
    mean = sum((x.sum(axis=(0, 1, 2)) for _, x in _chunks(images)), zero) / count
    variance = sum((np.square(x - mean).sum(axis=(0, 1, 2)) for _, x in _chunks(images)), zero) / count
    return mean, np.maximum(np.sqrt(variance), count**-0.5)


def _chunks(images: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """The images as float64 in chunks, each with its slice."""
    for start in range(0, len(images), CHUNK):
        where = slice(start, start + CHUNK)
        yield where, images[where].astype(np.float64)
