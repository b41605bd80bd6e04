"""Activations as affine ones: ``b f(a z + c) + d``, the plainest layer that computes it, and mixtures made lean."""

from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from keras import layers as keras_layers

from keras_adaptact import functional
from keras_adaptact.activations import (
    PELU,
    AdaptiveActivation,
    AReLU,
    ASigmoid,
    ATanh,
    FReLU,
    Swish,
    plain_function,
)
from keras_adaptact.base import TrainableActivation
from keras_adaptact.members import layer_of
from keras_adaptact.mixtures import Method1, Method2, Mixture

_FAR = 10.0  # a kink further from 0 than this would cost digits to move
_CLOSE = 1e-2  # so would slopes that differ by less, relative to the larger


@dataclass(frozen=True)
class Form:
    """``b f(a z + c) + d`` with NumPy arrays of shape () or (channels,); f is a leaky ReLU where it has a slope."""

    function: Any
    a: np.ndarray
    b: np.ndarray
    c: np.ndarray
    d: np.ndarray
    slope: np.ndarray | None = None


def form_of(layer: TrainableActivation) -> "Form | keras_layers.Layer | None":
    """An activation as an affine one; or a leaner mixture; or None, where it is neither."""
    values = layer.get_parameters()
    if not all(np.all(np.isfinite(value)) for value in values.values()):
        return None
    if type(layer) in (Mixture, Method1, Method2):
        try:
            return _lean(layer)
        except ValueError:  # a member's number is out of the bounds that it has by default
            return None
    form = _form(layer, values) if values else None
    return None if form is not None and form.slope is not None and np.any(form.b <= 0) else form


def _form(layer: TrainableActivation, values: dict[str, np.ndarray]) -> "Form | None":
    """A layer with some values of its parameters; of exact classes alone, as others may compute anything."""
    values = {name: value.astype("float64") for name, value in values.items()}
    one, zero = (np.full(next(iter(values.values())).shape, number) for number in (1.0, 0.0))
    kind: Any = type(layer)
    if kind is AReLU:
        return _leaky(**values)
    if kind in (ASigmoid, ATanh, AdaptiveActivation):
        return Form({ASigmoid: "sigmoid", ATanh: "tanh"}.get(kind) or layer.function, **values)
    if kind is FReLU:
        return Form("relu", one, one, zero, values["b"])
    if kind is PELU and np.all(values["b"] > 0):  # or it bends on the other side
        return Form("elu", 1 / values["b"], values["a"], zero, zero)
    if kind is Swish and np.all(values["beta"] != 0):
        return Form("silu", values["beta"], 1 / values["beta"], zero, zero)
    return None


def _leaky(a, b, c, d) -> Form | None:
    """``max(a z + c, b z + d)`` about its kink: ``v + p leaky(z - z0)``, or mirrored where both slopes fall."""
    if np.any(np.abs(a - b) < _CLOSE * np.maximum(np.abs(a), np.abs(b))):
        return None
    kink = (d - c) / (a - b)
    if np.any(np.abs(kink) > _FAR):
        return None
    high, low = np.maximum(a, b), np.minimum(a, b)
    rises = high > 0
    slope = np.where(rises, low, high) / np.where(rises, high, low)
    sign = np.where(rises, 1.0, -1.0)
    return Form("relu", sign, np.where(rises, high, -low), -sign * kink, a * kink + c, slope)


def layer_of_form(form: Form, site: TrainableActivation) -> keras.layers.Layer:
    """The plainest layer that computes a form."""
    named = {"name": site.name, "dtype": site.dtype_policy, "trainable": False}
    rests = np.any(form.a != 1) or np.any(form.b != 1) or np.any(form.c != 0) or np.any(form.d != 0)
    slope = np.zeros(()) if form.slope is None else form.slope
    if not rests and not np.any(slope) and not _is_rewritten(form.function):
        return keras_layers.Activation(_function(form.function), **named)
    # TensorFlow rounds the slope of a LeakyReLU to float32.
    if not rests and np.ndim(slope) == 0 and slope > 0 and site.compute_dtype != "float64":
        return keras_layers.LeakyReLU(negative_slope=float(slope), **named)
    channels = {"granularity": site.granularity, "data_format": site.data_format}
    channels |= {"channels": site.parameter_shape[0]} if site.parameter_shape else {}
    if form.slope is not None:
        steep, flat = form.b, form.b * slope
        values = {"a": steep * form.a, "c": steep * form.c + form.d, "b": flat * form.a, "d": flat * form.c + form.d}
        return _frozen(AReLU(**channels, **named), values)
    values = {"a": form.a, "b": form.b, "c": form.c, "d": form.d}
    return _frozen(AdaptiveActivation(form.function, **channels, **named), values)


def _lean(mixture: Mixture) -> "keras.layers.Layer | Form | None":
    """A mixture without members of weight 0: a form where one member is left, else a mixture with fixed weights."""
    weights = mixture.mixing_weights
    values = mixture.get_parameters()
    kept = [i for i, weight in enumerate(weights) if np.any(weight != 0)] or [0]
    own = [{name: values[named] for name, named in member.parameters.items()} for member in mixture.members]
    if len(kept) == 1:
        (i,) = kept
        form = _member_form(mixture, mixture.members[i], own[i])
        if form is not None:
            weight = weights[i].astype("float64")
            return replace(form, b=form.b * weight, d=form.d * weight)
    channels = {"granularity": mixture.granularity, "data_format": mixture.data_format}
    channels |= {"channels": mixture.parameter_shape[0]} if mixture.parameter_shape else {}
    named = {"name": mixture.name, "dtype": mixture.dtype_policy, "trainable": False}
    members = [mixture.members[i].spec for i in kept]
    fresh = Mixture(members, normalization="none", weights_trainable=False, **channels, **named)
    numbers: dict[str, np.ndarray] = {"weights": weights[kept]}
    for member, i in zip(fresh.members, kept, strict=True):
        numbers |= {named: own[i][name] for name, named in member.parameters.items()}
    return _frozen(fresh, numbers)


def _member_form(mixture: Mixture, member, values: dict[str, np.ndarray]) -> Form | None:
    if not member.parameters:
        one, zero = np.ones(mixture.parameter_shape or ()), np.zeros(mixture.parameter_shape or ())
        return Form(member.spec, one, one, zero, zero)
    layer: Any = layer_of(member.spec)
    return _form(layer, values)


def _frozen(fresh: TrainableActivation, values) -> TrainableActivation:
    fresh.set_parameters(**values)
    fresh.trainable = False
    return fresh


def _is_rewritten(spec) -> bool:
    """Whether converters know a function as this library writes it, and not what TensorFlow makes of Keras's own."""
    function = plain_function(spec)
    return keras.config.backend() == "tensorflow" and functional.portable(function) is not function


def _function(spec):
    """What Keras makes an activation of: a name that it knows itself, or else the function."""
    return spec if isinstance(spec, str) and hasattr(keras.activations, spec) else plain_function(spec)
