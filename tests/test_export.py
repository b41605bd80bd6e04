"""The trials of a search as Optuna's own loader and the csv module read them."""

import csv
import json
import shutil

import optuna
import pytest
from old import OLD

from tuner import export

SPACE = [
    {"name": "kind", "choice": ["a", "b"]},
    {"name": "weights", "simplex": 3, "when": {"kind": "a"}},
    {"name": "rate", "float": [0.01, 1.0], "log": True},
    {"name": "width", "int": [1, 8]},
    {"name": "bias", "boolean": True},
]


@pytest.fixture
def search(tmp_path):
    """Four made-up trials: one that finished, one better, one that was stopped, one that diverged."""
    folder = tmp_path / "mine"
    folder.mkdir()
    made = {"base": "none", "space": SPACE, "epochs": 3, "objective": "val_loss"}
    (folder / "search.json").write_text(json.dumps({"search": made, "backend": "jax", "data_dir": None}))
    common = {"rate": 0.1, "width": 4, "bias": True}
    trials = [
        ({"kind": "a", "weights/0": 0.25, "weights/1": 0.5}, {"status": "finished", "value": 2.0, "curve": [3.0, 2.0]}),
        ({"kind": "b"}, {"status": "finished", "value": 1.0, "curve": [1.5, None, 1.0]}),
        ({"kind": "b"}, {"status": "stopped", "value": 0.5, "curve": [0.5], "reason": "median"}),
        ({"kind": "b"}, {"status": "diverged", "reason": "NaN loss"}),
    ]
    events = []
    for i, (point, outcome) in enumerate(trials):
        events.append({"event": "begun", "trial": f"{i:04}", "values": common | point})
        events.append({"event": "ended", "trial": f"{i:04}", "outcome": outcome})
    (folder / "journal.json").write_text(json.dumps(events))
    return folder


def test_optuna_reads_the_same_trials(search, tmp_path):
    file = tmp_path / "study.db"
    assert export.main([str(search), "--optuna", str(file)]) == 0
    study = optuna.load_study(study_name="mine", storage=f"sqlite:///{file}")
    assert study.direction.name == "MINIMIZE" and (study.best_trial.number, study.best_value) == (1, 1.0)
    first, second, third, fourth = study.trials
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "COMPLETE", "PRUNED", "FAIL"]
    assert (first.params["kind"], first.params["rate"], first.params["width"], first.params["bias"]) == (
        "a",
        0.1,
        4,
        True,
    )
    # A stick: 1 - sqrt(0.25) = 0.5 of it, then half of what is left.
    assert [first.params[f"weights {i}"] for i in (1, 2, 3)] == pytest.approx([0.5, 0.25, 0.25])
    assert "weights 1" not in second.params and first.distributions["rate"].log
    assert second.intermediate_values == {1: 1.5, 3: 1.0} and third.last_step == 1
    assert fourth.user_attrs == {"trial": "0003", "seconds": 0.0, "reason": "NaN loss"}


def test_the_table_has_a_row_for_each_trial(search, tmp_path):
    assert export.main([str(search), "--csv", str(tmp_path / "trials.csv")]) == 0
    rows = list(csv.DictReader((tmp_path / "trials.csv").read_text().splitlines()))
    assert [row["state"] for row in rows] == ["finished", "finished", "stopped", "diverged"]
    assert [row["val_loss"] for row in rows] == ["2.0", "1.0", "0.5", ""] and rows[1]["weights 1"] == ""
    assert float(rows[0]["weights 1"]) == pytest.approx(0.5) and rows[3]["reason"] == "NaN loss"


def test_a_search_of_an_older_version(tmp_path):
    shutil.copytree(OLD / "search", tmp_path / "old")
    assert export.main([str(tmp_path / "old"), "--optuna", str(tmp_path / "study.db")]) == 0
    ended = [event for event in json.loads((OLD / "search" / "journal.json").read_text()) if event["event"] == "ended"]
    study = optuna.load_study(study_name="old", storage=f"sqlite:///{tmp_path / 'study.db'}")
    values = [trial.value for trial in study.trials if trial.value is not None]
    finished = [event["outcome"]["value"] for event in ended if event["outcome"]["status"] == "finished"]
    assert values == finished and finished


def test_bad_input_is_one_line_and_nothing_is_overwritten(search, tmp_path, capsys):
    taken = tmp_path / "taken.db"
    taken.write_text("mine")
    for arguments in ([search], [search, "--optuna", taken], [tmp_path, "--csv", tmp_path / "x"]):
        assert export.main([*map(str, arguments)]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
    assert taken.read_text() == "mine" and not (tmp_path / "x").exists()
