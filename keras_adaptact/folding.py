"""A trained model for shipping: what its activations learned goes into the layers around them where that is exact."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from keras import layers as keras_layers
from keras import ops

from keras_adaptact.activations import PELU, AdaptiveActivation, AReLU, ASigmoid, ATanh, FReLU, Swish
from keras_adaptact.base import TrainableActivation
from keras_adaptact.copies import copy_model, rebuilt
from keras_adaptact.graphs import is_graph, walk
from keras_adaptact.mixtures import Mixture, layer_of

_WITH_KERNELS = (keras_layers.Dense, keras_layers.Conv1D, keras_layers.Conv2D, keras_layers.Conv3D)
_MAXIMA = ("MaxPooling", "GlobalMaxPooling")
_MEANS = ("AveragePooling", "GlobalAveragePooling")
_SAME = ("Dropout", "SpatialDropout", "Flatten", "Reshape")
_FAR = 100.0  # a kink further from 0 than this would cost digits to move
_CLOSE = 1e-3  # so would slopes that differ by less, relative to the larger


def fold_activations(model: keras.Model) -> keras.Model:
    """A copy of a trained model that computes the same with fewer operations, for shipping.

    * In ``b f(a z + c) + d`` a and c go into the layer before (a dense layer or convolution, or a batch
      normalization, that nothing else uses), b and d into the dense layer or convolution after, through pooling,
      dropout and flattening where they commute. What is left is f: a plain Keras activation where all four went.
    * AReLU, ``max(a z + c, b z + d)``, is a shifted and scaled leaky ReLU, and goes the same way; so do Swish (SiLU),
      FReLU (ReLU) and PELU (ELU).
    * A mixture loses members of weight 0, and keeps its weights as fixed numbers; one with a single member left is
      that member.

    Only what is exact is done: an offset stays in front of a convolution that pads with zeros, say. Outputs agree to
    1e-5, relative to their size, in float32. What stays of the library's layers is frozen.

    ```python
    ka.fold_activations(model).export("model")
    ```

    Args:
        model: a functional or sequential model; models nested in it are folded too.

    Raises:
        ValueError: for a subclassed model, or a layer that can't be rebuilt from its configuration.
    """
    next(walk(model))  # refuses what can't be copied
    copy = copy_model(model, lambda layer: None)
    made: dict[int, Any] = {}
    for _, layer, parent in list(walk(copy)):
        site = layer if isinstance(layer, TrainableActivation) else getattr(layer, "activation", None)
        if isinstance(site, TrainableActivation) and site._shape is not None:
            graph = _Graph(parent)
            before = layer if site is not layer else graph.before(layer)
            fresh = _folded(site, before, layer, graph)
            made[id(layer)] = fresh if site is layer else rebuilt(layer, activation=fresh)
    return copy_model(copy, lambda layer: made.get(id(layer)))


@dataclass(frozen=True)
class _Form:
    """``b f(a z + c) + d`` with NumPy numbers of shape () or (channels,); f is a leaky ReLU where it has a slope."""

    function: Any
    a: np.ndarray
    b: np.ndarray
    c: np.ndarray
    d: np.ndarray
    slope: np.ndarray | None = None


def _form(layer: TrainableActivation, values: dict[str, np.ndarray]) -> _Form | None:
    """A layer with some values of its parameters as an affine activation, if it is one."""
    values = {name: value.astype("float64") for name, value in values.items()}
    one, zero = (np.full(next(iter(values.values())).shape, number) for number in (1.0, 0.0))
    if isinstance(layer, ASigmoid | ATanh | AdaptiveActivation):
        name = {ASigmoid: "sigmoid", ATanh: "tanh"}.get(type(layer)) or layer.function
        return _Form(name, **values)
    if isinstance(layer, FReLU):
        return _Form("relu", one, one, zero, values["b"])
    if isinstance(layer, PELU):
        return _Form("elu", 1 / values["b"], values["a"], zero, zero)
    if isinstance(layer, Swish) and np.all(values["beta"] != 0):
        return _Form("silu", values["beta"], 1 / values["beta"], zero, zero)
    return _leaky(**values) if isinstance(layer, AReLU) else None


def _leaky(a, b, c, d) -> _Form | None:
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
    return _Form("relu", sign, np.where(rises, high, -low), -sign * kink, a * kink + c, slope)


def _folded(site: TrainableActivation, before, layer, graph: "_Graph") -> keras.layers.Layer:
    """What a site becomes, once the layers around it took what they can."""
    if isinstance(site, Mixture):
        kept = _lean(site)
        if isinstance(kept, keras.layers.Layer):
            return kept
        form: _Form | None = kept
    else:
        form = _form(site, site.get_parameters())
    if form is None or (form.slope is not None and np.any(form.b <= 0)):
        return _frozen(site, type(site).from_config(site.get_config()), site.get_parameters())
    form = _into_before(form, before, site)
    form = _into_after(form, graph.after(layer), site)
    return _layer(form, site)


def _into_before(form: _Form, before, site) -> _Form:
    if isinstance(before, keras_layers.BatchNormalization) and before.center and before.scale:
        weight, bias = before.gamma, before.beta
    elif isinstance(before, _WITH_KERNELS):
        weight, bias = before.kernel, before.bias
    else:
        return form
    if not _is_plain(weight) or (np.ndim(form.a) and form.a.shape != weight.shape[-1:]):
        return form
    _scale(weight, form.a)
    if bias is None:
        return replace(form, a=np.ones_like(form.a))
    _scale(bias, form.a, form.c)
    return replace(form, a=np.ones_like(form.a), c=np.zeros_like(form.c))


def _into_after(form: _Form, chain: Sequence[Any], site) -> _Form:
    """Through layers that b and d commute with, into a dense layer or convolution at the end of the chain."""
    *between, last = chain or [None]
    by_channel = np.ndim(form.b) > 0
    if not isinstance(last, _WITH_KERNELS) or np.any(form.b == 0):
        return form
    for layer in between:
        kind = type(layer).__name__
        if (kind.startswith(_MAXIMA) and np.any(form.b < 0)) or (kind in ("Flatten", "Reshape") and by_channel):
            return form
    kernel = last.kernel
    if not _is_plain(kernel) or (by_channel and form.b.shape[0] != kernel.shape[-2]):
        return form
    pads = any(
        getattr(layer, "padding", "valid") != "valid" for layer in chain if "MaxPool" not in type(layer).__name__
    )
    old = ops.convert_to_numpy(kernel).astype("float64")
    _scale(kernel, form.b[:, None] if by_channel else form.b)
    if last.bias is None or pads:
        return replace(form, b=np.ones_like(form.b), d=form.d / form.b)
    offset = (old * (form.d[:, None] if by_channel else form.d)).sum(tuple(range(old.ndim - 1)))
    _scale(last.bias, 1.0, offset)
    return replace(form, b=np.ones_like(form.b), d=np.zeros_like(form.d))


def _is_plain(weight) -> bool:
    """Whether a weight is a variable that can be scaled: no sum with LoRA's, and no integers of a quantized layer."""
    return isinstance(weight, keras.Variable) and keras.backend.is_float_dtype(weight.dtype)


