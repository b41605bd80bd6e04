"""The trainable activations, as data: which numbers each has, and which formula."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
from keras import ops

from keras_adaptact import functional
from keras_adaptact.base import TrainableActivation, channel_axis
from keras_adaptact.keras_private import make_path_unique
from keras_adaptact.parameters import Between, Parameter, Slot
from keras_adaptact.registry import lookup, register

_serializable = keras.saving.register_keras_serializable(package="keras_adaptact")


@dataclass(frozen=True)
class Affine:
    """The formula of an affine activation; equal for equal functions."""

    function: Callable

    def __call__(self, z, a, b, c, d):
        return functional.affine(functional.portable(self.function), z, a, b, c, d)

    def weighted(self, z, w, a, b, c, d):
        return functional.weighted_affine(functional.portable(self.function), z, w, a, b, c, d)


@dataclass(frozen=True)
class Maximum:
    """The formula of AReLU."""

    def __call__(self, z, a, b, c, d):
        return functional.arelu(z, a, b, c, d)

    def weighted(self, z, w, a, b, c, d):
        return functional.weighted_arelu(z, w, a, b, c, d)


class _Affine(TrainableActivation):
    """``b f(a z + c) + d``; a subclass says which f."""

    a = Parameter(1.0)
    b = Parameter(1.0)
    c = Parameter(0.0)
    d = Parameter(0.0)


@register("asigmoid")
@_serializable
class ASigmoid(_Affine):
    """Adaptive sigmoid, ``b sigmoid(a z + c) + d``; starts as sigmoid: a = b = 1, c = d = 0.

    ```python
    x = keras.layers.Dense(64, activation=ka.ASigmoid())(x)
    ```

    Arguments, shapes, dtypes and errors are those of `TrainableActivation`; the parameters are a, b, c, d.
    Reference: Hu et al., "Adaptively Customizing Activation Functions for Various Layers", 2021.
    """

    formula = Affine(ops.sigmoid)


@register("atanh")
@_serializable
class ATanh(_Affine):
    """Adaptive tanh, ``b tanh(a z + c) + d``; starts as tanh: a = b = 1, c = d = 0.

    ```python
    x = keras.layers.Dense(64, activation=ka.ATanh())(x)
    ```

    Arguments, shapes, dtypes and errors are those of `TrainableActivation`; the parameters are a, b, c, d.
    Reference: Hu et al., "Adaptively Customizing Activation Functions for Various Layers", 2021.
    """

    formula = Affine(ops.tanh)


@register("arelu")
@_serializable
class AReLU(TrainableActivation):
    """Adaptive ReLU, ``max(a z + c, b z + d)``; starts as ReLU: a = 1, b = c = d = 0.

    A tie goes to the second branch, and infinity is what the formula makes of it: with b = 0, `b z` is NaN there.
    With a = b it would be a straight line whose branches see the same gradient on some backends and never part, so
    it can't be made with such a start.

    ```python
    x = keras.layers.Conv2D(64, 3, activation=ka.AReLU(b_initializer=0.25))(x)  # starts as a leaky ReLU
    ```

    Not the attention-based rectified linear unit of Chen and Xu (2020), which is called AReLU too.

    Arguments, shapes, dtypes and errors are those of `TrainableActivation`; the parameters are a, b, c, d.
    Reference: Hu et al., "Adaptively Customizing Activation Functions for Various Layers", 2021.

    Raises:
        ValueError: also where the initializers of a and b give the same value.
    """

    a = Parameter(1.0)
    b = Parameter(0.0)
    c = Parameter(0.0)
    d = Parameter(0.0)

    def __init__(self, granularity="layer", channels=None, data_format=None, **kwargs):
        super().__init__(granularity, channels, data_format, **kwargs)
        shape = () if granularity == "layer" else (channels or 1,)
        a, b = (ops.convert_to_numpy(slot.initializer(shape, dtype="float32")) for slot in self._slots[:2])
        if np.any(a == b):
            raise ValueError(
                "AReLU must not start with a = b, as a straight line: `a_initializer` and `b_initializer` need "
                f"different values. Received: {a[a == b].flat[0]:g} for both"
            )

    formula = Maximum()


@register("adaptive")
@_serializable
class AdaptiveActivation(_Affine):
    """Any elementwise function made adaptive, ``b f(a z + c) + d``; starts as f: a = b = 1, c = d = 0.

    ```python
    x = keras.layers.Dense(64, activation=ka.AdaptiveActivation("silu"))(x)
    ```

    Args:
        function: f, the name of a plain function (`names()`), or an elementwise function in `keras.ops`. One of
            your own is saved with a model if it is registered: `ka.register("name", function)`. Its slope at kinks
            is the backend's, and not all of Keras's functions agree there.

    The other arguments, shapes, dtypes and errors are those of `TrainableActivation`; the parameters are a, b,
    c, d. Reference: Hu et al., "Adaptively Customizing Activation Functions for Various Layers", 2021.
    """

    def __init__(self, function, granularity="layer", channels=None, data_format=None, **kwargs):
        resolved = plain_function(function)
        super().__init__(granularity, channels, data_format, **kwargs)
        self.function = function if isinstance(function, str) else resolved
        self._resolved = resolved

    @property
    def formula(self):
        return Affine(self._resolved)

    def get_config(self):
        return super().get_config() | {"function": serialize_function(self.function)}


@register("swish")
@_serializable
class Swish(TrainableActivation):
    """Swish with a trained beta, ``z sigmoid(beta z)``; starts as SiLU: beta = 1.

    ```python
    x = keras.layers.Dense(64, activation=ka.Swish())(x)
    ```

    Arguments, shapes, dtypes and errors are those of `TrainableActivation`; the parameter is beta.
    Reference: Ramachandran et al., "Searching for Activation Functions", 2017.
    """

    beta = Parameter(1.0)

    @staticmethod
    def formula(z, beta):
        return functional.swish(z, beta)


@register("frelu")
@_serializable
class FReLU(TrainableActivation):
    """Flexible ReLU, ``max(z, 0) + b``; starts as ReLU: b = 0.

    ```python
    x = keras.layers.Dense(64, activation=ka.FReLU())(x)
    ```

    Not the funnel activation of Ma et al. (2020), which is called FReLU too.

    Arguments, shapes, dtypes and errors are those of `TrainableActivation`; the parameter is b.
    Reference: Qiu et al., "FReLU: Flexible Rectified Linear Units for Improving CNNs", 2018.
    """

    b = Parameter(0.0)

    @staticmethod
    def formula(z, b):
        return functional.frelu(z, b)


@register("pelu")
@_serializable
class PELU(TrainableActivation):
    """Parametric ELU, ``(a/b) z`` for z >= 0 and ``a (exp(z/b) - 1)`` below; starts as ELU: a = b = 1.

    The slope is continuous at 0. A constraint holds a and b at 0.1 or more, as both must be positive; with optimizers
    other than Keras's `apply_constraints` does.

    ```python
    x = keras.layers.Dense(64, activation=ka.PELU())(x)
    ```

    Arguments, shapes, dtypes and errors are those of `TrainableActivation`; the parameters are a and b.
    Reference: Trottier et al., "Parametric Exponential Linear Unit for Deep CNNs", 2017.
    """

    a = Parameter(1.0, Between(0.1))
    b = Parameter(1.0, Between(0.1))

    @staticmethod
    def formula(z, a, b):
        return functional.pelu(z, a, b)


@register("prelu")
@_serializable
class PReLU(keras.layers.PReLU):
    """Keras's PReLU, ``max(z, 0) + alpha min(z, 0)``, with the axes that alpha is shared over chosen right.

    Keras's own takes one alpha for each *element* unless told otherwise.

    ```python
    x = ka.PReLU(granularity="channel")(x)
    ```

    Args:
        granularity: `"layer"` for one alpha, `"channel"` for one for each channel.
        data_format: `"channels_last"` or `"channels_first"`; Keras's `image_data_format` by default.
        alpha_initializer: 0.25 by default, as in the reference.
        **kwargs: `alpha_regularizer`, `alpha_constraint`, and what every Keras layer takes.

    Reference: He et al., "Delving Deep into Rectifiers", 2015.
    """

    def __init__(
        self,
        granularity="layer",
        data_format=None,
        alpha_initializer=None,
        alpha_regularizer=None,
        alpha_constraint=None,
        **kwargs,
    ):
        if granularity not in ("layer", "channel"):
            raise ValueError(f'`granularity` must be "layer" or "channel". Received: {granularity!r}')
        if data_format not in (None, "channels_last", "channels_first"):
            raise ValueError(f'`data_format` must be "channels_last" or "channels_first". Received: {data_format!r}')
        alpha = Slot.make("alpha", 0.25, alpha_initializer, alpha_regularizer, alpha_constraint)
        storage = kwargs.pop("storage", "flat")
        super().__init__(alpha.initializer, alpha.regularizer, alpha.constraint, **kwargs)
        self._storage = storage  # "rows", a matrix for series, in models of 0.1.0, as their optimizers' states are
        self.granularity = granularity
        self.data_format = keras.config.image_data_format() if data_format is None else data_format

    def build(self, input_shape):
        rank = len(input_shape)
        own = {channel_axis(self.data_format, rank)} if self.granularity == "channel" else set()
        further = int(rank == 3 and self._storage == "flat")  # an axis of size 1, so that no optimizer sees a matrix
        self.shared_axes = [axis for axis in range(1, rank + further) if axis - further not in own]
        super().build((None, *further * (1,), *input_shape[1:]))
        self.input_spec = keras.layers.InputSpec(ndim=rank, axes={axis: input_shape[axis] for axis in own})
        make_path_unique(self.alpha)

    def _build_for(self, owner, shape):
        self.build(shape)

    def load_own_variables(self, store):
        alpha, shape = np.asarray(store["0"]), tuple(self.alpha.shape)
        fits = alpha.size == np.prod(shape)  # a file of 0.1.0 may have another number of axes
        super().load_own_variables({"0": alpha.reshape(shape) if fits else alpha})

    @classmethod
    def from_config(cls, config):
        return super().from_config({"storage": "rows"} | config)  # as it was in 0.1.0, which said nothing of it

    def get_config(self):
        config = super().get_config() | {"granularity": self.granularity, "data_format": self.data_format}
        del config["shared_axes"]
        return config | {"storage": self._storage}


def plain_function(spec) -> Callable:
    """The elementwise function behind a name, a serialized function or a function; never a layer.

    Raises:
        ValueError: for an unknown name, or one that stands for a layer.
    """
    function = spec
    if isinstance(spec, dict) and "class_name" in spec:
        function = keras.saving.deserialize_keras_object(spec)
    elif isinstance(spec, str):
        function = lookup(spec)
    if not callable(function) or isinstance(function, type | keras.layers.Layer):
        raise ValueError(
            f"A plain elementwise function is needed here, or the name of one, not a layer. Received: {spec!r}"
        )
    return function


def serialize_function(spec):
    """What a configuration says of a function; one that Keras won't find again gets a warning.

    Raises:
        ValueError: for one without a name.
    """
    if not callable(spec):
        return spec
    name = getattr(spec, "__name__", "<none>")
    if name.startswith("<"):
        raise ValueError(
            "A function without a name can't be saved; give it one with `keras_adaptact.register(name, function)`, and "
            f"use that. Received: {spec!r}"
        )
    registered = keras.saving.get_registered_name(spec)
    if keras.saving.get_registered_object(registered) is None and not hasattr(keras.activations, name):
        warnings.warn(
            f"The function {name} is saved by reference, and a model with it can't be loaded elsewhere; "
            "give it a name with `keras_adaptact.register(name, function)`, and use that.",
            stacklevel=3,
        )
    return keras.saving.serialize_keras_object(spec)


# With the slope of Keras's function of that name; its layer starts with 0.3.
register("leaky_relu", {"class_name": "LeakyReLU", "module": "keras.layers", "config": {"negative_slope": 0.2}})
