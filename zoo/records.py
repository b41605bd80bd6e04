"""Schemas of the files in the folders of runs and sweeps, which are checked when they are read back."""

from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, StringConstraints, ValidationError, model_validator

from zoo.environment import SCHEMA

Schema = Annotated[int, Field(ge=0, le=SCHEMA)]
Number = bool | int | FiniteFloat | None
Value = Number | str | list[Number | str] | dict[str, Number | str]
Sizes = list[Annotated[int, Field(ge=1)]]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]*$")]  # of a folder


class Record(BaseModel):
    """One file; unknown fields, of a later version, are allowed."""

    model_config = ConfigDict(extra="allow", strict=True)


class OwnCode(Record):
    """A file of one's own code, and its copy in the folder of the run."""

    path: str
    sha256: str
    copy_: Annotated[str, StringConstraints(pattern=r"^code/[^\x00]+$")] = Field(alias="copy")


class EnvironmentFile(Record):
    """environment.json; its readers say which fields they need."""

    schema_: Schema = Field(0, alias="schema")
    backend: str | None = None
    device: str | None = None
    versions: dict[str, str] = {}
    processors: int | None = None
    git_commit: str | None = None
    git_changed_files: list[str] = []
    data: str | None = None
    data_dir: str | None = None
    data_digest: str | None = None
    config_digest: str | None = None  # not in 0.2.0
    own_code: list[OwnCode] = []
    code: dict[str, str] = {}
    images: dict[str, int] = {}
    settings: dict[str, str] = {}


class RunTraining(Record):
    """What reports read of it."""

    batch_size: Annotated[int, Field(ge=1)]
    epochs: int = 0
    seeds: list[int] = []


class ConfigFile(Record):
    """config.json, whose rest is checked where a network is made."""

    model: dict[str, Any] = {}
    activation: dict[str, Any] | list[dict[str, Any]] = {}
    dataset: dict[str, Any] = {}
    training: RunTraining = RunTraining(batch_size=1)


class MetricsFile(Record):
    """metrics.json."""

    __pydantic_extra__: dict[str, Value]
    status: Literal["finished", "diverged", "stopped"]
    seed: Annotated[int, Field(ge=0)] = 0
    epochs: Annotated[int, Field(ge=0)] = 0
    parameters: int = 0
    seconds: FiniteFloat = 0.0
    images_per_second: FiniteFloat = 0.0
    peak_memory_mb: FiniteFloat = 0.0
    report_precision_max_epoch: int = 0


class PreprocessingFile(Record):
    """preprocessing.json."""

    standardize: Literal["none", "feature", "channel", "per_image"]
    channel_mean: Annotated[list[FiniteFloat], Field(min_length=1)] | None = None
    channel_deviation: Annotated[list[Annotated[FiniteFloat, Field(gt=0)]], Field(min_length=1)] | None = None
    feature_mean: list | None = None
    feature_deviation: list | None = None
    shape: Annotated[Sizes, Field(min_length=1)] = [32, 32, 3]
    dtype: Literal["uint8", "int32", "float32"] = "uint8"
    classes: list[str] = []
    target: Sizes = []

    @model_validator(mode="after")
    def _statistics_fit(self):
        what = "feature" if self.standardize == "feature" else "channel"
        for name in (f"{what}_mean", f"{what}_deviation"):
            if getattr(self, name) is None:
                raise ValueError(f"{name} is missing")
            found = np.array(getattr(self, name), "float64")
            if found.shape != tuple(self.shape if what == "feature" else self.shape[-1:]):
                raise ValueError(f"{name} doesn't fit samples of shape {self.shape}")
            if not np.isfinite(found).all() or (name.endswith("deviation") and not (found > 0).all()):
                raise ValueError(f"{name} standardizes nothing")
        return self


class PlannedRun(Record):
    """A run of a sweep."""

    name: Name
    labels: dict[str, str]
    outputs: list[str]
    seed: int | None = None  # like the network not in 0.2.0
    network: str | None = None


class SweepFile(Record):
    """sweep.json."""

    schema_: Schema = Field(0, alias="schema")
    runs: list[PlannedRun]
    notes: str = ""
    backend: str | None = None
    file: str = ""


class ComparisonFile(Record):
    """compare.json."""

    schema_: Schema = Field(0, alias="schema")
    question: dict[str, Any]
    base: dict[str, Any]
    backend: str
    costs: dict[str, Annotated[list[FiniteFloat], Field(min_length=2, max_length=2)]]
    looks: list[int]


class FailureFile(Record):
    """NAME.failed.json of a sweep."""

    reason: str


class Recorded(Record):
    """What a run recorded up to its checkpoint."""

    model_config = ConfigDict(extra="forbid", strict=True)
    history: list[dict[str, int | float]]
    left_out: list[str] | None = None  # not in 0.1.0
    timing: list[list[int | float]]
    mixing: list[list[int | float | str]]
    parameters: list[list[int | float | str]]


class CheckpointRecord(Record):
    """The record in checkpoint.npz; 0.1.0 wrote no digest."""

    epoch: Annotated[int, Field(ge=0)]
    step: Annotated[int, Field(ge=0)]
    seconds: Annotated[FiniteFloat, Field(ge=0)]
    recorded: Recorded
    digest: str | None = None


FILES: dict[str, type[Record]] = {
    "config.json": ConfigFile,
    "environment.json": EnvironmentFile,
    "metrics.json": MetricsFile,
    "preprocessing.json": PreprocessingFile,
    "sweep.json": SweepFile,
    "compare.json": ComparisonFile,
}


def is_later(content: dict[str, Any]) -> str:
    """A message for content of a later version; "" otherwise."""
    if isinstance(found := content.get("schema"), int) and found > SCHEMA:
        return f"written by a later version (schema {found}); this one reads up to {SCHEMA}"
    return ""


def problem(content: Any, kind: type[Record]) -> str | None:
    """Why some content isn't a record of a kind; None if it is one."""
    if not isinstance(content, dict):
        return f"expected an object, found a {type(content).__name__}"
    if later := is_later(content):
        return later
    try:
        kind.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(key) for key in first["loc"][:3])
        return f"it has no {where!r}" if first["type"] == "missing" else f"{where}: {first['msg']}"[:200]
    return None
