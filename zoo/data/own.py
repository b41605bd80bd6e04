"""Data of one's own: arrays of an .npz, of a folder or of a function, and folders of pictures."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo import owncode
from zoo.data import pictures, splits
from zoo.data.splits import Rows, Split, chunks
from zoo.environment import memory_of_machine
from zoo.errors import DataError
from zoo.files import DAMAGED

if TYPE_CHECKING:
    from zoo.config.own import File, Loaded, OwnData, PictureFolder

SPLITS = ("train", "validation", "test")
NEEDED = ("x_train", "y_train", "x_test", "y_test")
NAMES = (*NEEDED, "x_validation", "y_validation", "classes")
LARGEST = np.finfo("float32").max
Parts = dict[str, Split]


def load(settings: "File | PictureFolder | Loaded") -> tuple[Parts, tuple[str, ...], str]:
    """The splits, the names of the classes (none where targets are numbers), and where all that came from.

    Raises:
        DataError: for whatever can't be trained on.
        OwnCodeError: for what a user's function raises.
    """
    if hasattr(settings, "load"):
        where, arrays = settings.load, owncode.call(settings.load)
        if not isinstance(arrays, Mapping):
            raise DataError(f"{where}: expected a dict with {', '.join(NEEDED)}; it returned a {type(arrays).__name__}")
    elif hasattr(settings, "file"):
        where, arrays = settings.file, _of_file(Path(settings.file))
    else:
        where = settings.folder
        arrays = _of_folder(Path(where), settings)
    named = where if hasattr(settings, "load") and not where.rpartition(":")[0].endswith(".py") else Path(where).name
    return *read(where, arrays, settings), f"own data, {named}"


def read(where: str, arrays: Mapping[str, Any], settings: "OwnData") -> tuple[Parts, tuple[str, ...]]:
    """The splits of arrays by name, and the names of the classes; errors call the arrays `where`.

    Raises:
        DataError: for whatever can't be trained on.
    """
    _check_names(where, arrays)
    inputs = {s: _inputs(f"{where}: x_{s}", arrays[f"x_{s}"]) for s in SPLITS if f"x_{s}" in arrays}
    _check_shapes(where, inputs)
    found, classes = splits.read_targets(where, {s: arrays[f"y_{s}"] for s in inputs}, arrays.get("classes"), settings)
    for split, x in inputs.items():
        if len(x) != len(found[split]):
            raise DataError(f"{where}: x_{split} has {len(x):,} samples, and y_{split} {len(found[split]):,} targets")
    return {split: Split(x, found[split]) for split, x in inputs.items()}, classes


def _check_names(where: str, arrays: Mapping[str, Any]) -> None:
    there = ", ".join(sorted(map(str, arrays))[:10]) or "nothing"
    if missing := [name for name in NEEDED if name not in arrays]:
        raise DataError(f"{where}: has no {missing[0]}; expected {', '.join(NEEDED)}; there are {there}")
    if ("x_validation" in arrays) != ("y_validation" in arrays):
        raise DataError(f"{where}: x_validation and y_validation belong together; there are {there}")


def _of_file(path: Path) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(path) as file:
            size = sum(info.file_size for info in file.infolist() if info.filename.removesuffix(".npy") in NAMES)
        there = memory_of_machine()
        if there and 2 * size > there:
            raise DataError(
                f"{path}: its arrays take {size / 1e9:,.1f} GB, twice that to put them in order, and there are "
                f"{there / 1e9:,.1f} GB of memory; save them with numpy.save as x_train.npy and so on in a folder, "
                '{"folder": ...}, of which only what is needed is read'
            )
        with np.load(path, allow_pickle=False) as found:
            return {name: _array(f"{path}: {name}", lambda n=name: found[n]) for name in NAMES if name in found.files}
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except DAMAGED as error:
        raise DataError(f"{path}: can't be read as an .npz, which numpy.savez writes: {error}") from None


def _of_folder(folder: Path, settings: "PictureFolder") -> dict[str, Any]:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    paths = {name: folder / f"{name}.npy" for name in NAMES}
    if not any(path.exists() for path in paths.values()):
        return pictures.load(folder, settings.image_size, settings.color_mode)
    return {
        name: _array(str(path), lambda p=path: np.load(p, mmap_mode="r", allow_pickle=False))
        for name, path in paths.items()
        if path.exists()
    }


def _array(where: str, read) -> np.ndarray:
    try:
        return read()
    except DAMAGED as error:
        if "bject" in str(error):
            raise DataError(f"{where}: an array of Python objects, which is a pickle and is not opened") from None
        raise DataError(f"{where}: can't be read as an array: {error}") from None


def _inputs(where: str, x: Any) -> np.ndarray | Rows:
    """Samples as uint8, int32 or float32; of an array on disk, where they lie."""
    array = splits.as_array(where, x)
    if array.dtype.kind not in "biuf":
        raise DataError(f"{where}: expected numbers; found {array.dtype}")
    if array.ndim == 0 or 0 in array.shape:
        raise DataError(f"{where}: expected samples; found the shape {array.shape}")
    if array.ndim == 1:
        array = array.reshape(-1, 1)
    is_byte = array.dtype.kind == "b" or array.dtype == np.uint8
    dtype = "uint8" if is_byte else "float32" if array.dtype.kind == "f" else "int32"
    for place, part in chunks(array):
        _check_values(where, part, dtype, place.start)
    if isinstance(array, np.memmap):
        return Rows(array, np.arange(len(array)), dtype)
    return np.ascontiguousarray(array, dtype)


def _check_values(where: str, part: np.ndarray, dtype: str, start: int) -> None:
    if dtype == "float32":
        wrong = ~np.isfinite(part) | (np.abs(part) > LARGEST)
        what = "NaN, infinite, or too large for float32"
    elif dtype == "int32":
        wrong = (part > 2**31 - 1) | (part < -(2**31))
        what = "too large for int32"
    else:
        return
    if wrong.any():
        sample = start + int(np.argmax(wrong.reshape(len(part), -1).any(axis=1)))
        raise DataError(f"{where}: sample {sample} holds a value that is {what}")


def _check_shapes(where: str, inputs: Mapping[str, Any]) -> None:
    first = inputs["train"]
    for split, x in inputs.items():
        if x.shape[1:] != first.shape[1:]:
            raise DataError(f"{where}: x_{split} has samples of shape {x.shape[1:]}, and x_train of {first.shape[1:]}")
        if x.dtype != first.dtype:
            raise DataError(f"{where}: x_{split} is read as {x.dtype}, and x_train as {first.dtype}; save both alike")
