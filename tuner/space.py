"""What a search tries: a space over a config, as JSON, and how a point of it becomes a config. Nothing trains here."""

import contextlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, Tag, ValidationError, model_validator

from zoo import config
from zoo.config import Config, ConfigError, Count, Strict, named
from zoo.grid import Choice

if TYPE_CHECKING:
    from keras_tuner import HyperParameters

TRIAL = {"metrics.test": False, "metrics.report_batch": None}  # no trial looks at the test images
FINAL = "final/"  # what the hyperparameters are called that only the last comparison has

Label = str | bool


class Entry(Strict):
    """One hyperparameter: the values it may have, and where in the config they are put."""

    path: str | None = Field(None, description="of the config's field, dotted; without it others depend on it only")
    name: str = Field("", description="in tables and conditions; by default the path")
    choice: list[Any] | None = Field(
        None, min_length=1, description='values, each alone or as {"label": ..., "value": ...}; null sets nothing'
    )
    int_: Annotated[list[int], Field(min_length=2, max_length=2)] | None = Field(None, alias="int", description="ends")
    float_: Annotated[list[float], Field(min_length=2, max_length=2)] | None = Field(
        None, alias="float", description="ends"
    )
    boolean: Literal[True] | None = None
    simplex: Annotated[int, Field(ge=2)] | None = Field(
        None, description="so many weights, none negative, that sum to 1: any point, all as likely at random"
    )
    log: bool = Field(False, description="of int and float: even in the logarithm")
    when: dict[str, Label | list[Label]] = Field(
        {}, description="labels that entries before this one must have for it to count"
    )

    @model_validator(mode="before")
    @classmethod
    def _is_called_like_its_path(cls, given):
        return {"name": given.get("path"), **given} if isinstance(given, dict) and given.get("path") else given

    @model_validator(mode="after")
    def _one_kind(self):
        kinds: dict[str, Any] = {"choice": self.choice, "int": self.int_, "float": self.float_}
        kinds |= {"boolean": self.boolean, "simplex": self.simplex}
        given = [kind for kind, value in kinds.items() if value is not None]
        if len(given) != 1:
            raise ValueError(f"an entry needs one of {', '.join(kinds)}; found {' and '.join(given) or 'none'}")
        if not self.name:
            raise ValueError("an entry needs a path, or at least a name")
        if (ends := self.int_ or self.float_) and not ends[0] < ends[1]:
            raise ValueError(f"{given[0]} goes from the lower end to the higher; found {ends}")
        if self.log and (not ends or ends[0] <= 0):
            raise ValueError("log is for int or float with ends above 0")
        labels = [choice.label for choice in self.choices]
        if len(set(labels)) < len(labels):
            raise ValueError(f"two choices are called {next(x for x in labels if labels.count(x) > 1)!r}")
        return self

    @property
    def choices(self) -> list[Choice]:
        return [
            Choice.model_validate(value)
            if isinstance(value, dict) and value.keys() == {"label", "value"}
            else Choice(label=str(value), value=value)
            for value in self.choice or ()
        ]

    @property
    def names(self) -> list[str]:
        """What its numbers are called in KerasTuner, which knows no simplex."""
        return [f"{self.name}/{i}" for i in range(self.simplex - 1)] if self.simplex else [self.name]

    def allowed(self, parent: str) -> list[Label]:
        labels = self.when[parent]
        return labels if isinstance(labels, list) else [labels]

    def declare(self, hp: "HyperParameters") -> None:
        if self.simplex:
            for name in self.names:
                hp.Float(name, 0.0, 1.0)
        elif self.boolean:
            hp.Boolean(self.name)
        elif self.choice:
            hp.Choice(self.name, [choice.label for choice in self.choices], ordered=False)
        elif ends := self.int_ or self.float_:
            kind: Any = hp.Int if self.int_ else hp.Float
            kind(self.name, *ends, sampling="log" if self.log else "linear")

    def value(self, point: Mapping[str, Any]) -> Any:
        """What it puts into the config, at a point where it is active."""
        if self.simplex:
            return simplex([point[name] for name in self.names])
        if self.choice:
            return next(choice.value for choice in self.choices if choice.label == point[self.name])
        return point[self.name]


@contextlib.contextmanager
def under(hp: "HyperParameters", parents: Mapping[str, Sequence[Label]]) -> Iterator[None]:
    """Makes hyperparameters active where each parent has one of its values.

    KerasTuner's `conditional_scope` nests only where each parent is declared under the one before.
    """
    from keras_tuner.src.engine.conditions import Parent

    hp._conditions = [Parent(name, list(values)) for name, values in parents.items()]
    try:
        yield
    finally:
        hp._conditions = []


