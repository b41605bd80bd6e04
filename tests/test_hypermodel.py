"""Activations of any model-building function, searched by KerasTuner."""

import re
import subprocess
import sys

import keras
import keras_tuner
import numpy as np
import pytest

import keras_adaptact as ka
import tuner
from keras_adaptact.tuning import ActivationHyperModel


def build(hp, activation):
    layers = [keras.layers.Dense(4, activation=activation()), keras.layers.Dense(4, activation=activation())]
    model = keras.Sequential([keras.layers.Input((2,)), *layers, keras.layers.Dense(hp.Choice("units", [2, 3]))])
    model.compile("sgd", "mse")
    return model


def by_site(hp, activation):
    layers = [keras.layers.Dense(4, activation=activation(name)) for name in ("first", "second")]
    return keras.Sequential([keras.layers.Input((2,)), *layers])


def made(search, **values):
    """The activation of some hyperparameters, and the names of all that counted."""
    hp = keras_tuner.HyperParameters()
    hp.values = values
    layer = search.activation(hp)
    return layer, {p.name for p in hp.space if hp.is_active(p)}


def test_each_site_gets_a_layer_of_its_own():
    model = ActivationHyperModel(build, ["arelu"]).build(keras_tuner.HyperParameters())
    first, second = (layer.activation for layer in model.layers[:2])
    assert isinstance(first, ka.AReLU) and isinstance(second, ka.AReLU) and first is not second


def test_a_name_gives_a_site_a_choice_of_its_own():
    search = ActivationHyperModel(by_site, ["relu", "method2"], granularities=["layer", "channel"])
    hp = keras_tuner.HyperParameters()
    hp.values = {"first/activation": "method2", "first/method2/granularity": "channel", "second/activation": "relu"}
    first, second = (layer.activation for layer in search.build(hp).layers)
    assert isinstance(first, ka.Method2) and first.mixing_weights.shape == (3, 4)
    assert second.activation is keras.activations.relu
    names = {p.name for p in hp.space if hp.is_active(p)}
    settings = {f"first/method2/{name}" for name in ("granularity", "mixing", "normalization")}
    assert names == {"first/activation", "second/activation"} | settings


def test_what_is_searched_depends_on_the_activation():
    search = ActivationHyperModel(build, ["relu", "method2", {"name": "mixture", "members": ["relu", "tanh"]}])
    layer, names = made(search)
    assert layer.activation is keras.activations.relu and names == {"activation"}
    values = {"activation": "method2", "method2/mixing": "learned", "method2/normalization": "softmax"}
    layer, names = made(search, **values)
    assert isinstance(layer, ka.Method2) and layer.normalization == "softmax" and names == values.keys()


def test_values_of_fixed_weights_are_the_weights():
    search = ActivationHyperModel(build, ["method2"])
    weights = {"method2/weight[tanh]": 0.5, "method2/weight[sigmoid]": 0.25, "method2/weight[relu]": 0.75}
    layer, names = made(search, **{"method2/mixing": "fixed"} | weights)
    assert layer.mixing_weights.tolist() == [0.5, 0.25, 0.75] and not layer.weights_trainable
    assert names == {"activation", "method2/mixing", *weights}
    layer, _ = made(search, **{"method2/mixing": "fixed"})
    np.testing.assert_allclose(layer.mixing_weights, 1 / 3, rtol=1e-6)


@pytest.mark.parametrize(
    "spec, searched, expected",
    [
        ({"name": "method2", "normalization": "none"}, {"mixing"}, {"normalization": "none"}),
        ({"name": "method2", "weights": [1, 2, 3]}, set(), {"weights": [1.0, 2.0, 3.0]}),
        ({"name": "method2", "weights": "learned"}, {"normalization"}, {"normalization": "sum"}),
        ({"name": "method2", "weights_initializer": [1, 2, 3]}, {"normalization"}, {"weights": "learned"}),
        ({"name": "arelu", "b_initializer": 0.25}, set(), {}),
        (ka.Method2, {"mixing", "normalization"}, {"weights": "learned"}),
        (ka.Method2(normalization="none"), set(), {"normalization": "none"}),
        (keras.activations.gelu, set(), {"activation": "gelu"}),
        (keras.layers.LeakyReLU, set(), {}),
    ],
)
def test_what_a_spec_says_is_not_searched(spec, searched, expected):
    search = ActivationHyperModel(build, [spec])
    (label,) = search.choices
    layer, names = made(search)
    assert names == {"activation"} | {f"{label}/{name}" for name in searched}
    assert expected.items() <= layer.get_config().items()
    assert search.build(keras_tuner.HyperParameters())(np.ones((1, 2))).shape == (1, 2)


