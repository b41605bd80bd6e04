"""What is made of runs of own networks and data: sweeps, reports and searches."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from zoo import config, report, sweep
from zoo.files import read_json

OWN = Path(__file__).parents[1] / "examples" / "own"


@pytest.fixture
def base(tmp_path):
    settings = config.load(OWN / "diabetes.json", ["training.epochs=1", "dataset.limit=64", "model.width=4"])
    content = settings.resolved(tmp_path) | {"$schema": None}
    (tmp_path / "base.json").write_text(json.dumps(content))
    return tmp_path / "base.json"


def test_a_sweep_of_a_regression_and_its_report(base, tmp_path):
    axes = {"activation": ["relu", "method1"], "seed": [0]}
    described = {"base": "base.json", "outputs": ["sound"], "axes": axes}
    (tmp_path / "sweep.json").write_text(json.dumps(described))
    out = tmp_path / "out"
    assert sweep.main([str(tmp_path / "sweep.json"), "--out", str(out)]) == 0
    assert report.main([str(out)]) == 0
    text = (out / "report" / "report.md").read_text()
    assert "R²" in text and "accuracy" not in text and "The report's measure" not in text
    with (out / "report" / "sound-mlp.csv").open() as file:
        row = next(row for row in csv.DictReader(file) if row["activation"] == "relu")
    value = read_json(out / "runs" / "base--relu--seed-0" / "metrics.json")["test_rmse"]
    assert row["root mean square error"] == f"{value:.4f}"
    assert all(str(tmp_path) not in path.read_text() for path in out.rglob("*.json"))


def test_a_search_of_a_regression(base, tmp_path, capsys):
    from tuner import report as search_report
    from tuner import search

    described = {"base": "base.json", "epochs": 1, "trials": 2, "confirm": 1, "objective": "val_rmse"}
    described |= {"space": [{"path": "activation.name", "choice": ["relu", "arelu"]}], "tuner": {"name": "grid"}}
    path = tmp_path / "search.json"
    path.write_text(json.dumps(described | {"objective": "val_accuracy"}))
    assert search.main([str(path), "--out", str(tmp_path / "none")]) == 2
    assert "val_accuracy isn't measured on this data; there are val_r2" in capsys.readouterr().err
    path.write_text(json.dumps(described))
    out = tmp_path / "searched"
    assert search.main([str(path), "--out", str(out)]) == 0
    values = [read_json(out / "trials" / f"{i:04d}.json")["value"] for i in range(2)]
    best = read_json(out / "trials" / f"{int(np.argmin(values)):04d}" / "config.json")["activation"]["name"]
    assert read_json(out / "best.json")["activation"]["name"] == best
    assert config.load(out / "best.json").model.build == f"{OWN / 'diabetes.py'}:mlp"
    assert search_report.main([str(out)]) == 0
