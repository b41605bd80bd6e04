"""The activations of an existing model: found, listed, and replaced in a copy that keeps its weights."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_adaptact.base import TrainableActivation
from keras_adaptact.registry import Spec, get, lookup

_LAYERS = ("Activation", "ReLU", "LeakyReLU", "ELU", "PReLU", "Softmax")  # of keras.layers: activations themselves
_GATES = ("sigmoid", "hard_sigmoid", "softmax")  # what gates and heads are made of
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
    """

    name: str
    kind: str
    function: str
    replaced: bool
    why: str
    starts_equal: bool | None = None
    layer: Any = field(default=None, repr=False, compare=False)
    spec: Spec = field(default=None, repr=False, compare=False)


class Sites(list[Site]):
    """A list of sites that prints as a table."""

    def __str__(self):
        heads = ("site", "kind", "function", "replaced", "starts as the old one", "why")
        said = {True: "yes", False: "no", None: ""}
        rows = [(s.name, s.kind, s.function, said[s.replaced], said[s.starts_equal], s.why) for s in self]
        widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in (heads, *rows)]
        return "\n".join([*lines, f"{sum(s.replaced for s in self)} of {len(self)} replaced"])


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
    names. Where the new activation starts as the old one, the copy computes the same to the bit.

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
        A new model, not compiled. Its layers have the dtype policy, and are trainable, as they were.

    Raises:
        ValueError: for a subclassed model, a layer that can't be rebuilt from its configuration, an unknown name, or
            where no site matches.
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
        if _is_activation(layer):
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
    if choose is None and (new is None or (source is None and layers is None)):
        raise ValueError(
            "A replacement needs `source` or `layers`, and `new`; or `choose`. "
            f"Received: source={source!r}, new={new!r}, layers={layers!r}"
        )
    if choose is not None and not (source is new is layers is None):
        raise ValueError(f"`choose` stands alone. Received: source={source!r}, new={new!r}, layers={layers!r}")
    patterns = [layers] if isinstance(layers, str) else layers
    parts = list(walk(model))
    matches = _matcher(source, {name_of(f) for _, layer, _ in parts if (f := function_at(layer, "activation"))})
    found = Sites()
    for name, layer, parent in parts:
        for hidden in _hidden(layer):
            why = f"inside a {type(layer).__name__}, which is rebuilt whole"
            found.append(Site(f"{name}/{hidden.name}", type(hidden).__name__, name_of(hidden.activation), False, why))
        for attribute in ("activation", "recurrent_activation"):
            function = function_at(layer, attribute)
            if function is None:
                continue
            spec, why = None, ""
            if attribute == "recurrent_activation":
                why = "a gate of a recurrent layer"
            elif choose is not None:
                spec = choose(layer)
                why = "chosen" if spec is not None else "not chosen"
            elif patterns is not None and not any(fnmatchcase(n, p) for n in (name, layer.name) for p in patterns):
                why = "its name doesn't match"
            elif not matches(function):
                why = "another function"
            elif patterns is None and (gate := _gate(layer, function, parent)):
                why = gate
            elif not _is_activation(layer) and "activation" not in layer.get_config():
                why = "its configuration has no `activation`"
            else:
                spec, why = new, "matches"
            equal = None if spec is None else _same(function, _fresh(layer, spec, dtype="float32"), _channels(layer))
            place = name if attribute == "activation" else f"{name}.{attribute}"
            kind = type(layer).__name__
            found.append(Site(place, kind, name_of(function), spec is not None, why, equal, layer, spec))
    return found


# A model's parts


def is_graph(model) -> bool:
    """Whether Keras knows how a model's layers are called: a functional or a sequential one."""
    return isinstance(model, keras.Sequential) or (isinstance(model, keras.Model) and isinstance(model, keras.Function))


def walk(model: keras.Model, path: str = "") -> Iterator[tuple[str, Any, keras.Model]]:
    """Each layer and operation of a model and of those nested in it, once: its path, itself, the model it is in.

    Raises:
        ValueError: for a subclassed model.
    """
    if not is_graph(model):
        raise ValueError(
            "Keras doesn't know how the layers of a subclassed model are called; a functional or sequential model is "
            f"needed, or a layer of the library where yours has a plain activation. Received: {model!r}"
        )
    seen = set()
    for operation in model.layers if isinstance(model, keras.Sequential) else model.operations:
        name = f"{path}{operation.name}"
        for found in walk(operation, f"{name}/") if is_graph(operation) else [(name, operation, model)]:
            if id(found[1]) not in seen:
                seen.add(id(found[1]))
                yield found


def every_layer(model: keras.Model) -> list[keras.layers.Layer]:
    """All layers of a model, those inside others and in `activation=` too."""
    return list(model._flatten_layers(include_self=False))


def activations_of(model: keras.Model) -> list[keras.layers.Layer]:
    """The trainable activations of a model: the library's, and Keras's PReLU."""
    return [layer for layer in every_layer(model) if isinstance(layer, TrainableActivation | keras.layers.PReLU)]


