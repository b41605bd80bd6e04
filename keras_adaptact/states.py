"""The state of a layer beside its configuration, and how it is copied to another layer like it."""

import contextlib
import copyreg
import functools
import inspect
import operator
import tempfile
import types
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_adaptact.base import TrainableActivation
from keras_adaptact.graphs import is_activation
from keras_adaptact.keras_private import (
    BOOKKEEPING,
    TRAINING,
    exchange_variable,
    is_default,
    tracked_layers,
    tracked_variables,
)

FRAMEWORKS = ("keras", "tensorflow", "torch", "jax", "jaxlib", "numpy")
# What of Keras's objects a layer computes with. Their names may be counted.
_COMPUTING = (keras.regularizers.Regularizer, keras.constraints.Constraint, keras.losses.Loss, keras.DTypePolicy)


def build(old, new) -> None:
    """Builds a layer for the shapes that another was built for, unless a call has to do it."""
    overridden = type(old).build_from_config is not keras.layers.Layer.build_from_config
    if not old.built or new.built or isinstance(old, keras.Model):
        return
    if is_default(type(old).build) and not overridden:
        return
    config = old.get_build_config()
    if config and type(old) is type(new):
        with contextlib.ExitStack() as scopes:
            for name in old.path.split("/")[:-1] if old.path else ():  # of the models that it is in: paths are unique
                scopes.enter_context(keras.name_scope(name))
            new.build_from_config(config)
        new.built = True


def paired(old, new, changed: bool) -> Iterator[tuple[Any, Any]]:
    """A layer and its copy, and those in them; but for the activation, where it was changed, and what became one."""
    if changed and (is_activation(old) or is_activation(new)):
        return
    yield from _paired(old, new, [getattr(layer, "activation", None) for layer in (old, new)] if changed else [], set())


def _paired(old, new, but: list, seen: set) -> Iterator[tuple[Any, Any]]:
    if (id(old), id(new)) in seen:
        return
    seen.add((id(old), id(new)))
    yield old, new
    build(old, new)
    before, after = (
        [inner for inner in tracked_layers(layer) if not any(inner is other for other in but)] for layer in (old, new)
    )
    if [type(layer) for layer in before] != [type(layer) for layer in after]:
        raise ValueError(
            f"{old.name} has other layers in it than one that is made of its configuration. "
            f"Received: {[layer.name for layer in before]} and {[layer.name for layer in after]}"
        )
    for pair in zip(before, after, strict=True):
        yield from _paired(*pair, but, seen)


def carry_saved(old, new) -> None:
    """What a layer saves in a way of its own: vocabularies, boundaries, tables."""
    if type(old).save_own_variables is not keras.layers.Layer.save_own_variables or (
        type(old).load_own_variables is not keras.layers.Layer.load_own_variables
    ):
        store = _Store()
        old.save_own_variables(store)
        if store:
            new.load_own_variables(store)
    if hasattr(old, "save_assets") and hasattr(new, "load_assets"):
        with tempfile.TemporaryDirectory() as folder:
            old.save_assets(folder)
            new.load_assets(folder)


class _Store(dict):
    """Where a layer saves to, as Keras's files are: it holds arrays, not variables."""

    def __setitem__(self, key, value):
        super().__setitem__(key, np.array(ops.convert_to_numpy(value)))


def lost(old, new) -> str | None:
    """An attribute whose value a copy has otherwise, as neither Keras's state nor the configuration hold it, if any.

    Such are arrays, tensors, modules of torch, functions, and numbers and text that were drawn at random or set after
    the constructor. One that the copy and its class lack is set by a call. Layers of Keras's own have none, but for
    methods that were set on the object.
    """
    if (name := _set_method(old, new)) is not None:
        return name
    if _is_of_keras(old):
        members = [[m.spec for m in getattr(layer, "members", ())] for layer in (old, new)]
        pairs = [pair for pair in zip(*members, strict=True) if isinstance(pair[0], keras.layers.Layer)]
        return next(filter(None, (lost(*pair) for pair in pairs)), None)
    before, after = _beside_state(old), _beside_state(new)
    return next((k for k, v in before.items() if _differs(k, v, after.get(k, _of_class(new, k)))), None)


def lost_of_graph(old, new) -> str | None:
    """The same of a model whose layers Keras knows: also a layer or a variable outside of its graph.

    A copy of another class is a plain model, which has been said.
    """
    if type(old) is not type(new):
        return None
    within = {id(operation) for operation in (*getattr(old, "operations", ()), *old.layers)}
    for layer in tracked_layers(old):
        if id(layer) not in within and not isinstance(layer, keras.layers.InputLayer):
            return layer.name
    for name, value in vars(old).items():
        if name in _of_keras() or name in vars(new):
            continue
        if isinstance(value, keras.Variable) or (not _is_of_keras(old) and _differs(name, value, _of_class(new, name))):
            return name
    return _set_method(old, new)


