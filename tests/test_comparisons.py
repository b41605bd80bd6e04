"""What a comparison asks, how it chooses rates, its statistics and its words, by themselves."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_layout import ROOT

from zoo import compare as command
from zoo import config, owncode
from zoo.comparisons import costs, folder, question, words
from zoo.comparisons.question import choose
from zoo.reports import judge, statistics
from zoo.reports.judge import ACCURACY, POINTS, Score
from zoo.reports.statistics import Ratio
from zoo.sweeps import cluster, grid
from zoo.training.progress import Cost


def test_rates_are_chosen_alike_where_they_are_not_told_apart():
    """By hand: both rates of `a` spread by 0.1, so that an error is 0.1 x sqrt(2 / 3) = 0.0816."""
    a = {"1": [0.4, 0.5, 0.6], "2": [0.479, 0.579, 0.679]}
    b = {"1": [0.8, 0.8, 0.8], "2": [0.1, 0.1, 0.1]}
    assert choose({"a": a, "b": b}) == {"a": "1", "b": "1"}
    a["2"] = [0.483, 0.583, 0.683]
    assert choose({"a": a, "b": b}) == {"a": "2", "b": "1"}
    assert choose({"a": {"1": [0.5], "2": [0.51]}, "b": {"1": [0.8], "2": [0.1]}}) == {"a": "2", "b": "1"}
    unstable = {"1": [0.90, 0.91, 0.92], "2": [0.91, 0.92, 0.93], "3": [0.2, 0.95, 0.95], "4": [0.99, 0.99]}
    assert choose({"a": unstable, "b": {"3": [0.9] * 3, "1": [0.1] * 3}}) == {"a": "2", "b": "3"}
    assert choose({"a": {"1": [], "2": []}, "b": {"2": [0.9] * 3, "1": [0.1] * 3}}) == {"a": "2", "b": "2"}


def test_times_are_compared_within_seeds():
    """A machine that becomes three times as slow hides nothing, as both activations of a seed find it so."""
    load = np.array([1, 1, 1.5, 2, 3, 3.0])
    found = statistics.ratio(1.1 * load * [1.01, 0.99, 1, 1.01, 0.99, 1], load, 0.05)
    assert found.value == pytest.approx(1.1, rel=1e-3) and 1.08 < found.low < 1.1 < found.high < 1.12 and found.is_known
    assert not statistics.ratio(np.array([1, 2, 1, 2, 1, 2.0]), np.array([2, 1, 2, 1, 2, 1.0]), 0.05).is_known
    few = statistics.ratio(np.full(5, 1.5), np.ones(5), 0.05)  # 2 / 2^5 > 0.05
    assert not few.is_known and str(few) == "1.50"


def test_seeds_that_a_difference_needs():
    """Cohen (1988), table 2.4.1: two-tailed, 5 %, power 0.8."""
    assert [statistics.seeds_to_see(effect, 0.05) for effect in (0.5, 0.8, 1.0, 1.2)] == [64, 26, 17, 12]
    assert statistics.power(statistics.visible(9, 0.01), 9, 0.01) == pytest.approx(statistics.POWER)
    assert statistics.seeds_to_see(0.001, 0.05) is None


def verdict(arm, status, mean, low, high, reason=""):
    found = statistics.Difference(mean, low, high, 0.01, 0.009)
    return judge.Verdict(judge.Comparison(arm, "relu"), status, reason, found, None, 0.01)


def test_less_can_be_better():
    error = Score("rmse", False, POINTS._replace(factor=1, unit="K"), "RMSE")
    found = [verdict("a", "below", -0.5, -0.75, -0.25), verdict("b", "above", 1, 0.5, 2)]
    said = words.sentence(found, error, 9, {"a": Ratio(1.1, 1.04, 1.16), "b": Ratio(1.2, 0.9, 1.5)})
    assert said == (
        "a improves RMSE over relu on your data by 0.50 K, 95 % interval 0.25 to 0.75, at 1.10 times the training "
        "time (1.04 to 1.16); b worsens RMSE by 1.00 K, 95 % interval 0.50 to 2.00."
    )


def test_nothing_is_seen():
    said = words.sentence(
        [verdict("a", "open", 0.001, -0.01, 0.01), verdict("b", "open", 0, -0.01, 0.01)], ACCURACY, 9, {}
    )
    assert said == (
        "No activation shows a difference in accuracy from relu on your data that 9 seeds could see: one of 0.90 "
        "points would have been found with a probability of 80 %."
    )


@pytest.mark.parametrize(
    "own, labels",
    [
        ({"name": "relu"}, ["relu", "arelu", "prelu", "swish", "method1"]),
        ({"name": "tanh"}, ["tanh", "atanh", "prelu", "swish", "method1"]),
        ({"name": "gelu"}, ["gelu", "adaptive gelu", "prelu", "swish", "method1"]),
        ({"name": "method1"}, ["relu", "method1", "arelu", "prelu", "swish"]),
        ([{"sites": "*", "name": "tanh"}], ["relu", "configured", "arelu", "prelu", "swish", "method1"]),
    ],
)
def test_what_is_compared_by_default(own, labels, tmp_path):
    (tmp_path / "my.json").write_text(json.dumps({"activation": own}))
    asked = question.ask(config.load(tmp_path / "my.json"))
    assert list(asked.activations) == labels
    assert asked.rates == [0.005, 0.0158, 0.05, 0.158, 0.5] and asked.rate_seeds == [0, 1, 2]
    assert asked.seeds == list(range(3, 13))


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