def _scale(variable, factor, offset=0.0) -> None:
    old = ops.convert_to_numpy(variable).astype("float64")
    variable.assign((old * factor + offset).astype("float32"))


def _layer(form: _Form, site: TrainableActivation) -> keras.layers.Layer:
    """The plainest layer that computes a form."""
    named = {"name": site.name, "dtype": site.dtype_policy, "trainable": False}
    rests = np.any(form.a != 1) or np.any(form.b != 1) or np.any(form.c != 0) or np.any(form.d != 0)
    slope = np.zeros(()) if form.slope is None else form.slope
    if not rests and not np.any(slope):
        return keras_layers.Activation(form.function, **named)
    if not rests and np.ndim(slope) == 0 and slope > 0:
        return keras_layers.LeakyReLU(negative_slope=float(slope), **named)
    channels = {"granularity": site.granularity, "data_format": site.data_format}
    channels |= {"channels": site._shape[0]} if site._shape else {}
    if form.slope is not None:
        steep, flat = form.b, form.b * slope
        values = {"a": steep * form.a, "c": steep * form.c + form.d, "b": flat * form.a, "d": flat * form.c + form.d}
        return _frozen(site, AReLU(**channels, **named), values)
    values = {"a": form.a, "b": form.b, "c": form.c, "d": form.d}
    return _frozen(site, AdaptiveActivation(form.function, **channels, **named), values)


