"""A backend without a fast way here, or whose private names are others, runs the formulas as they stand."""

import sys

import keras
import numpy as np
import pytest
from cases import CASES, evaluate
from elsewhere import predicts_as_here
from keras import layers, ops

import keras_adaptact as ka
from keras_adaptact.backends import common

BACKEND = keras.backend.backend()
PRIVATE = {"jax": "jax_primitive", "tensorflow": "tensorflow_private", "torch": "torch_private"}[BACKEND]
Z = np.random.default_rng(0).normal(0, 2, (4, 3)).astype("float32")


@pytest.fixture
def forget():
    """Has the backend's modules imported anew; afterwards, too."""
    common.FOUND.clear()
    yield
    common.FOUND.clear()


def hide(monkeypatch, name):
    """Lets the import of a module beside the backends' fail, as it does where a private name is missing."""
    monkeypatch.delitem(sys.modules, f"keras_adaptact.backends.{BACKEND}", raising=False)
    monkeypatch.setitem(sys.modules, f"keras_adaptact.backends.{name}", None)


def test_without_the_private_names_everything_works_and_one_line_says_so(monkeypatch, forget):
    hide(monkeypatch, PRIVATE)
    model = keras.Sequential([layers.Input((3,)), layers.Dense(4, activation=ka.Method1()), ka.PELU(), layers.Dense(1)])
    model.compile("sgd", "mse")
    before = model.layers[1].get_parameters()
    with pytest.warns(UserWarning, match="with this version of the backend") as said:
        history = model.fit(Z, Z[:, :1], epochs=2, verbose=0)
    assert sum("with this version of the backend" in str(warning.message) for warning in said) == 1
    assert np.isfinite(history.history["loss"]).all() and model.layers[1].get_parameters() != before
    y = ops.convert_to_numpy(ka.ATanh(a_initializer=1.5)(Z))
    np.testing.assert_allclose(y, np.tanh(1.5 * Z.astype("float64")), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_backend_of_another_name_runs_the_formula(case, monkeypatch):
    monkeypatch.setattr(keras.config, "backend", lambda: "another")
    layer = ka.get({"name": case.spec} if isinstance(case.spec, str) else case.spec)
    layer.set_parameters(**case.trained)
    y = ops.convert_to_numpy(layer(Z, training=True))
    np.testing.assert_allclose(y, evaluate(case, Z, case.trained)[0], rtol=1e-5, atol=1e-5)


if BACKEND == "jax":  # which Keras's numpy backend imports

    def test_the_numpy_backend_predicts_what_another_one_saved(tmp_path):
        predicts_as_here("numpy", tmp_path, 1e-5)
