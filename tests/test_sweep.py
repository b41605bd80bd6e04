"""Sweeps: what is trained, what isn't, and what is left after mistakes and interruptions."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from test_readme import ROOT

from zoo import sweep
from zoo.errors import UserError
from zoo.sweeps import costs, grid
from zoo.sweeps.folder import SweepFolder


@pytest.fixture
def described(tmp_path):
    """A sweep of two runs that last seconds, and one that fails: its rules leave a site out."""
    dataset = {"name": "digits", "limit": 64, "test_limit": 20}
    (tmp_path / "base.json").write_text(
        json.dumps({"dataset": dataset, "training": {"epochs": 2, "batch_size": 32}, "metrics": {"report_batch": 10}})
    )
    bad = {"label": "partial", "value": [{"sites": "conv*", "name": "relu"}]}
    content = {"base": "base.json", "outputs": ["sound"], "axes": {"activation": ["relu", bad, "atanh"]}}
    path = tmp_path / "tiny.json"
    path.write_text(json.dumps(content))
    return path


def test_missing_runs_are_trained_and_a_failure_harms_no_other(described, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    out = tmp_path / "out"
    command = [str(described), "--out", str(out)]

    assert sweep.main([*command, "--dry-run"]) == 0
    assert "3 missing of 3 runs" in capsys.readouterr().out and not out.exists()

    assert sweep.main(command) == sweep.FAILED
    said = capsys.readouterr().out
    assert "2 of 3 runs are done" in said
    assert "failed: base--partial: error: " in said and "activation: no rule for the site 'fc3'" in said
    states = {run.name: SweepFolder(out, [], None).state(run) for run in grid.load(described)[1]}
    assert states == {"base--relu": "finished", "base--partial": "failed", "base--atanh": "finished"}

    files = {path: path.stat().st_mtime_ns for path in (out / "runs").glob("*/*")}
    older = out / "configs" / "base--relu.json"  # made before the field `test` was there
    content = json.loads(older.read_text())
    del content["metrics"]["test"]
    older.write_text(json.dumps(content))
    assert sweep.main([*command, "--only", "activation=relu,atanh"]) == 0
    assert "2 of 2 runs are done" in capsys.readouterr().out
    assert files == {path: path.stat().st_mtime_ns for path in (out / "runs").glob("*/*")}

    changed = json.loads(described.read_text()) | {"set": {"training.epochs": 3}}
    described.write_text(json.dumps(changed))
    assert sweep.main(command) == 2
    assert "trained with another training than the sweep has now" in capsys.readouterr().err

    from zoo import report

    assert report.main([str(out)]) == 0
    text = (out / "report" / "report.md").read_text()
    accuracy = json.loads((out / "runs" / "base--atanh" / "metrics.json").read_text())["test_accuracy"]
    assert f"| atanh | 1 | {100 * accuracy:.2f} |" in text and "| partial | 0 of 1 | 1 failed |" in text
    assert "weighted precision has a standard deviation of" in text


def test_a_run_has_one_process(described, tmp_path):
    _, planned = grid.load(described)
    mine, others = SweepFolder(tmp_path / "out", planned, None), SweepFolder(tmp_path / "out", planned, None)
    mine.prepare({}, planned)
    with mine.claim(planned[0]) as lock:
        assert lock is not None
        with others.claim(planned[0]) as second:
            assert second is None
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[lock])
    with others.claim(planned[0]) as second:
        assert second is None  # the run's own process lives on, though the one that began it is gone
    child.communicate(b"\n")
    with others.claim(planned[0]) as second:
        assert second is not None


def test_it_stops_in_time_and_resumes(described, tmp_path):
    """SIGTERM to the run, as the time budget sends it, and kill -9 to the sweep."""
    content = json.loads(described.read_text())
    content["axes"]["activation"] = ["relu"]
    content["set"] = {"training.epochs": 2000}
    described.write_text(json.dumps(content))
    out = tmp_path / "out"
    command = [sys.executable, "-m", "zoo.sweep", str(described), "--out", str(out)]
    checkpoint = out / "runs" / "base--relu" / "checkpoint.npz"

    def started():
        running = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True)
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        while not checkpoint.exists() or checkpoint.stat().st_mtime_ns == before:
            assert running.poll() is None
            time.sleep(0.2)
        return running

    running = started()
    (child,) = subprocess.run(["pgrep", "-P", str(running.pid)], capture_output=True, text=True).stdout.split()
    os.kill(int(child), signal.SIGTERM)
    said, _ = running.communicate()
    assert running.returncode == 0 and "base--relu: stopped" in said and "0 of 1 runs are done" in said

    running = started()
    os.killpg(running.pid, signal.SIGKILL)
    running.communicate()
    found = SweepFolder(out, grid.load(described)[1], None)
    assert found.state(found.planned[0]) == "begun"
    (left,) = costs.seconds_left(found, os.environ["KERAS_BACKEND"]).values()
    assert left and left > 1


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--time-budget", "9"], "expected a time such as 90s, 9m or 2.5h; found '9'"),
        (["--limit", "0"], "expected a whole number, 1 or more; found '0'"),
    ],
)
def test_bad_arguments(described, arguments, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        sweep.main([str(described), *arguments])
    assert message in capsys.readouterr().err


def test_comparisons_are_planned_before_the_runs(tmp_path):
    """Once a run has ended, other comparisons are another sweep."""
    (tmp_path / "base.json").write_text('{"dataset": {"name": "digits"}}')
    (tmp_path / "tiny.json").write_text(json.dumps({"base": "base.json", "axes": {"activation": ["relu", "tanh"]}}))
    planned = grid.load(tmp_path / "tiny.json")[1]
    mine = SweepFolder(tmp_path / "out", planned, None)
    mine.prepare({"plans": {"": {"primary": ["tanh", "relu"]}}}, planned)
    mine.prepare({"plans": {"": {"primary": ["relu", "tanh"]}}}, planned)
    mine.folder(planned[0]).mkdir()
    (mine.folder(planned[0]) / "metrics.json").write_text('{"status": "finished"}')
    with pytest.raises(UserError, match="the comparisons have changed since runs of this sweep ended"):
        mine.prepare({"plans": {"": {"primary": ["tanh", "relu"]}}}, planned)
