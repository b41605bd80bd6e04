"""Folders of pictures, a subfolder for each class, as Keras's `image_dataset_from_directory` has them; and samples in
files of any kind, as a network takes them: pictures, arrays and tables."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data.splits import Form
from zoo.environment import memory_of_machine
from zoo.errors import DataError, UserError
from zoo.files import DAMAGED, array_of

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png")
MODES = {"grayscale": "L", "rgb": "RGB", "rgba": "RGBA"}
SIZE = (256, 256)  # Keras's, where pictures differ in size
SPLITS = ("train", "validation", "test")
ARRAYS = (".npy", ".npz", ".csv")


def load(folder: Path, size: Sequence[int] | None, color_mode: str) -> dict[str, Any]:
    """Arrays x_train, y_train and so on, uint8 (n, h, w, c) and names of classes.

    Raises:
        DataError: where a split, a class or a picture is missing or can't be read.
    """
    found = {split: _files(folder / split) for split in SPLITS if (folder / split).is_dir()}
    if missing := [split for split in ("train", "test") if split not in found]:
        raise DataError(
            f"{folder}: has no folder {missing[0]}/; expected train/CLASS/*.png and test/CLASS/*.png, or x_train.npy, "
            "y_train.npy, x_test.npy and y_test.npy"
        )
    mode = MODES[color_mode]
    height, width = size or _size([path for paths in found.values() for path, _ in paths])
    needed = 2 * sum(map(len, found.values())) * height * width * len(mode)
    if (there := memory_of_machine()) and needed > there:
        raise DataError(
            f"{folder}: its pictures take {needed / 1e9:,.1f} GB at {height}x{width}, and there are {there / 1e9:,.1f} "
            "GB of memory; set dataset.image_size to a smaller one"
        )
    arrays: dict[str, Any] = {"classes": sorted({name for _, name in found["train"]})}
    for split, paths in found.items():
        arrays[f"x_{split}"] = np.stack([read(path, (height, width), mode) for path, _ in paths])
        arrays[f"y_{split}"] = np.array([name for _, name in paths])
    return arrays


def read(path: Path, size: tuple[int, int], mode: str) -> np.ndarray:
    """A picture as uint8 (height, width, colours), scaled to a size whatever its proportions.

    Raises:
        UserError: for a file that is missing, no picture, or one of numbers without a known white.
    """
    from PIL import Image

    with _picture(path) as image:
        try:
            found = np.asarray(_of_bytes(path, image).convert(mode).resize(size[::-1], Image.Resampling.BILINEAR))
        except (OSError, ValueError, SyntaxError) as error:  # one that was cut off is decoded only now
            raise DataError(f"{path}: can't be read as a picture: {error}") from None
    return found.reshape(*size, len(mode))


def _of_bytes(path: Path, image):
    """A picture of 8 bits a colour: of 16 the upper ones, as Pillow reads coloured pictures."""
    from PIL import Image

    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return Image.fromarray((np.asarray(image) >> 8).astype("uint8"))
    if image.mode in ("I", "F"):
        raise DataError(f"{path}: its numbers, of 32 bits, have no known white; save it with 8 or 16 bits a colour")
    return image


def mode_of(shape: tuple[int, ...]) -> str | None:
    """Pillow's name for the colours of pictures of a shape; None where there is none."""
    known = {len(mode): mode for mode in MODES.values()}
    return known.get(shape[2]) if len(shape) == 3 else None


