"""Checkpoints: every variable and what a run recorded so far, in one file that is written whole or not at all."""

import hashlib
import json
import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from keras import ops

from zoo import files, records
from zoo.errors import UserError

NAME = "checkpoint.npz"
RECORD = "record"


def save(folder: Path, variables: Sequence, record: dict[str, Any]) -> None:
    """Writes the variables' values, and a record that JSON can hold."""
    arrays: dict[str, Any] = dict(zip(_names(variables), map(value, variables), strict=True))
    arrays[RECORD] = np.frombuffer(json.dumps(record | {"digest": _digest(arrays)}).encode(), "uint8")
    files.write_whole(folder / NAME, lambda path: np.savez(path, **arrays))


def load(folder: Path, variables: Sequence, added: int) -> dict[str, Any] | None:
    """Restores the variables and returns the record; None if there is no checkpoint yet.

    Args:
        folder: of the run.
        variables: those that were saved.
        added: number of variables at the end that 0.1.0 didn't have; they keep their values if it wrote the checkpoint.

    Raises:
        UserError: if the file is damaged, or is of another network.
    """
    path = folder / NAME
    if not path.exists():
        return None
    names = _names(variables)
    try:
        arrays = _arrays(path, 64 * 2**20 + sum(2 * np.prod(v.shape, dtype=float) * 8 for v in variables))
        record = json.loads(arrays.pop(RECORD).tobytes())
        _check(record, arrays)
    except Exception as error:  # whatever zipfile, zlib, NumPy and json raise for a damaged file
        reason = f"{type(error).__name__}: {error}"[:200]
        raise UserError(f"{path}: the checkpoint can't be read ({reason}); delete it to start this run again") from None
    if len(arrays) == len(names) - added:
        names = names[:-added]
    shapes = {name: tuple(v.shape) for name, v in zip(names, variables, strict=False)}
    if {name: array.shape for name, array in arrays.items()} != shapes:
        raise UserError(f"{path}: the checkpoint is of another network than {folder / 'config.json'} describes")
    for name, variable in zip(names, variables, strict=False):
        variable.assign(arrays[name])
    return record


def _arrays(path: Path, limit: float) -> dict[str, np.ndarray]:
    """The arrays in the file; their size is checked before they are read."""
    found = {}
    with zipfile.ZipFile(path) as file:
        if sum(info.file_size for info in file.infolist()) > limit:
            raise ValueError("it holds more than this network and its record")
        for name in file.namelist():
            with file.open(name) as member:
                np.lib.format.read_magic(member)
                shape, order, dtype = np.lib.format.read_array_header_1_0(member)
                content = member.read()
            if dtype.hasobject or len(content) != math.prod(shape) * dtype.itemsize:
                raise ValueError(f"{name} holds {len(content)} bytes for the shape {shape}")
            array = np.frombuffer(content, dtype)
            found[name.removesuffix(".npy")] = array.reshape(shape, order="F" if order else "C")
    return found


def _check(record: Any, arrays: dict[str, np.ndarray]) -> None:
    if wrong := records.problem(record, records.CheckpointRecord):
        raise ValueError(f"its record is not what zoo.train writes: {wrong}")
    if len(record["recorded"]["history"]) != record["epoch"]:
        raise ValueError("its epoch doesn't match the length of its history")
    if record.get("digest") not in (None, _digest(arrays)):
        raise ValueError("its values differ from those that were saved")


def _digest(arrays: dict[str, Any]) -> str:
    """A hash of names and values."""
    found = hashlib.blake2b(digest_size=16)
    for name, array in sorted(arrays.items()):
        found.update(name.encode() + np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def _names(variables: Sequence) -> list[str]:
    return [f"{i:05d}" for i in range(len(variables))]


def value(variable) -> np.ndarray:
    return ops.convert_to_numpy(variable.value)
