"""An entry of a search space: the values that it can have, and how KerasTuner draws them."""

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
    """A hyperparameter: its possible values, and the field of the config that they set."""

    path: str | None = Field(
        None, description="dotted path of the field; without it the entry only serves as a condition"
    )
    name: str = Field("", description="for tables and conditions; by default the path")
    choice: list[Any] | None = Field(
        None,
        min_length=1,
        description='values, each alone or as {"label": ..., "value": ...}; null leaves the field unset',
    )
    int_: Annotated[list[int], Field(min_length=2, max_length=2)] | None = Field(
        None, alias="int", description="bounds, both included"
    )
    float_: Annotated[list[float], Field(min_length=2, max_length=2)] | None = Field(
        None, alias="float", description="bounds"
    )
    boolean: Literal[True] | None = Field(None, description="true: the values are true and false")
    simplex: Annotated[int, Field(ge=2, le=64)] | None = Field(
        None, description="number of weights, none negative, that sum to 1; drawn uniformly from the simplex"
    )
    log: bool = Field(False, description="for int and float: sample on a logarithmic scale")
    when: dict[str, Label | Annotated[list[Label], Field(min_length=1)]] = Field(
        {}, description="labels that earlier entries must have for this one to be active"
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
            raise ValueError(f"a name can't contain a slash; found {self.name!r}")
        if (ends := self.int_ or self.float_) and not ends[0] < ends[1]:
            raise ValueError(f"{given[0]} needs a lower and a higher bound, in this order; found {ends}")
        if self.log and (not ends or ends[0] <= 0):
            raise ValueError("log is for int or float with positive bounds")
        labels = [choice.label for choice in self.choices]
        if len(set(labels)) < len(labels):
            raise ValueError(f"two choices have the label {next(x for x in labels if labels.count(x) > 1)!r}")
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
        """The names of its values in KerasTuner, which has no simplex."""
        return [f"{self.name}/{i}" for i in range(self.simplex - 1)] if self.simplex else [self.name]

    @property
    def ends(self) -> list[Any]:
        """All choices; for numbers the bounds."""
        if self.choice:
            return [choice.label for choice in self.choices]
        return [False, True] if self.boolean else (self.int_ or self.float_ or [0.0, 1.0])

    def holds(self, value: Any) -> bool:
        """Whether this is a possible value; for a simplex, of one of its numbers."""
        if self.choice or self.boolean:
            return any(type(value) is type(label) and value == label for label in self.ends)
        low, high = self.int_ or self.float_ or (0.0, 1.0)
        kinds = (int,) if self.int_ else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds):
            return False
        return low <= value <= high or math.isclose(value, low) or math.isclose(value, high)  # rounding of logarithms

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
        """The value of its field, at a point where it is active."""
        if self.simplex:
            return simplex([point[name] for name in self.names])
        if self.choice:
            return next(choice.value for choice in self.choices if choice.label == point[self.name])
        return point[self.name]


@contextlib.contextmanager
def under(hp: "HyperParameters", parents: Mapping[str, Sequence[Label]]) -> Iterator[None]:
    """Hyperparameters declared in the context are active if each parent has one of its values.

    KerasTuner's `conditional_scope` only nests if each parent was declared under the previous one.
    """
    from keras_tuner.src.engine.conditions import Parent

    hp._conditions = [Parent(name, list(values)) for name, values in parents.items()]
    try:
        yield
    finally:
        hp._conditions = []


def simplex(numbers: Sequence[float]) -> list[float]:
    """Maps n independent uniform numbers of [0, 1] to n + 1 weights, uniform on the simplex.

    A stick is broken n times: w_i = r_i (1 - u_i^(1 / (n - i))) for i = 0 ... n - 1, where r_i is what is left of it;
    the last weight is the rest (Devroye, Non-Uniform Random Variate Generation, 1986, chapter XI.4).
    """
    weights, rest = [], 1.0
    for i, number in enumerate(numbers):
        kept = number ** (1 / (len(numbers) - i))
        weights.append(rest * (1 - kept))
        rest *= kept
    return [*weights, rest]
