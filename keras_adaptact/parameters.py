"""The parameters of an activation: how a class declares them, and what Keras does to each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from keras import ops

SETTINGS = ("initializer", "regularizer", "constraint", "trainable")  # of a parameter: `a_initializer` and so on
SUFFIXES = tuple(f"_{setting}" for setting in SETTINGS)


class Parameter:
    """Declares a trainable parameter of an activation class: ``a = Parameter(1.0)``.

    On a layer it reads as a NumPy array of shape () or (channels,), and can be assigned to.

    Args:
        initial: the value that it starts with, unless the layer is given an initializer for it.
        constraint: a Keras constraint that holds unless the layer is given one of its own.
        shared: whether it has one value for all channels where others have one for each. Default: False.
    """

    def __init__(self, initial: float, constraint: keras.constraints.Constraint | None = None, *, shared: bool = False):
        self.initial, self.constraint, self.shared = initial, constraint, shared

    def __set_name__(self, owner, name):
        self.name = name

    def __get__(self, layer, owner=None):
        return self if layer is None else layer.get_parameters()[self.name]

    def __set__(self, layer, value):
        layer.set_parameters(**{self.name: value})


@keras.saving.register_keras_serializable(package="keras_adaptact")
class Between(keras.constraints.Constraint):
    """Constraint ``w <- min(max(w, minimum), maximum)``; a NaN stays NaN, so that a divergence shows."""

    def __init__(self, minimum: float, maximum: float = 1e4):
        self.minimum, self.maximum = minimum, maximum

    def __call__(self, w):
        w = ops.convert_to_tensor(w)
        return ops.where(ops.isnan(w), w, ops.clip(w, self.minimum, self.maximum))

    def __repr__(self):
        return f"Between({self.minimum:g}, {self.maximum:g})"

    def get_config(self):
        return {"minimum": self.minimum, "maximum": self.maximum}


@dataclass(frozen=True)
class Slot:
    """A parameter: its name, what Keras does to it, and whether it is trained where its layer is.

    A `shared` one has one value for all channels.
    """

    name: str
    initializer: Callable
    regularizer: Callable | None = None
    constraint: Callable | None = None
    trainable: bool = True
    shared: bool = False

    @classmethod
    def make(cls, name, initial, initializer=None, regularizer=None, constraint=None, trainable=True, shared=False):
        if not isinstance(trainable, bool):
            raise ValueError(f"`{name}_trainable` must be True or False. Received: {trainable!r}")
        if initializer is None:
            initializer = initial
        if isinstance(initializer, int | float | list | tuple | np.ndarray):
            initializer = keras.initializers.Constant(np.asarray(initializer).tolist())
        return cls(
            name,
            keras.initializers.get(initializer),
            keras.regularizers.get(regularizer),
            keras.constraints.get(constraint),
            trainable,
            shared,
        )

    def renamed(self, name: str, kwargs: dict) -> "Slot":
        """The same under another name, with settings for that name taken out of `kwargs`."""
        chosen = {s: getattr(self, s) for s in SETTINGS}
        chosen |= {s: kwargs.pop(f"{name}_{s}") for s in SETTINGS if f"{name}_{s}" in kwargs}
        return Slot.make(name, None, **chosen, shared=self.shared)

    def check(self, shape: tuple[int, ...]):
        """Refuses an initial value of another shape, or out of the bounds that a constraint holds it in."""
        if not isinstance(self.initializer, keras.initializers.Constant):
            return
        value = np.asarray(self.initializer.value)
        if value.ndim and value.shape != shape:
            raise ValueError(f"`{self.name}_initializer` must be one number, or of shape {shape}. Received: {value}")
        self.check_bounds(value)

    def check_bounds(self, value: np.ndarray):
        bounds = self.constraint
        if isinstance(bounds, Between) and not np.all((value >= bounds.minimum) & (value <= bounds.maximum)):
            raise ValueError(f"`{self.name}` lies between {bounds.minimum} and {bounds.maximum}. Received: {value}")

    def settings(self) -> dict:
        return {
            f"{self.name}_initializer": keras.initializers.serialize(self.initializer),
            f"{self.name}_regularizer": keras.regularizers.serialize(self.regularizer),
            f"{self.name}_constraint": keras.constraints.serialize(self.constraint),
            f"{self.name}_trainable": self.trainable,
        }


def hold_others(slots: Sequence[Slot], trained: Sequence[str]) -> list[Slot]:
    """The slots, of which those named are trained and no others."""
    known = [slot.name for slot in slots]
    if isinstance(trained, str) or not set(trained) <= set(known):
        raise ValueError(
            f"`trainable_parameters` must be a list of names of parameters, among {', '.join(known) or 'none'}. "
            f"Received: {trained!r}"
        )
    return [replace(slot, trainable=slot.name in trained) for slot in slots]


def initialize_rows(slots: Sequence[Slot]) -> Callable:
    """The initializer of rows of parameters, of shape (slots, ...)."""
    return lambda shape, dtype=None: ops.stack([slot.initializer(shape[1:], dtype=dtype) for slot in slots])


def regularize_rows(slots: Sequence[Slot]) -> Any:
    if all(slot.regularizer is None for slot in slots):
        return None
    return lambda rows: sum(slot.regularizer(rows[i]) for i, slot in enumerate(slots) if slot.regularizer is not None)


def constrain_rows(slots: Sequence[Slot]) -> Any:
    if all(slot.constraint is None for slot in slots):
        return None
    parts = [(slice(i, i + 1), slot.constraint or (lambda row: row)) for i, slot in enumerate(slots)]
    return lambda rows: ops.concatenate([constraint(rows[part]) for part, constraint in parts])


def constrained(variable: keras.Variable, value: Any = None) -> Any:
    """What a variable's constraint makes of its value, or of another one."""
    value = ops.stop_gradient(variable.value) if value is None else value
    return value if variable.constraint is None else variable.constraint(value)


def described(values: dict[str, np.ndarray]) -> str:
    """``a=1.3, b=0.1..0.4``: a value, or the smallest and the largest of those of channels."""
    texts = []
    for name, value in values.items():
        ends = [f"{end:.4g}" for end in (np.min(value), np.max(value))]
        texts.append(f"{name}={'..'.join(dict.fromkeys(ends))}")
    return ", ".join(texts)
