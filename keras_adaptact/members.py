"""What a mixture is made of: its members, each with a formula, and their weighted sum."""

import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras

from keras_adaptact import functional
from keras_adaptact.activations import plain_function, serialize_function
from keras_adaptact.base import TrainableActivation
from keras_adaptact.parameters import Slot
from keras_adaptact.registry import get, lookup


@dataclass(frozen=True)
class Member:
    """A member of a mixture.

    Attributes:
        name: `"tanh"`, or `"tanh_2"` for a second one.
        formula: ``f(z, *parameters)`` in `keras.ops`.
        spec: the name, function or layer that it was made of.
        parameters: what each of its parameters is called in the mixture: `{"a": "atanh_a", ...}`.
    """

    name: str
    formula: Callable
    slots: tuple[Slot, ...]
    spec: Any

    @property
    def parameters(self) -> dict[str, str]:
        return {slot.name: f"{self.name}_{slot.name}" for slot in self.slots}

    @classmethod
    def make(cls, spec, granularity: str) -> "Member":
        if isinstance(spec, dict) and spec.keys() == {"name"}:
            spec = spec["name"]
        layer = layer_of(spec)
        if layer is None:
            function = plain_function(spec)
            name = spec if isinstance(spec, str) else getattr(function, "__name__", type(function).__name__).strip("<>")
            return cls(name, function, (), spec if isinstance(spec, str) else function)
        if not isinstance(layer, TrainableActivation) or isinstance(layer.formula, WeightedSum):
            raise ValueError(
                "A member of a mixture is a plain function or one of the library's trainable activations, not "
                f"another mixture or layer. Received: {spec!r}"
            )
        if layer.activity_regularizer is not None:
            raise ValueError(
                f"A member of a mixture has no activity regularizer, which sees a layer. Received: {spec!r}"
            )
        if others := [variable.name for variable in layer._other_variables()]:
            raise ValueError(
                "A mixture makes parameters of its own for a member, which has no other variables. Received: "
                f"{spec!r}, which has {', '.join(others)}"
            )
        if layer.granularity == "channel" and granularity == "layer":
            raise ValueError(
                f'A member can\'t have granularity="channel" in a mixture of granularity="layer". Received: {spec!r}'
            )
        slots = tuple(slot if layer.trainable else replace(slot, trainable=False) for slot in layer._slots)
        return cls(type(layer).__name__.lower(), layer.formula, slots, spec if isinstance(spec, str) else layer)

    def written(self) -> Any:
        """What a configuration says of it."""
        is_layer = isinstance(self.spec, keras.layers.Layer)
        return keras.saving.serialize_keras_object(self.spec) if is_layer else serialize_function(self.spec)


@dataclass(frozen=True)
class WeightedSum:
    """The formula of a mixture: of the members' parameters in order, then the weights.

    A member that is linear in some of its parameters takes its weight there (`weighted`), which spares the backward
    pass sums: method 1 has eleven different ones left, of fifteen parameters.
    """

    members: tuple[tuple[Callable, int], ...]  # each formula, and how many parameters it takes

    def __call__(self, z, *values):
        parameters, weights = iter(values[: -len(self.members)]), values[-len(self.members) :]
        terms = []
        for (formula, count), weight in zip(self.members, weights, strict=True):
            own = [next(parameters) for _ in range(count)]
            weighted = getattr(formula, "weighted", None)
            terms.append(weighted(z, weight, *own) if weighted else weight * functional.portable(formula)(z, *own))
        return functools.reduce(operator.add, terms)

    def with_formulas(self, change: Callable[[Callable], Callable]) -> "WeightedSum":
        """The same of formulas that `change` makes of the members'."""
        return replace(self, members=tuple((change(formula), count) for formula, count in self.members))


def layer_of(spec) -> keras.layers.Layer | None:
    """The layer that a member's spec stands for, or None where it stands for a function."""
    if isinstance(spec, dict) and "class_name" in spec:
        spec = keras.saving.deserialize_keras_object(spec)
    if isinstance(spec, keras.layers.Layer):
        return spec
    if isinstance(spec, str) and not isinstance(lookup(spec), type | Mapping | keras.layers.Layer):
        return None
    is_function = callable(spec) and not isinstance(spec, type)
    return None if is_function else get(spec, name="member")


def numbered(names: Sequence[str]) -> list[str]:
    """Makes names unique: tanh, tanh_2, tanh_3."""
    return [name if (n := names[:i].count(name)) == 0 else f"{name}_{n + 1}" for i, name in enumerate(names)]
