"""Copies of models and layers, with all of their state: variables, what is saved as assets, what is tied."""

import dataclasses
import functools
import operator
import types
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, NoReturn

import keras
import numpy as np

from keras_adaptact.graphs import has_other_call, is_graph
from keras_adaptact.keras_private import (
    config_of,
    flattened,
    graph_of,
    maker_of,
    set_past_keras,
    stand_ins,
    track_again,
    uncalled,
)
from keras_adaptact.mixtures import Mixture
from keras_adaptact.states import build, carry_saved, lost, lost_of_graph, numbers, paired, tie, variables_of_both


def copy_model(
    model: keras.Model,
    make: Callable[[Any], Any],
    values: Mapping[int, np.ndarray] | None = None,
    change: Callable[[Mapping[int, Any]], None] = lambda copies: None,
) -> keras.Model:
    """A copy of a graph of layers: `make(layer)` gives a new layer, or None for one like the old; weights are kept.

    All state is carried over from each layer to its copy, but for that of activations in what `make` gave. A variable
    that several layers have is one in the copy, too.

    Args:
        values: the values in the copy of some variables of the original, by id.
        change: what else is done to the copies of layers, by the id of the original.
    """
    copier = _Copier(make, values or {})
    copied = copier.graph(model)
    copier.finish()
    change(copier.copies)
    _call_once(copied)
    return copied


def _call_once(model) -> None:
    """Calls a model symbolically: Keras exports only what has been called."""
    if (inputs := _inputs(model)) is not None:
        model(keras.tree.map_structure(lambda x: keras.KerasTensor(x.shape, x.dtype, x.sparse), inputs))


def _inputs(model) -> Any:
    """The symbolic inputs of a graph, in its structure; None of a sequential model that isn't built."""
    if not isinstance(model, keras.Sequential):
        return model.input
    return model.inputs[0] if model.built and graph_of(model) is not None else None


class _Copier:
    """Copies of layers by the id of the original; of shared ones there is one."""

    def __init__(self, make, values):
        self.make, self.values = make, values
        self.copies: dict[int, Any] = {}
        self.models: list[tuple[Any, Any]] = []
        self.waiting: list[tuple[Any, Any, bool]] = []
        self.carried: list[tuple[Any, Any]] = []
        self.variables: dict[int, Any] = {}
        self.tied = False

    def graph(self, model: keras.Model) -> keras.Model:
        place = len(self.models)
        self.models.append((model, None))  # an outer one comes before those in it
        copied = _copy_graph(model, self.copy, self.call)
        self.models[place] = model, copied
        return copied

    def copy(self, operation):
        if id(operation) not in self.copies:
            self.copies[id(operation)] = self.graph(operation) if is_graph(operation) else self._leaf(operation)
        return self.copies[id(operation)]

    def _leaf(self, operation):
        for part in flattened(operation) if isinstance(operation, keras.layers.Layer) else ():
            if (why := _uncopied(part)) is not None:
                _refuse(part, why)
        new = self.make(operation)
        changed = new is not None
        new = new if changed else rebuilt(operation)
        if isinstance(operation, keras.layers.Layer):
            build(operation, new)
            if operation.built and not new.built:
                self.waiting.append((operation, new, changed))
            else:
                self._carry(operation, new, changed)
        return new

    def call(self, layer, *args, **kwargs):
        """Calls a copy; a variable among the arguments is that of the copy."""

        def own(x):
            return self.variables.get(id(x), x) if isinstance(x, keras.Variable) else x

        args, kwargs = keras.tree.map_structure(own, (args, kwargs))
        return layer(*args, **kwargs)

    def finish(self) -> None:
        for pair in self.waiting:
            self._carry(*pair)
        for old, new in self.models + self.carried:  # owners come before what is in them
            if new.trainable != old.trainable:  # setting it reaches all of them
                new.trainable = old.trainable
        for old, new in self.carried:
            for source, target in variables_of_both(old, new):
                target.trainable = source.trainable
            if (name := lost(old, new)) is not None:
                _refuse(old, f"its `{name}` has another value in a layer of its configuration")
        if self.tied:
            track_again(self.models[0][1])
        for old, new in self.models:
            if (name := lost_of_graph(old, new)) is not None:
                _refuse(old, f"its `{name}` is no part of its graph")

    def _carry(self, old, new, changed: bool) -> None:
        for source, target in paired(old, new, changed):
            self.carried.append((source, target))
            target.name = source.name
            target.activity_regularizer = source.activity_regularizer
            build(source, target)
            if getattr(source, "lora_enabled", False):  # Keras's `build` enables it with the rank as alpha
                target.lora_alpha = source.lora_alpha
            carry_saved(source, target)
            for before, after in variables_of_both(source, target):
                first = self.variables.setdefault(id(before), after)
                if first is not after:
                    tie(target, after, first)
                    self.tied = True
                    continue
                after.regularizer, after.constraint = before.regularizer, before.constraint
                given = self.values.get(id(before))
                after.assign(numbers(before) if given is None else given)


def _refuse(layer, why: str) -> NoReturn:
    raise ValueError(
        f"{layer.name} can't be copied: {why}. Replace activations with `in_place=True`. Received: {layer!r}"
    )


def _uncopied(layer) -> str | None:
    """Why a layer isn't copied, if so."""
    if has_other_call(layer):
        return "its `call` was set on the object"
    if isinstance(layer, keras.layers.TorchModuleWrapper):
        return "it wraps a torch module, which Keras rebuilds by unsafe loading alone"
    return None


