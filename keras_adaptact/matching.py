"""Which activations are the same: compared by what they compute, over all of float32."""

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_adaptact import backends
from keras_adaptact.base import TrainableActivation
from keras_adaptact.copies import rebuilt
from keras_adaptact.registry import Spec, get, lookup
from keras_adaptact.sites import name_of

_RANGE = np.concatenate([10.0 ** np.arange(-30, 39, 4), [3.4e38], np.linspace(0, 20, 81)])
_GRID = np.concatenate([-_RANGE[::-1], _RANGE]).astype("float32")
_ENDS = np.random.default_rng(0).uniform(-1.5, 0.5, (8, 31)).astype("float32")  # 31: what vectors of 32 leave over
_DENSE = np.random.default_rng(0).normal(0.0, 4.0, 4096).astype("float32")  # as many as 2**17 elements allow


def matcher(source: Spec, present: set[str]) -> Callable[[Callable], bool]:
    """What tells the activations that are meant; `present` are the names of those in the model."""
    if source is None:
        return lambda function: True
    if isinstance(source, str):
        try:
            source = lookup(source)
        except ValueError:
            if source not in present:
                raise
            return lambda function: name_of(function) == source
    if isinstance(source, type) and issubclass(source, keras.layers.PReLU):
        source = keras.layers.PReLU  # the library's is one of Keras's
    if isinstance(source, type) and issubclass(source, TrainableActivation | keras.layers.PReLU):
        return lambda function: isinstance(function, source)
    reference = get(source)
    known: dict[int, bool] = {}

    def matches(function):
        if getattr(function, "variables", None):
            return False
        if id(function) not in known:
            known[id(function)] = same(function, reference)
        return known[id(function)]

    return matches


def same(function: Callable, other: Callable) -> bool:
    return compared(function, other)[0]


def compared(function: Callable, other: Callable, channels: int = 2, gaps: bool = False) -> tuple[bool, bool]:
    """Whether two activations compute the same from 1e-30 to 3e38 on both sides: to the bit, and to 1e-5.

    The end of a tensor counts, and on request tensors with gaps, which are parts of others: torch computes both by
    other instructions than the rest. What trains in another way isn't the same.
    """
    points = np.concatenate([_GRID, _DENSE[: 2**17 // channels]])
    z = np.repeat(points[:, None], channels, axis=1)
    try:
        functions = [_in_float32(f) for f in (function, other)]
        first, second = _values(functions, ops.array(z))
        equal = _equal(first, second) and all(_equal(*_values(functions, tensor)) for tensor in _others(z, gaps))
        alike = _trains_as(function, other)
    except Exception:  # of a model's own function, which may ask for tensors of another rank
        return False, False
    if not alike:
        return False, False
    if equal or first.shape != z.shape:
        return equal, equal
    first, second, size = (values.astype("float64") for values in (first, second, np.abs(z)))
    return False, np.allclose(first, second, 1e-5, 1e-5 * size, equal_nan=True)


def _trains_as(function: Callable, other: Callable) -> bool:
    """Whether one trains as the other where both compute the same; what is of Keras or of this library does."""
    if isinstance(function, keras.layers.Layer):
        code: Any = next(kind for kind in type(function).__mro__ if "call" in vars(kind))
        if not _is_known(code):  # it may drop out, add losses, or do anything else in training
            return type(function) is type(other)
    called: Any = getattr(function, "activation", None) if isinstance(function, keras.layers.Layer) else function
    if not callable(called) or isinstance(called, keras.layers.Layer) or _is_known(called):
        return True
    z = _DENSE[:62].reshape(31, 2)
    slopes = [ops.convert_to_numpy(backends.slope(each, ops.array(z))) for each in (function, other)]
    return np.allclose(slopes[0], slopes[1], 1e-5, 1e-5)


def _is_known(code) -> bool:
    return str(getattr(code, "__module__", "")).split(".")[0] in ("keras", "keras_adaptact")


def _others(z: np.ndarray, gaps: bool) -> Iterator:
    for ends in _ENDS:
        yield ops.array(np.repeat(ends[:, None], z.shape[1], axis=1))
    if gaps:
        yield ops.array(np.repeat(z, 2, axis=1))[:, ::2]


def _values(functions: list[Callable], z) -> list[np.ndarray]:
    with np.errstate(all="ignore"):
        return [ops.convert_to_numpy(f(z)) for f in functions]


def _equal(first: np.ndarray, second: np.ndarray) -> bool:
    return np.array_equal(first, second, equal_nan=True)


def _in_float32(function: Callable) -> Callable:
    """An activation of low precision as it is in float32, if it has no parameters."""
    if isinstance(function, keras.layers.Layer) and not function.variables and function.compute_dtype != "float32":
        return rebuilt(function, dtype="float32")
    return function
