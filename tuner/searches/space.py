"""The schema of a search: a space over a config, and how a point of it becomes a config. Nothing trains here."""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, Tag, ValidationError, model_validator

from tuner.searches.entry import Entry, Label, under
from zoo import config
from zoo.config.schema import Config, Count, Strict, named, unknown_field
from zoo.errors import ConfigError

if TYPE_CHECKING:
    from keras_tuner import HyperParameters


TRIAL = {"metrics.test": False, "metrics.report_batch": None}  # trials don't use the test images
JUDGED = {"metrics.test": True, "metrics.report_batch": None}  # runs of the comparison do: no choice depends on them
OWN = ("training.epochs", "training.seeds", "dataset.limit", "dataset.validation", "metrics")
OTHERS = {"tuner/epochs": int, "tuner/trial_id": str, "final/seed": int, "final/of": str}  # which aren't entries
CLASSIFICATION, REGRESSION = ("val_accuracy", "val_loss"), ("val_r2", "val_mae", "val_rmse", "val_loss")
LARGER = ("val_accuracy", "val_r2")  # objectives to maximize
FINAL = "final/"  # prefix of hyperparameters of the comparison


class Random(Strict):
    """Random points."""

    name: Literal["random"] = "random"


class Grid(Strict):
    """All points; for an int or float ten evenly spaced values."""

    name: Literal["grid"] = "grid"


class Bayesian(Strict):
    """The points that a Gaussian process rates best (KerasTuner's, with a Matern kernel)."""

    name: Literal["bayesian"] = "bayesian"
    initial: Count | None = Field(None, description="random points to begin with; null: three for each hyperparameter")


class Hyperband(Strict):
    """Successive halving: many points for few epochs, the best for more. It sets the number of trials itself."""

    name: Literal["hyperband"] = "hyperband"
    factor: Annotated[int, Field(ge=2)] = Field(
        3, description="one trial in so many goes on, with so many times the epochs"
    )
    iterations: Count = Field(1, description="of the whole")


class Median(Strict):
    """Ends a trial whose best epoch so far is worse than the median, over the trials that ended, of their means up to
    that epoch (Golovin et al., Google Vizier, 2017)."""

    name: Literal["median"] = "median"
    epochs: Count = Field(2, description="that every trial trains at least")
    trials: Count = Field(4, description="that must have ended before")


class Contrast(Strict):
    """A comparison after the search: the best trial of each label, trained again with fresh seeds."""

    by: str = Field(description="name of an entry with choices")
    seeds: list[Annotated[int, Field(ge=0, lt=2**32)]] = Field(
        min_length=2, description="one run of each label with each"
    )
    apart: bool = Field(
        False, description="search the labels separately, in turns, with equal numbers of trials (random, bayesian)"
    )


Tuner = Annotated[
    Annotated[Random, Tag("random")]
    | Annotated[Grid, Tag("grid")]
    | Annotated[Bayesian, Tag("bayesian")]
    | Annotated[Hyperband, Tag("hyperband")],
    named("random"),
]


