"""What `nox -s wheel` runs in an environment that holds the wheel and a backend alone."""

import importlib
import sys
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

import keras
import numpy as np

import keras_adaptact as ka

assert Path(ka.__file__).is_relative_to(sys.prefix), f"not the wheel: {ka.__file__}"
assert version("keras-adaptact") == ka.__version__

for name in (
    "py.typed",
    "backends/native.c",
    "backends/native.cu",
    "backends/native_math.h",
    "backends/native_torch.c",
    "backends/native_jax.c",
    "backends/native_jax_cuda.c",
):
    assert files(ka).joinpath(name).is_file(), f"the wheel lacks {name}"

model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(8, activation=ka.AReLU()), ka.Method1()])
x = np.linspace(-2, 2, 12, dtype="float32").reshape(3, 4)
z = x @ np.asarray(model.layers[0].kernel)
h = np.maximum(z, 0)
expected = (np.tanh(h) + 1 / (1 + np.exp(-h)) + h) / 3
np.testing.assert_allclose(keras.ops.convert_to_numpy(model(x)), expected, rtol=1e-5, atol=1e-6)
model.compile("sgd", "mse")
model.fit(x, expected, verbose=0)
try:
    importlib.import_module("keras_adaptact.tuning")
except ImportError as error:
    assert "keras-adaptact[tuning]" in str(error)
print(f"keras_adaptact {ka.__version__} on {keras.config.backend()}: the wheel works")
