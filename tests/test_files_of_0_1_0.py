"""A model that version 0.1.0 saved, with parameters by channel and the state of its optimizer.

It wrote `channels/model.keras` on JAX after two epochs. `channels/known.npz` holds the model's outputs then, and the
losses of the three epochs that followed.
"""

import keras
import numpy as np
import pytest
from old import OLD

import keras_adaptact as ka


def test_it_opens_and_trains_on_as_it_did(tmp_path):
    known = np.load(OLD / "channels" / "known.npz")
    x = np.random.default_rng(0).normal(size=(16, 6, 3)).astype("float32")
    y = np.tanh(x[:, :1, 0])
    model = keras.models.load_model(OLD / "channels" / "model.keras")
    np.testing.assert_allclose(model.predict(x, verbose=0), known["outputs"], rtol=1e-5, atol=1e-6)
    model.save(tmp_path / "again.keras")
    model = keras.models.load_model(tmp_path / "again.keras")
    losses = model.fit(x, y, epochs=3, batch_size=16, shuffle=False, verbose=0).history["loss"]
    np.testing.assert_allclose(losses, known["losses"], rtol=1e-4)


def test_its_weights_open_in_a_layer_of_today(tmp_path):
    old = keras.models.load_model(OLD / "channels" / "model.keras").layers[1]
    rows, today = keras.Sequential([keras.Input((6, 4)), old]), ka.AReLU("channel", channels=4)
    rows.save_weights(tmp_path / "old.weights.h5")
    keras.Sequential([keras.Input((6, 4)), today]).load_weights(tmp_path / "old.weights.h5")
    assert old.variables[0].shape == (4, 4) and today.variables[0].shape == (16,)
    for name, value in old.get_parameters().items():
        np.testing.assert_array_equal(today.get_parameters()[name], value)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_a_prelu_of_series_keeps_its_shape_and_opens_in_one_of_today(data_format, tmp_path):
    """It was a matrix, which no configuration said; today it has a further axis, and computes the same."""
    today = ka.PReLU("channel", data_format=data_format)
    config = today.get_config()
    del config["storage"]
    old = ka.PReLU.from_config(config)
    models = [keras.Sequential([keras.Input((4, 3)), layer]) for layer in (old, today)]
    channels = 3 if data_format == "channels_last" else 4
    matrix = (1, 3) if data_format == "channels_last" else (4, 1)
    assert tuple(old.alpha.shape) == matrix and tuple(today.alpha.shape) == (1, *matrix)
    assert ka.get(old)._storage == "rows"
    slopes = np.linspace(-0.5, 0.5, channels, dtype="float32").reshape(matrix)
    old.alpha.assign(slopes)
    models[0].save_weights(tmp_path / "old.weights.h5")
    models[1].load_weights(tmp_path / "old.weights.h5")
    z = np.random.default_rng(0).normal(size=(2, 4, 3)).astype("float32")
    expected = np.where(z > 0, z, slopes * z)
    for model in models:
        np.testing.assert_allclose(keras.ops.convert_to_numpy(model(z)), expected, rtol=1e-6)
    models[1].save(tmp_path / "today.keras")
    again = keras.models.load_model(tmp_path / "today.keras")
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(again(z)), keras.ops.convert_to_numpy(models[1](z)))
