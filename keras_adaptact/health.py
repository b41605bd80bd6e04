"""What may be wrong with a model's activations: exploded parameters, dead sites, harmful settings."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_adaptact import backends
from keras_adaptact.activations import AReLU
from keras_adaptact.base import TrainableActivation, channel_axis
from keras_adaptact.graphs import activations_of, every_layer, function_at, inside, is_activation
from keras_adaptact.keras_private import stand_ins
from keras_adaptact.mixtures import Mixture
from keras_adaptact.optimizers import decays, has_step_limit
from keras_adaptact.parameters import constrained

LARGE = 100.0  # a parameter or mixing weight beyond it is no longer an activation's


class Finding(NamedTuple):
    """Something about one site: its name, what was found, and what to do."""

    site: str
    what: str
    advice: str

    def __str__(self):
        return f"{self.site}: {self.what}; {self.advice}"


def check(model: keras.Model, data: Any = None) -> list[Finding]:
    """Looks for common faults of trainable activations; the list is empty where there are none.

    It finds parameters and mixing weights that are NaN, infinite or beyond 100, and parameters outside their
    constraints; an AReLU with a = b, which is a straight line; one layer at several sites of `activation=`, which can't
    be loaded; weight decay or regularizers that pull on activation parameters; an optimizer that doesn't limit their
    steps (see `optimizer_for`); and with data, sites whose output is constant.

    ```python
    for finding in ka.check(model, x_train[:256]):
        print(finding)
    ```

    Args:
        model: any Keras model; its optimizer is checked if it is compiled.
        data: inputs, such as one batch, on which the model is called once. Without them dead sites aren't looked for.
    """
    names = _site_names(model)
    judged = _numbers, _outside
    found = [f for layer in activations_of(model) for judge in judged for f in judge(layer, names[id(layer)][0])]
    found += [
        Finding(places[0], f"is one layer with {', '.join(places[1:])}", "make a layer for each place")
        for places in names.values()
        if len(places) > 1
    ]
    found += [*_pulled(model, names), *_unlimited(model)]
    return found if data is None else [*found, *_dead(model, data)]


def _site_names(model) -> dict[int, list[str]]:
    """The places of each trainable activation: its own path, or those of the layers that have it in `activation=`."""
    paths = _paths(model)
    owners: dict[int, list[str]] = {}
    for layer in _without_cells(model):
        owners.setdefault(id(getattr(layer, "activation", None)), []).append(paths[id(layer)])
    return {id(a): sorted(set(owners.get(id(a), [paths[id(a)]]))) for a in activations_of(model)}


def _paths(model) -> dict[int, str]:
    """How the layers of a model are named, by their ids."""
    return {id(layer): path for path, layer in inside(model)}


def _without_cells(model) -> list[keras.layers.Layer]:
    """The layers of a model; a recurrent layer and its cell, which have one activation, are one."""
    layers = every_layer(model)
    cells = {id(getattr(layer, "cell", None)) for layer in layers if hasattr(layer, "activation")}
    return [layer for layer in layers if id(layer) not in cells]


def _numbers(layer, site: str) -> Iterator[Finding]:
    """Of the values of one activation's parameters."""
    if not isinstance(layer, TrainableActivation) or not layer.variables:
        return
    values = layer.get_parameters()
    if isinstance(layer, Mixture):
        del values["weights"]
        values |= {f"the weight of {m}": w for m, w in zip(layer.member_names, layer.mixing_weights, strict=True)}
    for name, value in values.items():
        if not np.all(np.isfinite(value)):
            yield Finding(site, f"{name} is not finite", "set it back, lower the learning rate or clip gradients")
        elif np.max(np.abs(value)) > LARGE:
            largest = np.ravel(value)[np.argmax(np.abs(value))]
            yield Finding(site, f"{name} has grown to {largest:.4g}", "lower its learning rate or give a constraint")
    for prefix in _arelus(layer):
        straight = np.mean(values[f"{prefix}a"] == values[f"{prefix}b"])
        if straight:
            where = "" if straight == 1 else f" in {straight:.0%} of the channels"
            yield Finding(site, f"AReLU is a straight line{where}: {prefix}a = {prefix}b", "set a and b apart")


