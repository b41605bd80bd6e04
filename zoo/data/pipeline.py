"""From stored images to what a network takes: the order of an epoch, augmentation, standardization.

Random choices are drawn with NumPy from the seed and the epoch: they are the same on every backend, and after a resume.
Pixels are processed with `keras.ops` in whole batches, on the device that holds the images.
"""

import math
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import keras
import numpy as np
from keras import ops

from zoo.data import datasets
from zoo.data.splits import PICTURES, Form

PAD = 4  # pixels that a crop shifts by at most
CHUNK = 500  # images held as float64 at a time


class Plan(NamedTuple):
    """The batches of one epoch.

    `parts` are four arrays (steps, batch): the indices of the images; the row and the column where each crop starts,
    0 to 2 PAD (int32), in an image padded with `PAD` black pixels; and whether it is mirrored (bool). `seed` is for
    backends whose layers draw from a global state.
    """

    parts: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
    seed: int

    @property
    def steps(self) -> int:
        return len(self.parts[0])


def plan(size: int, batch: int, seed: int, epoch: int) -> Plan:
    """Draws the batches of one epoch over `size` images; leaves out those that don't fill a whole batch."""
    rng = np.random.default_rng([seed, epoch])
    batch = min(batch, size)
    shape = steps_of_an_epoch(size, batch), batch
    indices = rng.permutation(size)[: math.prod(shape)].reshape(shape).astype("int32")
    rows, columns = rng.integers(0, 2 * PAD + 1, (2, *shape), dtype="int32")
    mirrored = rng.integers(0, 2, shape).astype(bool)
    return Plan((indices, rows, columns, mirrored), int(rng.integers(2**62)))


def steps_of_an_epoch(size: int, batch: int) -> int:
    return max(1, size // batch)


How = Literal["none", "feature", "channel", "per_image"]


class Pipeline:
    """Turns samples, such as uint8 images (n, h, w, c), into a network's inputs: float32, in the image data format.

    Integers other than bytes, such as token ids, stay int32 if they aren't standardized.


    Args:
        standardize: "channel" or "per_image", as `standardize` defines them; "feature", each number of
            a sample by its own mean and deviation; or "none".
        statistics: mean and deviation of each channel, or of each number for "feature".
        augment: whether training images are shifted and mirrored.
        data_format: of the inputs.
        form: of the samples.
    """

    def __init__(
        self, standardize: How, statistics: tuple[Any, Any], augment: bool, data_format: str, form: Form = PICTURES
    ):
        self.how, self.augment, self.form = standardize, augment, form
        self.statistics = [np.asarray(x, "float32") for x in statistics]
        # As large as a sample: broadcasting three channels is six times slower on torch on CPU.
        large = (np.broadcast_to(x, form.shape).copy() for x in self.statistics)
        self.mean, self.deviation = map(ops.convert_to_tensor, large)
        self.channels_first = data_format == "channels_first" and form.is_picture
        self.is_whole = form.dtype == "int32" and standardize == "none"
        self.labels_at_places = len(form.classes) if form.classes and form.target else 0

    @classmethod
    def of(cls, dataset: datasets.Dataset, standardize: How | None, augment: bool, data_format: str) -> "Pipeline":
        """The pipeline of a data set's training samples; how it standardizes is up to them where it isn't said."""
        form, images = dataset.form, dataset.train.images
        how = standardize or ("none" if form.dtype == "int32" else "channel")
        by_feature = how == "feature"
        known = (feature_statistics if by_feature else channel_statistics)(images)
        return cls(how, known, augment, data_format, form)

    @classmethod
    def read(cls, written: dict[str, Any], data_format: str, form: Form) -> "Pipeline":
        """The pipeline that a run recorded, without augmentation."""
        what = "feature" if written["standardize"] == "feature" else "channel"
        known = written[f"{what}_mean"], written[f"{what}_deviation"]
        return cls(written["standardize"], known, False, data_format, form)

    def batch(self, images, targets, indices, rows, columns, mirrored) -> tuple[Any, Any]:
        """Inputs and targets of one step of a `Plan`, from all images and their targets."""
        chosen = _cropped(images, indices, rows, columns, mirrored) if self.augment else ops.take(images, indices, 0)
        y = ops.take(targets, indices, 0)
        if self.labels_at_places:  # for all samples at once they would take much room
            y = ops.one_hot(y, self.labels_at_places, dtype="float32")
        return self.inputs(chosen), y

    def targets(self, labels: np.ndarray) -> np.ndarray:
        """Of all samples, as `batch` takes them: a row of a one-hot matrix for a label, or else what they are."""
        if not self.form.classes or self.labels_at_places:
            return labels
        return np.eye(len(self.form.classes), dtype="float32")[labels]

    def inputs(self, images) -> Any:
        if self.is_whole:
            return ops.cast(images, "int32")
        x = ops.cast(images, "float32")
        if self.how == "none":
            return ops.transpose(x, (0, 3, 1, 2)) if self.channels_first else x
        if self.how != "per_image":
            mean, deviation = self.mean, self.deviation
        else:
            axes = tuple(range(1, len(images.shape)))
            mean = ops.mean(x, axes, keepdims=True)
            spread = ops.sqrt(ops.mean(ops.square(x - mean), axes, keepdims=True))
            deviation = ops.maximum(spread, math.prod(images.shape[1:]) ** -0.5)
        x = (x - mean) / deviation
        return ops.transpose(x, (0, 3, 1, 2)) if self.channels_first else x

    def written(self) -> dict[str, Any]:
        """What it takes to prepare a sample in the same way later."""
        what = "feature" if self.how == "feature" else "channel"
        mean, deviation = (x.tolist() for x in self.statistics)
        return {"standardize": self.how, f"{what}_mean": mean, f"{what}_deviation": deviation} | self.form.written()


def _cropped(images, indices, rows, columns, mirrored):
    """Shifts and mirrors the images of a batch with one gather of pixels."""
    count, height, width, channels = images.shape
    row = rows[:, None] - PAD + ops.arange(height, dtype="int32")  # (batch, height), of the stored image
    across = ops.arange(width, dtype="int32")
    column = columns[:, None] - PAD + ops.where(mirrored[:, None], width - 1 - across, across)
    inside = _within(row, height)[:, :, None] & _within(column, width)[:, None, :]
    row, column = ops.clip(row, 0, height - 1), ops.clip(column, 0, width - 1)
    pixel = (indices[:, None, None] * height + row[:, :, None]) * width + column[:, None, :]
    found = ops.take(ops.reshape(images, (count * height * width, channels)), pixel, axis=0)
    return ops.where(inside[..., None], found, ops.zeros_like(found))


def _within(index, size: int):
    return (index >= 0) & (index < size)


def fast_format() -> str:
    """The image data format in which this backend's convolutions are fast."""
    return "channels_first" if keras.config.backend() == "torch" else "channels_last"


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
