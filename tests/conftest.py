"""What every test starts from."""

import functools
import gc
import os
import random
from importlib import import_module

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


@pytest.fixture
def by_kernels(monkeypatch):
    """For the value, too, which torch computes as it does itself outside of training where tensors are small."""
    monkeypatch.setattr(_backend(), "LARGE", 1)


@pytest.fixture
def forget():
    """Has each kernel built anew, and each warning given again; afterwards, too."""
    from keras_adaptact.backends import cuda, native

    caches = [native.warn, native._compiler, native._build, cuda._build]
    caches += [getattr(_backend(), name) for name in ("kernel_of", "_operation") if hasattr(_backend(), name)]
    if os.environ["KERAS_BACKEND"] == "jax":
        caches.append(import_module("keras_adaptact.backends.jax_primitive").kernels)
    for known in caches:
        known.cache_clear()
    yield
    for known in caches:
        known.cache_clear()


@pytest.fixture
def built(monkeypatch, forget):
    """Whether kernels were made, for each form that they were wanted for."""
    from keras_adaptact.backends import cuda, native

    found = []

    def counting(build, *arguments):
        kernels = build(*arguments)
        found.append(kernels is not None)
        return kernels

    for module in (native, cuda):
        monkeypatch.setattr(module, "build", functools.partial(counting, module.build))
    return found


def _backend():
    return import_module(f"keras_adaptact.backends.{os.environ['KERAS_BACKEND']}")


@pytest.fixture
def in_process(monkeypatch):
    """Sweeps train their runs in the process of the test."""
    from zoo import train
    from zoo.sweeps.folder import SweepFolder

    def run(sweep, planned, lock, deadline, show) -> str:
        """Takes the place of `SweepFolder.run`, which starts a process for each run."""
        folder = sweep.folder(planned)
        if (folder / "environment.json").exists():
            train.resume(folder)
        else:
            train.run(planned.config, folder)
        return sweep.state(planned)

    monkeypatch.setattr(SweepFolder, "run", run)