def _lean(mixture: Mixture) -> "keras.layers.Layer | _Form | None":
    """A mixture without members of weight 0: a form where one member is left, else a mixture with fixed weights."""
    weights = mixture.mixing_weights
    values = mixture.get_parameters()
    kept = [i for i, weight in enumerate(weights) if np.any(weight != 0)] or [0]
    own = [
        {slot.name: values[name] for slot, name in zip(member.slots, _names(mixture, i), strict=True)}
        for i, member in enumerate(mixture._members)
    ]
    if len(kept) == 1:
        (i,) = kept
        form = _member_form(mixture, mixture._members[i], own[i])
        if form is not None:
            weight = weights[i].astype("float64")
            return replace(form, b=form.b * weight, d=form.d * weight)
    channels = {"granularity": mixture.granularity, "data_format": mixture.data_format}
    channels |= {"channels": mixture._shape[0]} if mixture._shape else {}
    named = {"name": mixture.name, "dtype": mixture.dtype_policy, "trainable": False}
    members = [mixture._members[i].source for i in kept]
    fresh = Mixture(members, normalization="none", weights_trainable=False, **channels, **named)
    numbers: dict[str, np.ndarray] = {"weights": weights[kept]}
    for place, i in enumerate(kept):
        for name, value in zip(_names(fresh, place), own[i].values(), strict=True):
            numbers[name] = value
    return _frozen(mixture, fresh, numbers)


def _names(mixture: Mixture, index: int) -> list[str]:
    """What the parameters of a member are called in its mixture."""
    start = sum(len(member.slots) for member in mixture._members[:index])
    return [slot.name for slot in mixture._slots[start : start + len(mixture._members[index].slots)]]


def _member_form(mixture: Mixture, member, values: dict[str, np.ndarray]) -> _Form | None:
    if not member.slots:
        one, zero = np.ones(mixture._shape or ()), np.zeros(mixture._shape or ())
        return _Form(member.source, one, one, zero, zero)
    layer: Any = layer_of(member.source)
    return _form(layer, values)


def _frozen(site, fresh: TrainableActivation, values) -> TrainableActivation:
    fresh.set_parameters(**{name: np.asarray(value, "float32") for name, value in values.items()})
    fresh.trainable = False
    return fresh


class _Graph:
    """Which layer of a functional or sequential model stands before which."""

    def __init__(self, model: keras.Model):
        self.outputs = {id(tensor) for tensor in model.outputs}
        self.befores: dict[int, list[Any]] = {}
        self.afters: dict[int, list[Any]] = {}
        self.made: dict[int, list[Any]] = {}
        inner = model._functional if isinstance(model, keras.Sequential) else model
        for node in (node for nodes in inner._nodes_by_depth.values() for node in nodes):
            self.made.setdefault(id(node.operation), []).extend(node.output_tensors)
            for parent in node.parent_nodes:
                self.befores.setdefault(id(node.operation), []).append(parent.operation)
                self.afters.setdefault(id(parent.operation), []).append(node.operation)

    def _is_called_once(self, layer) -> bool:
        return len(self.made.get(id(layer), ())) == 1

    def _only_after(self, layer):
        """The one layer that uses a layer's output."""
        users = self.afters.get(id(layer), [])
        leaves = any(id(tensor) in self.outputs for tensor in self.made.get(id(layer), ()))
        return users[0] if len(users) == 1 and not leaves and self._is_called_once(layer) else None

    def before(self, layer):
        """The layer whose output a site alone uses, if that has no activation of its own."""
        found = self.befores.get(id(layer), [])
        if len(found) != 1 or self._only_after(found[0]) is not layer:
            return None
        activation = getattr(found[0], "activation", None)
        return found[0] if activation in (None, keras.activations.linear) else None

    def after(self, layer) -> list[Any]:
        """The layers after a site that b and d may pass through, and the one behind them."""
        chain: list[Any] = []
        while (layer := self._only_after(layer)) is not None and self._is_called_once(layer) and not is_graph(layer):
            chain.append(layer)
            if not type(layer).__name__.startswith((*_MAXIMA, *_MEANS, *_SAME)):
                break
        return chain
