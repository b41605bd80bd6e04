"""Where a layer keeps the layers in it: attributes, lists, tuples and dicts; read, and set though it is built. And what
its own code does with its activations, seen in a symbolic call."""

from collections.abc import Iterator, Sequence
from typing import Any

import keras

from keras_adaptact.keras_private import build_shapes, exchanging, stand_ins

Steps = tuple[str | int, ...]  # names of attributes, places in lists and tuples, keys of dicts


def kept_in(owner: keras.layers.Layer) -> Iterator[tuple[Steps, keras.layers.Layer]]:
    """Each place where a layer keeps another, attributes first; in a sequential or functional model, its `layers`."""
    if isinstance(owner, keras.Sequential | keras.Function):
        yield from _within(owner.layers, ("layers",))
        return
    found = [place for name, value in _attributes(owner).items() for place in _within(value, (name,))]
    yield from sorted(found, key=lambda place: len(place[0]) > 1)  # torch keeps these apart, and so loses the order


def everywhere(owner: keras.layers.Layer) -> Iterator[tuple[Steps, keras.layers.Layer]]:
    """Every layer in a layer and in those in it, once, with the way there."""
    seen = {id(owner)}

    def visit(owner, steps: Steps):
        for further, layer in kept_in(owner):
            if id(layer) not in seen:
                seen.add(id(layer))
                yield (*steps, *further), layer
                yield from visit(layer, (*steps, *further))

    return visit(owner, ())


def at(owner: Any, steps: Sequence[str | int]) -> Any:
    """What is kept at a place."""
    for step in steps:
        owner = getattr(owner, str(step)) if isinstance(owner, keras.layers.Layer) else owner[step]
    return owner


def put(root: keras.layers.Layer, owner: keras.layers.Layer, attribute: str, new: keras.layers.Layer) -> None:
    """Gives a layer in `root` another activation; one that is a layer itself is exchanged wherever `root` has it."""
    if not attribute:
        _exchange(root, owner, new)
        return
    holder = holder_of(owner, attribute)
    assert holder is not None, owner
    with exchanging(holder, getattr(holder, attribute), new):
        setattr(holder, attribute, new)


def holder_of(layer: keras.layers.Layer, attribute: str) -> keras.layers.Layer | None:
    """Who has an attribute of a layer: itself, the cell of a recurrent layer, or nobody, where it is computed."""
    if isinstance(getattr(type(layer), attribute, None), property):
        cell = getattr(layer, "cell", None)
        return None if cell is None else holder_of(cell, attribute)
    return layer if attribute in _attributes(layer) else None


def _exchange(root: keras.layers.Layer, old: keras.layers.Layer, new: keras.layers.Layer) -> None:
    for owner in [root, *(layer for _, layer in everywhere(root))]:
        if not any(layer is old for _, layer in kept_in(owner)):
            continue
        if isinstance(owner, keras.Sequential):
            _exchange_step(owner, old, new)
            continue
        with exchanging(owner, old, new):
            for name, value in _attributes(owner).items():
                if (changed := _changed(value, old, new)) is not value:
                    setattr(owner, name, changed)


def _exchange_step(model: keras.Sequential, old, new) -> None:
    popped = [model.pop(rebuild=False)]
    while popped[-1] is not old:
        popped.append(model.pop(rebuild=False))
    for layer in [new, *reversed(popped[:-1])]:
        model.add(layer, rebuild=layer is (popped[0] if len(popped) > 1 else new))


def _attributes(owner) -> dict[str, Any]:
    found = vars(owner) | vars(owner).get("_modules", {})  # where torch keeps them
    no_places = ("_layers", "_modules", "_replaced_in_place")
    return {k: v for k, v in found.items() if k not in no_places and not k.startswith("_self_")}  # as TensorFlow's are


def _within(value, steps: Steps) -> Iterator[tuple[Steps, keras.layers.Layer]]:
    if isinstance(value, keras.layers.Layer):
        yield steps, value
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            yield from _within(item, (*steps, i))
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _within(item, (*steps, key))


def _changed(value, old, new):
    """A value with one layer in the place of another: lists and dicts are changed, tuples made anew."""
    if value is old:
        return new
    if isinstance(value, list | dict):
        for key, item in list(value.items() if isinstance(value, dict) else enumerate(value)):
            if (changed := _changed(item, old, new)) is not item:
                value[key] = changed
    elif isinstance(value, tuple):
        items = [_changed(item, old, new) for item in value]
        if any(item is not before for item, before in zip(items, value, strict=True)):
            return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value


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
