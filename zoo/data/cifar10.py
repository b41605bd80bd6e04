"""CIFAR-10 from its published files, or from Keras's download of them.

The pickled files are read without unpickling: nothing that a file names is imported or run.
"""

import os
import pickle
import pickletools
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, ClassVar

import numpy as np

from zoo.data.splits import Split
from zoo.errors import DataError

RECORDS = 10_000  # images in each published CIFAR-10 file
PLANES = 3 * 32 * 32  # bytes of one image there: the red, the green, then the blue plane, each row by row
OPCODES, NESTED = 500_000, 200  # limits for a pickle; the published ones have about 60,000 opcodes, few of which nest
NESTING = {"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "LIST", "DICT", "EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET", "FROZENSET"}
NESTING |= {"REDUCE", "BUILD", "NEWOBJ", "NEWOBJ_EX", "OBJ", "INST", "MARK"}
STEMS = ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch")
WAYS_OUT = (
    "ways out: --data-dir DIR, where DIR is or holds cifar-10-batches-bin/ (data_batch_1..5.bin and"
    " test_batch.bin) or cifar-10-batches-py/ (data_batch_1..5 and test_batch); a network and no --data-dir,"
    " for Keras to download them; or dataset.name=digits, which needs neither"
)


def by_keras() -> tuple[Split, Split, str]:
    """Keras's download, or its cached copy; any failure becomes a DataError."""
    import keras

    try:
        train, test = (
            # Keras returns channels first if it is configured so.
            Split.of(images if images.shape[-1] == 3 else np.moveaxis(images, 1, -1), labels.reshape(-1))
            for images, labels in keras.datasets.cifar10.load_data()
        )
    except Exception as error:
        # Keras deletes a broken download, but keeps an archive with a wrong hash.
        homes = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser(), Path("/tmp/.keras")
        found = (path for home in homes for path in home.glob("datasets/cifar-10-*"))
        left = "".join(f"; delete {path} if it is incomplete" for path in found if path.is_file())
        raise DataError(f"no CIFAR-10 from Keras ({_reason(error)}){left}; {WAYS_OUT}") from error
    return train, test, f"keras {keras.__version__} keras.datasets.cifar10.load_data()"


def in_folder(directory: Path) -> tuple[Split, Split, str]:
    """Reads the first of `LAYOUTS` with a file in the directory, or in its subfolder of it."""
    for subfolder, suffix, read in LAYOUTS:
        for folder in (directory / subfolder, directory):
            paths = [folder / f"{stem}{suffix}" for stem in STEMS]
            if any(map(os.path.exists, paths)):
                *train, test = (_batch(path, read) for path in paths)
                images, labels = (np.concatenate(parts) for parts in zip(*train, strict=True))
                return Split(images, labels), test, f"CIFAR-10 files in {folder.resolve().name}"
    is_folder = os.path.isdir(directory)  # noqa: PTH112 - Path.is_dir raises without permission
    raise DataError(f"{directory}: {'holds no CIFAR-10 file' if is_folder else 'is not a folder'}; {WAYS_OUT}")


def _batch(path: Path, read: Callable[[Path], tuple[np.ndarray, np.ndarray]]) -> Split:
    """Reads and checks one file; any failure becomes a DataError that names it."""
    try:
        labels, planes = read(path)
        if (labels.shape, planes.shape) != ((RECORDS,), (RECORDS, PLANES)):
            raise DataError(f"holds labels of shape {labels.shape} and images of shape {planes.shape}")
        wrong = labels[~np.isin(labels, range(10))]
        if len(wrong) or labels.dtype.kind not in "iu":
            raise DataError(f"holds labels other than the integers 0 to 9: {wrong[:3].tolist()}")
        if (len(labels) > 1 and len(np.unique(labels)) == 1) or planes.min() == planes.max():
            raise DataError("holds images of one class, or of one colour")
        return Split.of(planes.reshape(RECORDS, 3, 32, 32).transpose(0, 2, 3, 1), labels)
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
    """Stands in for every global that a pickled array names: stores its arguments and runs nothing."""

    def __init__(self, *args: Any) -> None:
        self.args = args

    def __setstate__(self, state: Any) -> None:
        self.state = state


def _latin1(text: str, encoding: str) -> bytes:
    """`codecs.encode` for latin1 alone: Python 3 writes bytes that way in protocol 2."""
    if encoding != "latin1":
        raise DataError(f"is refused: it encodes text as {encoding!r}")
    return text.encode("latin1")


class _Unpickler(pickle.Unpickler):
    """Builds plain values and `_Inert` only. It imports nothing, so a pickle can't execute anything."""

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
            raise DataError(f"is refused and not executed: it names {module}.{name}, which CIFAR-10 doesn't use")
        return self.ALLOWED[module, name]


def _check_opcodes(file: IO[bytes]) -> None:
    """Scans a pickle without building anything; refuses one that is larger or nests deeper than CIFAR-10's."""
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
    """The error in one short line, with its type unless it is our own."""
    text = str(error) if isinstance(error, DataError) else f"{type(error).__name__}: {error}"
    return textwrap.shorten(text, 240, placeholder=" ...")
