"""What the library needs of Keras and Keras keeps to itself: the only place that names it."""

from collections import Counter
from collections.abc import Callable
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
