"""What is read back from a search's folder, and believed only where it is what the tuner writes."""

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, StringConstraints, TypeAdapter, ValidationError

from zoo.errors import UserError
from zoo.records import Schema, is_later

TRIAL, WORKER = r"[0-9]{1,9}", r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}"
OTHERS = ("search", "base", "best", "journal", "ended")  # files beside those of the workers

TrialName = Annotated[str, StringConstraints(pattern=f"^{TRIAL}$")]
Value = str | bool | int | FiniteFloat
T = TypeVar("T")


class BadName(UserError):
    """Of a trial or a worker: it would become a path."""


class Record(BaseModel):
    """Of one file; it has these fields and no others."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Described(Record):
    """search.json: what is searched, and with what."""

    schema_: Schema = Field(0, alias="schema")
    search: dict[str, Any]
    backend: Literal["jax", "torch", "tensorflow"]
    data_dir: str | None
    file: str | None = None  # version 0.1.0 did not record it


class AtWork(Record):
    """tuner0.json: what a worker is at."""

    trial: TrialName | None
    process: int


DESCRIBED, AT_WORK, DEATHS = TypeAdapter(Described), TypeAdapter(AtWork), TypeAdapter(list[str])


def read(path: Path, kind: TypeAdapter[T]) -> T:
    """What a JSON file of a search's folder holds.

    Raises:
        UserError: for a file that is missing, or that the tuner didn't write.
    """
    try:
        return parse(path.read_bytes(), kind)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; expected the folder of a tuner.search") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not what tuner.search writes: {error}") from None


def parse(content: bytes, kind: TypeAdapter[T]) -> T:
    """JSON as a record of some kind.

    Raises:
        ValueError: where it is none, in a few words.
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
    """The name of a trial, if it is one: it becomes a folder's.

    Raises:
        BadName: otherwise.
    """
    if not isinstance(name, str) or not re.fullmatch(TRIAL, name):
        raise BadName(f"a trial is called by its number, such as 0007. Received: {str(name)[:80]!r}")
    return name


def worker_name(name: str) -> str:
    """The name of a worker, if it can be one: it becomes a file's.

    Raises:
        BadName: otherwise.
    """
    if not isinstance(name, str) or not re.fullmatch(WORKER, name) or name.lower() in OTHERS:
        raise BadName(
            "a worker's name, KERASTUNER_TUNER_ID, has up to 64 letters, digits, spaces and ._-, starts "
            f"with a letter or digit, and is none of {', '.join(OTHERS)}. Received: {str(name)[:80]!r}"
        )
    return name