@pytest.mark.usefixtures("_registry")
def test_what_a_registered_name_says_is_not_searched():
    ka.register("thirds", {"name": "method2", "weights": [1 / 3, 1 / 3, 1 / 3]})
    layer, names = made(ActivationHyperModel(build, ["thirds"], granularities=["channel"]))
    assert names == {"activation", "thirds/granularity"} and layer.granularity == "channel"


def test_activations_of_one_name_are_numbered():
    search = ActivationHyperModel(build, [ka.AReLU(), ka.AReLU(b_initializer=0.25), ka.AReLU])
    assert list(search.choices) == ["arelu", "arelu_2", "arelu_3"]
    assert made(search, activation="arelu_2")[0].b == np.float32(0.25)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"activations": ["relo"]}, "Unknown activation 'relo'"),
        ({"activations": []}, "one or more"),
        ({"activations": "relu"}, "must be a list"),
        ({"activations": [3]}, "Received: 3"),
        ({"activations": [keras.layers.Dense]}, "needs the option 'units'"),
        ({"activations": [keras.layers.Flatten()]}, "must be activations"),
        ({"normalizations": ["sums"]}, "normalizations"),
        ({"granularities": "channel"}, "granularities"),
        ({"activations": [{"name": "arelu", "channels": 3}], "granularities": ["layer", "channel"]}, "channels"),
    ],
)
def test_mistakes_are_found_before_any_trial(arguments, message):
    with pytest.raises((ValueError, TypeError), match=re.escape(message)) as error:
        ActivationHyperModel(build, **arguments)
    assert "\n" not in str(error.value)


@pytest.mark.filterwarnings("ignore")  # of KerasTuner, in its own tuners
@pytest.mark.parametrize("kind", ["RandomSearch", "GridSearch"])
def test_a_tuner_of_kerastuner_searches_it(kind, tmp_path):
    found = getattr(keras_tuner, kind)(
        ActivationHyperModel(build, ["relu", ka.Method2, ka.Swish()]),
        objective=keras_tuner.Objective("val_loss", "min"),
        max_trials=6,
        seed=1,
        directory=tmp_path,
    )
    x, y = np.ones((4, 2)), np.ones((4, 1))
    found.search(x, y, validation_data=(x, y), epochs=1, verbose=0)
    assert {trial.status for trial in found.oracle.trials.values()} == {"COMPLETED"}
    chosen = [trial.hyperparameters for trial in found.oracle.trials.values()]
    assert {hp["activation"] for hp in chosen} >= {"relu", "method2"}
    for hp in chosen:  # what KerasTuner prints is what the model has
        shown = [value for name, value in hp.values.items() if "weight[" in name and hp["method2/mixing"] == "fixed"]
        if hp["activation"] == "method2" and shown:
            layer = found.hypermodel.build(hp).layers[0].activation
            assert layer.mixing_weights.tolist() == np.float32(shown).tolist()


def test_it_is_imported_by_its_name_alone():
    assert tuner.ActivationHyperModel is ActivationHyperModel
    code = "import sys, keras_adaptact; sys.exit('keras_tuner' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=".", check=False).returncode == 0


def test_without_kerastuner_it_says_what_to_install():
    code = "import sys; sys.modules['keras_tuner'] = None; import keras_adaptact.tuning"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 1 and "pip install 'keras-adaptact[tuning]'" in run.stderr.splitlines()[-1]
