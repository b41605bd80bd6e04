"""What a comparison hands on to its runs, and how it is stopped before there are any."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_readme import ROOT

from zoo import compare as command
from zoo import owncode
from zoo.comparisons import costs, folder
from zoo.sweeps import cluster, grid
from zoo.training.progress import Cost


@pytest.fixture
def network(tmp_path, monkeypatch):
    monkeypatch.setenv(owncode.TRUST, "")  # and gone after the test
    path = tmp_path / "mine" / "my.json"
    path.parent.mkdir()
    dataset = {"file": "gone.npz", "validation": 0.25}
    path.write_text(json.dumps({"dataset": dataset, "training": {"epochs": 2, "batch_size": 4}}))
    return path


@pytest.fixture
def handed(monkeypatch):
    """What the training of each sweep is called with, which does nothing; and the variable that trusts."""
    found = []

    def train(sweep, backend, only, deadline, nodes):
        found.append((sweep.out.name, nodes, os.environ.get(owncode.TRUST)))

    monkeypatch.setattr(folder, "train", train)
    monkeypatch.setattr(cluster, "Cluster", lambda *given: given)
    monkeypatch.setattr(costs, "measure", lambda *given: dict.fromkeys(given[2].activations, Cost(1, 2)))
    return found


def asked(network, *options):
    words = ["--activations", "relu", "tanh", "--rates", "0.1", "--seeds", "5", *options]
    return command.main([str(network), "--out", str(network.parents[1] / "out"), *words])


@pytest.mark.parametrize(
    "options, nodes, trust",
    [
        ([], None, ""),
        (["--trust"], None, "1"),
        (["--ray", "auto", "--cpus-per-run", "2"], ("auto", 2, None), ""),
    ],
)
def test_trust_and_a_cluster_reach_the_runs(network, handed, options, nodes, trust):
    assert asked(network, *options) == 0
    assert handed == [("seeds", nodes, trust)]


def test_resources_without_a_cluster_are_one_line(network, handed, capsys):
    assert asked(network, "--cpus-per-run", "2") == 2
    assert capsys.readouterr().err == "error: --cpus-per-run and --gpus-per-run need --ray\n" and not handed
    assert not (network.parents[1] / "out").exists()


def test_paths_that_are_set_start_from_the_config(network, handed, monkeypatch):
    monkeypatch.chdir(network.parents[1])
    assert asked(network, "--set", "dataset.file=there.npz", "model.build=nets.py:net") == 0
    out = network.parents[1] / "out"
    base = json.loads((out / "base.json").read_text())
    assert (base["dataset"]["file"], base["model"]["build"]) == ("../mine/there.npz", "../mine/nets.py:net")
    _, planned = grid.load(out / "seeds.json")
    assert {run.config.dataset.file for run in planned} == {str(network.parent / "there.npz")}
    assert {run.config.model.build for run in planned} == {f"{network.parent / 'nets.py'}:net"}


def test_sigterm_while_steps_are_measured_leaves_nothing(network, tmp_path):
    """The process that measures is asked to stop, too, and has ended."""
    np.savez(network.parent / "gone.npz", x_train=np.zeros((40, 3)), y_train=np.arange(40) % 2,
             x_test=np.zeros((8, 3)), y_test=np.arange(8) % 2)  # fmt: skip
    (network.parent / "slow.py").write_text(SLOW)
    words = ["--activations", "relu", "tanh", "--out", str(tmp_path / "out"), "--set", "model.build=slow.py:net"]
    running = subprocess.Popen(
        [sys.executable, "-m", "zoo.compare", str(network), *words],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"TMPDIR": str(tmp_path)},
    )  # fmt: skip
    begun = network.parent / "begun.txt"
    while not begun.exists():
        assert running.poll() is None, running.communicate()
    child = int(begun.read_text() or "0") or None
    running.send_signal(signal.SIGTERM)
    said, error = running.communicate()
    assert running.returncode == 4 and error.splitlines()[-1] == "stopped", (said, error)
    assert child is None or not Path(f"/proc/{child}").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine"]


SLOW = """
import os
import time
from pathlib import Path

import keras

Path(__file__).with_name("begun.txt").write_text(str(os.getpid()))


def net(activation):
    time.sleep(3)
    inputs = keras.Input((3,))
    return keras.Model(inputs, keras.layers.Dense(2)(activation("a")(inputs)))
"""
