"""Two activations of one name train as two of different names do, wherever they are."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_adaptact as ka

X = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
Y = np.sin(2 * X[:, :1])


def sequential(first, second):
    parts = [layers.Dense(8, activation=ka.AReLU(name=n, b_initializer=0.1)) for n in (first, second)]
    return keras.Sequential([layers.Input((4,)), *parts, layers.Dense(1)])


def nested(first, second):
    halves = [
        keras.Sequential([layers.Input((n,)), layers.Dense(4), ka.Method1(name=name)])
        for n, name in ((4, first), (4, second))
    ]
    inputs = keras.Input((4,))
    return keras.Model(inputs, layers.Dense(1)(halves[1](halves[0](inputs))))


def by_channel(first, second):
    parts = [layers.Dense(8, activation=ka.ATanh("channel", name=n)) for n in (first, second)]
    parts += [layers.Dense(4, activation=ka.PReLU(name=name)) for name in (first, second)]
    return keras.Sequential([layers.Input((4,)), *parts, layers.Dense(1)])


class Subclassed(keras.Model):
    def __init__(self, first, second):
        super().__init__()
        self.first = layers.Dense(8, activation=ka.PELU(name=first))
        self.act, self.second = ka.Swish(name=second), layers.Dense(1)

    def call(self, x):
        return self.second(self.act(self.first(x)))


def subclassed(first, second):
    model = Subclassed(first, second)
    model(X)
    return model


def loaded(first, second, folder):
    """Beside a layer that is new, and has the name that the file's have."""
    sequential(first, second).save(folder / "model.keras")
    return keras.Sequential([keras.models.load_model(folder / "model.keras"), ka.AReLU(name=first, b_initializer=0.1)])


def replaced(first, second):
    model = keras.Sequential(
        [layers.Input((4,))]
        + [keras.Sequential([layers.Dense(4, activation="relu", name=f"{n}_dense")]) for n in (first, second)]
        + [layers.Dense(1)]
    )
    return ka.replace_activations(model, "relu", "arelu")


MODELS = {f.__name__: f for f in (sequential, nested, by_channel, subclassed, loaded, replaced)}


def make(kind, first, second, folder):
    """A model, and those parts of it that start alike."""
    keras.utils.set_random_seed(0)
    options = {"folder": folder} if kind == "loaded" else {}
    return MODELS[kind](first, second, **options)


def by_fit(model):
    model.compile(keras.optimizers.SGD(0.05), "mse")
    return model.fit(X, Y, epochs=4, batch_size=32, shuffle=False, verbose=0).history["loss"]


def by_torch(model):
    import torch

    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        loss = torch.mean((model(X, training=True) - torch.tensor(Y)) ** 2)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def by_optax(model):
    import jax
    import optax

    state = model.get_state_tree() if model.compiled else None
    assert state is None or state
    trained, others = ([v.value for v in vs] for vs in (model.trainable_variables, model.non_trainable_variables))
    optimizer = optax.sgd(0.05)
    steps = optimizer.init(trained)

    @jax.jit
    def step(trained, steps):
        def loss(trained):
            return ops.mean((model.stateless_call(trained, others, X)[0] - Y) ** 2)

        value, gradients = jax.value_and_grad(loss)(trained)
        updates, steps = optimizer.update(gradients, steps)
        return value, optax.apply_updates(trained, updates), steps

    losses = []
    for _ in range(4):
        value, trained, steps = step(trained, steps)
        losses.append(float(value))
    return losses


def by_tape(model):
    import tensorflow as tf

    optimizer = keras.optimizers.SGD(0.05)
    losses = []
    for _ in range(4):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(X, training=True) - Y) ** 2)
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        losses.append(float(loss))
    return losses


LOOP = {"jax": by_optax, "torch": by_torch, "tensorflow": by_tape}[keras.backend.backend()]


@pytest.mark.parametrize("train", [by_fit, LOOP])
@pytest.mark.parametrize("kind", MODELS)
def test_equal_names_train_as_different_ones_do(kind, train, tmp_path):
    different = train(make(kind, "a", "b", tmp_path))
    equal = train(make(kind, "act", "act", tmp_path))
    assert equal == different and equal[-1] < equal[0]


@pytest.mark.parametrize("kind", MODELS)
def test_every_variable_has_a_path_of_its_own(kind, tmp_path):
    keras.backend.clear_session()  # which makes Keras count its own names from the start
    models = [make(kind, "act", "act", tmp_path) for _ in range(2)]
    for model in models:
        paths = [v.path for v in model.variables]
        assert len(set(paths)) == len(paths)
        if keras.backend.backend() == "torch":
            assert len(list(model.parameters())) == len(model.variables)
    own = [v.path for model in models for v in model.variables if v.path.endswith(("parameters", "weights", "alpha"))]
    assert len(set(own)) == len(own)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="state trees are JAX's")
def test_a_state_tree_holds_each_variable(tmp_path):
    model = make("nested", "act", "act", tmp_path)
    model.compile("sgd", "mse")
    tree = model.get_state_tree()["trainable_variables"]
    assert len(keras.tree.flatten(tree)) == len(model.trainable_variables)
