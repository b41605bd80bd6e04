"""Samples with their targets, and what they look like."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from zoo.errors import DataError

if TYPE_CHECKING:
    from zoo.config.own import OwnData


CHUNK = 500  # samples that are looked at together
Targets = dict[str, np.ndarray]


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


def as_array(where: str, given: Any) -> np.ndarray:
    """
    Raises:
        DataError: for what is no array of one shape, or holds Python objects.
    """
    try:
        found = given if isinstance(given, np.ndarray) else np.asarray(given)
    except Exception as error:  # of a list of lists of unlike lengths, or a tensor on a device
        raise DataError(f"{where}: no array: {str(error)[:200]}") from None
    if found.dtype.hasobject:
        raise DataError(f"{where}: an array of Python objects; expected numbers")
    return found


def read_targets(
    where: str, given: Mapping[str, Any], names: Any, settings: "OwnData"
) -> tuple[Targets, tuple[str, ...]]:
    """The targets of each split, and the names of the classes; none where they are numbers.

    Raises:
        DataError: for what is neither labels nor numbers, or can't be learned.
    """
    found = {split: as_array(f"{where}: y_{split}", y) for split, y in given.items()}
    for split, y in found.items():
        if y.ndim == 0 or 0 in y.shape or y.shape[1:] != found["train"].shape[1:]:
            raise DataError(f"{where}: y_{split} has the shape {y.shape}, and y_train {found['train'].shape}")
        if y.dtype.kind == "f" and not np.isfinite(y).all():
            raise DataError(f"{where}: y_{split} holds NaN or infinite values")
    train = found["train"]
    if train.dtype.kind in "US":
        return _named(where, found, _given_names(where, names, settings))
    if train.dtype.kind not in "biuf":
        raise DataError(f"{where}: y_train: expected labels or numbers; found {train.dtype}")
    one_hot = all(_is_one_hot(y) for y in found.values())
    task = settings.task or ("classification" if train.dtype.kind != "f" or one_hot else "regression")
    if task == "regression":
        return {split: _numbers(f"{where}: y_{split}", y, split) for split, y in found.items()}, ()
    labels = {split: y.argmax(axis=-1) if one_hot else _whole(f"{where}: y_{split}", y) for split, y in found.items()}
    return _numbered(where, labels, train.shape[-1] if one_hot else None, _given_names(where, names, settings))


def _numbers(where: str, y: np.ndarray, split: str) -> np.ndarray:
    if y.dtype.kind not in "biuf":
        raise DataError(f"{where}: expected numbers; found {y.dtype}")
    found = np.asarray(y, "float32")
    if not np.isfinite(found).all():
        raise DataError(f"{where}: holds a value that is too large for float32")
    if split == "train" and found.min() == found.max():
        raise DataError(f"{where}: every target is {found.flat[0]:g}; there is nothing to learn")
    return found.reshape(-1, 1) if found.ndim == 1 else found


def _is_one_hot(y: np.ndarray) -> bool:
    if y.ndim < 2 or y.shape[-1] < 2 or y.dtype.kind not in "biuf":
        return False
    return bool(((y == 0) | (y == 1)).all() and (y.sum(axis=-1) == 1).all())


def _whole(where: str, y: np.ndarray) -> np.ndarray:
    if y.dtype.kind not in "biuf":
        raise DataError(f"{where}: expected labels as in y_train; found {y.dtype}")
    if y.dtype.kind == "f" and (y != np.rint(y)).any():
        raise DataError(f"{where}: expected labels, which are integers, for a classification; found {_odd(y)}")
    if (abs(y.astype("float64")) > 2**31 - 1).any():
        raise DataError(f"{where}: labels out of range")
    return y.astype("int32").reshape(y.shape[:-1] if y.ndim > 1 and y.shape[-1] == 1 else y.shape)


def _odd(y: np.ndarray) -> str:
    return f"{y[y != np.rint(y)].flat[0]:g}"


def _given_names(where: str, names: Any, settings: "OwnData") -> tuple[str, ...] | int | None:
    """What the config says of classes, or else the data: their names, or how many there are."""
    if settings.classes is not None:
        return settings.classes if isinstance(settings.classes, int) else _distinct(where, settings.classes)
    if names is None:
        return None
    return _distinct(where, _words(f"{where}: classes", as_array(f"{where}: classes", names)).ravel().tolist())


def _words(where: str, found: np.ndarray) -> np.ndarray:
    """An array as text."""
    try:
        return np.char.decode(found, "utf-8") if found.dtype.kind == "S" else found.astype(str)
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: expected text in UTF-8; found {error.object[:40]!r}") from None


def _distinct(where: str, names) -> tuple[str, ...]:
    if len(set(names)) < len(names) or not all(name.strip() and name.isprintable() for name in names):
        raise DataError(f"{where}: classes need names that differ from each other; found {list(names)[:5]}")
    return tuple(names)


def _named(where: str, found: Targets, known: tuple[str, ...] | int | None) -> tuple[Targets, tuple[str, ...]]:
    """Labels that are words."""
    words = {split: _words(f"{where}: y_{split}", y) for split, y in found.items()}
    names = known if isinstance(known, tuple) else _distinct(where, np.unique(words["train"]).tolist())
    numbers = {name: i for i, name in enumerate(names)}
    labels = {}
    for split, y in words.items():
        if unknown := sorted(set(np.unique(y).tolist()) - set(names)):
            raise DataError(
                f"{where}: y_{split} has the class {unknown[0]!r}, which isn't among {', '.join(names)[:200]}"
            )
        labels[split] = np.vectorize(numbers.__getitem__, otypes=["int32"])(y)
    if isinstance(known, int) and known != len(names):
        raise DataError(f"{where}: dataset.classes is {known}, and y_train has {len(names)} classes")
    return _numbered(where, {s: _whole(f"{where}: y_{s}", y) for s, y in labels.items()}, None, names)


def _numbered(
    where: str, labels: Targets, width: int | None, known: tuple[str, ...] | int | None
) -> tuple[Targets, tuple[str, ...]]:
    """Labels that are numbers from 0 on; each class has a training sample, unless it was said how many there are."""
    there = np.unique(labels["train"])
    if there[0] < 0:
        raise DataError(f"{where}: y_train: labels out of range: they count from 0; found {there[0]}")
    count = len(known) if isinstance(known, tuple) else known or width or int(there[-1]) + 1
    if known is None and len(there) < count:
        missing = sorted(set(range(min(count, len(there) + 1))) - set(there.tolist()))[0] if not width else None
        if missing is not None and len(there) > 1:
            raise DataError(
                f"{where}: y_train: labels out of range: expected 0 to the number of classes less 1; none is "
                f"{missing}, and the largest is {there[-1]}; number them so, or say dataset.classes"
            )
    if len(there) < 2:
        raise DataError(f"{where}: y_train has one class only, {there[0]}; there is nothing to learn")
    for split, y in labels.items():
        wrong = (y < 0) | (y >= count)
        if wrong.any():
            raise DataError(
                f"{where}: y_{split}: labels out of range: expected 0 to {count - 1}; found {y[wrong].flat[0]}, at "
                f"sample {int(np.argmax(wrong.reshape(len(y), -1).any(axis=1)))}"
            )
    names = known if isinstance(known, tuple) else tuple(map(str, range(count)))
    return {split: y.astype("int32") for split, y in labels.items()}, names
