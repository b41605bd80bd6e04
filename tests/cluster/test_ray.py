"""A sweep on a Ray cluster of two nodes on this machine: `nox -s cluster`; RUNS=16 makes it one of 16 runs."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import ray.cluster_utils

from zoo import sweep
from zoo.sweeps.cluster import THREADS

ROOT = Path(__file__).parents[2]
RUNS = int(os.environ.get("RUNS", "4"))
SAME = ("history.csv", "mixing_weights.csv")
OF_THE_MACHINE = ("seconds", "images_per_second", "peak_memory_mb")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """As a run gets it from Ray with one CPU."""
    before = dict(os.environ)
    os.environ |= dict.fromkeys(THREADS, "1")
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def cluster():
    found = ray.cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    yield found
    found.shutdown()


@pytest.fixture
def described(tmp_path):
    """Runs that last seconds, four by default."""
    dataset = {"name": "digits", "limit": 64, "test_limit": 20}
    training = {"epochs": 3, "batch_size": 32}
    (tmp_path / "base.json").write_text(
        json.dumps({"dataset": dataset, "training": training, "metrics": {"report_batch": 10}})
    )
    content = {"base": "base.json", "outputs": ["sound"], "axes": {"activation": ["relu", "method1"]}}
    content["axes"]["seed"] = list(range(RUNS // 2))
    (tmp_path / "tiny.json").write_text(json.dumps(content))
    return tmp_path / "tiny.json"


def started(*arguments):
    command = [sys.executable, "-m", "zoo.sweep", *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def begun(out):
    return [path.parent.name for path in out.glob("runs/*/environment.json")]


def metrics(folder):
    found = json.loads((folder / "metrics.json").read_text())
    return {name: value for name, value in found.items() if name not in OF_THE_MACHINE}


def test_a_sweep_survives_the_death_of_a_node(cluster, described, tmp_path):
    second = cluster.add_node(num_cpus=1)
    out, alone = tmp_path / "out", tmp_path / "alone"
    running = started(described, "--out", out, "--ray", cluster.address)
    while len(begun(out)) < 2:
        assert running.poll() is None
        time.sleep(0.2)
    cluster.remove_node(second, allow_graceful=False)
    said, _ = running.communicate()
    assert running.returncode == 0, said
    assert "its node died" in said and f"{RUNS} of {RUNS} runs are done" in said
    assert Counter(line.rpartition(": finished")[0] for line in said.splitlines() if ": finished" in line) == Counter(
        {path.name: 1 for path in (out / "runs").iterdir() if path.is_dir()}
    )

    assert sweep.main([str(described), "--out", str(alone)]) == 0
    for folder in (path for path in (alone / "runs").iterdir() if path.is_dir()):
        there = out / "runs" / folder.name
        assert metrics(there) == metrics(folder)
        for name in SAME:
            assert (there / name).exists() == (folder / name).exists()
            assert not (folder / name).exists() or (there / name).read_bytes() == (folder / name).read_bytes(), name


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_stops_cleanly(cluster, described, tmp_path, number):
    content = json.loads(described.read_text()) | {"set": {"training.epochs": 2000}}
    described.write_text(json.dumps(content))
    out = tmp_path / "out"
    running = started(described, "--out", out, "--ray", cluster.address, "--limit", 1)
    while not list(out.glob("runs/*/checkpoint.npz")):
        assert running.poll() is None
        time.sleep(0.2)
    running.send_signal(number)
    said, _ = running.communicate()
    assert running.returncode in (4, 130), said
    (log,) = out.glob("logs/*.txt")
    assert "--resume" in log.read_text().splitlines()[-1]  # it saved its state, and nothing is left of it
    assert subprocess.run(["pgrep", "-f", str(out)], capture_output=True, text=True).stdout == ""
    assert not list(out.glob("logs/*.failed.json"))


def test_failures_are_shown_as_without_ray(cluster, described, tmp_path):
    bad = {"label": "partial", "value": [{"sites": "conv*", "name": "relu"}]}
    described.write_text(json.dumps(json.loads(described.read_text()) | {"axes": {"activation": [bad]}}))
    running = started(described, "--out", tmp_path / "out", "--ray", cluster.address)
    said, _ = running.communicate()
    assert running.returncode == sweep.FAILED
    assert "failed: base--partial: error: " in said and "activation: no rule for the site 'fc3'" in said


def test_no_cluster_is_one_line(described, tmp_path, capsys):
    assert sweep.main([str(described), "--out", str(tmp_path / "out"), "--ray", "no address"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: --ray no address: can't reach the cluster")


def test_the_runs_after_a_search_are_as_without_ray(cluster, tmp_path):
    dataset = {"name": "digits", "limit": 200, "test_limit": 20, "validation": 0.2}
    (tmp_path / "base.json").write_text(json.dumps({"dataset": dataset, "training": {"epochs": 1, "batch_size": 32}}))
    content = {"base": "base.json", "trials": 2, "epochs": 1, "limit": 100, "seed": 4, "confirm": 1}
    content["space"] = [{"name": "kind", "path": "activation.name", "choice": ["relu", "arelu"]}]
    content |= {"tuner": {"name": "grid"}, "contrast": {"by": "kind", "seeds": [7, 8]}}
    (tmp_path / "tiny.json").write_text(json.dumps(content))
    found = {}
    for name, more in {"ray": ("--ray", cluster.address), "alone": ()}.items():
        command = [
            sys.executable,
            "-m",
            "tuner.search",
            str(tmp_path / "tiny.json"),
            "--out",
            str(tmp_path / name),
            *more,
        ]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert [f"trial {t} runs on the cluster" in done.stdout for t in ("0002", "0005")] == [name == "ray"] * 2
        events = [json.loads(line) for line in (tmp_path / name / "journal.jsonl").read_text().splitlines()]
        ended = {event["trial"]: event["outcome"] for event in events if event["event"] == "ended"}
        assert len(ended) == sum(event["event"] == "ended" for event in events) == 6
        confirmed = [json.loads(path.read_text())["value"] for path in (tmp_path / name / "confirm").glob("000?.json")]
        found[name] = {trial: (outcome["status"], outcome["curve"]) for trial, outcome in ended.items()}, confirmed
    assert found["ray"] == found["alone"]
