"""Schemas of the files in the folder of a search, which are checked when they are read back."""

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, StringConstraints, TypeAdapter, ValidationError

from zoo.errors import UserError
from zoo.records import Schema, is_later

TRIAL, WORKER = r"[0-9]{1,9}", r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}"
OTHERS = ("search", "base", "best", "journal", "ended")  # names of files in the same folder

TrialName = Annotated[str, StringConstraints(pattern=f"^{TRIAL}$")]
Value = str | bool | int | FiniteFloat
T = TypeVar("T")


class BadName(UserError):
    """An invalid name of a trial or a worker; it would become a path."""


class StrictRecord(BaseModel):
    """One file; it has these fields and no others."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Described(StrictRecord):
    """search.json: the search, its backend and data."""

    schema_: Schema = Field(0, alias="schema")
    search: dict[str, Any]
    backend: Literal["jax", "torch", "tensorflow"]
    data_dir: str | None
    file: str | None = None  # not in 0.1.0
    home: str | None = None  # folder of the base, which its paths are relative to


class AtWork(StrictRecord):
    """tuner0.json: the current trial of a worker."""

    trial: TrialName | None
    process: int


DESCRIBED, AT_WORK, DEATHS = TypeAdapter(Described), TypeAdapter(AtWork), TypeAdapter(list[str])


def read(path: Path, kind: TypeAdapter[T]) -> T:
    """Reads a JSON file of a search's folder.

    Raises:
        UserError: if it is missing, or the tuner didn't write it.
    """
    try:
        return parse(path.read_bytes(), kind)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; expected the folder of a tuner.search") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not what tuner.search writes: {error}") from None


def parse(content: bytes, kind: TypeAdapter[T]) -> T:
    """Parses JSON as a record.

    Raises:
        ValueError: if it isn't one, with a short message.
    """
    try:
        return kind.validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        if first["loc"] == ("schema",) and (later := is_later(json.loads(content))):
            raise ValueError(later) from None
        where = ".".join(map(str, first["loc"]))
        raise ValueError(": ".join(filter(None, [where, first["msg"]]))[:200]) from None


def trial_name(name: str) -> str:
    """Checks the name of a trial, which becomes that of a folder.

    Raises:
        BadName: otherwise.
    """
    if not isinstance(name, str) or not re.fullmatch(TRIAL, name):
        raise BadName(f"the name of a trial is a number such as 0007. Received: {str(name)[:80]!r}")
    return name


def worker_name(name: str) -> str:
    """Checks the name of a worker, which becomes that of a file.

    Raises:
        BadName: otherwise.
    """
    if not isinstance(name, str) or not re.fullmatch(WORKER, name) or name.lower() in OTHERS:
        raise BadName(
            "the name of a worker, KERASTUNER_TUNER_ID, has up to 64 letters, digits, spaces and ._-, starts "
            f"with a letter or digit, and isn't one of {', '.join(OTHERS)}. Received: {str(name)[:80]!r}"
        )
    return name
