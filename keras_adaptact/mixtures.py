"""Mixtures of activations, with weights that are learned or held fixed."""

import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_adaptact import functional
from keras_adaptact.activations import plain_function, serialize_function
from keras_adaptact.base import TrainableActivation
from keras_adaptact.parameters import SETTINGS, Between, Slot, hold_others
from keras_adaptact.registry import get, lookup, register

_serializable = keras.saving.register_keras_serializable(package="keras_adaptact")


@dataclass(frozen=True)
class Normalization:
    """How raw weights become mixing weights, where they start, and the bounds that they are held in."""

    function: Callable
    initial: Callable[[int], float]
    constraint: Between | None = None


NORMALIZATIONS = {
    "sum": Normalization(functional.normalize_sum, lambda k: 1.0, Between(1e-3)),
    "softmax": Normalization(functional.normalize_softmax, lambda k: 0.0),
    "none": Normalization(lambda raw: raw, lambda k: 1 / k),
}


@dataclass(frozen=True)
class Member:
    """A term of a mixture: its formula and its parameters, which the mixture keeps for it."""

    name: str
    formula: Callable
    slots: tuple[Slot, ...]
    source: Any  # the name, function or layer that it was made of

    @classmethod
    def make(cls, spec, granularity: str) -> "Member":
        if isinstance(spec, dict) and spec.keys() == {"name"}:
            spec = spec["name"]
        layer = layer_of(spec)
        if layer is None:
            function = plain_function(spec)
            name = spec if isinstance(spec, str) else getattr(function, "__name__", type(function).__name__).strip("<>")
            return cls(name, function, (), spec if isinstance(spec, str) else function)
        if isinstance(layer, Mixture) or not isinstance(layer, TrainableActivation):
            raise ValueError(
                "A member of a mixture is a plain function or one of the library's trainable activations, not "
                f"another mixture or layer. Received: {spec!r}"
            )
        if layer.granularity == "channel" and granularity == "layer":
            raise ValueError(
                f'A member can\'t have granularity="channel" in a mixture of granularity="layer". Received: {spec!r}'
            )
        slots = tuple(slot if layer.trainable else replace(slot, trainable=False) for slot in layer._slots)
        return cls(type(layer).__name__.lower(), layer.formula, slots, spec if isinstance(spec, str) else layer)

    def written(self) -> Any:
        """What a configuration says of it."""
        is_layer = isinstance(self.source, keras.layers.Layer)
        return keras.saving.serialize_keras_object(self.source) if is_layer else serialize_function(self.source)


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


