"""Images with their labels."""

from typing import NamedTuple

import numpy as np


class Split(NamedTuple):
    """Images, uint8 (n, 32, 32, 3) by row, column and RGB; and their labels 0..9, int32 (n,)."""

    images: np.ndarray
    labels: np.ndarray

    @classmethod
    def of(cls, images: np.ndarray, labels: np.ndarray) -> "Split":
        return cls(np.ascontiguousarray(images), labels.astype(np.int32))