_MISSING = object()


def _of_class(layer, name: str) -> Any:
    """What a class says of an attribute that its object has not; not what it computes."""
    found = inspect.getattr_static(type(layer), name, _MISSING)
    is_computed = hasattr(type(found), "__get__") and not isinstance(found, types.FunctionType)
    return _MISSING if is_computed else found


def _differs(name: str, value, other) -> bool:
    """Whether an attribute was lost; not one that the copy's own call set, nor an activation, which may be replaced."""
    if other is _MISSING or any(map(_is_symbolic, keras.tree.flatten(other))):
        return False
    if "activation" in name and any(isinstance(x, keras.Operation) and is_activation(x) for x in (value, other)):
        return False
    known: dict[Any, int] = {}
    return _content(value, known, {}) != _content(other, known, {})


def _is_symbolic(x) -> bool:
    """Whether something is a tensor without values."""
    return isinstance(x, keras.KerasTensor) or (_asked(ops.is_tensor, x) and _array(x) is None)


def _asked(question: Callable, x) -> Any:
    """What is found out about an object; None where it raises, as those do that look their attributes up."""
    try:
        return question(x)
    except Exception:
        return None


def _array(tensor) -> np.ndarray | None:
    """The values of a tensor, also of a sparse one of torch; None of a symbolic one."""
    try:
        return np.asarray(ops.convert_to_numpy(tensor.to_dense() if hasattr(tensor, "to_dense") else tensor))
    except Exception:  # each backend has errors of its own for it
        return None


def _set_method(old, new) -> str | None:
    """A method that was set on the object, and that its copy has from the class."""
    known = vars(new).keys() | _of_keras()
    for name, value in vars(old).items():
        if name not in known and callable(own := _of_class(old, name)) and getattr(value, "__func__", None) is not own:
            return name
    return None


def _is_of_keras(layer) -> bool:
    return type(layer).__module__.split(".")[0] in ("keras", "keras_adaptact")


def _beside_state(layer) -> dict[str, Any]:
    """The attributes that a layer has beside Keras's; on torch also parameters and buffers that are no variables."""
    skipped = ("_self_", "_follows_owner") if isinstance(layer, TrainableActivation) else ("_self_",)
    found = {
        name: value for name, value in vars(layer).items() if name not in _of_keras() and not name.startswith(skipped)
    }
    return found | vars(layer).get("_parameters", {}) | vars(layer).get("_buffers", {})


@functools.cache
def _of_keras() -> frozenset[str]:
    """The names of the attributes that Keras itself gives a layer or a model."""
    named = {"name": "of_keras"}  # or Keras would count them, and name a user's next model otherwise
    inputs = keras.Input((1,), **named)
    made = keras.layers.Layer(**named), keras.Sequential(**named), keras.Model(inputs, inputs, **named)
    return frozenset(TRAINING).union(*map(vars, made))


def _content(value, known: dict[Any, int], seen: dict[int, Any]) -> int | None:
    """A number for the content of a value: its numbers, text and arrays; None for what has a place in Keras's state.

    Args:
        value: anything.
        known: the numbers that contents have so far. Equal contents have equal numbers.
        seen: by id, each object that was met in this value, and its number, or None while that is being found, so that
            objects that know each other come to an end.
    """
    if value is None or isinstance(value, keras.Operation | keras.Variable):
        return None
    if id(value) not in seen:
        seen[id(value)] = value, None
        try:
            content = _with_numbers(value, functools.partial(_content, known=known, seen=seen))
        except Exception:  # whatever an object raises that is asked for what it has, or how deep it goes
            content = type(value)
        seen[id(value)] = value, None if content is None else known.setdefault(content, len(known))
    return seen[id(value)][1]


