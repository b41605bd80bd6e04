"""Replaces activations in a model itself, where there is no graph to copy, and makes the change part of its files."""

import functools
from collections.abc import Iterable, Iterator
from typing import Any

import keras

from keras_adaptact.graphs import every_layer, is_graph
from keras_adaptact.keras_private import become, config_of, is_default, set_past_keras, stand_ins, track_again
from keras_adaptact.owncode import WRAPPERS, attribute_kept, is_own
from keras_adaptact.places import at, everywhere, kept_in, put
from keras_adaptact.sites import Site, Survey


def fixed(site: Site, survey: Survey) -> str | None:
    """Why a site of a graph of layers can't be changed without a copy, if so."""
    if site.outer is not None or site.kept:
        return site.kept
    if site.attribute:
        return attribute_kept(site.layer, next(iter(survey.calls.of(site.layer)), None))
    if isinstance(survey.parents[id(site.layer)], keras.Sequential):
        return None
    return "a step of a functional model, which only a copy can change: leave out `in_place`"


def bound(site: Site, survey: Survey) -> str | None:
    """Why a site can't be changed in a copy, if so."""
    where = survey.called_in.get(id(site.layer))
    if where is None or site.outer is not None or site.kept:
        return site.kept
    return f"also called in the code of {where}, whose copy has a layer of its own; `in_place=True` changes both"


def change(root: keras.layers.Layer, changes: Iterable[tuple[Any, str, keras.layers.Layer]]) -> None:
    """Gives layers in `root`, or attributes of them, new activations; it is saved and loaded with these."""
    for layer, attribute, new in changes:
        old = getattr(layer, attribute) if attribute else None
        put(root, layer, attribute, new)
        set_past_keras(new, "_replaced_in_place", getattr(old, "_replaced_in_place", (old,)))  # what it was made with
    for keeper in _keepers(root):
        if any(_is_marked(layer) for _, layer in everywhere(keeper)):
            kind: Any = type(keeper)
            become(keeper, _changed_class(kind))
    for layer in [root, *every_layer(root)]:
        if isinstance(layer, keras.Model):
            _forget(layer)
    track_again(root)


def _forget(model: keras.Model) -> None:
    """What was compiled computes with what was there; and an optimizer that has its variables can't take others."""
    model.train_function = model.test_function = model.predict_function = None
    optimizer: Any = getattr(model, "optimizer", None)
    if optimizer is not None and optimizer.built:
        model.compiled, model.optimizer = False, None


def _is_marked(layer) -> bool:
    return hasattr(layer, "_replaced_in_place")


def _keepers(layer) -> Iterator[keras.layers.Layer]:
    """The outermost layers whose configurations don't have that of each layer in them."""
    if is_own(layer) or isinstance(layer, keras.layers.Bidirectional):
        yield layer
    elif is_graph(layer) or isinstance(layer, WRAPPERS):
        for _, inner in kept_in(layer):
            yield from _keepers(inner)


# Saved and loaded: the configuration of a layer of one's own says nothing of what was changed in it.


@functools.cache
def _changed_class(kind: Any) -> type:
    """A class of layers like another, whose configuration has the new activations, too."""
    if hasattr(kind, "_unchanged"):
        return kind
    own = {
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
        "__doc__": kind.__doc__,
        "_unchanged": kind,
        "get_config": _get_config,
        "from_config": classmethod(_from_config),
    }
    made = type(kind)(kind.__name__, (kind,), own)
    return keras.saving.register_keras_serializable("keras_adaptact", "Changed")(made)


def _get_config(self):
    """The configuration of the layer as it was made, and the activations that it got since."""
    changed = type(self)
    marked = [(steps, layer) for steps, layer in everywhere(self) if _is_marked(layer)]
    before = [
        (at(self, steps[:-1]), "activation", vars(new)["_replaced_in_place"][0])
        for steps, new in marked
        if steps[-1] == "activation"
    ]
    become(self, changed._unchanged)  # Keras writes down a class as it finds it
    try:
        with stand_ins(before):  # which a constructor may hand on
            config = keras.saving.serialize_keras_object(self)
            config["config"] = {key: config["config"][key] for key in config_of(self)}
    finally:
        become(self, changed)
    config.pop("compile_config", None)  # which is that of all of it
    activations = [
        {"place": list(steps), "activation": keras.saving.serialize_keras_object(layer)} for steps, layer in marked
    ]
    return {"name": self.name, "layer": config, "activations": activations}


def _from_config(cls, config):
    made = dict(config["layer"])
    build_config = made.pop("build_config", None)
    layer = keras.saving.deserialize_keras_object(made)
    layer.name = config["name"]
    if build_config and not is_default(type(layer).build):  # which may make layers
        layer.build_from_config(build_config)
        layer.built = True
    found = []
    for entry in config["activations"]:
        *owner, last = steps = entry["place"]
        try:
            old = at(layer, steps)
            place = (at(layer, owner), last) if last == "activation" else (old, "")
        except (AttributeError, LookupError) as error:
            raise ValueError(
                f"{layer.name} was saved with other layers in it than {type(layer).__name__} makes now. "
                f"Received: an activation at {'/'.join(map(str, steps))}"
            ) from error
        found.append((*place, keras.saving.deserialize_keras_object(entry["activation"])))
    change(layer, found)
    return layer


_changed_class(keras.layers.Layer)  # so that files can be read before anything is changed
