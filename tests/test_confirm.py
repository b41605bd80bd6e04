"""After a search its best trials are trained as the final run would be; the first that finishes is best.json."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from tuner import search
from tuner.searches import loading
from tuner.searches.folder import Folder
from tuner.searches.outcome import Outcome
from tuner.trials import confirmation
from zoo import manifest
from zoo.errors import ConfigError

ROOT = Path(__file__).parents[1]
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
        searched = loading.parse(content, "small.json")
        folder = Folder(tmp_path / "out")
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
            monkeypatch.setattr(
                confirmation, "_trained", lambda f, s, trial, p, _: trained.append(trial) or outcomes[trial]
            )
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
    assert confirmation.confirm(folder, searched, oracle) == confirmation.confirm(folder, searched, oracle) == "0000"
    assert trained == ["0002", "0000"]


def test_zero_hands_over_the_best_unconfirmed(begun):
    folder, searched, oracle, trained = begun({}, confirm=0)
    folder.settle(searched, oracle)
    assert json.loads(folder.best.read_text())["training"]["optimizer"]["learning_rate"] == 1e9
    assert weights(folder) == ["0002"] and not trained


def test_a_candidate_is_trained_with_the_epochs_and_images_of_the_base_and_a_fresh_seed(begun):
    folder, searched, oracle = begun(limit=100)
    outcome = confirmation._trained(
        folder, searched, "0002", oracle.trials["0002"].hyperparameters.values, confirmation.here
    )
    assert outcome.status == "diverged" and outcome.reason == "NaN loss in epoch 1"
    config = json.loads((folder.confirmation_run("0002") / "config.json").read_text())
    assert config["training"]["seeds"] == [3]  # 1 and 2 are the search's
    assert config["dataset"]["limit"] == 200 and config["training"]["epochs"] == 1
    assert config["metrics"]["test"] is False
    metrics = json.loads((folder.confirmation_run("0002") / "metrics.json").read_text())
    assert not [name for name in metrics if name.startswith("test")]


def test_more_than_three_is_refused():
    with pytest.raises(ConfigError, match="confirm: Input should be less than or equal to 3; found 4"):
        loading.parse({"base": "b", "space": [{"path": "x", "int": [1, 2]}], "epochs": 1, "confirm": 4}, "s")