class Search(Strict):
    """A search over the configs that a space makes of a base config."""

    schema_: str | None = Field(None, alias="$schema")
    notes: str = Field("", description="the question, the command, the cost")
    base: str = Field(description="the base config, relative to this file")
    set: dict[str, Any] = Field({}, description="fields of every trial and of the result, by dotted path")
    space: list[Entry] = Field(min_length=1, description="what is searched")
    tuner: Tuner = Field(Random(), description="what chooses the next trial")
    objective: Literal["val_accuracy", "val_loss", "val_r2", "val_mae", "val_rmse"] = Field(
        "val_accuracy", description="on the validation images after the last epoch, mean over executions"
    )
    trials: Count = Field(20, description="at most; not for hyperband")
    epochs: Count = Field(description="of a trial; the final run has those of the base")
    limit: Count | None = Field(None, description="training images of a trial; the final run has those of the base")
    executions: Count = Field(1, description="runs of a trial, with the same seeds in all trials")
    seed: Annotated[int, Field(ge=0, lt=2**31)] = Field(0, description="of the search, and of the first execution")
    stopping: Median | None = Field(None, description="early stopping of poor trials; null: none")
    contrast: Contrast | None = Field(None, description="a comparison after the search; null: none")
    confirm: Annotated[int, Field(ge=0, le=3)] = Field(
        3,
        description="number of the best trials, at most, that are trained with the base's epochs and images and a "
        "fresh seed after the search, until one finishes, which becomes best.json; 0: the best trial is best.json",
    )

    @model_validator(mode="after")
    def _entries_fit_together(self):
        names = [entry.name for entry in self.space]
        if len(set(names)) < len(names):
            raise ValueError(
                f"space: two entries are called {next(x for x in names if names.count(x) > 1)!r}; rename one"
            )
        for i, entry in enumerate(self.space):
            if entry.path and entry.path.startswith(OWN):
                raise ValueError(f"space.{i}.path: {entry.path} is set by the search, for all trials alike")
            for parent in entry.when:
                if parent not in names[:i]:
                    known = ", ".join(names[:i]) or "none"
                    raise ValueError(f"space.{i}.when: no entry before it is called {parent!r}; there are {known}")
                labels = self.labels(parent)
                if unknown := [label for label in entry.allowed(parent) if label not in labels]:
                    raise ValueError(f"space.{i}.when.{parent}: expected one of {labels}; found {unknown[0]!r}")
        return self

    @model_validator(mode="after")
    def _contrast_fits(self):
        if not self.contrast:
            return self
        by, seeds = self.contrast.by, self.contrast.seeds
        found = next((entry for entry in self.space if entry.name == by), None)
        if found is None:
            names = ", ".join(entry.name for entry in self.space)
            raise ValueError(f"contrast.by: no entry is called {by!r}; there are {names}")
        if len(self.labels(by)) < 2:
            raise ValueError(f"contrast.by: {by!r} needs at least two choices")
        if len(set(seeds)) < len(seeds) or set(seeds) & set(self.seeds):
            raise ValueError(
                f"contrast.seeds: they must differ from each other and from {self.seeds} of the search; found {seeds}"
            )
        if self.contrast.apart and self.tuner.name in ("grid", "hyperband"):
            raise ValueError(f"contrast.apart: {self.tuner.name} can't search labels separately")
        if self.contrast.apart and found.when:
            raise ValueError(f"contrast.apart: {by!r} can't have a condition")
        return self

    @model_validator(mode="after")
    def _stopping_fits(self):
        if self.stopping and self.tuner.name == "hyperband":
            raise ValueError("stopping: hyperband stops poor trials itself; leave it out")
        if self.stopping and self.executions > 1:
            raise ValueError(f"stopping needs executions: 1; found {self.executions}")
        return self

    @property
    def seeds(self) -> list[int]:
        """The seeds of a trial's executions."""
        return [self.seed + i for i in range(self.executions)]

    def labels(self, name: str) -> list[Label]:
        entry = next(entry for entry in self.space if entry.name == name)
        return [False, True] if entry.boolean else [choice.label for choice in entry.choices]

    @property
    def maximize(self) -> bool:
        return self.objective in LARGER

    def hyperparameters(self, **part: Label) -> "HyperParameters":
        """The space in KerasTuner's form, or the part of it where entries have these labels."""
        from keras_tuner import HyperParameters

        hp, declared = HyperParameters(), set()
        for entry in self.space:
            if all(p in declared and part.get(p, entry.allowed(p)[0]) in entry.allowed(p) for p in entry.when):
                declared.add(entry.name)
                with under(hp, {parent: entry.allowed(parent) for parent in entry.when}):
                    hp.Fixed(entry.name, part[entry.name]) if entry.name in part else entry.declare(hp)
        return hp

    def parts(self) -> dict[Label, "HyperParameters"]:
        """The space of each label, if labels are searched separately."""
        if not self.contrast or not self.contrast.apart:
            return {}
        return {label: self.hyperparameters(**{self.contrast.by: label}) for label in self.labels(self.contrast.by)}

    def fields(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of the config at a point, by dotted path."""
        found = {}
        for entry in self.active(point):
            value = entry.value(point)
            if entry.path and value is not None:
                found[entry.path] = value
        return found

    def active(self, point: Mapping[str, Any]) -> list[Entry]:
        """The entries that are active at a point."""
        found: list[Entry] = []
        for entry in self.space:
            parents = {e.name for e in found}
            if all(parent in parents and point.get(parent) in entry.allowed(parent) for parent in entry.when):
                found.append(entry)
        return found

    def check(self, point: Mapping[str, Any]) -> None:
        """
        Raises:
            ValueError: if the values aren't a point of this space.
        """
        for entry in self.space:
            for name in entry.names:
                if name in point and not entry.holds(point[name]):
                    raise ValueError(f"{name}: {point[name]!r} is not a value of this entry")
                if name not in point and entry in self.active(point):
                    raise ValueError(f"{name}: the value is missing")
        for name, kind in OTHERS.items():
            if name in point and type(point[name]) is not kind:
                raise ValueError(f"{name}: expected {kind.__name__}; found {point[name]!r}")

    def labelled(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """A point for people: labels and numbers by entry, simplexes as weights."""
        return {e.name: e.value(point) if e.simplex else point[e.name] for e in self.active(point)}

    def trial(self, point: Mapping[str, Any], base: Path, home: Path | None = None) -> Config:
        """The config of a trial; paths in it are found from the base's folder, or from its home."""
        final = FINAL + "seed" in point
        seeds = [point[FINAL + "seed"]] if final else self.seeds
        fields = self.set | self.fields(point) | (JUDGED if final else TRIAL)
        fields |= {"training.seeds": seeds, "training.epochs": self.epochs}
        return _load(base, fields | ({"dataset.limit": self.limit} if self.limit else {}), home)

    def result(self, point: Mapping[str, Any], base: Path, home: Path | None = None) -> Config:
        """The config of the final run, the only one on test images: on all training images, none held out."""
        return _load(base, self.set | self.fields(point) | {"dataset.validation": 0.0}, home)

    def proof(self, point: Mapping[str, Any], base: Path, seed: int, home: Path | None = None) -> Config:
        """The config that confirms a trial: that of the final run, but with images held out and without test images."""
        return _load(base, self.set | self.fields(point) | TRIAL | {"training.seeds": [seed]}, home)

    def corners(self) -> Iterator[dict[str, Any]]:
        """A point for each bound and choice of each entry, the others at their first."""
        for entry in self.space:
            for value in entry.ends:
                point: dict[str, Any] = {}
                for other in self.space:
                    point |= dict.fromkeys(other.names, other.ends[0])
                self._activate(entry, point)
                yield point | dict.fromkeys(entry.names, value)

    def _activate(self, entry: Entry, point: dict[str, Any]) -> None:
        for parent in entry.when:
            point[parent] = entry.allowed(parent)[0]
            self._activate(next(e for e in self.space if e.name == parent), point)


def _load(base: Path, fields: Mapping[str, Any], home: Path | None) -> Config:
    return config.load(base, [f"{path}={json.dumps(value)}" for path, value in fields.items()], "the search:", home)


def describe(labels: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_short(value)}" for name, value in labels.items())


def _short(value: Any) -> str:
    if isinstance(value, list):
        return "/".join(map(_short, value))
    return f"{value:.4g}" if isinstance(value, float) and math.isfinite(value) else str(value)


def load(path: Path) -> Search:
    """Reads a search, and checks the configs at the bounds of its space.

    Raises:
        ConfigError: for a mistake in it, or in one of its configs.
    """
    content = config.read_object(path)
    search = parse(content, str(path))
    base = path.parent / search.base
    try:
        config.load(base)
    except ConfigError as error:
        raise ConfigError(f"{path}: base: {error}") from None
    for point in search.corners():
        try:
            found = search.trial(point, base)
            search.result(point, base)
        except ConfigError as error:
            raise ConfigError(f"{path}: at {describe(search.labelled(point))}: {error}") from None
        if not found.dataset.validation:
            raise ConfigError(f"{path}: dataset.validation: a search needs validation images; found 0")
    return search


def parse(content: dict[str, Any], origin: str) -> Search:
    """
    Raises:
        ConfigError: if it isn't a valid search.
    """
    try:
        return Search.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = [str(key) for key in first["loc"] if key not in ("random", "grid", "bayesian", "hyperband")]
        what = _said(first)
        if first["type"] == "extra_forbidden":
            model: Any = {"space": Entry, "contrast": Contrast, "stopping": Median}.get(where[0], Search)
            fields = [field.alias or name for name, field in model.model_fields.items()]
            what = unknown_field(where[-1], fields) if where[0] != "tuner" else f"unknown field {where[-1]!r}"
        raise ConfigError(": ".join(filter(None, [origin, ".".join(where), what]))) from None


def _said(error: Mapping[str, Any]) -> str:
    """Pydantic's message without names of classes."""
    about, found = error.get("ctx", {}), json.dumps(error["input"], default=str)[:80]
    match error["type"]:
        case "value_error":
            return error["msg"].removeprefix("Value error, ")
        case "missing":
            return "this field is required"
        case "union_tag_invalid":
            return f"expected one of {about['expected_tags']}; found {about['tag']!r}"
        case "model_type" | "dict_type":
            return f"expected an object; found {found}"
        case "too_short" | "too_long":
            least = "least" if "min_length" in about else "most"
            return f"expected at {least} {about.get('min_length', about.get('max_length'))}; found {found}"
    return f"{error['msg']}; found {found}"
