"""Reading and writing the files of runs; each is written whole or not at all."""

import contextlib
import csv
import gzip
import io
import json
import lzma
import math
import os
import secrets
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zoo import folders, manifest, signals
from zoo.errors import UserError

DAMAGED = (  # what NumPy and zipfile raise for damaged files of arrays
    *(OSError, ValueError, TypeError, KeyError, EOFError, SyntaxError, RuntimeError, MemoryError, OverflowError),
    *(struct.error, tokenize.TokenError, zipfile.BadZipFile, zlib.error, lzma.LZMAError),
)
DECOMPRESS = {".xz": lzma.decompress, ".gz": gzip.decompress}
LEARNED = {
    "mixing_weights.csv": ("epoch", "site", "member", "channel", "weight"),
    "parameters.csv": ("epoch", "site", "parameter", "index", "value"),
}
Place = tuple[str, str, str]  # of a number: its site, name and index
Learned = dict[Place, dict[int, float]]


def read_json(path: Path, *keys: str) -> Any:
    """Reads a JSON file; with `keys`, an object that has them all.

    Raises:
        UserError: if it is missing, isn't JSON, or isn't what `records` expects under its name.
    """
    from zoo import records  # lazily: --help needs no pydantic

    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; expected the folder of a zoo.train run") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: can't be read as JSON: {error}") from None
    for key in keys:
        if not isinstance(found, dict) or key not in found:
            raise UserError(f"{path}: not what zoo.train writes: it has no {key!r}")
    kind = records.FailureFile if path.name.endswith(".failed.json") else records.FILES.get(path.name)
    if kind and (wrong := records.problem(found, kind)):
        raise UserError(f"{path}: not what zoo.train writes: {wrong}")
    return found


