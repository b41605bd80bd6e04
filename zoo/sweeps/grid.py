"""The schema of a sweep: a base config and axes, which expand to runs with stable names."""

import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from zoo import config
from zoo.config.schema import Config, Strict, network, unknown_field
from zoo.errors import ConfigError

Output = Literal["table1", "table2", "table3", "table4", "table5", "figure1", "figure2", "figure3", "figure4", "sound"]
SHORT = {"seed": "training.seeds"}  # short names of axes, with the fields that they set


class Choice(Strict):
    """One value of an axis, with its label in tables and folders."""

    label: str
    value: Any


Pair = Annotated[list[str], Field(min_length=2, max_length=2)]


class Comparisons(Strict):
    """The comparisons that a sweep plans in advance: pairs of its activations, the second one the reference.

    The report corrects for all of them as one family. By default each activation is compared with the baseline, and
    each adaptive one with its fixed counterpart.
    """

    primary: Pair | None = Field(None, description='the question: ["method1", "relu"] is method 1 minus ReLU')
    secondary: list[Pair] = Field([], description="further questions")
    baseline: str | None = Field(
        None,
        description="the activation without which nothing can be compared; null: the reference of the primary one, "
        "or relu",
    )
    paired: bool = Field(False, description="whether seeds pair the runs of two activations by design, as folds would")
    tuned: str | None = Field(
        None,
        description="an axis such as training.optimizer.learning_rate: each activation is judged, on test images, "
        "at its value with the best mean accuracy on validation images",
    )
    effort: str = Field("", description="how each activation was tuned before this sweep, for the report")

    @property
    def pairs(self) -> list[list[str]]:
        return ([self.primary] if self.primary else []) + self.secondary

    @model_validator(mode="after")
    def _each_is_one_question(self):
        for i, pair in enumerate(self.pairs):
            if pair[0] == pair[1] or pair in self.pairs[:i] or pair[::-1] in self.pairs[:i]:
                raise ValueError(f"a comparison needs two different activations, and can be listed once; found {pair}")
        return self


class Sweep(Strict):
    """Runs along some axes."""

    schema_: str | None = Field(None, alias="$schema")
    notes: str = Field("", description="what it is for, how many runs it has, measured hours on a named device")
    outputs: list[Output] = Field([], description="which of the report's tables and figures it fills")
    parts: list[str] = Field([], description="instead of base and axes: other sweeps to join, relative to this file")
    base: str | list[str] = Field([], description="a config, or one for each network, relative to this file")
    set: dict[str, Any] = Field({}, description="fields of every run, of parts too, by dotted path")
    axes: dict[str, list[Any]] = Field(
        {},
        description="values by dotted path, the first axis varies slowest; activation takes names, seed a single seed; "
        '{"label": ..., "value": ...} labels a value',
    )
    exclude: list[dict[str, list[str]]] = Field(
        [], description="runs to leave out: those with one of these labels on each axis"
    )
    comparisons: Comparisons = Field(Comparisons(), description="what the report tests")

    @model_validator(mode="after")
    def _joins_or_makes_runs(self):
        if bool(self.parts) == bool(self.base):
            raise ValueError("a sweep needs either base, or parts")
        if self.parts and (self.axes or self.exclude or self.outputs or self.comparisons != Comparisons()):
            raise ValueError("a sweep of parts can't have axes, exclude, outputs or comparisons")
        return self


@dataclass(frozen=True)
class Planned:
    """A run of a sweep: the name of its folder, its label on each axis, its config, and what it is for."""

    name: str
    labels: dict[str, str]
    config: Config
    outputs: tuple[str, ...]


def load(path: Path, fields: dict[str, Any] | None = None) -> tuple[Sweep, list[Planned]]:
    """Reads a sweep and expands it.

    Args:
        path: of the sweep.
        fields: of every run by dotted path, in place of the sweep's own.

    Raises:
        ConfigError: for a mistake in it, or in one of its configs.
    """
    content = config.read_object(path)
    try:
        sweep = Sweep.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        dotted = ".".join(str(key) for key in first["loc"])
        what = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            what = unknown_field(dotted, Sweep.model_fields)
        raise ConfigError(f"{path}: {dotted}: {what}" if dotted else f"{path}: {what}") from None
    if axis := next((axis for axis in sweep.axes if SHORT.get(axis, axis) in (fields or {})), None):
        raise ConfigError(f"{path}: axes.{axis}: can't be an axis of a part where the sweep of parts sets it")
    fields = sweep.set | (fields or {})
    every = list(_expand(path, sweep, fields)) if sweep.base else []
    _check_exclude(path, sweep, every)
    _check_comparisons(path, sweep, every)
    planned = [run for run in every if not any(_matches(run, rule) for rule in sweep.exclude)]
    stems = [Path(part).stem for part in sweep.parts]
    if same := next((stem for stem in stems if stems.count(stem) > 1), None):
        raise ConfigError(f"{path}: parts: two are called {same}, which couldn't be told apart; rename one")
    for part in sweep.parts:
        inside = path.parent / part
        if config.read_object(inside).get("parts"):
            raise ConfigError(f"{path}: parts: {inside} has parts itself, which can't be nested")
        for run in load(inside, fields)[1]:
            planned.append(
                replace(run, name=f"{file_name(inside.stem)}--{run.name}", labels=run.labels | {"sweep": inside.stem})
            )
    names = [run.name for run in planned]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise ConfigError(f"{path}: two runs are named {twice}; give the values of the axes different labels")
    if not planned:
        raise ConfigError(f"{path}: no run is left; check axes and exclude")
    return sweep, planned


