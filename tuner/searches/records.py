"""Schemas of the files in the folder of a search, which are checked when they are read back."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic.dataclasses import dataclass

from zoo.errors import UserError
from zoo.records import Schema, is_later

TRIAL, WORKER = r"[0-9]{1,9}", r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}"
OTHERS = ("search", "base", "best", "journal", "ended")  # names of files in the same folder

TrialName = Annotated[str, StringConstraints(pattern=f"^{TRIAL}$")]
Value = str | bool | int | FiniteFloat
T = TypeVar("T")
Status = Literal["finished", "stopped", "diverged", "failed"]


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


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True, config=ConfigDict(extra="forbid", strict=True))
class Outcome:
    """The outcome of one trial.

    Its status is "finished", "stopped" (early), "diverged" or "failed". `value` is the objective, None for the last
    two. `curve` has the objective after each epoch of the first execution, None where it isn't finite; `values` has the
    objective of each execution at its end.
    """

    status: Status
    value: FiniteFloat | None = None
    values: Sequence[FiniteFloat] = field(default_factory=list)
    curve: Sequence[Annotated[FiniteFloat | None, BeforeValidator(_finite)]] = field(default_factory=list)
    reason: str = ""
    seconds: FiniteFloat = 0.0

    @model_validator(mode="after")
    def _has_a_value_where_it_trained(self):
        if (self.value is None) != (self.status in ("diverged", "failed")):
            raise ValueError(f"a trial that {self.status} has {'no' if self.value is not None else 'a'} value")
        return self


OUTCOME = TypeAdapter(Outcome)


def ranked(outcomes: Mapping[str, Outcome], maximize: bool) -> list[str]:
    """Trials with a value, the best first; those that were stopped early come last."""
    sign = -1 if maximize else 1
    keys = {
        trial: (outcome.status == "stopped", sign * outcome.value, trial)
        for trial, outcome in outcomes.items()
        if outcome.value is not None
    }
    return sorted(keys, key=lambda trial: keys[trial])
