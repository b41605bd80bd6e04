"""Parameters that don't train: their bytes never change, whatever trains the others; and how parameters are stored."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_adaptact as ka

OPTIMIZERS = [
    *("SGD", "Adam", "AdamW", "RMSprop", "Lamb", "Muon", "Lion", "Adafactor", "Adagrad", "Adadelta", "Adamax"),
    *("Nadam", "Ftrl", "ScheduleFreeAdamW", "LossScaleOptimizer"),
]
BACKEND = keras.config.backend()
QUICK = {"run_eagerly": BACKEND == "tensorflow", "jit_compile": False}  # nothing here is worth a compiler's time
X = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")
Y = np.tanh(X @ np.ones((4, 1), "float32")) + 0.5


def held_layers(granularity):
    """Layers of which some parameters don't train, and the names of those."""
    return {
        ka.AReLU(granularity, b_initializer=0.2, c_trainable=False, d_initializer=0.3, d_trainable=False): "c d",
        ka.ATanh(granularity, a_initializer=0.7, trainable_parameters=["a"]): "b c d",
        ka.Mixture(
            ["relu", ka.ATanh(a_initializer=0.7, trainable=False), ka.Swish()], granularity=granularity
        ): "atanh_a atanh_b atanh_c atanh_d",
        ka.Mixture(
            ["atanh", "relu"], granularity=granularity, trainable_parameters=["weights"]
        ): "atanh_a atanh_b atanh_c atanh_d",
        ka.PELU(granularity, b_trainable=False): "b",
    }


def model_of(parts):
    keras.utils.set_random_seed(0)
    inner = [x for part in parts for x in (layers.Dense(3), part)]
    return keras.Sequential([layers.Input((4,)), *inner, layers.Dense(1)])


def values(parts):
    return [{name: value.copy() for name, value in part.get_parameters().items()} for part in parts]


def assert_held(parts, before):
    for (part, held), old in zip(parts.items(), before, strict=True):
        new = part.get_parameters()
        assert {name for name in held.split() if new[name].tobytes() != old[name].tobytes()} == set(), part.name
        moved = new.keys() - {name for name in new if np.all(new[name] == old[name])}
        assert moved == new.keys() - set(held.split()), part.name


def by_keras(name):
    options = {} if name in ("Ftrl", "Muon") else {"weight_decay": 0.1}
    rate = {"Adadelta": 10.0, "Muon": 0.02}.get(name, 0.05)
    if name == "LossScaleOptimizer":
        optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.AdamW(rate, **options))
    else:
        optimizer = getattr(keras.optimizers, name)(rate, **options)

    def train(model):
        model.compile(optimizer, "mse", **QUICK)
        for _ in range(2):
            model.train_on_batch(X, Y)

    return train


def by_torch(model):
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), 0.05, weight_decay=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        torch.mean((model(X) - torch.tensor(Y)) ** 2).backward()
        optimizer.step()


def by_optax(model):
    import jax
    import optax

    trained, others = ([v.value for v in vs] for vs in (model.trainable_variables, model.non_trainable_variables))
    optimizer = optax.adamw(0.05, weight_decay=0.1)
    state = optimizer.init(trained)
    for _ in range(2):
        loss = lambda t: ops.mean((model.stateless_call(t, others, X)[0] - Y) ** 2)  # noqa: E731
        updates, state = optimizer.update(jax.grad(loss)(trained), state, trained)
        trained = optax.apply_updates(trained, updates)
    for variable, value in zip(model.trainable_variables, trained, strict=True):
        variable.assign(value)


LOOPS = {"jax": {"optax": by_optax}, "torch": {"torch.optim": by_torch}, "tensorflow": {}}[BACKEND]
TRAIN = {name: by_keras(name) for name in OPTIMIZERS} | LOOPS


@pytest.mark.parametrize("name", TRAIN)
def test_held_parameters_keep_their_bytes(name):
    """Under every optimizer of Keras, torch's and optax's AdamW, with weight decay, by layer and by channel."""
    parts = held_layers("layer") | held_layers("channel")
    model = model_of(parts)
    before = values(parts)
    TRAIN[name](model)
    assert_held(parts, before)


