"""Models exported by Keras and run elsewhere: right after they were replaced or folded, before they were ever called.

A runtime that isn't installed is a failure."""

import subprocess
import sys

import fuzz
import keras
import numpy as np
import pytest
from keras import layers, ops
from test_any_backend import predicts_as_here

import keras_adaptact as ka
from benchmarks.runtimes import FORMATS, MEMBERS, exported, litert

BACKEND = keras.config.backend()
# What Keras can write; from JAX and torch other formats fail with Keras's own activations, too.
FROM = {
    "tensorflow": ("tf_saved_model", "onnx", "openvino", "litert"),
    "torch": ("onnx", "openvino"),
    "jax": ("tf_saved_model", "onnx"),
}[BACKEND]
X = np.random.default_rng(0).normal(0, 2, (3, 8, 8, 3)).astype("float32")
pytestmark = pytest.mark.filterwarnings("default")  # those of converters are theirs


def plain() -> keras.Model:
    return keras.Sequential(
        [
            layers.Input(X.shape[1:]),
            layers.Conv2D(4, 3, activation="relu", name="inside"),
            layers.Conv2D(4, 3),
            layers.ReLU(name="behind"),
            layers.AveragePooling2D(2),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )


def replaced(spec: dict) -> keras.Model:
    """By channel inside a layer and by layer behind one, with parameters other than at the start."""
    model = ka.replace_activations(
        plain(), choose=lambda layer: {"inside": spec | {"granularity": "channel"}, "behind": spec}.get(layer.name)
    )
    rng = np.random.default_rng(1)
    for layer in model._flatten_layers():
        if isinstance(layer, ka.TrainableActivation):
            values = layer.get_parameters().items()
            layer.set_parameters(**{name: value + rng.uniform(0.1, 0.3, np.shape(value)) for name, value in values})
    return model


def close(found: np.ndarray, expected: np.ndarray) -> bool:
    return found.shape == expected.shape and np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("member", MEMBERS)
@pytest.mark.parametrize("kind", FROM)
def test_every_member(kind, member, tmp_path):
    model = replaced(MEMBERS[member])
    folded = ka.fold_activations(model)
    found = {}
    for label, each in (("replaced", model), ("folded", folded)):
        (tmp_path / label).mkdir()
        found[label] = exported(each, kind, tmp_path / label, X)
    expected = ops.convert_to_numpy(model(X, training=False))  # not before: what nothing has called can be exported
    assert {label: close(each, expected) for label, each in found.items()} == {"replaced": True, "folded": True}


def test_the_formats_are_those_of_the_benchmark():
    assert set(FROM) <= set(FORMATS)


OPENED = """
import sys, numpy as np, tensorflow as tf
loaded = tf.saved_model.load("saved")
data = np.load("data.npz")
np.testing.assert_allclose(loaded.serve(data["x"]), data["y"], rtol=1e-4, atol=1e-5)
assert "keras_adaptact" not in sys.modules
"""


@pytest.mark.skipif(BACKEND != "tensorflow", reason="TensorFlow alone traces functions that are saved later")
def test_a_function_traced_as_in_training_runs_where_the_library_is_not(tmp_path):
    import tensorflow as tf

    model = replaced({"name": "method1"})
    model.compile("sgd", "mse")
    model.fit(X, np.zeros((3, 3), "float32"), verbose=0)
    traced = tf.function(lambda x: model(x, training=True), input_signature=[tf.TensorSpec((None, *X.shape[1:]))])
    expected = np.asarray(traced(X))
    np.testing.assert_allclose(expected, ops.convert_to_numpy(model(X)), rtol=1e-4, atol=1e-5)
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint("serve", traced)
    archive.write_out(tmp_path / "saved", verbose=False)
    np.savez(tmp_path / "data.npz", x=X, y=expected)
    done = subprocess.run([sys.executable, "-c", OPENED], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    converter = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "saved"))
    converter.experimental_enable_resource_variables = True  # as Keras's own export
    assert close(litert(converter.convert(), X), expected)


def test_it_predicts_what_another_backend_saved(tmp_path):
    predicts_as_here("openvino", tmp_path, 1e-4)


TURNS = {
    "tensorflow": ("tf_saved_model", "onnx", "openvino", "litert"),
    "torch": ("onnx", "openvino", "torch"),
    "jax": ("tf_saved_model", "onnx"),
}[keras.config.backend()]


@pytest.mark.filterwarnings("ignore")  # of converters, and of copies of models with methods of their own
@pytest.mark.parametrize("place", range(30))
def test_random_models(place):
    (made,) = fuzz.programs(1, 20 * place)
    assert (wrong := fuzz.report(made, TURNS[place % len(TURNS)])) is None, wrong
