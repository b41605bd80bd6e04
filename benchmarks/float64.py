"""Keras in float64, on every backend."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from unittest import mock

import keras
from keras.src.backend.common import dtypes


@contextmanager
def computing_in_float64() -> Iterator[None]:
    """Keeps the float64 of layers and arrays that have it: elsewhere than on TensorFlow, Keras infers float32 of it."""
    enabled = nullcontext()
    if keras.config.backend() == "jax":
        import jax

        enabled = jax.enable_x64(True)
    with mock.patch.dict(dtypes.BIT64_TO_BIT32_DTYPE, float64="float64"), enabled:
        yield
