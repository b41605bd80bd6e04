"""The trainable activations, as data: the parameters and the formula of each."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Unpack

import keras
import numpy as np
from keras import ops

from keras_adaptact import functional
from keras_adaptact.base import DataFormat, Granularity, TrainableActivation
from keras_adaptact.functional import Tensor
from keras_adaptact.parameters import Between, Parameter
from keras_adaptact.registry import lookup, register
from keras_adaptact.signatures import OfAB, OfABCD, OfB, OfBeta

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

    def __init__(
        self,
        granularity: Granularity = "layer",
        channels: int | None = None,
        data_format: DataFormat | None = None,
        **kwargs: Unpack[OfABCD],
    ):
        super().__init__(granularity, channels, data_format, **kwargs)


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

    def __init__(
        self,
        granularity: Granularity = "layer",
        channels: int | None = None,
        data_format: DataFormat | None = None,
        **kwargs: Unpack[OfABCD],
    ):
        super().__init__(granularity, channels, data_format, **kwargs)
        shape = () if granularity == "layer" else (channels or 1,)
        a, b = (ops.convert_to_numpy(slot.initializer(shape, dtype="float32")) for slot in self._slots[:2])
        if np.any(same := a == b):
            raise ValueError(
                "AReLU must not start with a = b, as a straight line: `a_initializer` and `b_initializer` need "
                f"different values. Received: {np.broadcast_to(a, same.shape)[same].flat[0]:g} for both"
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

    def __init__(
        self,
        function: str | Callable[[Any], Any],
        granularity: Granularity = "layer",
        channels: int | None = None,
        data_format: DataFormat | None = None,
        **kwargs: Unpack[OfABCD],
    ):
        resolved = plain_function(function)
        super().__init__(granularity, channels, data_format, **kwargs)
        self.function = function if isinstance(function, str) else resolved
        self._resolved = resolved

    @property
    def formula(self) -> Affine:
        return Affine(self._resolved)

    def get_config(self) -> dict[str, Any]:
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

    def __init__(
        self,
        granularity: Granularity = "layer",
        channels: int | None = None,
        data_format: DataFormat | None = None,
        **kwargs: Unpack[OfBeta],
    ):
        super().__init__(granularity, channels, data_format, **kwargs)

    @staticmethod
    def formula(z: Tensor, beta: Tensor) -> Tensor:
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

    def __init__(
        self,
        granularity: Granularity = "layer",
        channels: int | None = None,
        data_format: DataFormat | None = None,
        **kwargs: Unpack[OfB],
    ):
        super().__init__(granularity, channels, data_format, **kwargs)

    @staticmethod
    def formula(z: Tensor, b: Tensor) -> Tensor:
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

    def __init__(
        self,
        granularity: Granularity = "layer",
        channels: int | None = None,
        data_format: DataFormat | None = None,
        **kwargs: Unpack[OfAB],
    ):
        super().__init__(granularity, channels, data_format, **kwargs)

    @staticmethod
    def formula(z: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return functional.pelu(z, a, b)


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
