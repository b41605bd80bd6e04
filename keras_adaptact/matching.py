"""Which activations are the same: compared by what they compute, over all of float32."""

from collections.abc import Callable

import keras
import numpy as np
from keras import ops

from keras_adaptact.base import TrainableActivation
from keras_adaptact.copies import rebuilt
from keras_adaptact.registry import Spec, get, lookup
from keras_adaptact.sites import name_of

_RANGE = np.concatenate([10.0 ** np.arange(-30, 39, 4), [3.4e38], np.linspace(0, 20, 81)])
_GRID = np.concatenate([-_RANGE[::-1], _RANGE]).astype("float32")
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


def compared(function: Callable, other: Callable, channels: int = 2) -> tuple[bool, bool]:
    """Whether two activations give the same numbers from 1e-30 to 3e38 on both sides: to the bit, and to 1e-5."""
    points = np.concatenate([_GRID, _DENSE[: 2**17 // channels]])
    z = np.broadcast_to(points[:, None], (len(points), channels)).copy()
    try:
        with np.errstate(all="ignore"):
            first, second = (ops.convert_to_numpy(_in_float32(f)(ops.array(z))) for f in (function, other))
    except Exception:  # of a model's own function, which may ask for tensors of another rank
        return False, False
    if np.array_equal(first, second, equal_nan=True):
        return True, True
    if first.shape != z.shape:
        return False, False
    first, second, size = (values.astype("float64") for values in (first, second, np.abs(z)))
    return False, np.allclose(first, second, 1e-5, 1e-5 * size, equal_nan=True)


def _in_float32(function: Callable) -> Callable:
    """An activation of low precision as it is in float32, if it has no numbers of its own."""
    if isinstance(function, keras.layers.Layer) and not function.variables and function.compute_dtype != "float32":
        return rebuilt(function, dtype="float32")
    return function