def simplex(numbers: Sequence[float]) -> list[float]:
    """n numbers of [0, 1], uniform and independent, as n + 1 weights, uniform on the simplex.

    A stick is broken n times: w_i = r_i (1 - u_i^(1 / (n - i))) for i = 0 ... n - 1, where r_i is what is left of it,
    and the last weight is the rest (Devroye, Non-Uniform Random Variate Generation, 1986, chapter XI.4).
    """
    weights, rest = [], 1.0
    for i, number in enumerate(numbers):
        kept = number ** (1 / (len(numbers) - i))
        weights.append(rest * (1 - kept))
        rest *= kept
    return [*weights, rest]


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

    @model_validator(mode="after")
    def _fits_together(self):
        names = [entry.name for entry in self.space]
        if len(set(names)) < len(names):
            raise ValueError(
                f"space: two entries are called {next(x for x in names if names.count(x) > 1)!r}; name one"
            )
        for i, entry in enumerate(self.space):
            for parent in entry.when:
                if parent not in names[:i]:
                    known = ", ".join(names[:i]) or "none"
                    raise ValueError(f"space.{i}.when: no entry before it is called {parent!r}; there are {known}")
                labels = self.labels(parent)
                if unknown := [label for label in entry.allowed(parent) if label not in labels]:
                    raise ValueError(f"space.{i}.when.{parent}: {unknown[0]!r} is none of {labels}")
        if self.contrast and self.contrast.by not in names:
            raise ValueError(f"contrast.by: no entry is called {self.contrast.by!r}; there are {', '.join(names)}")
        if self.contrast and len(self.labels(self.contrast.by)) < 2:
            raise ValueError(f"contrast.by: {self.contrast.by!r} has no choices to compare")
        if self.stopping and self.tuner.name == "hyperband":
            raise ValueError("stopping: hyperband ends poor trials by itself, and excludes it")
        if self.stopping and self.executions > 1:
            raise ValueError(f"stopping judges a trial by one execution; found executions: {self.executions}")
        return self

    def labels(self, name: str) -> list[Label]:
        entry = next(entry for entry in self.space if entry.name == name)
        return [False, True] if entry.boolean else [choice.label for choice in entry.choices]

    @property
    def maximize(self) -> bool:
        return self.objective == "val_accuracy"

    def hyperparameters(self) -> "HyperParameters":
        """The space as KerasTuner holds it."""
        from keras_tuner import HyperParameters

        hp = HyperParameters()
        for entry in self.space:
            with under(hp, {parent: entry.allowed(parent) for parent in entry.when}):
                entry.declare(hp)
        return hp

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
            if all(parent in parents and point[parent] in entry.allowed(parent) for parent in entry.when):
                found.append(entry)
        return found

    def labelled(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """A point as people read it: labels and numbers by entry, a simplex as its weights."""
        return {e.name: e.value(point) if e.simplex else point[e.name] for e in self.active(point)}

    def trial(self, point: Mapping[str, Any], base: Path) -> Config:
        """The config of a trial."""
        seeds = [self.seed + i for i in range(self.executions)]
        if FINAL + "seed" in point:
            seeds = [point[FINAL + "seed"]]
        fields = self.set | self.fields(point) | TRIAL
        fields |= {"training.seeds": seeds, "training.epochs": self.epochs}
        return _load(base, fields | ({"dataset.limit": self.limit} if self.limit else {}))

    def result(self, point: Mapping[str, Any], base: Path) -> Config:
        """The config of the one run that looks at the test images: all training images, none held out."""
        return _load(base, self.set | self.fields(point) | {"dataset.validation": 0.0})

    def corners(self) -> Iterator[dict[str, Any]]:
        """A point for each end and choice of each entry, the others at their first."""
        for entry in self.space:
            for value in _ends(entry):
                point: dict[str, Any] = {}
                for other in self.space:
                    point |= dict.fromkeys(other.names, _ends(other)[0])
                self._activate(entry, point)
                yield point | dict.fromkeys(entry.names, value)

    def _activate(self, entry: Entry, point: dict[str, Any]) -> None:
        for parent in entry.when:
            point[parent] = entry.allowed(parent)[0]
            self._activate(next(e for e in self.space if e.name == parent), point)


def _ends(entry: Entry) -> list[Any]:
    if entry.choice:
        return [choice.label for choice in entry.choices]
    return [False, True] if entry.boolean else (entry.int_ or entry.float_ or [0.0, 1.0])


def _load(base: Path, fields: Mapping[str, Any]) -> Config:
    return config.load(base, [f"{path}={json.dumps(value)}" for path, value in fields.items()], "the search:")


def load(path: Path) -> Search:
    """Reads a search, and tries its ends on its base.

    Raises:
        ConfigError: for a mistake in it, or in a config that it makes.
    """
    content = config.read_object(path)
    search = parse(content, str(path))
    base = path.parent / search.base
    for point in search.corners():
        try:
            found = search.trial(point, base)
            search.result(point, base)
        except ConfigError as error:
            raise ConfigError(f"{path}: at {describe(search.labelled(point))}: {error}") from None
        if not found.dataset.validation:
            raise ConfigError(f"{path}: dataset.validation: a search needs images held out; found 0")
    return search


def parse(content: dict[str, Any], origin: str) -> Search:
    """
    Raises:
        ConfigError: where it is no search.
    """
    try:
        return Search.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = [str(key) for key in first["loc"] if key not in ("random", "grid", "bayesian", "hyperband")]
        what = f"{first['msg'].removeprefix('Value error, ')}; found {json.dumps(first['input'], default=str)[:80]}"
        if first["type"] == "extra_forbidden":
            model: Any = {"space": Entry, "contrast": Contrast, "stopping": Median}.get(where[0], Search)
            fields = [field.alias or name for name, field in model.model_fields.items()]
            what = config.unknown(where[-1], fields) if where[0] != "tuner" else f"unknown field {where[-1]!r}"
        elif first["type"] == "value_error":
            what = first["msg"].removeprefix("Value error, ")
        elif first["type"] == "missing":
            what = "this field is needed"
        raise ConfigError(": ".join(filter(None, [origin, ".".join(where), what]))) from None


def describe(labels: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_short(value)}" for name, value in labels.items())


def _short(value: Any) -> str:
    if isinstance(value, list):
        return "/".join(map(_short, value))
    return f"{value:.4g}" if isinstance(value, float) and math.isfinite(value) else str(value)
