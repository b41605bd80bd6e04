"""Activations of any model-building function, searched by KerasTuner."""

import keras
import keras_tuner
import numpy as np
import pytest

import keras_adaptact as ka
from tuner import ActivationHyperModel


def build(hp, activation):
    layers = [keras.layers.Dense(4, activation=activation()), keras.layers.Dense(4, activation=activation())]
    model = keras.Sequential([keras.layers.Input((2,)), *layers, keras.layers.Dense(hp.Choice("units", [2, 3]))])
    model.compile("sgd", "mse")
    return model


def test_each_site_gets_a_layer_of_its_own():
    model = ActivationHyperModel(build, ["arelu"]).build(keras_tuner.HyperParameters())
    first, second = (layer.activation for layer in model.layers[:2])
    assert isinstance(first, ka.AReLU) and isinstance(second, ka.AReLU) and first is not second


def test_what_is_searched_depends_on_the_activation():
    search = ActivationHyperModel(build, ["relu", "method2", {"name": "mixture", "members": ["relu", "tanh"]}])
    hp = keras_tuner.HyperParameters()
    assert search.spec(hp) == {"name": "relu"}
    hp.values = {"activation": "method2", "mixing": "learned", "normalization": "softmax"}
    assert search.spec(hp) == {"name": "method2", "normalization": "softmax"}
    hp.values = {"activation": "method2", "mixing": "fixed"}
    hp.values |= {"weights of method2/0": 0.25, "weights of method2/1": 0.5}
    assert search.spec(hp) == {"name": "method2", "weights": [0.5, 0.25, 0.25]}
    assert len(ka.get(search.spec(hp)).mixing_weights) == 3
    label = list(search.members)[1]
    hp.values = {"activation": label, "mixing": "fixed", f"weights of {label}/0": 0.25}
    assert search.spec(hp) == {"name": "mixture", "members": ["relu", "tanh"], "weights": [0.75, 0.25]}


@pytest.mark.filterwarnings("ignore")  # of KerasTuner, in its own tuners
def test_a_tuner_of_kerastuner_searches_it(tmp_path):
    tuner = keras_tuner.RandomSearch(
        ActivationHyperModel(build, ["relu", "method1"]),
        objective=keras_tuner.Objective("val_loss", "min"),
        max_trials=4,
        seed=1,
        directory=tmp_path,
    )
    x, y = np.ones((4, 2)), np.ones((4, 1))
    tuner.search(x, y, validation_data=(x, y), epochs=1, verbose=0)
    assert {trial.status for trial in tuner.oracle.trials.values()} == {"COMPLETED"}
    assert {trial.hyperparameters["activation"] for trial in tuner.oracle.trials.values()} == {"relu", "method1"}