def _outside(layer, site: str) -> Iterator[Finding]:
    """Parameters that Keras's optimizers would have brought back to where their constraints hold them."""
    if isinstance(layer, TrainableActivation) and layer.variables:
        values, allowed = layer.get_parameters(), layer.constrained_parameters()
    else:  # Keras's PReLU
        values = {v.name: ops.convert_to_numpy(v.value) for v in layer.variables}
        allowed = {v.name: ops.convert_to_numpy(constrained(v)) for v in layer.variables}
    for name, value in values.items():
        off = ~np.isclose(value, allowed[name], rtol=1e-5, equal_nan=True)
        if np.any(off):
            first = np.ravel(value[off])[0]
            yield Finding(
                site,
                f"{name} = {first:.4g} lies outside its constraint",
                "call `apply_constraints(model)` after each step of an optimizer that is not Keras's",
            )


def _arelus(layer) -> list[str]:
    """What stands before the parameters of each AReLU in an activation."""
    if isinstance(layer, AReLU):
        return [""]
    if isinstance(layer, Mixture):
        return [f"{m.name}_" for m in layer.members if m.formula == AReLU.formula]
    return []


def _pulled(model, names) -> Iterator[Finding]:
    """Activation parameters that weight decay or a regularizer draws to 0."""
    optimizer: Any = getattr(model, "optimizer", None)
    for layer in activations_of(model):
        site = names[id(layer)][0]
        trained = layer.trainable_variables
        if optimizer is not None and any(decays(optimizer, v) for v in trained):
            yield Finding(site, "weight decay pulls its parameters to 0", "compile with `optimizer_for(model, ...)`")
        if any(v.regularizer is not None for v in trained):
            yield Finding(site, "a regularizer pulls on its parameters", "leave it to kernels, unless you meant it")


def _unlimited(model) -> Iterator[Finding]:
    """Steps of activation parameters that may be of any length."""
    optimizer = getattr(model, "optimizer", None)
    trained = sum(bool(layer.trainable_variables) for layer in activations_of(model))
    if trained and optimizer is not None and not has_step_limit(optimizer):
        yield Finding(
            model.name,
            f"its optimizer doesn't limit the steps of its {trained} trainable activations",
            "near the largest rate that the network bears they diverge first: compile with "
            "`optimizer_for(model, ..., step_limit=0.01)`",
        )


def _dead(model, data) -> Iterator[Finding]:
    """Sites whose output, or that of some channels, doesn't depend on the data."""
    with _recorded(model) as outputs:
        model(data, training=False)
        backends.wait()
    again = "lower the learning rate, or set its parameters back"
    for name, parts in outputs:
        if not parts:
            continue
        constant = np.all([low == high for low, high in parts], axis=0)
        if np.all(constant):
            values = {float(low.flat[0]) for low, _ in parts if np.all(low == low.flat[0])}
            number = f"{values.pop():.4g}" if len(values) == 1 else "the same for each channel"
            yield Finding(name, f"is dead: its output is {number} for all of the data", again)
        elif np.any(constant):
            yield Finding(name, f"{constant.sum()} of {constant.size} channels have a constant output", again)


@contextmanager
def _recorded(model) -> Iterator[list[tuple[str, list]]]:
    """Collects the least and the largest output of each channel, for every call of each activation site, by name."""
    layers = _without_cells(model)
    owned = {id(getattr(layer, "activation", None)) for layer in layers}
    sites = [layer for layer in layers if function_at(layer, "activation") is not None and id(layer) not in owned]
    paths = _paths(model)
    outputs: list[tuple[str, list]] = [(paths[id(layer)], []) for layer in sites]
    recording = [(layer, "call", _recording(layer, parts)) for layer, (_, parts) in zip(sites, outputs, strict=True)]
    with stand_ins(recording):
        yield outputs


def _recording(layer, parts: list) -> Callable:
    call = layer.call
    data_format = getattr(layer, "data_format", None)
    data_format = data_format or (keras.config.image_data_format() if is_activation(layer) else "channels_last")

    def keep(values: np.ndarray):
        axes = tuple(set(range(values.ndim)) - {channel_axis(data_format, values.ndim)})
        if values.size > np.prod(np.delete(values.shape, axes), dtype=int):  # more than one number of each channel
            parts.append((values.min(axes), values.max(axes)))

    def recorded(*args, **kwargs):
        result = call(*args, **kwargs)
        backends.tell(keep, ops.stop_gradient(keras.tree.flatten(result)[0]))  # a recurrent layer may return states
        return result

    return recorded
