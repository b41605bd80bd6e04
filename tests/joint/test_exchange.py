"""Files written on one backend and opened on the others. Needs all three backends installed."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BACKENDS = ("jax", "torch", "tensorflow")
SCRIPT = Path(__file__).with_name("exchange.py")


def run(backend: str, *arguments) -> None:
    paths = os.pathsep.join(str(SCRIPT.parents[i]) for i in (1, 2))
    environment = os.environ | {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "2", "PYTHONPATH": paths}
    done = subprocess.run(
        [sys.executable, SCRIPT, *map(str, arguments)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exchange")
    for backend in BACKENDS:
        run(backend, "write", folder / backend)
    return folder


@pytest.mark.parametrize("backend", BACKENDS)
def test_files_of_every_backend_open_on(backend, folder, tmp_path):
    """Each opens the `.keras` and the weights file of each; outputs and gradients agree with the writer's."""
    for writer in BACKENDS:
        run(backend, "read", folder / writer, tmp_path / f"{writer}.npz")
        written, found = np.load(folder / writer / "values.npz"), np.load(tmp_path / f"{writer}.npz")
        for name in found.files:
            of_writer = written[name.removesuffix("_of_keras").removesuffix("_of_weights")]
            size = np.abs(of_writer).max()
            np.testing.assert_allclose(found[name], of_writer, rtol=1e-5, atol=1e-5 * size, err_msg=name)
