"""The parts of an existing model: walked through, and copied with their weights."""

import inspect
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_adaptact.base import TrainableActivation

_LAYERS = ("Activation", "ReLU", "LeakyReLU", "ELU", "PReLU", "Softmax")  # of keras.layers: activations themselves


def require_layer(model) -> None:
    if not isinstance(model, keras.layers.Layer):
        raise TypeError(f"A Keras model or layer is needed. Received: {model!r} of type {type(model).__name__}")


def is_graph(model) -> bool:
    """Whether Keras knows how a model calls its layers: a functional or sequential one, without a `call` of its own."""
    if not isinstance(model, keras.Model) or not isinstance(model, keras.Sequential | keras.Function):
        return False
    kind: Any = type(model)
    return kind.call is _keras_class(model).call


def _keras_class(model: keras.Model) -> Any:
    """Keras's own class of a model, or the nearest above it."""
    return next(cls for cls in type(model).__mro__ if cls.__module__.startswith("keras."))


def walk(model: keras.Model, path: str = "") -> Iterator[tuple[str, Any, keras.Model]]:
    """Each layer and operation of a model and of those nested in it, once: its path, itself, the model it is in.

    Raises:
        ValueError: for a subclassed model.
        TypeError: for what is no model.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"A Keras model is needed. Received: {model!r} of type {type(model).__name__}")
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
    """All layers of a model or layer, those inside others and in `activation=` too.

    Raises:
        TypeError: for what is neither.
    """
    require_layer(model)
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
    if type(model) is not _keras_class(model):
        warnings.warn(
            f"The copy of {model.name} is a plain Keras model, without what {type(model).__name__} adds to one.",
            stacklevel=2,
        )
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
    if is_activation(layer):
        return []
    inner = getattr(layer, "activation", None)
    left_out = {id(v) for v in inner.variables} if isinstance(inner, keras.layers.Layer) else ()
    return [v for v in layer.variables if id(v) not in left_out]


def is_activation(layer) -> bool:
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
    if function is None and attribute == "activation" and is_activation(layer):
        return layer
    if not callable(function) or function is keras.activations.linear:
        return None
    return function
