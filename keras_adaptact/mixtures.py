"""Mixtures of activations, with weights that are learned or held fixed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from keras_adaptact import functional
from keras_adaptact.base import DataFormat, Granularity, TrainableActivation
from keras_adaptact.members import Member, WeightedSum, numbered
from keras_adaptact.parameters import SETTINGS, Between, Slot, hold_others
from keras_adaptact.registry import register

_serializable = keras.saving.register_keras_serializable(package="keras_adaptact")

Weights = Literal["learned"] | Sequence[float]
NormalizationName = Literal["sum", "softmax", "none"]


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
            set later (then compile the model again), which doesn't change the weights.
        weights_initializer, weights_regularizer, weights_constraint: of each raw weight, as for other parameters.
            With `"sum"`, the bounds hold beside a constraint of yours.

    The other arguments, shapes, dtypes and errors are those of `TrainableActivation`. With
    `granularity="channel"` each channel has its own mixing weights, and its own parameters of the members.
    The parameters of the members are named after them (`atanh_a`; of a second one `atanh_2_a`), and take settings as
    all do (`atanh_a_initializer`). The raw weights are named `weights`, of shape (members,) or (members, channels),
    and have a variable of their own, the same whether learned or fixed. The layer that loads a file interprets its raw
    weights, and one with fixed weights doesn't normalize them: to keep what another run learned with `"sum"`, freeze a
    learned mixture with `weights_trainable=False`, or pass its `mixing_weights` as fixed `weights`.

    Reference: Hu et al., "Adaptively Customizing Activation Functions for Various Layers", 2021.
    """

    _raw_weights: Any = None
    _is_open = True  # settings of members' parameters: `atanh_a_initializer`

    def __init__(
        self,
        members: Sequence[Any],
        weights: Weights = "learned",
        normalization: NormalizationName = "sum",
        weights_trainable: bool | None = None,
        granularity: Granularity = "layer",
        channels: int | None = None,
        data_format: DataFormat | None = None,
        **kwargs: Any,
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
        slots = [slot.renamed(m.parameters[slot.name], kwargs) for m in members for slot in m.slots]
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
    def settings(cls) -> dict[str, Any]:
        return dict.fromkeys(f"weights_{setting}" for setting in SETTINGS)

    @property
    def members(self) -> tuple[Member, ...]:
        """What is mixed, in order."""
        return self._members

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
            (len(self._members), *shape),
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
    def formula(self) -> WeightedSum:
        return WeightedSum(tuple((member.formula, len(member.slots)) for member in self._members))

    @property
    def _normalize(self):
        return self._normalization.function

    def _row_variables(self):
        return super()._row_variables() + ([] if self._raw_weights is None else [self._raw_weights])

    # Access

    def formula_parameters(self) -> dict[str, np.ndarray]:
        """The members' parameters, then the mixing weights: `weight[tanh]` and so on."""
        values = self.get_parameters()
        del values["weights"]
        return values | {f"weight[{n}]": w for n, w in zip(self.member_names, self.mixing_weights, strict=True)}

    def trained_parameters(self) -> dict[str, bool]:
        is_trained = any(variable is self._raw_weights for variable in self.trainable_variables)
        return super().trained_parameters() | {f"weight[{name}]": is_trained for name in self.member_names}

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
        self._store(self._named(list(rows)) | {"weights": weights})

    def _written_slots(self):
        return (*self._slots, self._weights_slot)

    def get_config(self) -> dict[str, Any]:
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

    _made_of: tuple[str, ...]

    def __init__(
        self,
        weights: Weights = "learned",
        normalization: NormalizationName = "sum",
        weights_trainable: bool | None = None,
        **kwargs: Any,
    ):
        super().__init__(self._made_of, weights, normalization, weights_trainable, **kwargs)

    def get_config(self) -> dict[str, Any]:
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

    _made_of = ("atanh", "asigmoid", "arelu")


@register("method2")
@_serializable
class Method2(_NamedMixture):
    """Method 2: ``X tanh(z) + Y sigmoid(z) + Z relu(z)``.

    `Mixture(["tanh", "sigmoid", "relu"])`, with the arguments of `Mixture` but for `members`.

    ```python
    x = ka.Method2(weights=[1 / 3, 1 / 3, 1 / 3])(x)
    ```
    """

    _made_of = ("tanh", "sigmoid", "relu")


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
