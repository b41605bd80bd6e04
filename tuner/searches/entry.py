"""One entry of a search's space: the values it may have, and how KerasTuner draws them."""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from zoo.config.schema import Strict
from zoo.sweeps.grid import Choice

if TYPE_CHECKING:
    from keras_tuner import HyperParameters

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
    simplex: Annotated[int, Field(ge=2, le=64)] | None = Field(
        None, description="so many weights, none negative, that sum to 1: any point, all as likely at random"
    )
    log: bool = Field(False, description="of int and float: even in the logarithm")
    when: dict[str, Label | Annotated[list[Label], Field(min_length=1)]] = Field(
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
        if "/" in self.name:
            raise ValueError(f"a name has no slash, which numbers of a simplex have; found {self.name!r}")
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

    @property
    def ends(self) -> list[Any]:
        """Every choice; of numbers the ends, of each where there are several."""
        if self.choice:
            return [choice.label for choice in self.choices]
        return [False, True] if self.boolean else (self.int_ or self.float_ or [0.0, 1.0])

    def holds(self, value: Any) -> bool:
        """Whether it may have this value: of a simplex, whether one of its numbers may."""
        if self.choice or self.boolean:
            return any(type(value) is type(label) and value == label for label in self.ends)
        low, high = self.int_ or self.float_ or (0.0, 1.0)
        kinds = (int,) if self.int_ else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds):
            return False
        return low <= value <= high or math.isclose(value, low) or math.isclose(value, high)  # logarithms round

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
