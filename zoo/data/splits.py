"""Samples with their targets, and what they look like."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

CHUNK = 500  # samples that are looked at together


class Rows:
    """Rows of an array on disk in an order, read when they are asked for: `rows[3:5]`, `rows[indices]`."""

    def __init__(self, array: np.ndarray, order: np.ndarray, dtype: str):
        self.array, self.order, self.dtype = array, order, np.dtype(dtype)
        self.shape = (len(order), *array.shape[1:])

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, where) -> np.ndarray:
        return self.array[self.order[where]].astype(self.dtype)

    def chosen(self, where) -> "Rows":
        return Rows(self.array, self.order[where], str(self.dtype))


class Split(NamedTuple):
    """Samples (n, ...): images are uint8 (n, h, w, c) by row, column and colour; and targets (n, ...): int32 labels
    from 0 on, or float32 numbers."""

    images: Any  # an array, or Rows
    labels: np.ndarray

    @classmethod
    def of(cls, images: np.ndarray, labels: np.ndarray) -> "Split":
        return cls(np.ascontiguousarray(images), labels.astype(np.int32))

    def chosen(self, where) -> "Split":
        images = self.images.chosen(where) if isinstance(self.images, Rows) else self.images[where]
        return Split(images, self.labels[where])


@dataclass(frozen=True)
class Form:
    """What a network is for.

    Attributes:
        shape: of a sample.
        dtype: of samples: "uint8", "int32" or "float32".
        classes: their names; none where targets are numbers.
        target: shape of a sample's target: () for one label, (h, w) for one at each pixel, (k,) for k numbers.
    """

    shape: tuple[int, ...] = (32, 32, 3)
    dtype: str = "uint8"
    classes: tuple[str, ...] = tuple("0123456789")
    target: tuple[int, ...] = ()

    @property
    def outputs(self) -> tuple[int, ...]:
        """Of a network, for a sample."""
        return (*self.target, len(self.classes)) if self.classes else self.target

    @property
    def is_picture(self) -> bool:
        return len(self.shape) == 3

    def written(self) -> dict[str, Any]:
        """As preprocessing.json has it."""
        return {
            "shape": list(self.shape),
            "dtype": self.dtype,
            "classes": list(self.classes),
            "target": list(self.target),
        }

    @classmethod
    def read(cls, written: dict[str, Any], classes: tuple[str, ...]) -> "Form":
        """What a run wrote down; version 0.1.0, all of whose images were 32x32x3, wrote nothing."""
        if "shape" not in written:
            return cls(classes=classes)
        shape, target = tuple(written["shape"]), tuple(written["target"])
        return cls(shape, written["dtype"], tuple(written["classes"]), target)


PICTURES = Form()  # of the data sets that the zoo has itself


def chunks(samples) -> Iterator[tuple[slice, np.ndarray]]:
    """Samples in order, some at a time, each time with their place."""
    for start in range(0, len(samples), CHUNK):
        where = slice(start, start + CHUNK)
        yield where, samples[where]
