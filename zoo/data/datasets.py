"""Data sets as NumPy arrays: the handwritten digits of scikit-learn and CIFAR-10.

Both come in one form: 32x32 images of three channels and ten classes, split into a training, a validation
and a test part. Which image lands in which part, and which ones a limit keeps, is the same in every run.
"""

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from zoo.data import cifar10
from zoo.data.splits import Split
from zoo.errors import ConfigError, DataError

if TYPE_CHECKING:  # loading needs no pydantic
    from zoo.config.schema import Dataset as Settings

DIGITS_CLASSES = tuple("0123456789")
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CLASSES = {"digits": DIGITS_CLASSES, "cifar10": CIFAR10_CLASSES}
MAX_VALIDATION = 5_000


class SizeError(DataError):
    """A limit or share doesn't fit the number of images."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set split for a run; ``provenance`` says where the pixels came from."""

    name: str
    classes: tuple[str, ...]
    train: Split
    validation: Split | None
    test: Split
    provenance: str

    def digest(self) -> str:
        """A hash of every image and label."""
        found = hashlib.blake2b(digest_size=16)
        for split in (self.train, self.validation, self.test):
            for array in split or ():
                found.update(np.ascontiguousarray(array).data)
        return found.hexdigest()


def load(
    name: str,
    *,
    limit: int | None = None,
    test_limit: int | None = None,
    validation: float = 0.1,
    data_dir: str | Path | None = None,
) -> Dataset:
    """Load "digits" or "cifar10".

    Training and test images are each put in a fixed shuffled order, of which ``limit`` and ``test_limit``
    keep the first n (None: all), so a smaller limit's images are among a larger one's. Then the last
    min(5000, floor(``validation`` * n)) training images become the validation part; 0 makes none.
    ``data_dir`` is the folder with CIFAR-10; without it, Keras downloads it. The digits ignore it.

    Raises:
        DataError: unknown name; a limit outside 1..size; a share outside [0, 1), or one that leaves the
            training or the validation part empty; files missing, damaged or not available.
    """
    if not 0 <= validation < 1:
        raise DataError(f"validation={validation}: expected a share of the training images, 0 <= share < 1")
    if name == "digits":
        classes = DIGITS_CLASSES
        train, test, provenance = _digits()
    elif name == "cifar10":
        classes = CIFAR10_CLASSES
        train, test, provenance = cifar10.by_keras() if data_dir is None else cifar10.in_folder(Path(data_dir))
    else:
        raise DataError(f"there is no data set {name!r}; expected digits or cifar10")

    train = _sample(train, "limit", limit, seed=0)
    test = _sample(test, "test_limit", test_limit, seed=1)
    held_out = None
    if validation:
        size = len(train.labels)
        count = min(MAX_VALIDATION, math.floor(validation * size))
        if not 0 < count < size:
            raise SizeError(
                f"validation={validation} of {size:,} training images is {count}, which leaves one part empty;"
                " change the share, raise the limit, or use 0 for no validation part"
            )
        held_out = Split(train.images[-count:], train.labels[-count:])
        train = Split(train.images[:-count], train.labels[:-count])
    return Dataset(name, classes, train, held_out, test, provenance)


def load_for(settings: "Settings", data_dir: Path | None) -> Dataset:
    """Loads the data set of a config.

    Raises:
        DataError: as `load` does.
        ConfigError: if a limit or share doesn't fit the number of images.
    """
    try:
        return load(
            settings.name,
            limit=settings.limit,
            test_limit=settings.test_limit,
            validation=settings.validation,
            data_dir=data_dir,
        )
    except SizeError as error:
        raise ConfigError(f"dataset.{error}") from None


def _sample(split: Split, option: str, limit: int | None, seed: int) -> Split:
    size = len(split.labels)
    if limit is not None and not 1 <= limit <= size:
        raise SizeError(f"{option}={limit}: there are {size:,} such images; expected 1 to {size}, or null")
    order = np.random.default_rng(seed).permutation(size)[:limit]
    return Split(split.images[order], split.labels[order])


def _digits() -> tuple[Split, Split, str]:
    """1,437 and 360 of scikit-learn's 8x8 scans: values round(v * 255/16), each pixel a 4x4 block."""
    import sklearn
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    scans, labels = load_digits(return_X_y=True)
    pixels = np.rint(scans * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    images = pixels.repeat(4, axis=1).repeat(4, axis=2).repeat(3, axis=3)
    train, test = train_test_split(
        np.arange(len(labels)), train_size=1437, test_size=360, stratify=labels, random_state=0
    )
    provenance = f"scikit-learn {sklearn.__version__} load_digits(), 8x8 scans enlarged to 32x32"
    return Split.of(images[train], labels[train]), Split.of(images[test], labels[test]), provenance