def _expand(path: Path, sweep: Sweep, common: dict[str, Any]) -> Iterator[Planned]:
    axes = {axis: [_choice(path, axis, value) for value in values] for axis, values in sweep.axes.items()}
    bases = [sweep.base] if isinstance(sweep.base, str) else sweep.base
    for axis, choices in axes.items():
        if not choices:
            raise ConfigError(f"{path}: axes.{axis}: an axis needs at least one value")
    for chosen in itertools.product(*axes.values()):
        for base in bases:
            fields = common | {SHORT.get(axis, axis): choice.value for axis, choice in zip(axes, chosen, strict=True)}
            overrides = [f"{field}={json.dumps(value)}" for field, value in fields.items()]
            found = config.load(path.parent / base, overrides, f"{path}:")
            if len(found.training.seeds) > 1:
                raise ConfigError(
                    f"{path}: training.seeds: a run of a sweep has one seed; found {found.training.seeds}; "
                    'give the sweep an axis "seed"'
                )
            labels = {axis: choice.label for axis, choice in zip(axes, chosen, strict=True)}
            name = "--".join([file_name(Path(base).stem), *(_named(axis, label) for axis, label in labels.items())])
            origin = {"model": network(found.model)} | ({"base": Path(base).stem} if len(bases) > 1 else {})
            yield Planned(name, origin | labels, found, tuple(sweep.outputs))


def _check_exclude(path: Path, sweep: Sweep, every: list[Planned]) -> None:
    for rule in sweep.exclude:
        for axis, labels in rule.items():
            known = {run.labels[axis] for run in every if axis in run.labels}
            if not known:
                raise ConfigError(f"{path}: exclude.{axis}: no such axis; the axes are {', '.join(every[0].labels)}")
            if unknown := sorted(set(labels) - known):
                raise ConfigError(
                    f"{path}: exclude.{axis}: no value of this axis has the label {unknown[0]!r}; there are "
                    f"{', '.join(sorted(known))}"
                )


def _check_comparisons(path: Path, sweep: Sweep, every: list[Planned]) -> None:
    asked = sweep.comparisons
    labels = [run.labels.get("activation", run.labels.get("activation.name", "")) for run in every]
    named = [label for pair in asked.pairs for label in pair] + ([asked.baseline] if asked.baseline else [])
    if unknown := next((label for label in named if label not in labels), None):
        known = ", ".join(dict.fromkeys(filter(None, labels))) or "none"
        raise ConfigError(f"{path}: comparisons: the sweep has no activation {unknown!r}; there are {known}")
    if asked.tuned and asked.tuned not in sweep.axes:
        raise ConfigError(f"{path}: comparisons.tuned: no axis {asked.tuned}; the axes are {', '.join(sweep.axes)}")


def plans(path: Path, sweep: Sweep) -> dict[str, dict[str, Any]]:
    """The comparisons of each part of a sweep by name, as JSON; under "" without parts."""
    parts = {Path(part).stem: load(path.parent / part, sweep.set)[0] for part in sweep.parts} or {"": sweep}
    return {name: part.comparisons.model_dump() for name, part in parts.items()}


def _choice(path: Path, axis: str, value: Any) -> Choice:
    """The label and the value of an item of an axis."""
    label = None
    if isinstance(value, dict) and value.keys() == {"label", "value"}:
        label, value = str(value["label"]), value["value"]
    if isinstance(value, dict | list) and label is None:
        raise ConfigError(
            f'{path}: axes.{axis}: a list or an object needs a label: {{"label": ..., "value": ...}}; found '
            f"{json.dumps(value)[:80]}"
        )
    label = str(value) if label is None else label
    if axis == "activation" and isinstance(value, str):
        value = {"name": value}
    return Choice(label=label, value=[value] if axis == "seed" else value)


def _named(axis: str, label: str) -> str:
    text = label if axis == "activation" else f"{axis.rpartition('.')[2]}-{label}"
    return file_name(text)


def file_name(text: str) -> str:
    return re.sub(r"^\.|[^A-Za-z0-9._-]+", "_", text)


def _matches(run: Planned, rule: dict[str, list[str]]) -> bool:
    return all(run.labels.get(axis) in labels for axis, labels in rule.items())


def only(planned: list[Planned], conditions: list[str]) -> list[Planned]:
    """The runs that meet every condition such as `model=lenet` or `activation=relu,arelu`.

    Raises:
        ConfigError: for a condition that isn't on an axis, or that no run meets.
    """
    for condition in conditions:
        axis, equals, labels = condition.partition("=")
        known = sorted({run.labels[axis] for run in planned if axis in run.labels})
        if not equals or not known:
            raise ConfigError(f"--only {condition}: expected AXIS=LABEL; the axes are {', '.join(planned[0].labels)}")
        if unknown := sorted(set(labels.split(",")) - set(known)):
            raise ConfigError(f"--only {condition}: no run left has {axis} {unknown[0]}; there are {', '.join(known)}")
        planned = [run for run in planned if run.labels.get(axis) in labels.split(",")]
    return planned
