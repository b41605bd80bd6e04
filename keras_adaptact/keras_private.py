"""What the library needs of Keras and Keras keeps to itself: the only place that names it."""

import inspect
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import keras
from keras.src.backend.common import global_state

_paths: Counter[str] = Counter()


def after_build(notify: Callable[[keras.layers.Layer], None]) -> None:
    """Has `notify(layer)` called for every layer that Keras has built, before its state is locked."""
    keras_does = keras.layers.Layer._post_build

    @wraps(keras_does)
    def post_build(self):
        notify(self)
        return keras_does(self)

    keras.layers.Layer._post_build = post_build


def make_path_unique(variable: keras.Variable) -> None:
    """Gives a variable a path that no other variable of the library has, or had: `act/a`, `act_1/a`, `act_2/a`.

    torch's `parameters()` and JAX's `get_state_tree()` go by paths, and lose one of two that are equal. Counting
    makes them the same in every run of a program, whatever the garbage collector has done.
    """
    scope, _, name = variable.path.rpartition("/")
    path = variable.path
    while path in _paths:
        path = f"{scope}_{_paths[variable.path]}/{name}"
        _paths[variable.path] += 1
    _paths[path] += 1
    variable._path = path


def scope_of(layer: keras.layers.Layer):
    """The name scope that Keras opens for a layer's variables."""
    return layer._open_name_scope()


def calling_layer() -> keras.layers.Layer | None:
    """The layer whose `call` or `build` is under way around that of the layer that asks."""
    scopes = global_state.get_global_attribute("name_scope_stack") or []
    callers: list[Any] = [scope.caller for scope in scopes if scope.caller is not None]
    own = callers[-1] if callers else None
    return next((caller for caller in reversed(callers) if caller is not own), None)


def output_shape_of(layer: keras.layers.Layer) -> tuple[int | None, ...] | None:
    """The shape of what a layer puts out for the shapes that it was built with; None where it can't be known."""
    shapes = layer._build_shapes_dict
    if not shapes or is_traced(layer):
        return None
    return layer.compute_output_shape(*shapes.values())


def is_traced(layer: keras.layers.Layer) -> bool:
    """Whether Keras calls a layer to find its output's shape, which builds what is called in it."""
    return type(layer).compute_output_shape is keras.layers.Layer.compute_output_shape


def set_own_trainable(layer: keras.layers.Layer, value: bool) -> None:
    """Says whether a layer is trainable, and nothing of the layers and variables in it, as `trainable` would."""
    layer._trainable = value


def config_of(layer: keras.layers.Layer) -> dict[str, Any]:
    """The configuration of a layer; of one without a `get_config` of its own, what its constructor was given.

    Keras adds to the latter what a constructor may not take, and then can't load the layer.
    """
    config = layer.get_config()
    if getattr(layer, "_auto_config", None) is None or not getattr(layer.get_config, "_is_default", False):
        return config
    takes = inspect.signature(type(layer)).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in takes.values()):
        return config
    return {name: value for name, value in config.items() if name in takes}


def build_shapes(layer: keras.layers.Layer) -> dict[str, Any]:
    """The shapes of the arguments that a layer was built for, by name; empty where it was built for none."""
    return dict(layer._build_shapes_dict or {}) if layer.built else {}


@contextmanager
def exchanging(owner: keras.layers.Layer, old, new: keras.layers.Layer) -> Iterator[None]:
    """Inside, a layer's attributes can be set though it is built; then it tracks `new` where it tracked `old`.

    What took the place of a function comes first: so the order of variables doesn't depend on what is built when.
    """
    tracker, layers = owner._tracker, owner._layers
    index = next((i for i, layer in enumerate(layers) if layer is old), 0)
    was_locked = tracker.locked
    tracker.unlock()
    try:
        yield
        tracker.untrack(old)
        layers[:] = [layer for layer in layers if layer is not new]
        layers.insert(index, new)
    finally:
        if was_locked:
            tracker.lock()