def _with_numbers(value, number) -> Any:
    """The content of a value, with a number for each thing in it; it has a hash."""
    if isinstance(value, types.ModuleType):
        return value.__name__
    if isinstance(value, type | types.BuiltinFunctionType | np.ufunc):
        of_what = number(getattr(value, "__self__", None))
        return getattr(value, "__module__", ""), getattr(value, "__qualname__", value.__name__), of_what
    if isinstance(value, str | bytes):
        return repr(value)
    if isinstance(value, np.ndarray | np.number | np.bool_) and not value.shape and value.dtype.kind in "biufc":
        value = value.item()
    if isinstance(value, bool | int | float | complex):
        return value if value == value else repr(value)  # the latter of NaN
    if isinstance(value, np.ndarray | np.generic) or _asked(ops.is_tensor, value):
        if (array := _array(value)) is None:
            return None
        held = number(array.tolist()) if array.dtype == object else array.tobytes()
        return array.shape, str(array.dtype), held
    if callable(getattr(type(value), "state_dict", None)):  # of torch
        value = dict(value.state_dict())
    if isinstance(value, types.MethodType):
        return number(value.__func__), number(value.__self__)
    if isinstance(value, types.FunctionType):
        if (value.__module__ or "").startswith("keras.") and not value.__closure__:
            return value.__name__  # `keras.ops.silu` is `keras.activations.silu`
        cells = [cell.cell_contents for cell in value.__closure__ or () if cell != types.CellType()]
        return value.__code__, *map(number, (value.__defaults__, value.__kwdefaults__, cells))
    wrapped = _asked(operator.attrgetter("__wrapped__"), value)
    if callable(wrapped):  # by what compiles it, or gives it a cache
        return type(value), number(wrapped)
    if isinstance(value, functools.partial):
        return tuple(map(number, (value.func, value.args, value.keywords)))
    if isinstance(value, dict):
        return frozenset((name, number(item)) for name, item in value.items())
    if isinstance(value, list | tuple):
        return tuple(map(number, value))
    if isinstance(value, set | frozenset):
        return frozenset(map(number, value))
    if isinstance(value, _COMPUTING):
        return type(value), number({name: held for name, held in vars(value).items() if name != "name"})
    if type(value).__name__.lower().endswith(("dtype", "device")):
        return repr(value)
    return None if type(value).__module__.split(".")[0] in FRAMEWORKS else _reduced(value, number)


def _reduced(value, number) -> Any:
    """What an object says of itself to `copy` and `pickle`; nothing but its class where it says nothing."""
    try:
        registered = copyreg.dispatch_table.get(type(value))
        parts = registered(value) if registered else value.__reduce_ex__(2)
        told = [list(part) if isinstance(part, Iterator) else part for part in parts]
    except Exception:  # a lock, a generator, or whatever an object of a user's raises
        told = [type(value)]
    return tuple(map(number, told))


def numbers(variable) -> np.ndarray:
    return np.array(ops.convert_to_numpy(variable.value))  # JAX would share, then give away, the buffer


def _held(layer) -> dict[tuple, Any]:
    """The variables that a layer itself has, by where: an attribute, or a place in a list."""
    found: dict[tuple, Any] = {}
    for name, value in vars(layer).items():
        if name in BOOKKEEPING or name.startswith("_self_"):  # as TensorFlow calls its own
            continue
        if isinstance(value, keras.random.SeedGenerator):
            found[name, "state"] = value.state
        elif isinstance(value, keras.Variable):
            found[(name,)] = value
        elif isinstance(value, list | tuple | dict):
            for path, item in keras.tree.flatten_with_path(value):
                if isinstance(item, keras.random.SeedGenerator):
                    found[name, *path, "state"] = item.state
                elif isinstance(item, keras.Variable):
                    found[name, *path] = item
    return found


def variables_of_both(old, new) -> list[tuple[Any, Any]]:
    """The variables of a layer and of its copy, in pairs."""
    before, after = _held(old), _held(new)
    pairs = [(before[place], after[place]) for place in before if place in after]
    known = {id(v) for pair in pairs for v in pair}
    rest, others = (
        [v for v in _own(layer, held) if id(v) not in known] for layer, held in ((old, before), (new, after))
    )
    for variable in rest:
        match = next((v for v in others if _kind(v) == _kind(variable)), None)
        if match is not None:
            pairs.append((variable, match))
            others = [v for v in others if v is not match]
        elif any(variable is v for v in before.values()):
            raise ValueError(f"{old.name} has a variable that its copy lacks. Received: {variable.path}")
    wrong = others or [v for v, w in pairs if _kind(v)[1:] != _kind(w)[1:]]
    if wrong:
        raise ValueError(f"{old.name} and its copy have other variables. Received: {', '.join(v.path for v in wrong)}")
    return pairs


def _own(layer, held: dict[tuple, Any]) -> list:
    tracked = [*tracked_variables(layer), *held.values()]
    return list({id(v): v for v in tracked}.values())


def _kind(variable) -> tuple:
    return variable.name, tuple(variable.shape), keras.backend.standardize_dtype(variable.dtype)


def tie(layer, own, shared) -> None:
    """Gives a layer the variable of another in the place of its own."""
    for (name, *path), variable in _held(layer).items():
        if variable is own and not path:
            exchange_variable(layer, name, own, shared)
            return
    raise ValueError(f"{layer.name} shares a variable with another layer, not as an attribute. Received: {own.path}")
