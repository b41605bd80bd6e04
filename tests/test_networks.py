"""Networks as researchers write them, with activations replaced: in `fit` and in the backend's own loop."""

from collections.abc import Callable
from dataclasses import dataclass

import keras
import networks
import numpy as np
import pytest
from keras import ops

import keras_adaptact as ka

RANDOM = np.random.default_rng(0)


@dataclass(frozen=True)
class Case:
    make: Callable
    x: np.ndarray
    y: np.ndarray
    source: str
    new: object
    sites: int
    in_place: bool = False

    def replaced(self):
        """The same network every time, with its new activations; and what it gave before."""
        keras.utils.set_random_seed(0)
        model = self.make()
        before = call(model, self.x)
        return ka.replace_activations(model, self.source, self.new, in_place=self.in_place), before


def normal(*shape):
    return RANDOM.normal(size=shape).astype("float32")


IMAGES, SERIES, ROWS = normal(4, 8, 8, 1), normal(8, 16, 2), normal(16, 6)
WORDS = RANDOM.integers(0, 12, (8, 6))
POINTS = np.linspace(-1, 1, 32, dtype="float32")[:, None]
ELU = {"name": "adaptive", "function": "elu"}
CASES = {
    "unet": Case(networks.unet, IMAGES, np.abs(IMAGES), "relu", "arelu", 4),
    "convolutions": Case(
        networks.convolutions, SERIES, SERIES[:, 0, :1], "relu", {"name": "arelu", "granularity": "channel"}, 2
    ),
    "transformer": Case(networks.transformer, WORDS, np.eye(2, dtype="float32")[WORDS[:, 0] % 2], "relu", "arelu", 2),
    "autoencoder": Case(networks.Autoencoder, ROWS, ROWS, "elu", ELU, 2, in_place=True),
    "physics": Case(networks.Poisson, POINTS, -10 * np.sin(np.pi * POINTS), "tanh", "atanh", 2, in_place=True),
}


def call(model, x):
    return ops.convert_to_numpy(model(x, training=False))


def by_fit(model, x, y):
    model.compile(keras.optimizers.Adam(0.01), "mse")
    history = model.fit(x, y, epochs=6, batch_size=len(x), shuffle=False, verbose=0).history
    return history.get("error") or history["loss"]


def by_torch(model, x, y):
    import torch

    optimizer, y = torch.optim.Adam(model.parameters(), 0.01), torch.tensor(y)
    losses = []
    for _ in range(6):
        optimizer.zero_grad()
        loss = torch.mean((model(x, training=True) - y) ** 2)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def by_optax(model, x, y):
    import jax
    import optax

    trained, others = ([v.value for v in vs] for vs in (model.trainable_variables, model.non_trainable_variables))
    optimizer = optax.adam(0.01)
    steps = optimizer.init(trained)

    @jax.jit
    def step(trained, others, steps):
        def loss(trained):
            prediction, changed = model.stateless_call(trained, others, x, training=True)
            return ops.mean((prediction - y) ** 2), changed

        (value, others), gradients = jax.value_and_grad(loss, has_aux=True)(trained)
        updates, steps = optimizer.update(gradients, steps)
        return value, optax.apply_updates(trained, updates), others, steps

    losses = []
    for _ in range(6):
        value, trained, others, steps = step(trained, others, steps)
        losses.append(float(value))
    for variable, value in zip(model.trainable_variables, trained, strict=True):
        variable.assign(value)
    return losses


def by_tape(model, x, y):
    import tensorflow as tf

    optimizer = keras.optimizers.Adam(0.01)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x, training=True) - y) ** 2)
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        return loss

    x = tf.constant(x)
    optimizer.build(model.trainable_variables)
    return [float(step()) for _ in range(6)]


LOOP = {"jax": by_optax, "torch": by_torch, "tensorflow": by_tape}[keras.backend.backend()]


def activations(model):
    return [layer for layer in model._flatten_layers() if isinstance(layer, ka.TrainableActivation)]


def trained(case, train):
    """A network with new activations, that gave the same as before, and whose activations were trained."""
    model, before = case.replaced()
    if case.make is networks.Poisson:  # the function is equal to the bit, its derivatives are to rounding
        np.testing.assert_allclose(call(model, case.x), before, rtol=1e-5, atol=1e-5)
    else:
        np.testing.assert_array_equal(call(model, case.x), before)
    assert len(activations(model)) == case.sites
    losses = train(model, case.x, case.y)
    assert np.all(np.isfinite(losses)) and losses[-1] < losses[0]
    for layer in activations(model):
        assert all(np.any(layer.get_parameters()[name] != 1.0) for name in "ab" if name in layer.get_parameters())
    return model


@pytest.mark.parametrize("kind", CASES)
def test_a_network_in_fit(kind):
    trained(CASES[kind], by_fit)


@pytest.mark.parametrize("kind", CASES)
def test_a_network_in_a_loop_and_afterwards(kind, tmp_path):
    case = CASES[kind]
    model = trained(case, LOOP)
    after = call(model, case.x)
    model.save(tmp_path / "model.keras")
    if kind != "transformer":  # whose embedding Keras can't load, replaced or not
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        np.testing.assert_array_equal(call(loaded, case.x), after)
    model.save_weights(tmp_path / "model.weights.h5")
    again, _ = case.replaced()
    again.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(call(again, case.x), after)
    if not case.in_place:
        folded = call(ka.fold_activations(model), case.x)
        np.testing.assert_allclose(folded, after, atol=1e-5 * np.max(np.abs(after)))
