"""Data sets as NumPy arrays: the handwritten digits of scikit-learn and CIFAR-10.

Both come in one form: 32x32 images of three channels and ten classes, split into a training, a validation
and a test part. Which image lands in which part, and which ones a limit keeps, is the same in every run.
"""

import hashlib
import math
import os
import pickle
import pickletools
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import numpy as np

from zoo.errors import UserError

if TYPE_CHECKING:
    from zoo import config

DIGITS_CLASSES = tuple("0123456789")
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CLASSES = {"digits": DIGITS_CLASSES, "cifar10": CIFAR10_CLASSES}
MAX_VALIDATION = 5_000
CHUNK = 500  # images held as float64 at a time

RECORDS = 10_000  # images in each published CIFAR-10 file
PLANES = 3 * 32 * 32  # bytes of one image there: the red, the green, then the blue plane, each row by row
OPCODES, NESTED = 500_000, 200  # of a pickle: the published ones have about 60,000, of which a handful nest
NESTING = {"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "LIST", "DICT", "EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET", "FROZENSET"}
NESTING |= {"REDUCE", "BUILD", "NEWOBJ", "NEWOBJ_EX", "OBJ", "INST", "MARK"}
STEMS = ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch")
WAYS_OUT = (
    "ways out: --data-dir DIR, where DIR is or holds cifar-10-batches-bin/ (data_batch_1..5.bin and"
    " test_batch.bin) or cifar-10-batches-py/ (data_batch_1..5 and test_batch); a network and no --data-dir,"
    " for Keras to download them; or dataset.name=digits, which needs neither"
)


class DataError(UserError):
    """One line: what is wrong with the data, where, and the ways out."""


class SizeError(DataError):
    """An option asks for more or fewer images than there are."""


class Split(NamedTuple):
    """Images, uint8 (n, 32, 32, 3) by row, column and RGB; and their labels 0..9, int32 (n,)."""

    images: np.ndarray
    labels: np.ndarray


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
        """Of every image and label, to tell whether another load gave the same."""
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
    ``data_dir`` is where CIFAR-10 lies; without it, Keras downloads it. The digits ignore it.

    Raises:
        DataError: unknown name; a limit outside 1..size; a share outside [0, 1), or one that leaves the
            training or the validation part empty; files missing, damaged or not to be had.
    """
    if not 0 <= validation < 1:
        raise DataError(f"validation={validation}: expected a share of the training images, 0 <= share < 1")
    if name == "digits":
        classes = DIGITS_CLASSES
        train, test, provenance = _digits()
    elif name == "cifar10":
        classes = CIFAR10_CLASSES
        train, test, provenance = _cifar10_by_keras() if data_dir is None else _cifar10_in(Path(data_dir))
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
                f"validation={validation} of {size:,} training images is {count}, which leaves a part empty;"
                " change the share, raise the limit, or use 0 for no validation part"
            )
        held_out = Split(train.images[-count:], train.labels[-count:])
        train = Split(train.images[:-count], train.labels[:-count])
    return Dataset(name, classes, train, held_out, test, provenance)


def load_for(settings: "config.Dataset", data_dir: Path | None) -> Dataset:
    """The data set that a config asks for.

    Raises:
        DataError: as `load` does.
        ConfigError: for an option that asks for more or fewer images than there are.
    """
    from zoo.config import ConfigError

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
    """The images in order as float64, at most `CHUNK` at a time, each time with their place."""
    for start in range(0, len(images), CHUNK):
        where = slice(start, start + CHUNK)
        yield where, images[where].astype(np.float64)


def _sample(split: Split, option: str, limit: int | None, seed: int) -> Split:
    size = len(split.labels)
    if limit is not None and not 1 <= limit <= size:
        raise SizeError(f"{option}={limit}: there are {size:,} such images; expected 1 to {size}, or null")
    order = np.random.default_rng(seed).permutation(size)[:limit]
    return Split(split.images[order], split.labels[order])


def _split(images: np.ndarray, labels: np.ndarray) -> Split:
    return Split(np.ascontiguousarray(images), labels.astype(np.int32))


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
    return _split(images[train], labels[train]), _split(images[test], labels[test]), provenance


def _cifar10_by_keras() -> tuple[Split, Split, str]:
    """Keras's download, or its copy of an earlier one; whatever fails in there becomes one DataError."""
    import keras

    try:
        train, test = (
            # Keras gives channels first where its configuration says so.
            _split(images if images.shape[-1] == 3 else np.moveaxis(images, 1, -1), labels.reshape(-1))
            for images, labels in keras.datasets.cifar10.load_data()
        )
    except Exception as error:
        # Keras deletes what a broken connection left, but keeps an archive whose hash is wrong.
        homes = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser(), Path("/tmp/.keras")
        found = (path for home in homes for path in home.glob("datasets/cifar-10-*"))
        left = "".join(f"; delete {path} if it is cut" for path in found if path.is_file())
        raise DataError(f"no CIFAR-10 from Keras ({_reason(error)}){left}; {WAYS_OUT}") from error
    return train, test, f"keras {keras.__version__} keras.datasets.cifar10.load_data()"


def _cifar10_in(directory: Path) -> tuple[Split, Split, str]:
    """The first of `LAYOUTS` which has any of its files in its subfolder of the directory or right there."""
    for subfolder, suffix, read in LAYOUTS:
        for folder in (directory / subfolder, directory):
            paths = [folder / f"{stem}{suffix}" for stem in STEMS]
            if any(map(os.path.exists, paths)):
                *train, test = (_batch(path, read) for path in paths)
                images, labels = (np.concatenate(parts) for parts in zip(*train, strict=True))
                return Split(images, labels), test, f"CIFAR-10 files in {folder.resolve()}"
    is_folder = os.path.isdir(directory)  # noqa: PTH112 - Path.is_dir raises where it may not look
    raise DataError(f"{directory}: {'holds no CIFAR-10 file' if is_folder else 'is not a folder'}; {WAYS_OUT}")


def _batch(path: Path, read: Callable[[Path], tuple[np.ndarray, np.ndarray]]) -> Split:
    """One file, checked; whatever is wrong with it becomes a DataError that names it."""
    try:
        labels, planes = read(path)
        if (labels.shape, planes.shape) != ((RECORDS,), (RECORDS, PLANES)):
            raise DataError(f"holds labels of shape {labels.shape} and images of shape {planes.shape}")
        wrong = labels[~np.isin(labels, range(10))]
        if len(wrong) or labels.dtype.kind not in "iu":
            raise DataError(f"holds labels other than the integers 0 to 9: {wrong[:3].tolist()}")
        if (len(labels) > 1 and len(np.unique(labels)) == 1) or planes.min() == planes.max():
            raise DataError("holds images of one class or one colour alone")
        return _split(planes.reshape(RECORDS, 3, 32, 32).transpose(0, 2, 3, 1), labels)
    except Exception as error:
        expected = f"expected a published CIFAR-10 file of {RECORDS:,} images"
        raise DataError(f"{path}: {_reason(error)}; {expected}; {WAYS_OUT}") from error


def _read_binary(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Labels (n,) and planes (n, 3072), uint8, of n records: a byte of label, then the planes."""
    size, record = path.stat().st_size, 1 + PLANES
    if size != RECORDS * record:
        raise DataError(f"holds {size:,} bytes, not {RECORDS:,} records of {record:,} = {RECORDS * record:,}")
    records = np.fromfile(path, np.uint8).reshape(RECORDS, record)
    return records[:, 0], records[:, 1:]


class _Inert:
    """Stands for every global that a pickled array names: keeps what it is given and runs nothing."""

    def __init__(self, *args: Any) -> None:
        self.args = args

    def __setstate__(self, state: Any) -> None:
        self.state = state


def _latin1(text: str, encoding: str) -> bytes:
    """`codecs.encode` for what Python 3 writes bytes as in its protocol 2, and for nothing else."""
    if encoding != "latin1":
        raise DataError(f"is refused: it encodes text as {encoding!r}")
    return text.encode("latin1")


class _Unpickler(pickle.Unpickler):
    """Builds plain values and `_Inert` only. It imports nothing, so nothing in a pickle can be executed."""

    ALLOWED: ClassVar[dict[tuple[str, str], Callable[..., Any]]] = {
        ("_codecs", "encode"): _latin1,
        ("numpy", "ndarray"): _Inert,
        ("numpy", "dtype"): _Inert,
        ("numpy.core.multiarray", "_reconstruct"): _Inert,
        ("numpy._core.multiarray", "_reconstruct"): _Inert,
        ("numpy.core.numeric", "_frombuffer"): _Inert,  # protocol 5
        ("numpy._core.numeric", "_frombuffer"): _Inert,
    }

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        if (module, name) not in self.ALLOWED:
            raise DataError(f"is refused and not executed: it names {module}.{name}, no part of CIFAR-10")
        return self.ALLOWED[module, name]


def _check_opcodes(file: IO[bytes]) -> None:
    """Reads a pickle without building anything; one that nests, or counts, further than CIFAR-10's do is refused."""
    nested = 0
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
            nested += opcode.name in NESTING
            far = opcode.name.endswith(("PUT", "GET")) and int(argument or 0) > OPCODES
            if count > OPCODES or nested > NESTED or far:
                raise DataError("is refused and not built: it has more parts than a file of CIFAR-10")
    except ValueError as error:
        if "exhausted" in str(error):
            raise EOFError("Ran out of input") from None
        cut = " remain" in str(error)
        raise pickle.UnpicklingError("pickle data was truncated" if cut else str(error)) from None


def _read_pickle(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Labels (n,) and planes uint8 (n, 3072) of a pickled {"labels": [int] * n, "data": uint8 (n, 3072)}."""
    with path.open("rb") as file:
        _check_opcodes(file)
        file.seek(0)
        batch = _Unpickler(file, encoding="bytes").load()  # Python 2 wrote them: their text comes as bytes
    if not isinstance(batch, dict):
        raise DataError(f"pickles a {type(batch).__name__}, not a dict")
    match {key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in batch.items()}:
        case {  # an ndarray's state: version, shape, dtype, whether in Fortran's order, bytes
            "data": _Inert(state=(_, shape, _Inert(args=("u1" | b"u1", *_)), False, bytes(raw))),
            "labels": list(labels),
        }:
            pass
        case {  # the same in protocol 5
            "data": _Inert(args=(bytes(raw) | bytearray(raw), _Inert(args=("u1", *_)), shape, "C")),
            "labels": list(labels),
        }:
            pass
        case _:
            raise DataError(f"pickles the keys {list(batch)}, not data (a uint8 array) and labels (a list)")
    return np.asarray(labels), np.frombuffer(raw, np.uint8).reshape(shape)


LAYOUTS = (("cifar-10-batches-bin", ".bin", _read_binary), ("cifar-10-batches-py", "", _read_pickle))


def _reason(error: Exception) -> str:
    """The error on one short line, with its type unless it was worded here."""
    text = str(error) if isinstance(error, DataError) else f"{type(error).__name__}: {error}"
    return textwrap.shorten(text, 240, placeholder=" ...")