@pytest.mark.parametrize("granularity", ["layer", "channel"])
def test_held_parameters_compute_and_train_as_others_do(granularity):
    """One step of SGD moves those that are trained as it does where all are."""
    some, every = (
        ka.AReLU(granularity, a_initializer=0.5, b_initializer=0.2, **o) for o in ({"b_trainable": False}, {})
    )
    found = []
    for layer in (some, every):
        model = model_of([layer])
        layer.set_parameters(c=0.25, d=-0.125)
        assert layer.get_parameters()["c"].flat[0] == 0.25
        model.compile(keras.optimizers.SGD(0.1), "mse", **QUICK)
        start = ops.convert_to_numpy(model(X))
        model.train_on_batch(X, Y)
        found.append((start, layer.get_parameters()))
    (start, some), (other, every) = found
    np.testing.assert_array_equal(start, other)
    for name in "acd":
        np.testing.assert_array_equal(some[name], every[name])
    assert np.all(some["b"] == np.float32(0.2)) and np.any(every["b"] != np.float32(0.2))


@pytest.mark.parametrize("granularity", ["layer", "channel"])
def test_what_trains_is_saved_and_a_file_opens_whatever_trains(granularity, tmp_path):
    parts = held_layers(granularity)
    model = model_of(parts)
    model.compile("adam", "mse", **QUICK)
    model.train_on_batch(X, Y)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    expected = ops.convert_to_numpy(model(X))
    np.testing.assert_array_equal(ops.convert_to_numpy(again(X)), expected)
    before = values(parts)
    again.compile(keras.optimizers.SGD(0.1), "mse", **QUICK)
    again.train_on_batch(X, Y)
    assert_held(dict(zip(again.layers[1:-1:2], parts.values(), strict=True)), before)

    model.save_weights(tmp_path / "model.weights.h5")
    free = [
        *(ka.AReLU(granularity), ka.ATanh(granularity)),
        ka.Mixture(["relu", "atanh", "swish"], granularity=granularity),
        *(ka.Mixture(["atanh", "relu"], granularity=granularity), ka.PELU(granularity)),
    ]
    other = model_of(free)
    other.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_allclose(ops.convert_to_numpy(other(X)), expected, rtol=1e-5, atol=1e-6)  # another program: 1 ulp


def test_holding_has_a_list_form_and_a_config():
    layer = ka.get({"name": "arelu", "trainable_parameters": ["a", "b"]})
    config = layer.get_config()
    assert [config[f"{name}_trainable"] for name in "abcd"] == [True, True, False, False]
    assert ka.get({"name": "arelu", "c_trainable": False}).get_config()["c_trainable"] is False
    for spec in (
        {"name": "arelu", "trainable_parameters": ["e"]},
        {"name": "arelu", "trainable_parameters": "a"},
        {"name": "arelu", "c_trainable": "no"},
        {"name": "arelu", "e_trainable": False},
    ):
        with pytest.raises(ValueError, match="trainable"):
            ka.get(spec)
    none = ka.ATanh(trainable_parameters=[])
    assert none.trainable_variables == [] and len(none.get_parameters()) == 4


@pytest.mark.parametrize("granularity", ["layer", "channel"])
def test_no_optimizer_sees_a_matrix(granularity):
    """Muon makes a matrix of momentum orthogonal, and Adafactor keeps the second moment of one by rows and columns."""
    images = keras.Sequential([layers.Input((5, 5, 3)), ka.PReLU(granularity), ka.Method1(granularity=granularity)])
    series = keras.Sequential([layers.Input((5, 3)), ka.AReLU(granularity), ka.PReLU(granularity)])
    for variable in images.variables + series.variables:
        assert len(variable.shape) != 2, variable.path


@pytest.mark.parametrize("name", ["Muon", "Lamb", "Adafactor"])
def test_parameters_of_equal_channels_train_as_those_of_a_layer(name):
    """Channels that see the same data, and a layer that sees one of them: the same steps, whatever the optimizer.

    Their loss is a mean over channels, so gradients differ by a factor that these three don't see.
    """
    found = []
    for granularity, width in (("layer", 1), ("channel", 3)):
        layer = ka.ATanh(granularity)
        model = keras.Sequential([layers.Input((width,)), layer])
        options = {"epsilon": 1e-30} if name == "Muon" else {}
        model.compile(getattr(keras.optimizers, name)(0.01, **options), "mse")
        x, y = (np.repeat(column, width, 1) for column in (X[:, :1], Y))
        model.fit(x, y, epochs=3, batch_size=32, shuffle=False, verbose=0)
        found.append(layer.get_parameters())
    for parameter, value in found[0].items():
        np.testing.assert_allclose(found[1][parameter], np.full(3, value), rtol=2e-4, atol=1e-5)
