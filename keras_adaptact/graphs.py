"""The parts of an existing model, walked through."""

from collections.abc import Callable, Container, Iterator
from itertools import count
from typing import Any

import keras

from keras_adaptact.base import TrainableActivation
from keras_adaptact.keras_private import flattened
from keras_adaptact.places import kept_in

_LAYERS = ("Activation", "ReLU", "LeakyReLU", "ELU", "PReLU", "Softmax")  # of keras.layers: activations themselves
_OPERATIONS = {  # of keras.ops and keras.activations, likewise, of one tensor; the module has pooling, too
    *("Relu", "Relu6", "ReLU", "LeakyRelu", "Elu", "Selu", "Celu", "Gelu", "Silu", "Mish", "Squareplus", "Softplus"),
    *("Sigmoid", "HardSigmoid", "HardSilu", "LogSigmoid", "SparseSigmoid", "SparsePlus", "Softsign", "Threshold"),
    *("TanhShrink", "HardTanh", "HardShrink", "SoftShrink", "Softmax", "LogSoftmax", "Sparsemax"),
}


def require_layer(model) -> None:
    if not isinstance(model, keras.layers.Layer):
        raise TypeError(f"A Keras model or layer is needed. Received: {model!r} of type {type(model).__name__}")


def require_graph(model, advice: str) -> None:
    """Refuses what is no functional or sequential model.

    Raises:
        ValueError: for a subclassed model.
        TypeError: for what is no model.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"A Keras model is needed. Received: {model!r} of type {type(model).__name__}")
    if not is_graph(model):
        kind = "model whose `call` was set" if has_other_call(model) else "subclassed model"
        raise ValueError(
            f"Keras doesn't know how the layers of a {kind} are called; a functional or sequential model is needed; or "
            f"{advice}. Received: {model!r}"
        )


def is_graph(model) -> bool:
    """Whether Keras knows how a model calls its layers: a functional or sequential one, without a `call` of its own."""
    if not isinstance(model, keras.Model) or not isinstance(model, keras.Sequential | keras.Function):
        return False
    kind: Any = type(model)
    base = keras_class(model)
    return kind.call is base.call and kind.__call__ is base.__call__ and not has_other_call(model)


def has_other_call(layer) -> bool:
    """Whether the `call` of a layer was set on the object: another one than its class's, which a copy would have."""
    own = vars(layer).get("call")
    return own is not None and getattr(own, "__func__", None) is not type(layer).call


def keras_class(model: keras.Model) -> Any:
    """Keras's own class of a model, or the nearest above it."""
    return next(cls for cls in type(model).__mro__ if cls.__module__.startswith("keras."))


def walk(model: keras.Model, path: str = "") -> Iterator[tuple[str, Any, keras.Model]]:
    """Each layer and operation of a model and of those nested in it, once: its path, itself, the model it is in.

    Raises:
        ValueError: for a subclassed model.
        TypeError: for what is no model.
    """
    require_graph(model, "put a layer of the library where yours has a plain activation")
    seen = set()
    taken: set[str] = set()
    for operation in model.layers if isinstance(model, keras.Sequential) else model.operations:
        taken.add(name := _free(f"{path}{operation.name}", taken))
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
    return flattened(model, itself=False)


def inside(owner: keras.layers.Layer, path: str = "") -> Iterator[tuple[str, keras.layers.Layer]]:
    """The layers in a layer, each once and before those in it, with the path of each: how a site is named everywhere.

    A path is made of names of layers in models, and of attributes in layers of other kinds: `block/dense`. What is
    passed as `activation=`, and the cell of a recurrent layer, go by the path of their owner. Equal ones are numbered.
    """
    return ((place, layer) for place, layer, _ in owned(owner, path))


def owned(owner: keras.layers.Layer, path: str = "") -> Iterator[tuple[str, keras.layers.Layer, keras.layers.Layer]]:
    """The same, with the layer that each was found in."""
    require_layer(owner)
    seen: set[int] = {id(owner)}
    taken = {path: id(owner)}  # by the last of those that go by a path

    def visit(owner, path: str):
        places: dict[int, tuple] = {}
        for steps, layer in kept_in(owner):
            if not str(steps[0]).startswith("_"):
                places.setdefault(id(layer), steps)
        for layer in flattened(owner, itself=False, recursive=False):  # `Model.layers`, of any layer
            if id(layer) not in seen:
                seen.add(id(layer))
                named = _named(owner, layer, places.get(id(layer), ()))
                place = "/".join(filter(None, (path, *named)))
                if named or taken[path] != id(owner):
                    place = _free(place, taken)
                taken[place] = id(layer)
                yield place, layer, owner
                yield from visit(layer, place)

    return visit(owner, path)


def _free(path: str, taken: Container[str]) -> str:
    """A path that no other layer has: that of a second `block/dense` is `block/dense_2`."""
    return next(each for i in count(1) if (each := f"{path}_{i}" if i > 1 else path) not in taken)


def _named(owner: keras.layers.Layer, layer: keras.layers.Layer, steps: tuple) -> tuple[str, ...]:
    """What stands in a path for a layer that is kept in another one."""
    if steps == ("activation",) or (steps == ("cell",) and isinstance(owner, keras.layers.RNN)):
        return ()
    if not steps or isinstance(owner, keras.Sequential | keras.Function):
        return (layer.name,)
    return tuple(map(str, steps))


def activations_of(model: keras.Model) -> list[keras.layers.Layer]:
    """The trainable activations of a model: the library's, and Keras's PReLU."""
    return [layer for layer in every_layer(model) if isinstance(layer, TrainableActivation | keras.layers.PReLU)]


def is_activation(layer) -> bool:
    """Whether a layer or operation is an activation itself, and no layer with one."""
    is_layer = isinstance(layer, tuple(getattr(keras.layers, name) for name in _LAYERS))
    return is_layer or isinstance(layer, TrainableActivation) or _is_function_call(layer)


def _is_function_call(operation) -> bool:
    """Whether an operation is a call such as `keras.ops.relu(x)`, of one tensor."""
    if isinstance(operation, keras.layers.Layer):
        return False
    kind = type(operation)
    return kind.__module__.rsplit(".", 1)[-1] in ("nn", "activations") and kind.__name__ in _OPERATIONS


def function_at(layer, attribute: str) -> Callable | None:
    """The activation of a layer or operation; None where there is none, or a linear one."""
    function = getattr(layer, attribute, None)
    if function is None and attribute == "activation" and is_activation(layer):
        return layer
    if not callable(function) or function is keras.activations.linear:
        return None
    return function
