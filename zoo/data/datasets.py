"""Data sets as NumPy arrays: handwritten digits of scikit-learn, CIFAR-10, others of Keras's, and data of one's own.

Each is split into a training, a validation and a test part. Which sample lands in which part, and which ones a limit
keeps, is the same in every run.
"""

import hashlib
import math
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from zoo.data import cifar10, own
from zoo.data.splits import Form, Split, chunks
from zoo.errors import ConfigError, DataError

if TYPE_CHECKING:
    from zoo.config.own import File, Loaded, NamedDataset, PictureFolder
    from zoo.config.schema import Config


KERAS_CLASSES = {
    "cifar100": tuple(map(str, range(100))),
    "fashion_mnist": (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
    "mnist": tuple("0123456789"),
}
DIGITS_CLASSES = tuple("0123456789")
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CLASSES = {"digits": DIGITS_CLASSES, "cifar10": CIFAR10_CLASSES} | KERAS_CLASSES
MAX_VALIDATION = 5_000


class SizeError(DataError):
    """A limit or share doesn't fit the number of images."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set split for a run; ``provenance`` says where it came from. Targets without classes are numbers."""

    name: str
    classes: tuple[str, ...]
    train: Split
    validation: Split | None
    test: Split
    provenance: str

    @property
    def form(self) -> Form:
        images, labels = self.train
        return Form(tuple(images.shape[1:]), str(images.dtype), self.classes, tuple(labels.shape[1:]))

    def digest(self) -> str:
        """A hash of every image and label."""
        found = hashlib.blake2b(digest_size=16)
        for split in (self.train, self.validation, self.test):
            for array in split or ():
                for _, part in chunks(array):
                    found.update(np.ascontiguousarray(part).data)
        return found.hexdigest()


def load(
    name: str,
    *,
    limit: int | None = None,
    test_limit: int | None = None,
    validation: float = 0.1,
    data_dir: str | Path | None = None,
) -> Dataset:
    """Load "digits", "cifar10" or another of Keras's.

    Training and test images are each put in a fixed shuffled order, of which ``limit`` and ``test_limit``
    keep the first n (None: all), so a smaller limit's images are among a larger one's. Then the last
    min(5000, floor(``validation`` * n)) training images become the validation part; 0 makes none.
    ``data_dir`` is the folder with CIFAR-10; without it, Keras downloads it. The digits ignore it.

    Raises:
        DataError: unknown name; a limit outside 1..size; a share outside [0, 1), or one that leaves the
            training or the validation part empty; files missing, damaged or not available.
    """
    if name == "digits":
        classes = DIGITS_CLASSES
        train, test, provenance = _digits()
    elif name == "cifar10":
        classes = CIFAR10_CLASSES
        train, test, provenance = cifar10.by_keras() if data_dir is None else cifar10.in_folder(Path(data_dir))
    elif name in KERAS_CLASSES:
        classes = CLASSES[name]
        train, test, provenance = of_keras(name)
    else:
        raise DataError(f"there is no data set {name!r}; expected {', '.join(CLASSES)}")
    train, held_out, test = _parts({"train": train, "test": test}, limit, test_limit, validation)
    return Dataset(name, classes, train, held_out, test, provenance)


def _parts(
    given: own.Parts, limit: int | None, test_limit: int | None, validation: float
) -> tuple[Split, Split | None, Split]:
    """The training, validation and test part; the last of the training samples are held out, where none are given."""
    if not 0 <= validation < 1:
        raise DataError(f"validation={validation}: expected a share of the training images, 0 <= share < 1")
    train = _sample(given["train"], "limit", limit, seed=0)
    test = _sample(given["test"], "test_limit", test_limit, seed=1)
    held_out = given.get("validation") if validation else None
    if validation and held_out is None:
        size = len(train.labels)
        count = min(MAX_VALIDATION, math.floor(validation * size))
        if not 0 < count < size:
            raise SizeError(
                f"validation={validation} of {size:,} training images is {count}, which leaves one part empty;"
                " change the share, raise the limit, or use 0 for no validation part"
            )
        held_out, train = train.chosen(slice(-count, None)), train.chosen(slice(-count))
    return train, held_out, test


def load_for(settings: "NamedDataset | File | PictureFolder | Loaded", data_dir: Path | None) -> Dataset:
    """Loads the data set of a config.

    Raises:
        DataError: as `load` does.
        ConfigError: if a limit or share doesn't fit the number of images.
    """
    from zoo.config.own import NamedDataset  # here, as loading alone needs no pydantic

    try:
        if not isinstance(settings, NamedDataset):
            found, classes, provenance = own.load(settings)
            parts = _parts(found, settings.limit, settings.test_limit, settings.validation)
            return Dataset("own", classes, *parts, provenance)
        return load(
            settings.name,
            limit=settings.limit,
            test_limit=settings.test_limit,
            validation=settings.validation,
            data_dir=data_dir,
        )
    except SizeError as error:
        raise ConfigError(f"dataset.{error}") from None


def check_use(config: "Config", dataset: Dataset) -> None:
    """
    Raises:
        ConfigError: where own data is too small for a batch, or an option is for other data.
    """
    size, batch = len(dataset.train.labels), config.training.batch_size
    if not hasattr(config.dataset, "name") and size < batch:
        raise ConfigError(
            f"training.batch_size: {batch}, and there are {size:,} training samples; expected a batch of them at least"
        )
    if config.dataset.augmentation != "none" and not dataset.form.is_picture:
        raise ConfigError(f"dataset.augmentation: crop_flip is for images; found samples of shape {dataset.form.shape}")
    if not dataset.classes and config.metrics.report_batch is not None:
        raise ConfigError("metrics.report_batch: a precision, and the targets are numbers; set it to null")
    if not dataset.classes and config.training.label_smoothing:
        raise ConfigError("training.label_smoothing: there are no labels, the targets are numbers; set it to 0")


def _sample(split: Split, option: str, limit: int | None, seed: int) -> Split:
    size = len(split.labels)
    if limit is not None and not 1 <= limit <= size:
        raise SizeError(f"{option}={limit}: there are {size:,} such images; expected 1 to {size}, or null")
    order = np.random.default_rng(seed).permutation(size)[:limit]
    return split.chosen(order)


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


def of_keras(name: str) -> tuple[Split, Split, str]:
    """Keras's download, or its copy of an earlier one; images have a channel of grey, or three.

    Raises:
        DataError: for whatever fails in there.
    """
    import keras

    try:
        found = getattr(keras.datasets, name).load_data()
        train, test = (Split.of(_channels_last(images), labels.reshape(-1)) for images, labels in found)
    except Exception as error:
        reason = textwrap.shorten(f"{type(error).__name__}: {error}", 240, placeholder=" ...")
        raise DataError(
            f"no {name} from Keras ({reason}); ways out: a network, for Keras to download it, or its file in "
            "~/.keras/datasets"
        ) from error
    return train, test, f"keras {keras.__version__} keras.datasets.{name}.load_data()"


def _channels_last(images: np.ndarray) -> np.ndarray:
    if images.ndim == 3:
        return images[..., None]
    return images if images.shape[-1] == 3 else np.moveaxis(images, 1, -1)