def read_text(path: Path) -> str:
    """The text of a file, which is compressed if its name ends in .xz or .gz.

    Raises:
        UserError: if the file can't be read.
    """
    try:
        content = path.read_bytes()
        return DECOMPRESS.get(path.suffix, bytes)(content).decode()
    except (OSError, ValueError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise UserError(f"{path}: can't be read: {error}") from None


def read_table(path: Path, *columns: str) -> list[dict[str, str]]:
    """The rows of a CSV file of a run.

    Raises:
        UserError: if the file can't be read, lacks a column, or has a row of another length than its header.
    """
    header, rows = read_rows(path)
    if missing := [name for name in columns if name not in header]:
        raise UserError(f"{path}: not what zoo.train writes: it has no column {missing[0]!r}")
    return [dict(zip(header, row, strict=True)) for row in rows]


def read_rows(path: Path) -> tuple[list[str], list[list[str]]]:
    """The header and the rows of a CSV file.

    Raises:
        UserError: if the file can't be read, is empty, or has a row of another length than its header.
    """
    try:
        header, *rows = list(csv.reader(io.StringIO(read_text(path), newline=""))) or [[]]
    except csv.Error as error:
        raise UserError(f"{path}: can't be read: {error}") from None
    if not header:
        raise UserError(f"{path}: the file is empty; expected a header")
    if wrong := next((i for i, row in enumerate(rows, start=2) if len(row) != len(header)), None):
        raise UserError(f"{path}: line {wrong} doesn't have the {len(header)} columns of the header")
    return header, rows


def read_history(path: Path) -> list[dict[str, float]]:
    """The rows of history.csv, one for each epoch.

    Raises:
        UserError: for anything else.
    """
    rows = read_table(path, "epoch")
    found: list[dict[str, float]] = [{} for _ in rows]
    for name in rows[0] if rows else ():
        try:
            for row, numbers in zip(rows, found, strict=True):
                numbers[name] = float(row[name])
        except ValueError as error:
            raise UserError(f"{path}: {name} is not a number in every row: {error}"[:400]) from None
    if [row["epoch"] for row in found] != list(range(1, len(found) + 1)):
        raise UserError(f"{path}: its epochs aren't 1, 2, 3...")
    return found


def read_learned(path: Path) -> Learned:
    """The rows of mixing_weights.csv or parameters.csv: by site, name and index, the number at each recorded epoch.

    Raises:
        UserError: for anything else, and where an epoch is missing somewhere.
    """
    columns = LEARNED[path.name]
    found: Learned = {}
    try:
        for line, row in enumerate(read_table(path, *columns), start=2):
            epoch, site, name, index, number = (row[column] for column in columns)
            at = found.setdefault((site, name, index), {})
            if int(epoch) in at or not math.isfinite(float(number)):
                raise ValueError(f"line {line} is not finite, or a second one")
            at[int(epoch)] = float(number)
    except ValueError as error:
        raise UserError(f"{path}: not what zoo.train writes: {error}") from None
    epochs = {epoch for at in found.values() for epoch in at}
    if found and (history := path.with_name("history.csv")).exists():
        last = len(read_history(history))
        epochs |= set(range(1, last + 1)) if path.name == "mixing_weights.csv" else {0, last}
    for place, at in found.items():
        if missing := sorted(epochs ^ at.keys()):
            raise UserError(f"{path}: {' '.join(place).strip()} has no row of epoch {missing[0]}")
    return found


def check_free(path: Path) -> None:
    """Refuses a folder that isn't empty.

    Raises:
        UserError: if it isn't empty, or isn't a folder.
    """
    try:
        taken = path.exists() and any(inside.name != folders.LOCK for inside in path.iterdir())
    except OSError as error:
        raise UserError(f"{path}: can't create the folder: {error.strerror}") from None
    if taken:
        raise UserError(f"{path}: the folder is not empty; give another --out")


def new_folder(path: Path) -> Path:
    """Creates the folder of a run, or takes an empty one.

    Raises:
        UserError: if it isn't empty, or can't be created.
    """
    check_free(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path}: can't create the folder: {error.strerror}") from None
    return path


Claim = Callable[[Path, Path], None]  # called with a path and its temporary file before it is written


def write_whole(path: Path, write: Callable[[Path], Any], claim: Claim | None = None) -> None:
    """Has `write` fill a temporary file and renames it to `path`: readers see the old file or the new one.

    Raises:
        UserError: if it can't be written, or `path` is a link.
    """
    if path.is_symlink():
        raise UserError(f"{path}: this is a link, and would be replaced; move it")
    unfinished = path.with_name(f".{secrets.randbelow(10**12)}.{path.name}")  # keeps the suffix, which Keras looks at
    signals.UNFINISHED.add(unfinished)
    try:
        unfinished.touch(exist_ok=False)
        write(unfinished)
        if claim:
            claim(path, unfinished)
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError as error:
        raise UserError(f"{path}: can't be written: {error.strerror or error}") from None
    finally:
        with contextlib.suppress(OSError):  # read-only by now: the error above says so
            unfinished.unlink(missing_ok=True)
        signals.UNFINISHED.discard(unfinished)


def write_text(path: Path, text: str, claim: Claim | None = None) -> None:
    """Writes text, compressed if the name ends in .xz; the same text gives the same bytes."""
    content = text.encode()
    write_bytes(path, lzma.compress(content, preset=9) if path.suffix == ".xz" else content, claim)


def write_bytes(path: Path, content: bytes, claim: Claim | None = None) -> None:
    write_whole(path, lambda unfinished: unfinished.write_bytes(content), claim)


def json_of(content: Any) -> str:
    """JSON, with null for NaN and infinity, which JSON doesn't have."""
    return json.dumps(_finite(content), indent=2, allow_nan=False) + "\n"


def write_json(path: Path, content: Any, claim: Claim | None = None) -> None:
    write_text(path, json_of(content), claim)


def write_own_json(path: Path, content: Any) -> None:
    """Writes JSON into a folder that may hold files of the user, and replaces none of those.

    Raises:
        UserError: if the file exists and wasn't written by this software.
    """
    manifest.claim(path)
    write_json(path, content)


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]], claim: Claim | None = None) -> None:
    """Writes a CSV file; numbers in the shortest form that reads back as the same number."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_text(path, text.getvalue(), claim)


def read_predictions(path: Path) -> dict[str, np.ndarray]:
    """What `write_predictions` wrote.

    Raises:
        UserError: for anything else.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: array_of(file, name) for name in file.files}
    except DAMAGED as error:
        raise UserError(f"{path}: can't be read as predictions: {error}") from None


def array_of(file: Mapping[str, Any], name: str) -> np.ndarray:
    """An array of an open .npz, where NumPy gives other members as bytes.

    Raises:
        ValueError: for those.
    """
    if not isinstance(found := file[name], np.ndarray):
        raise ValueError(f"{name} isn't an array")
    return found


def write_predictions(path: Path, predictions: Mapping[str, np.ndarray]) -> None:
    """Writes arrays of class indices or numbers, compressed: `numpy.load(path)["test"]` reads one."""
    small: dict[str, Any] = {name: _small(np.asarray(found)) for name, found in predictions.items()}
    write_whole(path, lambda unfinished: np.savez_compressed(unfinished, **small))


def _small(found: np.ndarray) -> np.ndarray:
    if found.dtype.kind == "f":
        return found.astype("float32")
    return found.astype(np.min_scalar_type(found.max()) if found.size and found.min() >= 0 else "int64")
