"""What a search tries: a space over a config, as JSON, and how a point of it becomes a config. Nothing trains here."""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, Tag, model_validator

from tuner.searches.entry import Entry, Label, under
from zoo import config
from zoo.config.schema import Config, Count, Strict, named

if TYPE_CHECKING:
    from keras_tuner import HyperParameters

TRIAL = {"metrics.test": False, "metrics.report_batch": None}  # no trial looks at the test images
JUDGED = {"metrics.test": True, "metrics.report_batch": None}  # those of the comparison do once, which chose nothing
OWN = ("training.epochs", "training.seeds", "dataset.limit", "dataset.validation", "metrics")
OTHERS = {"tuner/epochs": int, "tuner/trial_id": str, "final/seed": int, "final/of": str}  # that no entry makes
FINAL = "final/"  # what the hyperparameters are called that only the last comparison has


class Random(Strict):
    """Points drawn at random."""

    name: Literal["random"] = "random"


class Grid(Strict):
    """Every point; of an int or float ten values, evenly spaced."""

    name: Literal["grid"] = "grid"


class Bayesian(Strict):
    """Points where a Gaussian process of those before promises most (KerasTuner's, with a Matern kernel)."""

    name: Literal["bayesian"] = "bayesian"
    initial: Count | None = Field(None, description="points drawn at random first; null: three for each number")


class Hyperband(Strict):
    """Successive halving: many points for few epochs, the best of them for more. It counts its trials itself."""

    name: Literal["hyperband"] = "hyperband"
    factor: Annotated[int, Field(ge=2)] = 3
    iterations: Count = 1


class Median(Strict):
    """Ends a trial whose best epoch so far is worse than the median, over the trials that ended, of their means up to
    that epoch (Golovin et al., Google Vizier, 2017)."""

    name: Literal["median"] = "median"
    epochs: Count = Field(2, description="that every trial may train")
    trials: Count = Field(4, description="that must have ended")


class Contrast(Strict):
    """A comparison after the search: the best trial of each label, trained again with fresh seeds."""

    by: str = Field(description="name of an entry with choices")
    seeds: list[Annotated[int, Field(ge=0, lt=2**32)]] = Field(
        min_length=2, description="one run of each label for each"
    )
    apart: bool = Field(
        False, description="search each label by itself, in turns, so that each gets as many trials (random, bayesian)"
    )


Tuner = Annotated[
    Annotated[Random, Tag("random")]
    | Annotated[Grid, Tag("grid")]
    | Annotated[Bayesian, Tag("bayesian")]
    | Annotated[Hyperband, Tag("hyperband")],
    named("random"),
]


