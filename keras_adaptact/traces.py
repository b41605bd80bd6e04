"""What a layer's own code does with its activations, seen in a symbolic call."""

from typing import Any

import keras

from keras_adaptact.keras_private import build_shapes, stand_ins


def call_symbolically(layer: keras.layers.Layer, node=None) -> None:
    """Calls a layer's code with Keras tensors: as `node`, one of its calls, does; or for what it was built for.

    Raises:
        Exception: whatever the code raises, if it can't be called with symbols.
    """
    arguments, options = _arguments(layer, node)
    keras.Operation.compute_output_spec(layer, *arguments, **options)


def _arguments(layer, node) -> tuple[tuple, dict]:
    if node is not None:
        return node.arguments.args, node.arguments.kwargs
    shapes = build_shapes(layer)
    if not shapes:
        raise ValueError(f"A layer that was built for a shape is needed. Received: {layer!r}")
    tensors = {
        name.removesuffix("_shape"): keras.tree.map_shape_structure(keras.KerasTensor, shape)
        for name, shape in shapes.items()
    }
    return (tuple(tensors.values()), {}) if len(tensors) == 1 else ((), tensors)


def shape_given(owner: keras.layers.Layer, attribute: str) -> tuple[int | None, ...] | None:
    """The shape of what a layer's code gives to its activation; None where that isn't one shape, or can't be seen."""
    shapes: list[tuple] = []

    def activation(inputs, *args, **kwargs):
        shapes.append(tuple(inputs.shape))
        return inputs

    try:
        with stand_ins([(owner, attribute, activation)]):
            call_symbolically(owner)
    except Exception:
        return None
    return common(shapes)


def common(shapes: list[tuple[Any, ...]]) -> tuple[int | None, ...] | None:
    """One shape for several of the same rank, with None for the batch, and for sizes that differ."""
    if not shapes or len({len(shape) for shape in shapes}) > 1:
        return None
    sizes = [set(sizes) for sizes in zip(*shapes, strict=True)]
    return tuple(None if i == 0 or len(size) > 1 else size.pop() for i, size in enumerate(sizes))
