"""Samples in files of any kind, as a network takes them: pictures, arrays and tables."""

import csv
import zipfile
import zlib
from pathlib import Path

import numpy as np

from zoo.data import pictures
from zoo.data.splits import Form
from zoo.errors import UserError

ARRAYS = (".npy", ".npz", ".csv")


def read(path: Path, form: Form) -> np.ndarray:
    """The samples of a file (n, ...): one in a picture; all of an .npy, of `x` in an .npz, or the rows of a .csv.

    Raises:
        UserError: for what can't be read, or has samples of another shape.
    """
    suffix = path.suffix.lower()
    if suffix not in ARRAYS:
        mode = pictures.mode_of(form.shape)
        if mode is None or form.dtype != "uint8":
            raise UserError(
                f"{path}: this network was trained on arrays of {form.dtype} {form.shape}, and no pictures; expected "
                f"{', '.join(ARRAYS)}"
            )
        height, width, _ = form.shape
        return pictures.read(path, (height, width), mode)[None].astype(form.dtype)
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
    if found.dtype.kind not in "biuf" or not np.isfinite(found).all():
        raise UserError(f"{path}: expected finite numbers; found {found.dtype}, or a value that is NaN or infinite")
    if dtype == "float32":
        return found.astype(dtype)
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
            return found["x"]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
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
    if not rows[first:]:
        raise UserError(f"{path}: has no row of numbers")
    return np.array([[float(cell) for cell in row] for row in rows[first:]])


def _are_numbers(row: list[str]) -> bool:
    try:
        return bool([float(cell) for cell in row])
    except ValueError:
        return False