def _copy_graph(model, clone, call) -> keras.Model:
    is_sequential = isinstance(model, keras.Sequential)
    options: dict[str, Any] = {} if is_sequential else {"call_function": call}
    if (inputs := _inputs(model)) is not None:
        options["input_tensors"] = keras.tree.map_structure(_fresh_input, inputs)
    compiled, model.compiled = model.compiled, False  # or Keras would compile the copy, and fail on a loss of one's own
    try:
        copied = keras.models.clone_model(model, clone_function=clone, **options)
    finally:
        model.compiled = compiled
    if type(copied) is not type(model):  # Keras keeps one with the constructor of a functional model
        warnings.warn(
            f"The copy of {model.name} is a plain Keras model, without what {type(model).__name__} adds to one.",
            stacklevel=2,
        )
    return copied


def _fresh_input(tensor) -> keras.KerasTensor:
    """An input like another: the layer's name is in input specs, the tensor's in dicts of inputs and signatures."""
    layer = maker_of(tensor)
    is_input = isinstance(layer, keras.layers.InputLayer)
    fresh = keras.KerasTensor(tensor.shape, tensor.dtype, tensor.sparse, ragged=tensor.ragged, name=tensor.name)
    name, optional = (layer.name, layer.optional) if is_input else (tensor.name, False)
    return keras.Input(tensor=fresh, name=name, optional=optional)


# A layer like another


def rebuilt(operation, **changes):
    """A new layer or operation of the configuration of one, with some arguments changed.

    Functions in it are the same objects, even where Keras could not find them again (lambdas, say). An operation that
    is no layer has no state, and is copied as it is.
    """
    if not isinstance(operation, keras.layers.Layer):
        return uncalled(operation)
    try:
        with _functions_by_name(operation) as restore:
            config = config_of(operation)
            with _policy_of(operation) if "dtype" not in config else nullcontext():
                made = type(operation).from_config(config | changes)
            restore(made)
    except Exception as error:
        raise ValueError(
            f"{operation.name} can't be rebuilt from its configuration; {type(operation).__name__} needs a "
            "`get_config` that gives its constructor's arguments; or replace activations with `in_place=True`. "
            f"Received: {_first_line(error)}"
        ) from error
    made.autocast = operation.autocast
    made.name = operation.name  # which a configuration that Keras makes of a constructor's arguments may lack
    return made


@contextmanager
def _policy_of(layer) -> Iterator[None]:
    """Has layers created with the dtype policy of one whose configuration lacks it."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(layer.dtype_policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


@contextmanager
def _functions_by_name(layer) -> Iterator[Callable]:
    """While a configuration is written and read, functions that Keras couldn't find again go by names of their own."""
    functions: dict[str, Callable] = {}
    stands: dict[int, Callable] = {}

    def named(value):
        if not _is_lost(value):
            return value
        stand_in = _stand_in(value, f"keras_adaptact_function_{len(functions)}")
        functions[stand_in.__name__], stands[id(stand_in)] = value, value
        return stand_in

    with stand_ins(_changed(layer, named)), keras.saving.CustomObjectScope(functions):
        yield lambda made: _put_back(made, stands)


def _changed(layer, change: Callable[[Any], Any]) -> Iterator[tuple[Any, str, Any]]:
    """Attributes of a layer, and of those in it, that a change makes others."""
    for part, name, value in _attributes(layer):
        if (fresh := _exchanged(value, change)) is not value:
            yield part, name, fresh


def _put_back(made, stands: dict[int, Callable]) -> None:
    """Gives a layer the functions that are stood in for, where Keras would track or refuse them."""
    for part, name, fresh in _changed(made, lambda f: stands.get(id(f), f)):
        set_past_keras(part, name, fresh)


def _exchanged(value, change: Callable[[Any], Any]):
    """A value changed, or what is in a list, tuple, dict or dataclass; the same object where nothing changes."""
    if isinstance(value, list) or type(value) is tuple:
        fresh = [_exchanged(item, change) for item in value]
        return value if all(map(operator.is_, fresh, value)) else type(value)(fresh)
    if isinstance(value, dict):
        fresh = [_exchanged(item, change) for item in value.values()]
        same = all(map(operator.is_, fresh, value.values()))
        return value if same else type(value)(zip(value, fresh, strict=True))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.init}
        fresh = _exchanged(parts, change)
        return value if fresh is parts else dataclasses.replace(value, **fresh)
    return change(value)


def _attributes(layer) -> list[tuple[Any, str, Any]]:
    """Attributes of a layer and of those in it, but for the methods that Keras wraps; also of a mixture's members."""
    parts = flattened(layer) if isinstance(layer, keras.layers.Layer) else []
    members = [member.spec for part in parts if isinstance(part, Mixture) for member in part.members]
    hidden = [source for source in members if isinstance(source, keras.layers.Layer)]
    parts = [*parts, *hidden]
    return [(part, k, v) for part in parts for k, v in list(vars(part).items()) if not hasattr(type(part), k)]


def _is_lost(value) -> bool:
    """Whether a value is a function that Keras can't find by what it writes of it."""
    if not callable(value) or isinstance(value, type | keras.Operation) or hasattr(value, "get_config"):
        return False
    if not isinstance(value, types.FunctionType):
        return not hasattr(value, "__name__")
    if value.__module__.split(".")[0] == "keras":
        return False
    return keras.saving.get_registered_object(keras.saving.get_registered_name(value)) is not value


def _stand_in(function: Callable, name: str) -> Callable:
    def stand_in(*args, **kwargs):
        return function(*args, **kwargs)

    functools.update_wrapper(stand_in, function, assigned=())
    stand_in.__name__ = stand_in.__qualname__ = name
    return stand_in
