"""What a run leaves behind: a folder of plain files, each written whole or not at all."""

import contextlib
import csv
import io
import json
import math
import os
import secrets
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zoo import folders, manifest, signals
from zoo.errors import UserError


def read_json(path: Path, *keys: str) -> Any:
    """What a JSON file holds; an object with all of `keys`, where some are given.

    Raises:
        UserError: for a file that is missing, isn't JSON or holds something else than `records` says of its name.
    """
    from zoo import records  # here, as --help needs no pydantic

    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; expected the folder of a run of zoo.train") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: can't be read as JSON: {error}") from None
    for key in keys:
        if not isinstance(found, dict) or key not in found:
            raise UserError(f"{path}: not what zoo.train writes: it has no {key!r}")
    kind = records.Failure if path.name.endswith(".failed.json") else records.FILES.get(path.name)
    if kind and (wrong := records.problem(found, kind)):
        raise UserError(f"{path}: not what zoo.train writes: {wrong}")
    return found


def read_table(path: Path, *columns: str) -> list[dict[str, str]]:
    """The rows of a CSV file of a run.

    Raises:
        UserError: for a file that can't be read, lacks a column, or has a row that is longer or shorter than its first.
    """
    header, rows = read_rows(path)
    if missing := [name for name in columns if name not in header]:
        raise UserError(f"{path}: not what zoo.train writes: it has no column {missing[0]!r}")
    return [dict(zip(header, row, strict=True)) for row in rows]


def read_rows(path: Path) -> tuple[list[str], list[list[str]]]:
    """The names of the columns of a CSV file, and its rows.

    Raises:
        UserError: for a file that can't be read, is empty, or has a row that is longer or shorter than its first.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header, *rows = list(csv.reader(file)) or [[]]
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path}: can't be read: {error}") from None
    if not header:
        raise UserError(f"{path}: the file is empty; zoo.train writes a line of names first")
    if wrong := next((i for i, row in enumerate(rows, start=2) if len(row) != len(header)), None):
        raise UserError(f"{path}: line {wrong} doesn't have the {len(header)} columns of the first")
    return header, rows


def read_history(path: Path) -> list[dict[str, float]]:
    """The rows of history.csv, one for each epoch from the first on.

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
            raise UserError(f"{path}: {name} is no number in each row: {error}"[:400]) from None
    if [row["epoch"] for row in found] != list(range(1, len(found) + 1)):
        raise UserError(f"{path}: its epochs are not 1, 2 and so on")
    return found


def check_free(path: Path) -> None:
    """Refuses a folder that holds anything.

    Raises:
        UserError: where it isn't empty, or isn't a folder.
    """
    try:
        taken = path.exists() and any(inside.name != folders.LOCK for inside in path.iterdir())
    except OSError as error:
        raise UserError(f"{path}: no folder can be made here: {error.strerror}") from None
    if taken:
        raise UserError(f"{path}: the folder is not empty, and nothing is overwritten; give another --out")


def new_folder(path: Path) -> Path:
    """Makes the folder of a run; one that holds anything is left alone.

    Raises:
        UserError: where it isn't empty, or can't be made.
    """
    check_free(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path}: no folder can be made here: {error.strerror}") from None
    return path


Claim = Callable[[Path, Path], None]  # asked whether a path may be written, told where the content is


def write_whole(path: Path, write: Callable[[Path], Any], claim: Claim | None = None) -> None:
    """Has `write` fill a file beside `path`, then renames it: a reader sees the old file or the new one.

    Raises:
        UserError: where it can't be written, or `path` is a link, which would be lost.
    """
    if path.is_symlink():
        raise UserError(f"{path}: a link, and nothing is written through it or in its place; move it")
    unfinished = path.with_name(f".{secrets.randbelow(10**12)}.{path.name}")  # keeps the suffix, which Keras goes by
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
        with contextlib.suppress(OSError):  # a file system that became read-only: the error above says it
            unfinished.unlink(missing_ok=True)
        signals.UNFINISHED.discard(unfinished)


def write_text(path: Path, text: str, claim: Claim | None = None) -> None:
    write_whole(path, lambda unfinished: unfinished.write_text(text, encoding="utf-8"), claim)


def write_json(path: Path, content: Any, claim: Claim | None = None) -> None:
    """JSON has no NaN and no infinity: they are written as null."""
    write_text(path, json.dumps(_finite(content), indent=2, allow_nan=False) + "\n", claim)


def write_own_json(path: Path, content: Any) -> None:
    """JSON into a folder that may hold files of others, none of which is replaced.

    Raises:
        UserError: where the file is there, and the software didn't write it.
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
    """Numbers in the shortest form that reads back as the same number."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_text(path, text.getvalue(), claim)


def read_classes(path: Path) -> dict[str, np.ndarray]:
    """What `write_classes` wrote.

    Raises:
        UserError: for anything else.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: can't be read as predictions: {error}") from None


def write_classes(path: Path, classes: Mapping[str, np.ndarray]) -> None:
    """Arrays of class numbers, compressed, a byte each: `numpy.load(path)["test"]` reads one again."""
    small: dict[str, Any] = {name: np.asarray(found, "uint8") for name, found in classes.items()}
    write_whole(path, lambda unfinished: np.savez_compressed(unfinished, **small))
