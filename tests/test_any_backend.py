"""A backend without a fast way here runs the formulas as they stand; and compiled kernels on disk are found again."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from cases import CASES, evaluate
from keras import layers, ops

import keras_adaptact as ka
from keras_adaptact.backends import cache, common

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


PROGRAM = """
import sys, keras, numpy as np, keras_adaptact as ka
backend, tolerance = sys.argv[1], float(sys.argv[2])
assert keras.config.backend() == backend
if backend == "openvino":  # else it rounds to bfloat16, where the processor has it
    import functools, openvino
    openvino.compile_model = functools.partial(openvino.compile_model, config={"INFERENCE_PRECISION_HINT": "f32"})
model, folded, data = *map(keras.saving.load_model, ("model.keras", "folded.keras")), np.load("data.npz")
for each in (model, folded, ka.fold_activations(model), ka.replace_activations(model, "relu", "arelu")):
    np.testing.assert_allclose(each.predict(data["x"], verbose=0), data["y"], rtol=tolerance, atol=tolerance)
"""


def predicts_as_here(backend: str, folder: Path, tolerance: float) -> None:
    """Activations of each kind inside layers and as layers, by layer and by channel: also folded and replaced there."""
    model = keras.Sequential(
        [
            layers.Input((6, 6, 3)),
            layers.Conv2D(4, 3, activation=ka.AReLU(c_initializer=0.5)),
            ka.Method1(granularity="channel"),
            layers.Conv2D(4, 3, activation="relu"),
            ka.PELU(a_initializer=1.5),
            ka.get("prelu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3, activation=ka.Mixture(["gelu", "atanh"], normalization="softmax")),
            layers.Dense(2, activation=ka.AdaptiveActivation("celu", a_initializer=1.25)),
        ]
    )
    x = np.random.default_rng(1).normal(size=(2, 6, 6, 3)).astype("float32")
    model.save(folder / "model.keras")
    ka.fold_activations(model).save(folder / "folded.keras")
    np.savez(folder / "data.npz", x=x, y=ops.convert_to_numpy(model(x)))
    path = os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"KERAS_BACKEND": backend, "PYTHONPATH": path}
    command = [sys.executable, "-c", PROGRAM, backend, str(tolerance)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


USE = """
import subprocess, sys
import numpy as np
run, count = subprocess.run, []
subprocess.run = lambda command, **options: (count.append(command), run(command, **options))[1]
sys.path.insert(0, sys.argv[1])
import keras, keras_adaptact as ka
from autodiff import differentiate
z = np.linspace(-2, 2, 7, dtype="float32")
y, *_ = differentiate(ka.FReLU(b_initializer=0.5), z, np.ones_like(z))
np.testing.assert_allclose(keras.ops.convert_to_numpy(y), np.maximum(z, 0) + 0.5)
print(sum('kernel.c' in command for command in count))
"""


def compiled(folder) -> int:
    """How often a fresh process calls the compiler."""
    environment = os.environ | {cache.VARIABLE: str(folder)}
    tests = Path(__file__).parent
    command = [sys.executable, "-c", USE, str(tests)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tests.parent, check=True)
    return int(done.stdout.split()[-1])


def test_a_second_process_compiles_nothing_and_a_damaged_file_is_made_again(tmp_path):
    folder = tmp_path / "kernels"
    assert (compiled(folder), compiled(folder)) == (1, 0)
    (made,) = folder.iterdir()
    assert made.suffix == ".so"
    made.write_bytes(made.read_bytes()[:-100])
    assert compiled(folder) == 1
    (made,) = folder.iterdir()
    made.chmod(0o666)  # which anybody might have written
    assert compiled(folder) == 1


@pytest.fixture
def named(monkeypatch):
    return lambda value: monkeypatch.setenv(cache.VARIABLE, str(value))


def kept(content=b"kernel"):
    with cache.workplace() as folder:
        (folder / "made").write_bytes(content)
        return cache.keep(folder / "made", "name.so")


def test_the_folder_is_private(named, tmp_path):
    named(tmp_path / "a" / "b")
    assert kept() == tmp_path / "a" / "b" / "name.so" == cache.find("name.so")
    assert cache.folder().stat().st_mode & 0o777 == 0o700
    assert cache.find("other.so") is None
    cache.folder().chmod(0o777)
    assert cache.folder() is None and cache.find("name.so") is None


def test_a_folder_behind_a_link_is_not_used(named, tmp_path):
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    named(tmp_path / "link")
    assert cache.folder() is None


def test_a_file_of_another_user_is_not_used(named, tmp_path, monkeypatch):
    named(tmp_path / "mine")
    kept()
    monkeypatch.setattr(cache.os, "getuid", lambda: tmp_path.stat().st_uid + 1)
    assert cache.folder() is None and cache.find("name.so") is None


@pytest.mark.parametrize("value", ["", "/proc/nowhere", "/dev/null"])
def test_without_a_folder_nothing_is_kept(named, value):
    named(value)
    assert cache.folder() is None
    with cache.workplace() as folder:
        (folder / "made").write_bytes(b"kernel")
        assert cache.keep(folder / "made", "name.so") == folder / "made"


def test_the_default_is_in_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.delenv(cache.VARIABLE, raising=False)
    monkeypatch.setattr(cache.sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.folder() == tmp_path / "keras_adaptact"
