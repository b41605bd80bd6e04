"""The layers that have an activation of this library in `activation=`, and build it.

A layer such as Dense knows its output's shape without a call, and so first calls its activation when a model has been
compiled: variables that were made only then would never be trained, without a word. Keras tells an activation nothing
of its owner, and has no hook for a layer that has been built, so its own step after building is wrapped.
"""

from typing import Any

import keras

from keras_adaptact.keras_private import after_build, calling_layer, is_traced, output_shape_of, scope_of
from keras_adaptact.places import shape_given


def owner_of(activation) -> keras.layers.Layer | None:
    """The layer that calls an activation of its own, if it can't have built it before.

    Dense and its kin know their output's shape without a call, and so never build their activation: variables made
    inside their first real call would come too late for the optimizer, without a word.
    """
    caller = calling_layer()
    is_late = caller is not None and getattr(caller, "activation", None) is activation and not is_traced(caller)
    return caller if is_late else None


def _build_activations(owner: keras.layers.Layer):
    """Builds the library's layers in `activation=` of one of Keras's, for what they will see."""
    for name in ("activation", "recurrent_activation"):
        activation: Any = getattr(owner, name, None)
        if hasattr(type(activation), "build_for") and not activation.built:
            shape = _seen_by_activations(owner, name)
            if shape is not None:
                with scope_of(owner):
                    activation.build_for(owner, shape)


def _seen_by_activations(owner: keras.layers.Layer, name: str) -> tuple[int | None, ...] | None:
    if not type(owner).call.__module__.startswith("keras."):  # its `call` may use its activation anywhere
        return None if is_traced(owner) else shape_given(owner, name)
    if hasattr(owner, "state_size") and hasattr(owner, "units"):  # a cell of a recurrent layer, or such a layer
        return None, owner.units
    shape: Any = output_shape_of(owner)
    if shape and isinstance(shape[0], list | tuple):  # of a convolutional recurrent cell: its output's, and its states'
        return tuple(shape[0])
    return shape


after_build(_build_activations)
