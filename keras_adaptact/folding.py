"""Folds what activations learned into the layers around them, where that is exact, to ship a trained model."""

from dataclasses import dataclass, field, replace
from typing import Any

import keras
import numpy as np
from keras import layers as keras_layers
from keras import ops

from keras_adaptact.base import TrainableActivation, channel_axis
from keras_adaptact.calls import takes_one_tensor
from keras_adaptact.copies import copy_model, rebuilt
from keras_adaptact.forms import Form, form_of, layer_of_form
from keras_adaptact.graphs import activations_of, function_at, require_graph
from keras_adaptact.sites import Site, Sites, Survey, name_of

# Exact classes: what a subclass computes is its own affair.
_WITH_KERNELS = (keras_layers.Dense, keras_layers.Conv1D, keras_layers.Conv2D, keras_layers.Conv3D)
_SAME = tuple(  # the identity in inference
    getattr(keras_layers, name)
    for name in (
        *("Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "AlphaDropout", "GaussianDropout"),
        *("GaussianNoise", "ActivityRegularization", "Identity"),
    )
)
_MOVED = (keras_layers.Flatten, keras_layers.Reshape)  # elements stay, and channels don't
_POOLS, _GLOBAL_POOLS = (
    {getattr(keras_layers, f"{prefix}{kind}Pooling{n}D"): kind for kind in ("Max", "Average") for n in (1, 2, 3)}
    for prefix in ("", "Global")
)
_PRECISE = ("float32", "float64")
_LEAST, _MOST = 1e-6, 1e6  # of what a kernel is multiplied with


@dataclass(frozen=True, kw_only=True)
class Folding(Site):
    """A site of a trainable activation, and what becomes of it.

    Attributes:
        becomes: what stays at the site: the name of a function, or the class of a layer.
        moved: what went where, in a few words: `"a, c into conv1; b, d into conv2"`.
        why: the reason why the rest stays; empty where all of it went.
    """

    becomes: str
    moved: str
    why: str
    fresh: Any = field(default=None, repr=False, compare=False)


class Foldings(Sites[Folding]):
    """A list of sites and what folding makes of them, which prints as a table."""

    heads = ("site", "kind", "function", "becomes", "moved", "why the rest stays")
    values: dict[int, np.ndarray]

    def row(self, site):
        return site.name, site.kind, site.function, site.becomes, site.moved, site.why

    def last(self):
        return f"{sum(bool(site.moved) for site in self)} of {len(self)} folded into other layers"


def fold_activations(model: keras.Model) -> keras.Model:
    """A copy of a trained model that computes the same with fewer operations, for shipping.

    * In ``b f(a z + c) + d`` a and c move into the preceding layer (a dense layer, convolution or batch normalization
      that nothing else uses), and b and d into the dense layer or convolution that follows, through pooling, dropout
      and flattening where they commute. What remains is f, a plain Keras activation where all four moved.
    * AReLU, ``max(a z + c, b z + d)``, is a shifted and scaled leaky ReLU, and is folded likewise; so are Swish (SiLU),
      FReLU (ReLU) and PELU (ELU).
    * A mixture loses members of weight 0, and keeps its weights fixed; one with a single member left is
      that member.

    Only exact folds are made, between layers of Keras's own classes; `plan_folding` lists what stays, and why. Outputs
    in inference agree to 1e-5, relative to their size, in float32. The library's layers that remain are frozen.
    Regularizers of a scaled kernel act on the scaled values if the copy is trained.

    ```python
    ka.fold_activations(model).export("model")
    ```

    Args:
        model: a functional or sequential model; models nested in it are folded too.

    Raises:
        ValueError: for a subclassed model, or a layer that can't be rebuilt from its configuration.
    """
    plan = plan_folding(model)
    chosen = {id(site.layer): site for site in plan if site.fresh is not None}

    def make(layer):
        site = chosen.get(id(layer))
        if site is None:
            return None
        return rebuilt(layer, activation=site.fresh) if site.attribute else site.fresh

    copied = copy_model(model, make, plan.values)
    for activation in activations_of(copied):  # in layers' own code and in wrappers, too
        if isinstance(activation, TrainableActivation):
            activation.trainable = False
    return copied


def plan_folding(model: keras.Model) -> Foldings:
    """Every trainable activation of a model, and what `fold_activations` would make of it; nothing is changed.

    ```python
    print(ka.plan_folding(model))
    ```

    Argument and errors are those of `fold_activations`.
    """
    require_graph(model, "use it unfolded")
    survey = Survey(model)
    weights = _Weights()
    plan = Foldings(
        _folded(site, survey, weights) for site in survey.sites if isinstance(site.activation, TrainableActivation)
    )
    plan.values = weights.values
    return plan


def _folded(site: Site, survey: Survey, weights: "_Weights") -> Folding:
    activation = site.activation
    is_built = activation.parameter_shape is not None and survey.calls.of(site.layer)
    if site.outer is not None:
        kind = type(site.outer).__name__
        why = f"where {kind} applies it isn't known" if site.layer is site.outer else f"inside a {kind}"
        return _result(site, None, "", site.kept or why)
    if len(site.nested) > 1:
        return _result(site, None, "", site.kept or "inside an Activation")
    if site.kept or not is_built:
        return _result(site, None, "", site.kept or "the model isn't built yet")
    if any(getattr(part, "activity_regularizer", None) is not None for part in (site.layer, activation)):
        return _result(site, None, "", "it has an activity regularizer")
    if activation.compute_dtype not in _PRECISE:
        return _result(site, None, "", f"it computes in {activation.compute_dtype}")
    form = form_of(activation)
    if not isinstance(form, Form):
        why = "a mixture" if form is not None else "its parameters or its formula can't be taken apart"
        return _result(site, form, "", why)
    before = _Before(site, survey)
    form, into_before = before.take(form, weights)
    after = _After(site, survey, form)
    form, into_after = after.take(form, weights)
    fresh: Any = layer_of_form(form, activation)
    rests = isinstance(fresh, TrainableActivation)
    if rests and not into_before and not into_after:
        fresh = None
    reasons = dict.fromkeys(reason for reason in (before.why, after.why) if reason and rests)
    return _result(site, fresh, "; ".join(filter(None, (into_before, into_after))), "; ".join(reasons))


def _result(site: Site, fresh, moved: str, why: str) -> Folding:
    known = {name: getattr(site, name) for name in Site.__dataclass_fields__}
    becomes = site.function if fresh is None else name_of(fresh)
    return Folding(**known, becomes=becomes, moved=moved, why=why, fresh=fresh)


class _Weights:
    """The weights of layers as they will be in the copy, by the id of the variable."""

    def __init__(self):
        self.values: dict[int, np.ndarray] = {}

    def of(self, variable) -> np.ndarray:
        if id(variable) not in self.values:
            return ops.convert_to_numpy(variable.value).astype("float64")
        return self.values[id(variable)]

    def scale(self, variable, factor, offset=0.0) -> None:
        self.values[id(variable)] = self.of(variable) * factor + offset


class _Before:
    """The layer before a site that takes a and c, or the reason why there is none."""

    def __init__(self, site: Site, survey: Survey):
        self.site, self.survey = site, survey
        self.weights: Any = None
        found = self._found()
        self.layer: Any = None if isinstance(found, str) else found
        self.why = found if isinstance(found, str) else ""

    def _found(self) -> Any:
        site: Any = self.site
        calls = self.survey.calls
        if site.place == "inside":
            return f"where {site.kind} applies it isn't known"
        layer: Any = site.layer
        if site.place == "itself":
            makers = calls.makers(layer)
            if len(calls.of(layer)) != 1 or len(makers) != 1:
                return "it is called more than once" if makers else "no layer comes before it"
            layer = makers[0]
            if not isinstance(layer, keras_layers.Layer) or function_at(layer, "activation") is not None:
                return f"{layer.name} before it can't take a scale"
            if len(calls.users(layer)) != 1 or calls.leaves(layer):
                return f"the output of {layer.name} is used elsewhere"
        self.weights = _weights_before(layer)
        return layer if (why := _unfit(layer, self.survey, self.weights)) is None else why

    def take(self, form: Form, weights: _Weights) -> tuple[Form, str]:
        """What is left of a form, and what went."""
        if self.layer is None:
            return form, ""
        weight, bias = self.weights
        if np.ndim(form.a) and not self._is_aligned(weight):
            self.why = f"{self.layer.name} has its channels on another axis"
            return form, ""
        if not _in_range(form.a):
            self.why = "its scale is too large or too small"
            return form, ""
        went = ["a"] if np.any(form.a != 1) else []
        weights.scale(weight, form.a)
        form, a = replace(form, a=np.ones_like(form.a)), form.a
        if bias is None:
            self.why = f"{self.layer.name} has no bias"
        else:
            weights.scale(bias, a, form.c)
            went += ["c"] if np.any(form.c != 0) else []
            form = replace(form, c=np.zeros_like(form.c))
        return form, f"{', '.join(went)} into {self.layer.name}" if went else ""

    def _is_aligned(self, weight) -> bool:
        """Whether the parameters of each channel meet the same channel in the layer."""
        rank = len(self.survey.calls.outputs(self.layer)[0].shape)
        axis = channel_axis(self.site.activation.data_format, rank)
        return axis == _feature_axis(self.layer, rank) and self.site.activation.parameter_shape == tuple(
            weight.shape[-1:]
        )


class _After:
    """The dense layer or convolution after a site, what is between, and the reason why b or d can't go there."""

    def __init__(self, site: Site, survey: Survey, form: Form):
        self.site, self.survey = site, survey
        self.by_channel = np.ndim(form.b) > 0
        self.pads = False
        found = "" if site.place == "inside" else self._found(form)
        self.layer: Any = None if isinstance(found, str) else found
        self.why = found if isinstance(found, str) else ""

    def _found(self, form: Form) -> Any:
        site: Any = self.site
        calls = self.survey.calls
        layer: Any = site.layer
        rank = len(calls.outputs(layer)[0].shape) if calls.outputs(layer) else 0
        axis = channel_axis(self.site.activation.data_format, rank) if self.by_channel else None
        while True:
            users = calls.users(layer)
            if len(calls.of(layer)) != 1 or len(users) != 1 or calls.leaves(layer):
                return "its output is an output of the model, or used elsewhere"
            node, before = users[0], layer
            layer = node.operation
            if not takes_one_tensor(node):
                return f"the call of {layer.name} has other arguments"
            if type(layer) in _WITH_KERNELS:
                return self._end(layer, calls.outputs(before)[0], axis)
            why, axis = self._through(layer, axis, len(calls.outputs(before)[0].shape), form)
            if why:
                return why

    def _through(self, layer, axis: int | None, rank: int, form: Form) -> tuple[str, int | None]:
        """Why b and d don't commute with a layer, if so, and on which axis the channels are behind it."""
        kind: Any = type(layer)
        if getattr(layer, "compute_dtype", "float32") not in _PRECISE:
            return f"{layer.name} computes in {layer.compute_dtype}, which would round again", axis
        if kind in _SAME:
            return "", axis
        if kind in _MOVED:
            return (f"{layer.name} moves the channels" if self.by_channel else ""), axis
        pool = _POOLS.get(kind) or _GLOBAL_POOLS.get(kind)
        if pool is None:
            return f"{layer.name} after it can't be moved through", axis
        if pool == "Max" and np.any(form.b <= 0):
            return f"a negative scale doesn't go through {layer.name}", axis
        if self.by_channel and axis != _feature_axis(layer, rank):
            return f"{layer.name} pools over the channels", axis
        if kind in _GLOBAL_POOLS:
            return "", axis if layer.keepdims else 1
        self.pads |= pool == "Average" and layer.padding != "valid"
        return "", axis

    def _end(self, layer, tensor, axis: int | None) -> Any:
        why = _unfit(layer, self.survey, (layer.kernel, layer.bias))
        if why is None and self.by_channel:
            aligned = axis == _feature_axis(layer, len(tensor.shape)) and getattr(layer, "groups", 1) == 1
            if not aligned or self.site.activation.parameter_shape != tuple(layer.kernel.shape[-2:-1]):
                why = f"{layer.name} has its channels on another axis, or in groups"
        self.pads |= getattr(layer, "padding", "valid") != "valid"
        return layer if why is None else why

    def take(self, form: Form, weights: _Weights) -> tuple[Form, str]:
        """What is left of a form, and what went."""
        if self.layer is None:
            return form, ""
        if not _in_range(form.b):
            self.why = "its scale is too large or too small"
            return form, ""
        kernel, bias = self.layer.kernel, self.layer.bias
        b, d = (value[:, None] if self.by_channel else value for value in (form.b, form.d))
        went = ["b"] if np.any(form.b != 1) else []
        offset = (weights.of(kernel) * d).sum(tuple(range(len(kernel.shape) - 1)))
        weights.scale(kernel, b)
        form, rest = replace(form, b=np.ones_like(form.b), d=np.zeros_like(form.d)), form.d / form.b
        if bias is None or self.pads:
            self.why = f"{self.layer.name} has no bias" if bias is None else f"{self.layer.name} pads with zeros"
            form = replace(form, d=rest)
        else:
            weights.scale(bias, 1.0, offset)
            went += ["d"] if np.any(rest != 0) else []
        return form, f"{', '.join(went)} into {self.layer.name}" if went else ""


def _weights_before(layer) -> tuple[Any, Any] | None:
    """What of a layer takes a scale, and what an offset."""
    if type(layer) is keras_layers.BatchNormalization:
        return (layer.gamma, layer.beta) if layer.center and layer.scale else None
    return (layer.kernel, layer.bias) if type(layer) in _WITH_KERNELS and layer.built else None


def _unfit(layer, survey: Survey, weights: tuple[Any, Any] | None) -> str | None:
    """Why the weights of a layer must stay what they are, if so."""
    if weights is None:
        return f"a {type(layer).__name__} can't take a scale"
    if survey.calls.is_shared(layer):
        return f"{layer.name} is used elsewhere"
    if layer.activity_regularizer is not None:
        return f"{layer.name} has an activity regularizer"
    if not all(takes_one_tensor(node) for node in survey.calls.of(layer)):
        return f"the call of {layer.name} has other arguments"
    if layer.quantization_mode is not None or not all(w is None or isinstance(w, keras.Variable) for w in weights):
        return f"{layer.name} has no plain weights: it is quantized, or has LoRA's"
    if layer.compute_dtype not in _PRECISE or layer.compute_dtype != layer.variable_dtype:
        return f"{layer.name} computes in {layer.compute_dtype}, which would round again"
    return None


def _feature_axis(layer, rank: int) -> int:
    """On which axis of a tensor of a rank a layer has its channels."""
    if type(layer) is keras_layers.BatchNormalization:
        return layer.axis % rank
    is_first = getattr(layer, "data_format", None) == "channels_first"
    return 1 if is_first else rank - 1


def _in_range(factor: np.ndarray) -> bool:
    return bool(np.all((np.abs(factor) >= _LEAST) & (np.abs(factor) <= _MOST)))
