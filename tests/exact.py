"""What the tests of exact copies share: models with random numbers, compared with what becomes of them."""

import keras
import numpy as np
from keras import layers, ops

import keras_adaptact as ka

RNG = np.random.default_rng(0)
X = RNG.normal(size=(4, 6, 5)).astype("float32")
IMAGES = RNG.normal(size=(4, 8, 8, 3)).astype("float32")
CPU_RUNS_CHANNELS_FIRST = keras.config.backend() != "tensorflow"  # whose convolutions on a CPU don't


def call(model, x=X):
    return keras.tree.map_structure(ops.convert_to_numpy, model(x, training=False))


def strong(**settings) -> ka.ATanh:
    """An activation that is far from tanh."""
    return ka.ATanh(a_initializer=0.7, b_initializer=2.0, c_initializer=0.3, d_initializer=0.5, **settings)


def model_of(shape, *stack) -> keras.Model:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([layers.Input(shape), *stack])
    for variable in model.trainable_variables:
        if variable.name in ("bias", "beta", "gamma"):
            variable.assign(np.random.default_rng(1).normal(size=variable.shape))
    return model


def folds(model, x=X):
    """The plan of a fold that was made and compared with the model."""
    folded = ka.fold_activations(model)
    for expected, found in zip(*(keras.tree.flatten(call(m, x)) for m in (model, folded)), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    return ka.plan_folding(model)


@keras.saving.register_keras_serializable("tests")
class Gated(layers.Dense):
    """Multiplies after its activation."""

    def call(self, inputs, training=None):
        return super().call(inputs) * inputs[..., : self.units]


@keras.saving.register_keras_serializable("tests")
class Standardized(layers.Conv2D):
    """Normalizes its kernel before it uses it."""

    @property
    def kernel(self):
        centred = self._kernel - ops.mean(self._kernel, axis=(0, 1, 2), keepdims=True)
        return centred / ops.std(centred, axis=(0, 1, 2), keepdims=True)

    def call(self, inputs):
        z = ops.conv(inputs, self.kernel, padding=self.padding) + self.bias
        return self.activation(z)


def replaced(model, x=X):
    """A model with other activations, which computes the same to the bit."""
    new = ka.replace_activations(model, "relu", "arelu")
    for expected, found in zip(*(keras.tree.flatten(call(m, x)) for m in (model, new)), strict=True):
        np.testing.assert_array_equal(found, expected)
    return new
