"""What every test starts from."""

import gc
import os
import random

import pytest

BACKENDS = ("jax", "torch", "tensorflow")

if os.environ.get("KERAS_BACKEND") not in BACKENDS:
    pytest.exit(f"Set KERAS_BACKEND to one of {', '.join(BACKENDS)}: the tests run on one at a time.", 2)


@pytest.fixture(autouse=True, scope="session")
def _imports_are_no_garbage():
    """What is imported stays: to search it for garbage again and again took a third of the time of all tests."""
    import keras

    keras.utils.clear_session()
    gc.freeze()


@pytest.fixture(autouse=True)
def _fresh_keras():
    """Each test has the same seed and the default settings, whatever ran before."""
    import keras

    keras.utils.clear_session(free_memory=False)  # which would look at all objects of the process
    keras.utils.set_random_seed(random.Random(0).randrange(2**31))
    keras.config.set_dtype_policy("float32")
    keras.config.set_image_data_format("channels_last")
    yield
    keras.config.set_dtype_policy("float32")
    keras.config.set_image_data_format("channels_last")


@pytest.fixture
def _registry(monkeypatch):
    """Names that a test registers are forgotten."""
    from keras_adaptact import registry

    monkeypatch.setattr(registry, "_REGISTERED", dict(registry._REGISTERED))
