"""Files written on one backend and opened on the others. Needs all three backends installed."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

BACKENDS = ("jax", "torch", "tensorflow")
HERE = Path(__file__).parent


def run(backend: str, what: str, *arguments) -> str:
    """What exchange.py prints last on a backend."""
    paths = os.pathsep.join(map(str, HERE.parents[:2]))
    environment = os.environ | {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "2", "PYTHONPATH": paths}
    command = [sys.executable, HERE / "exchange.py", what, *map(str, arguments)]
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