@register("mixture")
@_serializable
class Mixture(TrainableActivation):
    """Weighted sum of activations, ``w1 f1(z) + w2 f2(z) + ...``.

    ```python
    x = ka.Mixture(["tanh", "sigmoid", "relu"])(x)                                # learned weights
    x = ka.Mixture(["tanh", "sigmoid", "relu"], weights=[1 / 3, 1 / 3, 1 / 3])(x)  # held fixed
    x = ka.Mixture(["gelu", ka.ATanh(), "sin"], normalization="softmax")(x)
    ```

    Args:
        members: the activations: names, plain functions, or trainable activations, of which a mixture takes
            the formula and the settings (`trainable=False` too), and makes parameters of its own.
        weights: `"learned"`, or one fixed number for each member, used as given.
        normalization: what makes mixing weights of learned raw ones. `"sum"`: raw / sum(raw), where a constraint
            holds raw weights between 1e-3 and 1e4, so that it stays finite (with optimizers other than Keras's
            `apply_constraints` does); `"softmax"`; or `"none"`. All start as equal weights, 1/k. Fixed weights are
            not normalized.
        weights_trainable: whether the raw weights are trained; by default, whether they are learned. Can also be
            set later (then compile the model again): freezing or freeing them leaves the mixture as it is.
        weights_initializer, weights_regularizer, weights_constraint: of each raw weight, as for other parameters.
            With `"sum"`, the bounds hold beside a constraint of yours.

    The other arguments, shapes, dtypes and errors are those of `TrainableActivation`. With
    `granularity="channel"` each channel has its own mixing weights, and its own parameters of the members.
    The parameters of the members are named after them (`atanh_a`; of a second one `atanh_2_a`), and take settings as
    all do (`atanh_a_initializer`). The raw weights are named `weights`, of shape (members,) or (members, channels),
    and lie in a variable of their own, the same whether learned or fixed. A file's raw weights are read as what the
    layer makes of them: to hold what another run learned with `"sum"`, freeze a learned mixture with
    `weights_trainable=False`, or give its `mixing_weights` as fixed `weights`.

    Reference: Hu et al., "Adaptively Customizing Activation Functions for Various Layers", 2021.
    """

    _raw_weights: Any = None

    def __init__(
        self,
        members,
        weights="learned",
        normalization="sum",
        weights_trainable=None,
        granularity="layer",
        channels=None,
        data_format=None,
        **kwargs,
    ):
        if isinstance(members, str) or not isinstance(members, Sequence) or len(members) == 0:
            raise ValueError(f"`members` must be a list of activations. Received: {members!r}")
        if not isinstance(normalization, str) or normalization not in NORMALIZATIONS:
            raise ValueError(
                f"`normalization` must be one of {', '.join(map(repr, NORMALIZATIONS))}. Received: {normalization!r}"
            )
        found = [Member.make(spec, granularity) for spec in members]
        names = numbered([member.name for member in found])
        members = tuple(replace(member, name=name) for member, name in zip(found, names, strict=True))
        weight_settings = {s: kwargs.pop(f"weights_{s}", None) for s in SETTINGS if s != "trainable"}
        slots = [slot.renamed(f"{m.name}_{slot.name}", kwargs) for m in members for slot in m.slots]
        trained = kwargs.pop("trainable_parameters", None)
        if trained is not None:
            *slots, weights_slot = hold_others([*slots, Slot.make("weights", 0.0)], trained)
            weights_trainable = weights_slot.trainable
        self._setup(slots, granularity, channels, data_format, kwargs)

        self._members = members
        self.normalization = normalization
        learned = isinstance(weights, str) and weights == "learned"
        self._fixed = None if learned else _numbers("weights", weights, names)
        self._normalization = NORMALIZATIONS[normalization if learned else "none"]
        start = weight_settings["initializer"]
        if self._fixed and start is not None:
            raise ValueError(f"Fixed `weights` have no `weights_initializer`. Received: {weights!r} and {start!r}")
        if isinstance(start, list | tuple | np.ndarray):
            weight_settings["initializer"] = _numbers("weights_initializer", start, names)
        start = self._fixed or self._normalization.initial(len(members))
        self._weights_slot = Slot.make("weights", start, **weight_settings)
        if isinstance(self._weights_slot.initializer, keras.initializers.Constant):
            self._bounded_slots()[-1].check_bounds(np.asarray(self._weights_slot.initializer.value))
        self._weights_trainable = self._fixed is None if weights_trainable is None else bool(weights_trainable)
        self._create_if_known()

    @classmethod
    def settings(cls) -> list[str]:
        return [f"weights_{setting}" for setting in SETTINGS]

    @property
    def member_names(self) -> list[str]:
        """The members' names, in order; a repeated one is numbered."""
        return [member.name for member in self._members]

    # Variables

    def _create_variables(self, shape):
        super()._create_variables(shape)
        slot = self._weights_slot
        self._raw_weights = self._add_rows(
            "mixing_weights",
            self._members,
            self._initial_weights,
            slot.regularizer,
            self._constrain_weights,
            self._weights_trainable,
        )

    def _initial_weights(self, shape, dtype=None):
        initializer = self._weights_slot.initializer
        if isinstance(initializer, keras.initializers.Constant):
            column = np.reshape(initializer.value, (-1,) + (1,) * (len(shape) - 1))
            raw = ops.ones(shape, dtype) * ops.cast(column, dtype)
        else:
            raw = initializer(shape, dtype=dtype)
        return self._bound(raw)

    def _bound(self, raw):
        bounds = self._normalization.constraint
        return raw if bounds is None else bounds(raw)

    def _constrain_weights(self, raw):
        constraint = self._weights_slot.constraint
        return self._bound(raw if constraint is None else constraint(raw))

    @property
    def weights_trainable(self) -> bool:
        """Whether the raw weights are trained, where the layer is."""
        return self._weights_trainable

    @weights_trainable.setter
    def weights_trainable(self, value):
        self._weights_trainable = bool(value)
        self._apply_trainable()

    @property
    def trainable(self) -> bool:
        return self._trainable

    @trainable.setter
    def trainable(self, value):
        keras.layers.Layer.trainable.__set__(self, value)
        self._apply_trainable()

    def _apply_trainable(self):
        if self._raw_weights is not None:
            self._raw_weights.trainable = self._trainable and self._weights_trainable

    # Computation

    @property
    def formula(self):
        return WeightedSum(tuple((member.formula, len(member.slots)) for member in self._members))

    @property
    def _normalize(self):
        return self._normalization.function

    def _row_variables(self):
        return super()._row_variables() + ([] if self._raw_weights is None else [self._raw_weights])

    # Access

    @property
    def mixing_weights(self) -> np.ndarray:
        """What the members are mixed with (X, Y, Z), as NumPy, of shape (members,) or (members, channels)."""
        return ops.convert_to_numpy(self._normalization.function(ops.array(self.get_parameters()["weights"])))

    def _learned(self):
        return dict(zip(self.member_names, self.mixing_weights, strict=True))

    def _by_name(self, read):
        return super()._by_name(read) | {"weights": self._rows(read(self._raw_weights))}

    def _bounded_slots(self):
        return (*self._slots, replace(self._weights_slot, constraint=self._normalization.constraint))

    def _store(self, values):
        super()._store(values)
        self._raw_weights.assign(np.reshape(values["weights"], tuple(self._raw_weights.shape)))

    def _saved(self):
        weights = [] if self._shape is None else [self._rows(self._raw_weights.value)]
        return super()._saved() + weights

    def _load(self, saved):
        *own, weights = saved
        rows = own[0] if own else ()
        self._store(dict(zip([slot.name for slot in self._slots], rows, strict=True)) | {"weights": weights})

    def _written_slots(self):
        return (*self._slots, self._weights_slot)

    def get_config(self):
        config = super().get_config()
        if self._fixed:
            del config["weights_initializer"]
        return config | {
            "members": [member.written() for member in self._members],
            "weights": list(self._fixed) if self._fixed else "learned",
            "normalization": self.normalization,
            "weights_trainable": self._weights_trainable,
        }