def copy_model(model: keras.Model, make: Callable[[Any], Any], call: Callable | None = None) -> keras.Model:
    """A copy of a graph of layers: `make(layer)` gives a new layer, or None for one like the old; weights are kept.

    Variables are carried over from each layer to its copy, but for those of activations in what `make` gave.
    """
    copies: dict[int, tuple[Any, Any]] = {}
    made: set[int] = set()

    def clone(operation):
        if id(operation) not in copies:
            if is_graph(operation):
                new = _copy_graph(operation, clone, call)
            else:
                new = make(operation)
                if new is None:
                    new = rebuilt(operation)
                else:
                    made.add(id(operation))
            copies[id(operation)] = operation, new
        return copies[id(operation)][1]

    copied = _copy_graph(model, clone, call)
    for old, new in copies.values():
        if isinstance(old, keras.layers.Layer) and not is_graph(old):
            _carry(old, new, id(old) in made)
    return copied


def _copy_graph(model, clone, call) -> keras.Model:
    compiled, model.compiled = model.compiled, False  # or Keras would compile the copy, and fail on a loss of one's own
    try:
        options = {} if call is None or isinstance(model, keras.Sequential) else {"call_function": call}
        copied = keras.models.clone_model(model, clone_function=clone, **options)
    finally:
        model.compiled = compiled
    if not model.trainable:
        copied.trainable = False
    return copied


def rebuilt(operation, **changes):
    """A new layer or operation of the configuration of one, with some arguments changed."""
    if isinstance(operation, keras.layers.Lambda):
        return operation  # has no weights, and its function is not always to be had from a configuration
    try:
        return type(operation).from_config(operation.get_config() | changes)
    except Exception as error:
        raise ValueError(
            f"{operation.name} can't be rebuilt from its configuration; {type(operation).__name__} needs a "
            f"`get_config` that gives its constructor's arguments. Received: {error}"
        ) from error


def _carry(old: keras.layers.Layer, new: keras.layers.Layer, made: bool) -> None:
    """Gives a layer the variables of another; where it was made, but for those of its activation."""
    before, after = (_without_activation(layer) if made else layer.variables for layer in (old, new))
    if len(before) != len(after):
        raise ValueError(f"{old.name} has {len(before)} variables, and its copy {len(after)}. Received: {old!r}")
    for source, target in zip(before, after, strict=True):
        target.assign(np.array(ops.convert_to_numpy(source.value)))  # JAX would share, then give away, the buffer
        target.trainable, target.regularizer = source.trainable, source.regularizer
    if hasattr(new, "finalize_state"):
        new.finalize_state()  # preprocessing layers compute from their variables what they use


def _without_activation(layer) -> list:
    if _is_activation(layer):
        return []
    inner = getattr(layer, "activation", None)
    left_out = {id(v) for v in inner.variables} if isinstance(inner, keras.layers.Layer) else ()
    return [v for v in layer.variables if id(v) not in left_out]


# Sites


def _is_activation(layer) -> bool:
    """Whether a layer or operation is an activation itself, and no layer with one."""
    is_layer = isinstance(layer, tuple(getattr(keras.layers, name) for name in _LAYERS))
    return is_layer or isinstance(layer, TrainableActivation) or _is_function_call(layer)


def _is_function_call(operation) -> bool:
    """Whether an operation is a call such as `keras.ops.relu(x)`, of one tensor."""
    if isinstance(operation, keras.layers.Layer):
        return False
    of_activations = type(operation).__module__.rsplit(".", 1)[-1] in ("nn", "activations")
    return of_activations and len(inspect.signature(operation.call).parameters) == 1


def function_at(layer, attribute: str) -> Callable | None:
    """The activation of a layer or operation; None where there is none, or a linear one."""
    function = getattr(layer, attribute, None)
    if function is None and attribute == "activation" and _is_activation(layer):
        return layer
    if not callable(function) or function is keras.activations.linear:
        return None
    return function


def _hidden(layer) -> list[keras.layers.Layer]:
    """Layers with an activation that lie inside another one, where only its own code calls them."""
    if not isinstance(layer, keras.layers.Layer):
        return []
    inner = [part for part in layer._flatten_layers(include_self=False) if part is not getattr(layer, "cell", None)]
    return [part for part in inner if function_at(part, "activation") not in (None, part)]


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


def _same(function: Callable, other: Callable, channels: int = 2) -> bool:
    """Whether two activations give the same numbers, to the bit, from 1e-30 to 3e38 on both sides."""
    z = ops.convert_to_tensor(np.broadcast_to(_GRID[:, None], (len(_GRID), channels)).copy())
    with np.errstate(all="ignore"):
        first, second = (ops.convert_to_numpy(f(z)) for f in (function, other))
        return np.array_equal(first, second, equal_nan=True)


def _gate(layer, function, parent: keras.Model) -> str | None:
    """Why a sigmoid or softmax is no activation between layers, if so."""
    if not any(_same(function, keras.activations.get(name)) for name in _GATES):
        return None
    if isinstance(parent, keras.Sequential):
        return f"an output of {parent.name}" if layer is parent.layers[-1] else None
    if any(output is made for output in parent.outputs for made in _outputs(layer)):
        return f"an output of {parent.name}"
    users = [node.operation for node in layer._outbound_nodes]
    return "a gate: its output is multiplied" if any(type(user).__name__ == "Multiply" for user in users) else None


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
    inside = not _is_activation(layer)
    made = get(spec, name=f"{layer.name}_activation" if inside else layer.name)
    if isinstance(layer, keras.layers.Layer):
        changes = {"dtype": layer.dtype_policy, "trainable": layer.trainable} | changes
    if inside and getattr(made, "granularity", None) == "channel" and isinstance(made, TrainableActivation):
        changes = {
            "channels": _channels(layer),
            "data_format": getattr(layer, "data_format", "channels_last"),
        } | changes
    return type(made).from_config(made.get_config() | changes)
