"""The activations of an existing model: found, listed, and replaced in a copy that keeps its weights."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_adaptact.base import TrainableActivation
from keras_adaptact.copies import copy_model, rebuilt
from keras_adaptact.graphs import function_at, is_activation, walk
from keras_adaptact.registry import Spec, get, lookup

_GATES = ("sigmoid", "hard_sigmoid", "softmax")  # what gates and heads are made of
_MULTIPLY = ("Multiply", "Dot", "Matmul", "Einsum")
_MOVE = (  # what a gate goes through on its way
    *("Reshape", "Flatten", "Permute", "Transpose", "ExpandDims", "Squeeze", "RepeatVector", "BroadcastTo"),
    *("UpSampling1D", "UpSampling2D", "Cast", "Dropout", "Identity"),
)
_RANGE = np.concatenate([10.0 ** np.arange(-30, 39, 4), [3.4e38], np.linspace(0, 20, 81)])
_GRID = np.concatenate([-_RANGE[::-1], _RANGE]).astype("float32")


@dataclass(frozen=True)
class Site:
    """A place of a model where an activation is computed, and what a replacement does to it.

    Attributes:
        name: of the layer, behind those of the models that it lies in: `"backbone/conv1"`.
        kind: the class of the layer, or of the Keras operation.
        function: the name of the activation there.
        replaced: whether it is replaced.
        why: the reason, in a few words.
        starts_equal: whether the new activation starts as the old one, to the bit in float32; None where none is new.
        starts_close: whether it does to 1e-5, as it is where a compiler orders operations anew; None as above.
    """

    name: str
    kind: str
    function: str
    replaced: bool
    why: str
    starts_equal: bool | None = None
    starts_close: bool | None = None
    layer: Any = field(default=None, repr=False, compare=False)
    spec: Spec = field(default=None, repr=False, compare=False)


class Sites(list[Site]):
    """A list of sites that prints as a table."""

    def __str__(self):
        heads = ("site", "kind", "function", "replaced", "starts as the old one", "why")
        rows = [(s.name, s.kind, s.function, "yes" if s.replaced else "no", _starts(s), s.why) for s in self]
        widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in (heads, *rows)]
        return "\n".join([*lines, f"{sum(s.replaced for s in self)} of {len(self)} replaced"])


def _starts(site: Site) -> str:
    if site.starts_equal is None:
        return ""
    return "yes" if site.starts_equal else "to 1e-5" if site.starts_close else "no"


def replace_activations(
    model: keras.Model,
    source: Spec = None,
    new: Spec = None,
    *,
    layers: str | Sequence[str] | None = None,
    choose: Callable[[keras.layers.Layer], Spec] | None = None,
    verbose: bool = False,
) -> keras.Model:
    """A copy of a model with other activations and the same weights; the model itself is not touched.

    Each site gets a fresh layer of its own; one that the model calls several times stays one. Layers keep their
    names. Where the new activation starts as the old one, the copy computes the same to the bit; but for tensors so
    large that a backend compiles for them (2**18 elements on CPU): there each site is the same to rounding.

    ```python
    model = ka.replace_activations(keras.applications.ResNet50(), "relu", "arelu")
    model = ka.replace_activations(model, "sigmoid", "asigmoid", layers="gate_*")
    model = ka.replace_activations(model, choose=lambda layer: "arelu" if layer.name.startswith("conv5") else None)
    ```

    Args:
        model: a functional or sequential model; models nested in it are searched too.
        source: what is replaced: the name of an activation, a function, or a layer (`ReLU(6.0)` is not "relu"). A
            site matches that computes the same, wherever it is: in `activation=`, in a layer such as `Activation`
            or `ReLU`, or in a function called on a Keras tensor. A class of trainable activations, or its name,
            matches its instances; the name of a function of the model's own, its sites. None matches every site but
            linear ones, and needs `layers`.
        new: a spec for `get`: a name, a dict, a class, or a layer whose configuration is taken.
        layers: a pattern of layer names such as `"conv5_*"`, or several; all by default. Gates and heads of
            sigmoid, hard sigmoid and softmax, whose output is multiplied or the model's own, must be named so.
        choose: a function of a layer that returns a spec, or None to keep it; instead of the three above.
        verbose: whether to print what `plan_replacement` returns.

    Returns:
        A new model, not compiled. Its layers have the dtype policy, and are trainable, as they were. Of a functional
        model of a class of its own the copy is a plain one, without that class's methods; a warning says so.

    Raises:
        ValueError: for a subclassed model, a layer that can't be rebuilt from its configuration, an unknown name, or
            where no site matches.
        TypeError: for what is no model, or an argument of another type.
    """
    sites = plan_replacement(model, source, new, layers=layers, choose=choose)
    if verbose:
        print(sites)
    if not any(site.replaced for site in sites):
        raise ValueError(f"No activation of {model.name} matches. Received: source={source!r}, layers={layers!r}")
    chosen = {id(site.layer): site for site in sites if site.replaced}

    def make(layer):
        site = chosen.get(id(layer))
        if site is None:
            return None
        fresh = _fresh(layer, site.spec)
        if is_activation(layer):
            return fresh
        if not fresh.built and _outputs(layer):
            fresh.build(_outputs(layer)[0].shape)  # the layer that it will be in won't
        return rebuilt(layer, activation=fresh)

    return copy_model(model, make)


def plan_replacement(
    model: keras.Model,
    source: Spec = None,
    new: Spec = None,
    *,
    layers: str | Sequence[str] | None = None,
    choose: Callable[[keras.layers.Layer], Spec] | None = None,
) -> Sites:
    """Every activation site of a model, and what `replace_activations` would do with it; nothing is changed.

    Arguments and errors are those of `replace_activations`. Prints as a table: `print(ka.plan_replacement(...))`.
    """
    rule = _Rule(source, new, layers, choose)
    parts = list(walk(model))
    rule.learn({name_of(f) for _, layer, _ in parts if (f := function_at(layer, "activation"))})
    found = Sites()
    for name, layer, parent in parts:
        found += _unseen(name, layer)
        kind = type(layer).__name__
        if (function := function_at(layer, "activation")) is not None:
            spec, why = rule.decide(name, layer, function, parent)
            bits, close = None, None
            if spec is not None:
                bits, close = _compared(function, _fresh(layer, spec, dtype="float32"), _channels(layer))
            found.append(Site(name, kind, name_of(function), spec is not None, why, bits, close, layer, spec))
        if (function := function_at(layer, "recurrent_activation")) is not None:
            why = "a gate of a recurrent layer"
            found.append(Site(f"{name}.recurrent_activation", kind, name_of(function), False, why))
    return found


class _Rule:
    """What the arguments of a replacement say of a site."""

    def __init__(self, source, new, layers, choose):
        said = f"source={source!r}, new={new!r}, layers={layers!r}"
        if choose is None and (new is None or (source is None and layers is None)):
            raise ValueError(
                f"A replacement needs `source` or `layers`, and `new`; or `choose`. Received: {said}, choose=None"
            )
        if choose is not None and not (source is new is layers is None):
            raise ValueError(f"`choose` stands alone. Received: {said}, choose={choose!r}")
        if choose is not None and not callable(choose):
            raise TypeError(f"`choose` must be a function of a layer. Received: {choose!r}")
        self.patterns = [layers] if isinstance(layers, str) else layers
        if not isinstance(self.patterns, Sequence | None) or not all(isinstance(p, str) for p in self.patterns or ()):
            raise TypeError(f"`layers` must be a pattern of layer names, or several. Received: {layers!r}")
        if choose is None:
            get(new)  # an unknown name is an error even where nothing matches
        self.source, self.new, self.choose = source, new, choose

    def learn(self, present: set[str]) -> None:
        """Takes the names of the activations in the model, which `source` may be one of."""
        self.matches = _matcher(self.source, present)

    def decide(self, name: str, layer, function, parent) -> tuple[Spec, str]:
        """What the new activation is, or None, and why."""
        if self.choose is not None:
            spec = self.choose(layer)
            return spec, "not chosen" if spec is None else "chosen"
        if self.patterns is not None and not any(fnmatchcase(n, p) for n in (name, layer.name) for p in self.patterns):
            return None, "its name doesn't match"
        if not self.matches(function):
            return None, "another function"
        if self.patterns is None and (gate := _gate(layer, function, parent)):
            return None, gate
        if not is_activation(layer) and "activation" not in layer.get_config():
            return None, "its configuration has no `activation`"
        return self.new, "matches"


def _unseen(name: str, layer) -> list[Site]:
    """Sites in what can't be taken apart: layers that only another one's code calls, and such code itself."""
    if not isinstance(layer, keras.layers.Layer):
        return []
    kind = type(layer).__name__
    found = [
        Site(f"{name}/{hidden.name}", type(hidden).__name__, name_of(hidden), False, f"inside a {kind}")
        for hidden in _hidden(layer)
    ]
    is_own = isinstance(layer, keras.layers.Lambda) or not type(layer).__module__.startswith("keras.")
    if is_own and function_at(layer, "activation") is None:
        found.append(Site(name, kind, "?", False, "what its own code calls can't be seen"))
    return found


def _hidden(layer) -> list[keras.layers.Layer]:
    """Activations, and layers with one, that lie inside another layer; a recurrent layer and its cell are one."""
    inner = list(layer._flatten_layers(include_self=False))
    every = [layer, *inner]
    known = {id(getattr(each, name, None)) for each in every for name in ("activation", "cell")}
    return [part for part in inner if id(part) not in known and function_at(part, "activation") is not None]


def name_of(function) -> str:
    """The name by which a person knows an activation."""
    function = getattr(function, "activation", function)
    return getattr(function, "__name__", type(function).__name__)


def _matcher(source: Spec, present: set[str]) -> Callable[[Callable], bool]:
    """What tells the activations that are meant; `present` are the names of those in the model."""
    if source is None:
        return lambda function: True
    if isinstance(source, str):
        try:
            source = lookup(source)
        except ValueError:
            if source not in present:
                raise
            return lambda function: name_of(function) == source
    if isinstance(source, type) and issubclass(source, keras.layers.PReLU):
        source = keras.layers.PReLU  # the library's is one of Keras's
    if isinstance(source, type) and issubclass(source, TrainableActivation | keras.layers.PReLU):
        return lambda function: isinstance(function, source)
    reference = get(source)
    known: dict[int, bool] = {}

    def matches(function):
        if getattr(function, "variables", None):
            return False
        if id(function) not in known:
            known[id(function)] = _same(function, reference)
        return known[id(function)]

    return matches


def _same(function: Callable, other: Callable) -> bool:
    return _compared(function, other)[0]


def _compared(function: Callable, other: Callable, channels: int = 2) -> tuple[bool, bool]:
    """Whether two activations give the same numbers from 1e-30 to 3e38 on both sides: to the bit, and to 1e-5."""
    z = np.broadcast_to(_GRID[:, None], (len(_GRID), channels)).copy()
    try:
        with np.errstate(all="ignore"):
            first, second = (ops.convert_to_numpy(_in_float32(f)(ops.array(z))) for f in (function, other))
    except Exception:  # of a model's own function, which may ask for tensors of another rank
        return False, False
    if np.array_equal(first, second, equal_nan=True):
        return True, True
    if first.shape != z.shape:
        return False, False
    first, second, size = (values.astype("float64") for values in (first, second, np.abs(z)))
    return False, np.allclose(first, second, 1e-5, 1e-5 * size, equal_nan=True)


def _in_float32(function: Callable) -> Callable:
    """An activation of low precision as it is in float32, if it has no numbers of its own."""
    if isinstance(function, keras.layers.Layer) and not function.variables and function.compute_dtype != "float32":
        return rebuilt(function, dtype="float32")
    return function


def _gate(layer, function, parent: keras.Model) -> str | None:
    """Why a sigmoid or softmax is no activation between layers, if so."""
    if not any(_same(function, keras.activations.get(name)) for name in _GATES):
        return None
    carriers = [layer]  # of its output
    for carrier in carriers:
        users = [node.operation for node in carrier._outbound_nodes]
        if any(type(user).__name__ in _MULTIPLY for user in users):
            return "a gate: its output is multiplied"
        carriers += [user for user in users if type(user).__name__ in _MOVE and user not in carriers]
    ends = {id(tensor) for tensor in getattr(parent, "outputs", ())}  # a Sequential may have none yet
    is_last = isinstance(parent, keras.Sequential) and parent.layers[-1] in carriers
    if is_last or any(id(made) in ends for carrier in carriers for made in _outputs(carrier)):
        return f"an output of {parent.name}"
    return None


def _outputs(layer) -> list:
    return [tensor for node in layer._inbound_nodes for tensor in node.output_tensors]


def _channels(layer) -> int:
    """How many channels a layer puts out, where it is known."""
    made = _outputs(layer)
    if not made:
        return getattr(layer, "units", None) or getattr(layer, "filters", None) or 1
    axis = 1 if getattr(layer, "data_format", None) == "channels_first" else -1
    return made[0].shape[axis] or 1


def _fresh(layer, spec: Spec, **changes) -> keras.layers.Layer:
    """A new activation for a layer or operation: named and typed after it, with as many channels where it asks."""
    inside = not is_activation(layer)
    made = get(spec, name=f"{layer.name}_activation" if inside else layer.name)
    if isinstance(layer, keras.layers.Layer):
        policy = layer.dtype_policy
        if policy.quantization_mode is not None:
            policy = policy.get_config()["source_name"]  # an activation has nothing to quantize
        changes = {"dtype": policy, "trainable": layer.trainable} | changes
    if inside and getattr(made, "granularity", None) == "channel" and isinstance(made, TrainableActivation):
        changes = {
            "channels": _channels(layer),
            "data_format": getattr(layer, "data_format", "channels_last"),
        } | changes
    return type(made).from_config(made.get_config() | changes)