def _picture(path: Path):
    from PIL import Image

    try:
        return Image.open(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: can't be read as a picture: {error}") from None


def _size(paths: Sequence[Path]) -> tuple[int, int]:
    """Height and width that all have, or else Keras's default."""
    sizes = set()
    for path in paths:
        with _picture(path) as image:
            sizes.add(image.size)
        if len(sizes) > 1:
            return SIZE
    ((width, height),) = sizes
    return height, width


def _files(folder: Path) -> list[tuple[Path, str]]:
    """The pictures below each class's folder, and the class of each."""
    found = []
    for place in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        inside = sorted(_pictures(place))
        if not inside:
            raise DataError(f"{place}: holds no picture ({', '.join(SUFFIXES)}), and a folder is a class")
        found += [(path, place.name) for path in inside]
    if not found:
        raise DataError(f"{folder}: holds no folder; expected one for each class, with its pictures")
    return found


def _pictures(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        if path.suffix.lower() in SUFFIXES and path.is_file() and not path.name.startswith("."):
            yield path


def read_samples(path: Path, form: Form) -> np.ndarray:
    """The samples of a file (n, ...): one in a picture; all of an .npy, of `x` in an .npz, or the rows of a .csv.

    Raises:
        UserError: for what can't be read, or has samples of another shape.
    """
    suffix = path.suffix.lower()
    if suffix not in ARRAYS:
        mode = mode_of(form.shape)
        if mode is None or form.dtype != "uint8":
            raise UserError(
                f"{path}: this network was trained on arrays of {form.dtype} {form.shape}, and no pictures; expected "
                f"{', '.join(ARRAYS)}"
            )
        height, width, _ = form.shape
        return read(path, (height, width), mode)[None].astype(form.dtype)
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    found = _table(path) if suffix == ".csv" else _array(path)
    if suffix == ".csv" and found.shape[1:] != form.shape and found[0].size == np.prod(form.shape):
        found = found.reshape(-1, *form.shape)
    if found.ndim == 1 and form.shape == (1,):
        found = found[:, None]
    if found.shape[1:] != form.shape or not len(found):
        raise UserError(
            f"{path}: holds an array of shape {found.shape}; expected (n, {', '.join(map(str, form.shape))})"
        )
    return _checked(path, found, form.dtype)


def _checked(path: Path, found: np.ndarray, dtype: str) -> np.ndarray:
    """As what the network was trained on: bytes, whole numbers, or float32."""
    if found.dtype.kind not in "biuf":
        raise UserError(f"{path}: expected numbers; found {found.dtype}")
    with np.errstate(over="ignore"):
        floats = found.astype("float32")
    if (wrong := ~np.isfinite(floats)).any():
        row = int(np.argmax(wrong.reshape(len(wrong), -1).any(axis=1)))
        raise UserError(f"{path}: row {row} holds a value that is NaN, infinite, or too large for float32")
    if dtype == "float32":
        return floats
    ends = np.iinfo(dtype)
    if (found != np.rint(found)).any() or found.min() < ends.min or found.max() > ends.max:
        raise UserError(f"{path}: this network takes integers from {ends.min} to {ends.max}; found others")
    return found.astype(dtype)


def _array(path: Path) -> np.ndarray:
    try:
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return found
        with found:
            if "x" not in found.files:
                raise UserError(f"{path}: has no array x; there are {', '.join(found.files[:10]) or 'none'}")
            return array_of(found, "x")
    except DAMAGED as error:
        raise UserError(f"{path}: can't be read as an array: {error}") from None


def _table(path: Path) -> np.ndarray:
    """Numbers, a row for each sample; a first line of names is passed over."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if row]
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path}: can't be read as a table: {error}") from None
    first = 1 if rows and not _are_numbers(rows[0]) else 0
    for number, row in enumerate(rows[first:], start=first + 1):
        if not _are_numbers(row) or len(row) != len(rows[first]):
            raise UserError(f"{path}: line {number}: expected {len(rows[first])} numbers; found {','.join(row)[:80]!r}")
    if len(rows) > 1 and len(rows[0]) > 1 and rows[0] == list(map(str, range(len(rows[0])))):
        raise UserError(f"{path}: line 1 names columns, or is a sample; remove it, or write it as 0.0,1.0")
    if not rows[first:]:
        raise UserError(f"{path}: has no row of numbers")
    return np.array([[float(cell) for cell in row] for row in rows[first:]])


def _are_numbers(row: list[str]) -> bool:
    try:
        return bool([float(cell) for cell in row])
    except ValueError:
        return False
