"""A search from its file to its report, with workers that are killed, and the runs after it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from tuner import report, search, trials
from tuner.searches import space
from tuner.searches.folder import SearchFolder
from tuner.searches.records import Outcome
from zoo import manifest, train
from zoo.errors import ConfigError

ROOT = Path(__file__).parents[1]
SPACE = [
    {"name": "mixing", "path": "activation.weights", "choice": ["learned", {"label": "fixed", "value": None}]},
    {"path": "activation.weights", "name": "weights", "simplex": 3, "when": {"mixing": "fixed"}},
    {"name": "rate", "path": "training.optimizer.learning_rate", "choice": [0.01, 0.03, 1e9]},
]


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    base = json.loads((ROOT / "configs" / "quickstart.json").read_text())
    base["dataset"]["test_limit"] = 50
    base["training"]["epochs"] = 1
    (folder / "base.json").write_text(json.dumps(base))
    content = {"base": "base.json", "space": SPACE, "trials": 4, "epochs": 1, "limit": 200, "seed": 4}
    content["contrast"] = {"by": "mixing", "seeds": [1, 2]}
    path = folder / "small.json"
    path.write_text(json.dumps(content))
    return path


@pytest.fixture(scope="module")
def searched(described):
    """The folder of a search whose worker was killed in its first trial, and what it printed."""
    out = described.parent / "out"
    command = [sys.executable, "-m", "tuner.search", str(described), "--out", str(out)]
    with subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        while not (out / "trials" / "0000" / "environment.json").exists() and process.poll() is None:
            time.sleep(0.05)
        os.kill(json.loads((out / "tuner0.json").read_text())["process"], signal.SIGKILL)
        assert process.stdout
        said = process.stdout.read()
    assert process.returncode == 0, said
    return out, said


def events_of(out):
    return [json.loads(line) for line in (out / "journal.jsonl").read_text().splitlines()]


def test_every_trial_ends_once_though_a_worker_is_killed(searched):
    out, said = searched
    assert "worker tuner0 died, killed by SIGKILL; restarted" in said
    assert not (ROOT / "untitled_project").exists()
    events = events_of(out)
    ended = [event["trial"] for event in events if event["event"] == "ended"]
    assert len(set(ended)) == len(ended) == len({event["trial"] for event in events if event["event"] == "begun"})
    statuses = [event["outcome"]["status"] for event in events if event["event"] == "ended"]
    assert set(statuses) <= {"finished", "diverged"}
    assert json.loads((out / "trials" / "0000.deaths.json").read_text()) == ["killed by SIGKILL"]


def test_trials_are_runs_that_never_saw_the_test_images(searched):
    """Runs after the search do: no choice depends on them."""
    out, _ = searched
    finals = {e["trial"] for e in events_of(out) if e["event"] == "begun" and "final/of" in e["values"]}
    assert finals
    for folder in (out / "trials").glob("[0-9]" * 4):
        metrics = json.loads((folder / "metrics.json").read_text())
        seen = [name for name in metrics if name.startswith(("test_", "report_"))]
        judged = folder.name in finals and metrics["status"] == "finished"
        assert ("test_accuracy" in seen) if judged else not seen
        assert (folder / "history.csv").exists()
    best = json.loads((out / "best.json").read_text())["notes"].split()[1]
    assert [path.parent.name for path in out.glob("trials/*/model.keras")] == [best]


def test_the_report_is_whole(searched):
    out, _ = searched
    assert report.main([str(out)]) == 0
    text = (out / "report" / "report.md").read_text()
    assert "Which mixing" in text
    assert "diverged" in text  # of those with a learning rate of 1e9
    assert (out / "report" / "slices.png").stat().st_size > 1000
    ended = [e["outcome"]["value"] for e in events_of(out) if e["event"] == "ended"]
    assert f"{max(value for value in ended[:4] if value is not None):.4f}" in text


def test_the_best_config_runs_as_it_is(searched, tmp_path):
    out, _ = searched
    assert train.main([str(out / "best.json"), "--out", str(tmp_path / "run")]) == 0
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["test_accuracy"] > 0


def test_a_folder_in_use_needs_resume_and_the_same_search(described, searched, capsys):
    out, _ = searched
    assert search.main([str(described), "--out", str(out)]) == 2
    assert "use --resume to resume it" in capsys.readouterr().err
    other = described.parent / "other.json"
    other.write_text(described.read_text().replace('"limit": 200', '"limit": 150'))
    assert search.main([str(other), "--out", str(out), "--resume"]) == 2
    assert "limit: 200 then, 150 now" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError("no room"), "out of memory"),
        (RuntimeError("RESOURCE_EXHAUSTED: 3 GB"), "out of memory: "),  # as JAX says it, then TensorFlow and torch
        (RuntimeError("OOM when allocating tensor with shape[10000000,1000000]"), "out of memory: "),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes."), "out of memory: "),
        (ValueError("a\nb"), "a b"),
    ],
)
def test_whatever_goes_wrong_is_an_outcome(searched, monkeypatch, error, reason):
    out, _ = searched
    folder = SearchFolder(out)
    monkeypatch.setattr(train, "run", lambda *_, **__: (_ for _ in ()).throw(error))
    (out / "trials" / "9999.json").unlink(missing_ok=True)
    found = trials.run(folder, folder.open()[0], None, "9999", {"mixing": "learned", "rate": "0.01"}, lambda *_: False)
    assert found.status == "failed"
    assert reason in found.reason
    assert folder.outcome("9999") == found


def test_a_trial_that_kills_its_worker_twice_has_failed(searched):
    folder = SearchFolder(searched[0])
    folder.at_work("tuner9", "9998")
    for _ in range(trials.DEATHS):
        folder.died("tuner9", "killed by SIGKILL")
    found = trials.run(folder, folder.open()[0], None, "9998", {}, lambda *_: False)
    assert found == Outcome("failed", reason="its process died 2 times: killed by SIGKILL")


def test_hyperband_hands_on_everything(described, tmp_path):
    """A trial that resumes where another ended trains as if it had been one, optimizer and schedule included."""
    content = json.loads(described.read_text()) | {"epochs": 2, "tuner": {"name": "hyperband"}, "contrast": None}
    folder = SearchFolder(tmp_path)
    (tmp_path / "trials").mkdir()
    asked = {"schema": 1, "search": content, "backend": os.environ["KERAS_BACKEND"], "data_dir": None}
    (tmp_path / "search.json").write_text(json.dumps(asked))
    folder.base.write_text((described.parent / "base.json").read_text())
    chosen = space.parse(content, "here")
    point = {"mixing": "learned", "rate": "0.03"}

    def run(number, **more):
        return trials.run(folder, chosen, None, number, point | more, lambda *_: False)

    whole = run("0000", **{"tuner/epochs": 2})
    half = run("0001", **{"tuner/epochs": 1})
    rest = run("0002", **{"tuner/epochs": 2, "tuner/trial_id": "0001"})
    assert (len(half.curve), len(rest.curve)) == (1, 2)
    assert rest.curve == whole.curve
    for name in ("history.csv", "mixing_weights.csv"):
        assert (folder.run("0002") / name).read_bytes() == (folder.run("0000") / name).read_bytes()


def test_a_worker_without_a_chief_reports_it(described, tmp_path):
    environment = dict(os.environ) | {"KERASTUNER_TUNER_ID": "tuner0"}
    command = [sys.executable, "-m", "tuner.search", str(described), "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert "KERASTUNER_ORACLE_IP" in done.stderr


def test_a_folder_without_a_search_is_reported(tmp_path, capsys):
    assert report.main([str(tmp_path)]) == 2
    assert "expected the folder of a tuner.search" in capsys.readouterr().err


RATES = {"0000": 0.02, "0001": 0.02, "0002": 1e9, "0003": 0.01, "0004": 0.03}


@pytest.fixture
def begun(tmp_path, monkeypatch):
    """The folder of a search whose best trial is 0002, then 0000 and 0001 of the same settings, 0003 and 0004."""

    def begin(outcomes=None, **settings):
        base = json.loads((ROOT / "configs" / "quickstart.json").read_text())
        base["training"]["epochs"], base["dataset"]["limit"] = 1, 200
        (tmp_path / "base.json").write_text(json.dumps(base))
        entry = {"name": "rate", "path": "training.optimizer.learning_rate", "float": [1e-3, 1e9]}
        content = {"base": "base.json", "space": [entry], "epochs": 1, "seed": 1, "executions": 2} | settings
        searched = space.parse(content, "small.json")
        folder = SearchFolder(tmp_path / "out")
        folder.begin(tmp_path / "small.json", searched, None, "jax", False)
        order = ["0002", "0000", "0001", "0003", "0004"]
        oracle = SimpleNamespace(
            outcomes={name: Outcome("finished", 0.9 - 0.1 * order.index(name)) for name in RATES},
            trials={k: SimpleNamespace(hyperparameters=SimpleNamespace(values={"rate": v})) for k, v in RATES.items()},
            ranking=lambda: order,
            candidates=set,
        )
        for name in RATES:
            folder.run(name).mkdir()
            (folder.run(name) / "model.keras").touch()
        if outcomes is not None:
            trained = []
            monkeypatch.setattr(trials, "_proved", lambda f, s, trial, p, _: trained.append(trial) or outcomes[trial])
            return folder, searched, oracle, trained
        return folder, searched, oracle

    return begin


DIVERGED, FINISHED = Outcome("diverged", reason="NaN loss in epoch 1"), Outcome("finished", 0.8)


def weights(folder):
    return sorted(path.parent.name for path in folder.path.glob("trials/*/model.keras"))


def test_the_first_that_finishes_is_handed_over(begun, capsys):
    folder, searched, oracle, trained = begun({"0002": DIVERGED, "0000": FINISHED})
    folder.settle(searched, oracle)
    assert not folder.best.exists() and weights(folder) == ["0000", "0002", "0003"]
    assert search._hand_over(folder, searched, oracle) == 0
    best = json.loads(folder.best.read_text())
    assert best["training"]["optimizer"]["learning_rate"] == 0.02 and "Trial 0000" in best["notes"]
    assert trained == ["0002", "0000"] and weights(folder) == ["0000"]
    assert "trial 0002 is not confirmed: diverged, NaN loss in epoch 1" in capsys.readouterr().out


def test_no_best_json_where_none_of_three_finishes(begun, capsys):
    folder, searched, oracle, trained = begun({"0002": DIVERGED, "0000": DIVERGED, "0003": DIVERGED})
    manifest.claim(folder.best)
    folder.best.write_text("of a search that was resumed")
    assert search._hand_over(folder, searched, oracle) == 3
    assert trained == ["0002", "0000", "0003"]  # 0001 has the settings of 0000
    assert not folder.best.exists()
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_confirmations_before_a_restart_are_not_repeated(begun):
    folder, searched, oracle, trained = begun({"0002": DIVERGED, "0000": FINISHED})
    assert trials.confirm(folder, searched, oracle) == trials.confirm(folder, searched, oracle) == "0000"
    assert trained == ["0002", "0000"]


def test_zero_hands_over_the_best_unconfirmed(begun):
    folder, searched, oracle, trained = begun({}, confirm=0)
    folder.settle(searched, oracle)
    assert json.loads(folder.best.read_text())["training"]["optimizer"]["learning_rate"] == 1e9
    assert weights(folder) == ["0002"] and not trained


def test_a_candidate_is_trained_with_the_epochs_and_images_of_the_base_and_a_fresh_seed(begun):
    folder, searched, oracle = begun(limit=100)
    outcome = trials._proved(folder, searched, "0002", oracle.trials["0002"].hyperparameters.values, trials.here)
    assert outcome.status == "diverged" and outcome.reason == "NaN loss in epoch 1"
    config = json.loads((folder.confirmation_run("0002") / "config.json").read_text())
    assert config["training"]["seeds"] == [3]  # 1 and 2 are the search's
    assert config["dataset"]["limit"] == 200 and config["training"]["epochs"] == 1
    assert config["metrics"]["test"] is False
    metrics = json.loads((folder.confirmation_run("0002") / "metrics.json").read_text())
    assert not [name for name in metrics if name.startswith("test")]


def test_more_than_three_is_refused():
    with pytest.raises(ConfigError, match="confirm: Input should be less than or equal to 3; found 4"):
        space.parse({"base": "b", "space": [{"path": "x", "int": [1, 2]}], "epochs": 1, "confirm": 4}, "s")
