"""Standardization of images: each by its own mean and deviation, or by those of the channels."""

import math
from collections.abc import Iterator
from typing import Any, Literal

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


def channel_statistics(samples: Any) -> tuple[np.ndarray, np.ndarray]:
    """Mean and population deviation of each channel of samples (n, ..., c), n >= 1: float64 (c,) each.

    The deviation of bytes, such as images (n, h, w, c), is at least 1/sqrt(n*h*w); that of other numbers 1 where they
    are constant. So standardizing a constant channel gives zeros.
    """
    axes = tuple(range(len(samples.shape) - 1))
    count = math.prod(samples.shape[:-1])
    mean, deviation = _statistics(samples, axes, count, samples.shape[-1:])
    return mean, np.maximum(deviation, count**-0.5) if samples.dtype == np.uint8 else _not_zero(mean, deviation)


def feature_statistics(samples: Any) -> tuple[np.ndarray, np.ndarray]:
    """Mean and population deviation of each number of a sample, float64 (...); the latter 1 where it is constant."""
    mean, deviation = _statistics(samples, (0,), len(samples), samples.shape[1:])
    return mean, _not_zero(mean, deviation)


def _statistics(samples: Any, axes: tuple[int, ...], count: int, shape: tuple[int, ...]):
    zero = np.zeros(shape)
    mean = sum((x.sum(axis=axes) for _, x in _chunks(samples)), zero) / count
    variance = sum((np.square(x - mean).sum(axis=axes) for _, x in _chunks(samples)), zero) / count
    return mean, np.sqrt(variance)


def _not_zero(mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """1 in the place of what rounding alone makes differ from 0."""
    return np.where(deviation > 1e-12 * np.abs(mean), deviation, 1.0)


def _chunks(images: Any) -> Iterator[tuple[slice, np.ndarray]]:
    """The images in order as float64, at most `CHUNK` at a time, each time with their place."""
    for start in range(0, len(images), CHUNK):
        where = slice(start, start + CHUNK)
        yield where, images[where].astype(np.float64)