class _NamedMixture(Mixture):
    """A mixture whose members its class says."""

    members: tuple[str, ...]

    def __init__(self, weights="learned", normalization="sum", weights_trainable=None, **kwargs):
        super().__init__(self.members, weights, normalization, weights_trainable, **kwargs)

    def get_config(self):
        config = super().get_config()
        del config["members"]
        return config


@register("method1")
@_serializable
class Method1(_NamedMixture):
    """Method 1: ``X ATanh(z) + Y ASigmoid(z) + Z AReLU(z)``, each with its own a, b, c, d.

    `Mixture(["atanh", "asigmoid", "arelu"])`, with the arguments of `Mixture` but for `members`.

    ```python
    x = ka.Method1()(x)
    ```
    """

    members = ("atanh", "asigmoid", "arelu")


@register("method2")
@_serializable
class Method2(_NamedMixture):
    """Method 2: ``X tanh(z) + Y sigmoid(z) + Z relu(z)``.

    `Mixture(["tanh", "sigmoid", "relu"])`, with the arguments of `Mixture` but for `members`.

    ```python
    x = ka.Method2(weights=[1 / 3, 1 / 3, 1 / 3])(x)
    ```
    """

    members = ("tanh", "sigmoid", "relu")


def _numbers(argument: str, values, names: Sequence[str]) -> tuple[float, ...]:
    """One finite number for each member."""
    try:
        numbers = tuple(float(value) for value in values)
    except (TypeError, ValueError):
        numbers = ()
    if isinstance(values, str) or len(numbers) != len(names) or not np.all(np.isfinite(numbers)):
        learned = '"learned", or ' if argument == "weights" else ""
        raise ValueError(
            f"`{argument}` must be {learned}one finite number for each of {', '.join(names)}. Received: {values!r}"
        )
    return numbers
