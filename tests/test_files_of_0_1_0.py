"""A model that version 0.1.0 saved, with parameters by channel and the state of its optimizer.

`tests/data/v010-channels.keras` was written by it on JAX after two epochs, `v010-channels.npz` holds what the model
put out then, and the losses of the three epochs that it trained after that.
"""

from pathlib import Path

import keras
import numpy as np

import keras_adaptact as ka

DATA = Path(__file__).parent / "data"


def test_it_opens_and_trains_on_as_it_did(tmp_path):
    known = np.load(DATA / "v010-channels.npz")
    x = np.random.default_rng(0).normal(size=(16, 6, 3)).astype("float32")
    y = np.tanh(x[:, :1, 0])
    model = keras.models.load_model(DATA / "v010-channels.keras")
    np.testing.assert_allclose(model.predict(x, verbose=0), known["outputs"], rtol=1e-5, atol=1e-6)
    model.save(tmp_path / "again.keras")
    model = keras.models.load_model(tmp_path / "again.keras")
    losses = model.fit(x, y, epochs=3, batch_size=16, shuffle=False, verbose=0).history["loss"]
    np.testing.assert_allclose(losses, known["losses"], rtol=1e-4)


def test_its_weights_open_in_a_layer_of_today(tmp_path):
    old = keras.models.load_model(DATA / "v010-channels.keras").layers[1]
    rows, today = keras.Sequential([keras.Input((6, 4)), old]), ka.AReLU("channel", channels=4)
    rows.save_weights(tmp_path / "old.weights.h5")
    keras.Sequential([keras.Input((6, 4)), today]).load_weights(tmp_path / "old.weights.h5")
    assert old.variables[0].shape == (4, 4) and today.variables[0].shape == (16,)
    for name, value in old.get_parameters().items():
        np.testing.assert_array_equal(today.get_parameters()[name], value)
