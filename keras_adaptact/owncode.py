"""The sites in layers whose code calls others: found where they keep them, and seen in a symbolic call."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import keras

from keras_adaptact.graphs import function_at, is_activation, is_graph, owned, walk
from keras_adaptact.keras_private import is_default, stand_ins
from keras_adaptact.places import call_symbolically, common, holder_of

# Of keras.layers: they call one layer, which takes one tensor and which is in their configuration.
WRAPPERS = (keras.layers.TimeDistributed, keras.layers.RNN, keras.layers.StackedRNNCells)
_OPEN = (*WRAPPERS, keras.layers.Bidirectional)


@dataclass(frozen=True)
class Hidden:
    """A site in a layer's own code: its path, what has it, in which attribute, and why it can't be reached."""

    path: str
    layer: Any
    attribute: str
    function: Any
    kept: str | None
    shape: tuple[int | None, ...] | None


def is_own(layer) -> bool:
    """Whether a layer's code is not Keras's nor the library's."""
    if is_graph(layer) or not isinstance(layer, keras.layers.Layer):
        return False
    module = type(layer).__module__.split(".")[0]
    return isinstance(layer, keras.layers.Lambda) or module not in ("keras", "keras_adaptact")


def hidden_in(outer: keras.layers.Layer, path: str, node=None) -> Iterator[Hidden]:
    """The sites in a layer that is no graph; `node` is one of its calls, where there is one."""
    found = list(owned(outer, path))
    seen = _Trace(outer, [layer for _, layer, _ in found], node)
    closed: dict[int, str | None] = {id(outer): _closed(outer)}
    activations = {id(getattr(part, "activation", None)) for part in (outer, *(layer for _, layer, _ in found))}
    for place, layer, owner in found:
        kept = closed[id(owner)]
        if layer is getattr(owner, "recurrent_activation", None):
            kept = kept or "a gate of a recurrent layer"
        if is_graph(owner) and not isinstance(owner, keras.Sequential) and is_activation(layer):
            kept = kept or _step_of(owner)
        closed[id(layer)] = closed[id(owner)] or _closed(layer)
        function = function_at(layer, "activation")
        if function is None or id(layer) in activations or _is_cell(layer, owner):
            continue
        attribute = "" if is_activation(layer) else "activation"
        kept = kept or (_attribute_kept(layer, seen) if attribute else seen.kept(layer))
        yield Hidden(place, layer, attribute, function, kept, None if kept else seen.shape(layer))
    yield from _plain_functions(outer, path, found)
    for place, model, _ in found:
        for name, operation, graph in walk(model, f"{place}/") if is_graph(model) else ():
            if not isinstance(operation, keras.layers.Layer) and is_activation(operation):
                yield Hidden(name, operation, "", operation, _step_of(graph), None)


def _step_of(model: keras.Model) -> str:
    return f"a step of the functional model {model.name}, which only a copy of that can change"


def own_attribute(layer, path: str, node=None) -> Hidden | None:
    """The site of `self.activation`, in the code of a layer of one's own."""
    function = function_at(layer, "activation")
    if function is None or is_activation(layer):
        return None
    seen = _Trace(layer, [layer], node)
    kept = _attribute_kept(layer, seen)
    return Hidden(path, layer, "activation", function, kept, None if kept else seen.shape(layer))


def attribute_kept(layer, node=None) -> str | None:
    """Why the `activation` of a layer can't be set, if so; `node` is one of its calls."""
    return _attribute_kept(layer, _Trace(layer, [layer], node))


def _is_cell(layer, owner) -> bool:
    """Whether a layer's activation is also that of the recurrent layer around it."""
    return layer is getattr(owner, "cell", None) and function_at(owner, "activation") is not None


def _closed(layer) -> str | None:
    """Why nothing in a layer can be changed, if so."""
    if is_graph(layer) or is_own(layer) or isinstance(layer, _OPEN):
        return None
    return f"inside a {type(layer).__name__}"


def _attribute_kept(layer, seen: "_Trace") -> str | None:
    if holder_of(layer, "activation") is None:
        return "its `activation` is computed, and can't be set"
    if not is_own(layer):
        return None
    if seen.calls is not None and not seen.calls[id(layer)]:
        return "its code has an `activation` and doesn't call it"
    if seen.calls is None and not layer.built and not is_default(type(layer).build):
        return "it isn't built yet, and its `build` may hand its `activation` on"
    return seen.kept(layer)


def _plain_functions(outer, path, found) -> Iterator[Hidden]:
    """Activations that code of one's own keeps as functions, under other names than `activation`."""
    for place, layer in [(path, outer), *((place, layer) for place, layer, _ in found)]:
        for name, value in vars(layer).items() if is_own(layer) else ():
            module = getattr(value, "__module__", None) or ""
            if name != "activation" and _is_plain(value, module):
                why = f"`{name}` is a plain function; as a layer, or named `activation`, it could be replaced"
                yield Hidden("/".join(filter(None, (place, name))), layer, name, value, why, None)


def _is_plain(value, module: str) -> bool:
    is_function = callable(value) and not isinstance(value, keras.layers.Layer | type)
    return is_function and module.startswith("keras.") and module.rsplit(".", 1)[-1] in ("nn", "activations")


class _Trace:
    """A symbolic call of a layer, and what it did to activations in its own code.

    Attributes:
        calls: by the id of a layer: for each call of it, or of its `activation`, whether it has one tensor alone, and
            that one's shape; None where no such call could be made.
    """

    def __init__(self, outer, layers: list, node):
        self._outer, self._layers, self._node = outer, layers, node

    @cached_property
    def calls(self) -> dict[int, list[tuple[bool, tuple]]] | None:
        found: dict[int, list[tuple[bool, tuple]]] = {id(layer): [] for layer in self._layers}
        try:
            with stand_ins(self._watching(found)):
                call_symbolically(self._outer, self._node)
        except Exception:  # of code that can't be called with symbols, or that was built for no shape
            return None
        return found

    def _watching(self, found) -> Iterator[tuple[Any, str, Callable]]:
        for layer in self._layers:
            if is_activation(layer):
                yield layer, "call", _watch(found[id(layer)], layer.call)
            elif is_own(layer) and function_at(layer, "activation") and (holder := holder_of(layer, "activation")):
                yield holder, "activation", _watch(found[id(layer)], layer.activation)

    def kept(self, layer) -> str | None:
        """Why an activation can't be replaced by one that takes a tensor alone, if so."""
        if self.calls is None:
            is_softmax = isinstance(layer, keras.layers.Softmax)
            return "it may be called with a mask, which can't be seen" if is_softmax else None
        return None if all(plain for plain, _ in self.calls[id(layer)]) else "it is called with other arguments"

    def shape(self, layer) -> tuple[int | None, ...] | None:
        """Of what an activation is given, where it is known, and so is on which axis its channels are."""
        shape = common([shape for _, shape in (self.calls or {}).get(id(layer), [])])
        return shape if is_activation(layer) or shape is None or len(shape) == 2 else None


def _watch(calls: list, function: Callable) -> Callable:
    def watched(*args, **kwargs):
        options = {name: value for name, value in kwargs.items() if name != "training" and value is not None}
        plain = len(args) == 1 and not options and hasattr(args[0], "shape")
        calls.append((plain, tuple(args[0].shape) if plain else ()))
        return function(*args, **kwargs)

    return watched