class Search(Strict):
    """A search over the configs that a space makes of one."""

    schema_: str | None = Field(None, alias="$schema")
    notes: str = Field("", description="what it asks, command, cost")
    base: str = Field(description="the config to start from, found from this file")
    set: dict[str, Any] = Field({}, description="fields of every trial and of the result, by dotted path")
    space: list[Entry] = Field(min_length=1)
    tuner: Tuner = Random()
    objective: Literal["val_accuracy", "val_loss"] = Field(
        "val_accuracy", description="on the validation images after the last epoch, mean over executions"
    )
    trials: Count = Field(20, description="at most; hyperband counts its own")
    epochs: Count = Field(description="of a trial; the result has those of the base")
    limit: Count | None = Field(None, description="training images of a trial; the result has those of the base")
    executions: Count = Field(1, description="runs of a trial, with seeds that are the same for all trials")
    seed: Annotated[int, Field(ge=0, lt=2**31)] = Field(0, description="of the search, and of the first execution")
    stopping: Median | None = Field(None, description="ends poor trials early; null: none")
    contrast: Contrast | None = None
    confirm: Annotated[int, Field(ge=0, le=3)] = Field(
        3,
        description="after the search its best trials, so many at most, are trained with the base's epochs and images "
        "and a fresh seed; the first that finishes is best.json. 0: the best trial is, untried",
    )

    @model_validator(mode="after")
    def _entries_fit_together(self):
        names = [entry.name for entry in self.space]
        if len(set(names)) < len(names):
            raise ValueError(
                f"space: two entries are called {next(x for x in names if names.count(x) > 1)!r}; name one"
            )
        for i, entry in enumerate(self.space):
            if entry.path and entry.path.startswith(OWN):
                raise ValueError(f"space.{i}.path: {entry.path} is the same for all trials, and set by the search")
            for parent in entry.when:
                if parent not in names[:i]:
                    known = ", ".join(names[:i]) or "none"
                    raise ValueError(f"space.{i}.when: no entry before it is called {parent!r}; there are {known}")
                labels = self.labels(parent)
                if unknown := [label for label in entry.allowed(parent) if label not in labels]:
                    raise ValueError(f"space.{i}.when.{parent}: {unknown[0]!r} is none of {labels}")
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
            raise ValueError(f"contrast.by: {by!r} has no choices to compare")
        if len(set(seeds)) < len(seeds) or set(seeds) & set(self.seeds):
            raise ValueError(f"contrast.seeds: they must differ, also from {self.seeds} of the search; found {seeds}")
        if self.contrast.apart and self.tuner.name in ("grid", "hyperband"):
            raise ValueError(f"contrast.apart: {self.tuner.name} searches no label by itself")
        if self.contrast.apart and found.when:
            raise ValueError(f"contrast.apart: {by!r} counts only under a condition")
        return self

    @model_validator(mode="after")
    def _stopping_fits(self):
        if self.stopping and self.tuner.name == "hyperband":
            raise ValueError("stopping: hyperband ends poor trials by itself, and excludes it")
        if self.stopping and self.executions > 1:
            raise ValueError(f"stopping judges a trial by one execution; found executions: {self.executions}")
        return self

    @property
    def seeds(self) -> list[int]:
        """Of the executions of each trial."""
        return [self.seed + i for i in range(self.executions)]

    def labels(self, name: str) -> list[Label]:
        entry = next(entry for entry in self.space if entry.name == name)
        return [False, True] if entry.boolean else [choice.label for choice in entry.choices]

    @property
    def maximize(self) -> bool:
        return self.objective == "val_accuracy"

    def hyperparameters(self, **part: Label) -> "HyperParameters":
        """The space as KerasTuner holds it; or the part of it where entries have these labels."""
        from keras_tuner import HyperParameters

        hp, declared = HyperParameters(), set()
        for entry in self.space:
            if all(p in declared and part.get(p, entry.allowed(p)[0]) in entry.allowed(p) for p in entry.when):
                declared.add(entry.name)
                with under(hp, {parent: entry.allowed(parent) for parent in entry.when}):
                    hp.Fixed(entry.name, part[entry.name]) if entry.name in part else entry.declare(hp)
        return hp

    def parts(self) -> dict[Label, "HyperParameters"]:
        """The space of each label that is searched by itself."""
        if not self.contrast or not self.contrast.apart:
            return {}
        return {label: self.hyperparameters(**{self.contrast.by: label}) for label in self.labels(self.contrast.by)}

    def fields(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """What the config's fields become at a point, by dotted path."""
        found = {}
        for entry in self.active(point):
            value = entry.value(point)
            if entry.path and value is not None:
                found[entry.path] = value
        return found

    def active(self, point: Mapping[str, Any]) -> list[Entry]:
        """The entries that count at a point."""
        found: list[Entry] = []
        for entry in self.space:
            parents = {e.name for e in found}
            if all(parent in parents and point.get(parent) in entry.allowed(parent) for parent in entry.when):
                found.append(entry)
        return found

    def check(self, point: Mapping[str, Any]) -> None:
        """
        Raises:
            ValueError: where values are no point of this space.
        """
        for entry in self.space:
            for name in entry.names:
                if name in point and not entry.holds(point[name]):
                    raise ValueError(f"{name}: {point[name]!r} is no value of this entry")
                if name not in point and entry in self.active(point):
                    raise ValueError(f"{name}: it has no value")
        for name, kind in OTHERS.items():
            if name in point and type(point[name]) is not kind:
                raise ValueError(f"{name}: {point[name]!r} is no {kind.__name__}")

    def labelled(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """A point as people read it: labels and numbers by entry, a simplex as its weights."""
        return {e.name: e.value(point) if e.simplex else point[e.name] for e in self.active(point)}

    def trial(self, point: Mapping[str, Any], base: Path) -> Config:
        """The config of a trial."""
        final = FINAL + "seed" in point
        seeds = [point[FINAL + "seed"]] if final else self.seeds
        fields = self.set | self.fields(point) | (JUDGED if final else TRIAL)
        fields |= {"training.seeds": seeds, "training.epochs": self.epochs}
        return _load(base, fields | ({"dataset.limit": self.limit} if self.limit else {}))

    def result(self, point: Mapping[str, Any], base: Path) -> Config:
        """The config of the one run that looks at the test images: all training images, none held out."""
        return _load(base, self.set | self.fields(point) | {"dataset.validation": 0.0})

    def proof(self, point: Mapping[str, Any], base: Path, seed: int) -> Config:
        """The config that tries a result: its epochs and images but for those held out, and no look at test images."""
        return _load(base, self.set | self.fields(point) | TRIAL | {"training.seeds": [seed]})

    def corners(self) -> Iterator[dict[str, Any]]:
        """A point for each end and choice of each entry, the others at their first."""
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


def _load(base: Path, fields: Mapping[str, Any]) -> Config:
    return config.load(base, [f"{path}={json.dumps(value)}" for path, value in fields.items()], "the search:")


def describe(labels: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_short(value)}" for name, value in labels.items())


def _short(value: Any) -> str:
    if isinstance(value, list):
        return "/".join(map(_short, value))
    return f"{value:.4g}" if isinstance(value, float) and math.isfinite(value) else str(value)
