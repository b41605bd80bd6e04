"""Files written on one backend and opened on the others. Needs all three backends installed.

The tests run this file on each backend: it writes files, or reads another backend's.

    python tests/joint/test_exchange.py activations write|read FOLDER [OUT]      # a model of every activation
    python tests/joint/test_exchange.py networks write|read FOLDER small|full    # weights of each network; and losses
"""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keras
import numpy as np
import pytest
from autodiff import differentiate
from cases import CASES
from keras import layers, ops

import keras_adaptact as ka
from zoo import config
from zoo.data import datasets, pipeline
from zoo.data.splits import Split
from zoo.training.trainer import Trainer

BACKENDS = ("jax", "torch", "tensorflow")
Z = np.random.default_rng(0).normal(0, 2, (4, 5, 6, 3)).astype("float32")
UPSTREAM = np.random.default_rng(1).normal(size=Z.shape).astype("float32")
SMALL = {
    "lenet": {},
    "alexnet": {"widths": [32, 16]},
    "googlenet": {"width": 0.125},
    "resnet50": {"width": 8, "blocks": [1, 1, 1, 1]},
    "densenet": {"blocks": [1, 1, 1, 1], "growth": 8},
}


def model() -> keras.Model:
    """Every activation by layer and by channel, as a layer and inside one; all parameters moved."""
    inputs = keras.Input((5, 6, 3))
    outputs = []
    for case in CASES:
        spec = {"name": case.spec} if isinstance(case.spec, str) else case.spec
        by_layer, by_channel = ka.get(spec), ka.get(spec | {"granularity": "channel"})
        inside = ka.get(spec)
        x = layers.Conv2D(3, 1, activation=inside)(by_channel(by_layer(inputs)))
        outputs.append(x)
        for layer, factor in ((by_layer, 1.0), (by_channel, 1.125), (inside, 0.875)):
            changed = {name: np.asarray(value) * factor for name, value in case.trained.items()}
            if layer is by_channel:
                scales, now = np.array([1.0, 1.25, 0.75]), layer.get_parameters()  # all channels share some of them
                changed = {
                    k: np.multiply.outer(v, scales) if np.ndim(now[k]) > np.ndim(v) else v for k, v in changed.items()
                }
            layer.set_parameters(**changed)
    return keras.Model(inputs, layers.Concatenate()(outputs))


def values(built: keras.Model, suffix: str) -> dict[str, np.ndarray]:
    found = {f"outputs{suffix}": ops.convert_to_numpy(built(Z))}
    for i, layer in enumerate(layer for layer in built.layers if isinstance(layer, ka.TrainableActivation)):
        _, by_z, by_variables = differentiate(layer, Z, UPSTREAM)
        for name, gradient in zip(["z", "0", "1"], [by_z, *by_variables], strict=False):
            found[f"gradient_{i}_{name}{suffix}"] = ops.convert_to_numpy(gradient)
    return found


def activations(action: str, folder: Path, *out: str) -> None:
    keras.utils.set_random_seed(0)
    built = model()
    if action == "write":
        folder.mkdir()
        built.save(folder / "model.keras")
        built.save_weights(folder / "model.weights.h5")
        np.savez(folder / "values.npz", **values(built, ""))
        return
    found = values(keras.models.load_model(folder / "model.keras"), "_of_keras")
    keras.utils.set_random_seed(1)
    fresh = model()
    fresh.load_weights(folder / "model.weights.h5")
    np.savez(out[0], **found, **values(fresh, "_of_weights"))


def trainer(network: str, structure: dict) -> Trainer:
    model = {"name": network} | structure
    model |= {"stem": "reference"} if network != "lenet" else {}
    model |= {"dropout": 0.0} if network != "resnet50" else {}
    settings = {"batch_size": 16, "optimizer": {"learning_rate": 0.01}, "schedule": {"name": "constant", "warmup": 0.0}}
    return Trainer(config.Config(model=model, activation={"name": "method1"}, training=settings))


def losses(made: Trainer) -> list[float]:
    """In training, before and after a step."""
    rng = np.random.default_rng(0)
    images = Split(rng.integers(0, 256, (16, 32, 32, 3), "uint8"), rng.integers(0, 10, 16, "int32"))
    made.attach(datasets.Dataset("random", datasets.CIFAR10_CLASSES, images, None, images, "random"))
    found = []
    for _ in range(2):
        made.model.reset_metrics()
        made.engine.train(pipeline.plan(16, 16, seed=0, epoch=1), 0, 1)
        made.engine.synchronize()
        found.append(float(made.model.get_metrics_result()["loss"]))
    return found


def networks(action: str, folder: Path, size: str) -> None:
    found = {}
    for network, structure in SMALL.items():
        made = trainer(network, structure if size == "small" else {})
        path = folder / f"{network}.weights.h5"
        if action == "write":
            made.model.save_weights(path)
        else:
            made.model.load_weights(path)
            found[network] = losses(made)
    print(json.dumps(found))


def run(backend: str, what: str, *arguments) -> str:
    """What this file prints last on a backend."""
    paths = os.pathsep.join(map(str, Path(__file__).parents[1:3]))
    environment = os.environ | {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "2", "PYTHONPATH": paths}
    command = [sys.executable, __file__, what, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1] if done.stdout else ""


def run_all(commands) -> list[str]:
    """What several print, two at a time."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda command: run(*command), commands))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exchange")
    run_all((backend, "activations", "write", folder / backend) for backend in BACKENDS)
    return folder


@pytest.mark.parametrize("backend", BACKENDS)
def test_files_of_every_backend_open_on(backend, folder, tmp_path):
    """Each opens the `.keras` and the weights file of each; outputs and gradients agree with the writer's."""
    run_all((backend, "activations", "read", folder / writer, tmp_path / f"{writer}.npz") for writer in BACKENDS)
    for writer in BACKENDS:
        written, found = np.load(folder / writer / "values.npz"), np.load(tmp_path / f"{writer}.npz")
        for name in found.files:
            of_writer = written[name.removesuffix("_of_keras").removesuffix("_of_weights")]
            size = np.abs(of_writer).max()
            np.testing.assert_allclose(found[name], of_writer, rtol=1e-5, atol=1e-5 * size, err_msg=name)


def test_networks_lose_alike_from_one_weights_file(tmp_path):
    """In training, without dropout and augmentation, before and after a step; the file is torch's."""
    run("torch", "networks", "write", tmp_path, "small")
    found = run_all((backend, "networks", "read", tmp_path, "small") for backend in BACKENDS)
    jax, torch, tensorflow = map(json.loads, found)
    assert len(jax) == 5
    for network, losses in jax.items():
        assert losses[0] != losses[1]
        np.testing.assert_allclose(torch[network], losses, rtol=1e-4, err_msg=network)
        np.testing.assert_allclose(tensorflow[network], losses, rtol=1e-4, err_msg=network)


if __name__ == "__main__":
    what = {"activations": activations, "networks": networks}[sys.argv[1]]
    what(sys.argv[2], Path(sys.argv[3]), *sys.argv[4:])
