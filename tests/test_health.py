"""What may be wrong with a model's activations is found, and nothing where nothing is."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_adaptact as ka

X = np.random.default_rng(0).normal(size=(64, 3)).astype("float32")


def network(**more) -> keras.Model:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((3,))
    x = layers.Dense(4, activation=ka.AReLU(), name="first")(inputs)
    x = ka.Method2(name="second", **more)(layers.Dense(4)(x))
    return keras.Model(inputs, layers.Dense(2, name="last")(x))


def found(model, data=None) -> list[tuple[str, str]]:
    return [(finding.site, finding.what) for finding in ka.check(model, data)]


def test_a_sound_model_has_no_findings():
    model = network()
    model.compile(ka.optimizer_for(model, "adam", step_limit=0.01), "mse")
    assert ka.check(model, X) == []


def test_an_optimizer_without_a_limit_on_steps():
    model = network()
    what = "its optimizer doesn't limit the steps of its 2 trainable activations"
    for optimizer in ("adam", ka.optimizer_for(model, "adam")):
        model.compile(optimizer, "mse")
        assert found(model) == [(model.name, what)]
    model.compile(keras.optimizers.LossScaleOptimizer(ka.optimizer_for(model, "sgd", step_limit=0.01)), "mse")
    assert found(model) == []
    ka.freeze_activations(model)
    model.compile("adam", "mse")
    assert found(model) == []


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"a": np.nan}, "a is not finite"),
        ({"c": 1e4}, "c has grown to 1e+04"),
        ({"a": 0.5, "b": 0.5}, "AReLU is a straight line: a = b"),
    ],
)
def test_numbers_that_went_astray(values, what):
    model = network()
    model.get_layer("first").activation.set_parameters(**values)
    assert ("first", what) in found(model)


def test_a_dead_site():
    model = network()
    model.get_layer("first").activation.set_parameters(a=0.0, b=0.0, c=0.0, d=-1.0)
    sites = [site for site, what in found(model, X) if "is dead: its output is 0" in what]
    assert "first" in sites
    assert not [what for _, what in found(network(), X) if "dead" in what]


def test_decay_and_regularizers_that_pull():
    model = network(weights_regularizer=keras.regularizers.L2(1e-3))
    model.compile(keras.optimizers.AdamW(1e-3, weight_decay=1e-2), "mse")
    what = found(model)
    assert ("first", "weight decay pulls its parameters to 0") in what
    assert ("second", "a regularizer pulls on its parameters") in what
    model.compile(ka.optimizer_for(model, keras.optimizers.AdamW(1e-3, weight_decay=1e-2)), "mse")
    assert not [text for _, text in found(model) if "decay" in text]


def test_one_layer_at_two_places():
    shared = ka.ATanh()
    model = keras.Sequential(
        [layers.Input((3,)), layers.Dense(3, activation=shared, name="a"), layers.Dense(3, activation=shared, name="b")]
    )
    assert found(model) == [("a", "is one layer with b")]
    assert "make a layer for each place" in str(ka.check(model)[0])


def test_recurrent_layers():
    stack = [layers.Input((6, 3)), layers.LSTM(4, activation=ka.ATanh(), name="lstm"), layers.Dense(2)]
    model = keras.Sequential(stack)
    x = np.random.default_rng(0).normal(size=(16, 6, 3)).astype("float32")
    assert found(model, x) == []
    model.layers[0].cell.activation.set_parameters(b=0.0)
    assert found(model, x) == [("lstm", "is dead: its output is 0 for all of the data")]
    assert model(x).shape == (16, 2)


def test_sites_of_one_name_in_models_in_models():
    inner = keras.Sequential([layers.Input((3,)), layers.Dense(5, activation=ka.AReLU(), name="d")], name="inner")
    inputs = keras.Input((3,))
    model = keras.Model(inputs, inner(layers.Dense(3, activation=ka.ATanh(), name="d")(inputs)))
    assert not [what for _, what in found(model, X) if "dead" in what]
