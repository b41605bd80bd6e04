"""Names of activations: `get` makes a fresh layer of a spec, `register` adds a name, `names` lists them."""

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import keras
from keras import ops

from keras_adaptact.base import TrainableActivation
from keras_adaptact.parameters import SUFFIXES

Spec = Any  # a name, a dict with a "name", a function, a layer or a layer class

_ELEMENTWISE = ("abs", "arctan", "cos", "erf", "exp", "sin", "square")  # of keras.ops
_LEFT_OUT = ("get", "serialize", "deserialize", "glu", "leaky_relu", "swish")  # of keras.activations; two are layers
_REGISTERED: dict[str, Spec] = {}
_NEWER: dict[str, Spec] = {}  # of the library's own since version 0.1.0


def _takes_z_alone(candidate) -> bool:
    if not inspect.isfunction(candidate):
        return False
    required = [p for p in inspect.signature(candidate).parameters.values() if p.default is p.empty]
    return len(required) == 1


def _named(name: str, function: Callable) -> Callable:
    """The function under a name by which Keras finds it again when it loads a model."""

    def named(z):
        return function(z)

    named.__name__ = named.__qualname__ = name
    return keras.saving.register_keras_serializable("keras_adaptact", name)(named)


_FUNCTIONS: dict[str, Callable] = {
    name: function
    for name, function in vars(keras.activations).items()
    if name not in _LEFT_OUT and _takes_z_alone(function)
} | {name: _named(name, getattr(ops, name)) for name in _ELEMENTWISE}


def register(name: str, spec: Spec = None) -> Any:
    """Makes `get(name)` mean `get(spec)`.

    `spec` is a layer class (which then takes the options of a dict spec), a function of a tensor, a layer, or
    another spec. Without it, returns a decorator. The name of a plain function can stand wherever a function's
    name can: in `AdaptiveActivation("...")` and in the members of a `Mixture`. A name that the library gained after
    version 0.1.0 gives way to one of yours, so that code that had it before goes on as it did.

    ```python
    ka.register("damped_sine", lambda z: ops.sin(z) * ops.exp(-ops.abs(z)))
    ka.register("thirds", {"name": "method2", "weights": [1 / 3, 1 / 3, 1 / 3]})
    ```

    Raises:
        ValueError: for a name that is taken.
    """
    if not isinstance(name, str) or not name:
        raise ValueError(f"An activation's name must be a string that isn't empty. Received: {name!r}")
    if spec is None:
        return lambda decorated: register(name, decorated)
    if name in _REGISTERED or name in _FUNCTIONS:
        raise ValueError(f"The activation name {name!r} is taken, by {lookup(name)!r}.")
    if isinstance(spec, str | Mapping):
        get(spec)  # an error here is better than one at the first use
    elif not callable(spec):
        raise TypeError(f"An activation is a layer, a layer class, a function or a spec. Received: {spec!r}")
    is_function = not isinstance(spec, str | Mapping | type | keras.layers.Layer)
    _REGISTERED[name] = _named(name, spec) if is_function else spec
    return spec


def register_newer(name: str, spec: Spec) -> Spec:
    """As `register`, for a layer class or function of the library's own that it didn't have in version 0.1.0."""
    _NEWER[name] = spec if isinstance(spec, type) else _named(name, spec)
    return spec


def names() -> list[str]:
    """Every name that `get` knows, sorted."""
    return sorted(_REGISTERED.keys() | _NEWER.keys() | _FUNCTIONS.keys())


def lookup(name: str) -> Spec:
    """What stands behind a name: a layer class, a layer, a function, or a dict; never another name."""
    if name in _REGISTERED:
        found = _REGISTERED[name]
        return lookup(found) if isinstance(found, str) else found
    if name in _NEWER:
        return _NEWER[name]
    if name in _FUNCTIONS:
        return _FUNCTIONS[name]
    raise ValueError(f"Unknown activation {name!r}.{_nearest(name, names())} `names()` lists them all.")


def get(spec: Spec, name: str | None = None) -> keras.layers.Layer:
    """A new layer from a spec on every call; no two calls share weights.

    ```python
    ka.get("arelu")
    ka.get({"name": "method2", "granularity": "channel"}, name="conv1_activation")
    ```

    Args:
        spec: a name; a dict of a `"name"` and the options that its layer takes; a Keras-serialized layer (a
            dict with a `"class_name"`); a function of a tensor; a layer class; or a layer, whose configuration
            is taken and whose weights and name are not.
        name: the name of the new layer.

    Raises:
        ValueError: for an unknown name or option (the nearest one is suggested) or an option's bad value.
        TypeError: for a spec of another type.
    """
    named = {} if name is None else {"name": name}
    if isinstance(spec, str):
        return _make(spec, {}, named)
    if isinstance(spec, Mapping):
        if "class_name" in spec:
            if "config" not in spec:
                raise ValueError(f'A serialized layer has a "class_name" and a "config". Received: {dict(spec)!r}')
            return get(keras.saving.deserialize_keras_object(dict(spec)), name)
        if not isinstance(spec.get("name"), str):
            raise ValueError(f'An activation\'s dict needs a "name", which is a string. Received: {dict(spec)!r}')
        return _make(spec["name"], {k: v for k, v in spec.items() if k != "name"}, named)
    if isinstance(spec, keras.layers.Layer):
        config = spec.get_config()
        config.pop("name", None)
        return type(spec).from_config(config | named)
    if isinstance(spec, type) and issubclass(spec, keras.layers.Layer):
        _check_options(spec.__name__, {}, _options_of(spec))
        return spec(**named)
    if callable(spec):
        return keras.layers.Activation(spec, **named)
    raise TypeError(
        "An activation is given as a name, a dict, a function, a layer or a layer class. "
        f"Received: {spec!r} of type {type(spec).__name__}"
    )


def _make(key: str, options: dict, named: dict) -> keras.layers.Layer:
    target = lookup(key)
    if isinstance(target, type):
        _check_options(key, options, _options_of(target))
        return target(**options, **named)
    if isinstance(target, Mapping) and "class_name" in target:
        _check_options(key, options, _options_of(type(get(target))))
        return get({**target, "config": {**target["config"], **options}}, **named)
    if isinstance(target, Mapping):
        return get({**target, **options}, **named)
    if options:
        raise ValueError(f"{key!r} takes no options. Received: {', '.join(sorted(options))}")
    return get(target, **named)


def _check_options(key: str, options: dict, known: dict[str, inspect.Parameter]):
    for option in options.keys() - known.keys():
        if not option.endswith(SUFFIXES):  # which a constructor knows better: those of a mixture are its members'
            raise ValueError(
                f"{key!r} has no option {option!r}.{_nearest(option, known)} Its options: {', '.join(known)}."
            )
    for option, parameter in known.items():
        if parameter.default is parameter.empty and option not in options:
            raise ValueError(f"{key!r} needs the option {option!r}. Received: {options!r}")


def _options_of(cls: type) -> dict[str, inspect.Parameter]:
    """The options of a layer class: its constructor's arguments, and those that it hands on."""
    if issubclass(cls, TrainableActivation):
        known = dict(inspect.signature(cls).parameters)
        known.pop("name", None)  # of the layer; in a spec it is that of the activation
    else:
        _, *found = inspect.signature(cls.__init__).parameters.values()
        handed_on = [inspect.Parameter(o, inspect.Parameter.KEYWORD_ONLY, default=None) for o in ("dtype", "trainable")]
        known = {p.name: p for p in (*found, *handed_on)}
    return {name: p for name, p in known.items() if p.kind is not p.VAR_KEYWORD}


def _nearest(name: str, known) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""
