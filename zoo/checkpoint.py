"""A run's state on disk: every variable and what was recorded so far, in one file that is whole or isn't there."""

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from keras import ops

from zoo import results
from zoo.errors import UserError

NAME = "checkpoint.npz"
RECORD = "record"


def save(folder: Path, variables: Sequence, record: dict[str, Any]) -> None:
    """Writes the variables' values, and a record of anything that JSON holds."""
    arrays: dict[str, Any] = dict(zip(_names(variables), map(value, variables), strict=True))
    arrays[RECORD] = np.frombuffer(json.dumps(record).encode(), "uint8")
    results.write_whole(folder / NAME, lambda path: np.savez(path, **arrays))


def load(folder: Path, variables: Sequence, added: int) -> dict[str, Any] | None:
    """Gives the variables their saved values and returns the record; None where nothing was saved yet.

    Args:
        folder: of the run.
        variables: those that were saved.
        added: so many of the last ones, which keep their values where version 0.1.0, which had none of them, saved.

    Raises:
        UserError: for a file that is damaged, or of another network.
    """
    path = folder / NAME
    if not path.exists():
        return None
    names = _names(variables)
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        record = json.loads(arrays.pop(RECORD).tobytes())
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: the checkpoint can't be read ({error}); delete it to start this run again") from None
    if len(arrays) == len(names) - added:
        names = names[:-added]
    shapes = {name: tuple(v.shape) for name, v in zip(names, variables, strict=False)}
    if {name: array.shape for name, array in arrays.items()} != shapes:
        raise UserError(f"{path}: the checkpoint is of another network than {folder / 'config.json'} describes")
    for name, variable in zip(names, variables, strict=False):
        variable.assign(arrays[name])
    return record


def _names(variables: Sequence) -> list[str]:
    return [f"{i:05d}" for i in range(len(variables))]


def value(variable) -> np.ndarray:
    return ops.convert_to_numpy(variable.value)
