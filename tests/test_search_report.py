"""The report of a search whose trials are made up."""

import json

import numpy as np
import pytest
from scipy import stats

from tuner import report
from tuner.folder import Folder

CONTRAST = {"by": "kind", "seeds": [1, 2, 3, 4, 5, 6]}
LEVELS = {"a": 0.5, "b": 0.4, "c": 0.5}


@pytest.fixture
def runs():
    """The objective of each label at each seed: b lies 0.1 lower, c where a does."""
    noise = np.random.default_rng(0).normal(0, 0.01, (3, 6))
    return {label: level + noise[i] for i, (label, level) in enumerate(LEVELS.items())}


def made_up(path, runs, objective="val_accuracy", lost=()):
    search = {"base": "none", "space": [{"name": "kind", "choice": list(LEVELS)}], "epochs": 1, "contrast": CONTRAST}
    search["objective"] = objective
    (path / "search.json").write_text(json.dumps({"search": search, "backend": "jax", "data_dir": None}))
    events = []

    def add(values, value):
        outcome = {"status": "finished" if value is not None else "diverged", "value": value}
        events.append({"event": "begun", "trial": f"{len(events):04}", "values": values})
        events.append({"event": "ended", "trial": events[-1]["trial"], "outcome": outcome})

    for label, level in LEVELS.items():
        add({"kind": label}, level)
    for seed in CONTRAST["seeds"]:
        for label in LEVELS:
            value = None if (label, seed) in lost else runs[label][seed - 1]
            add({"kind": label, "final/of": "0000", "final/seed": seed}, value)
    (path / "journal.json").write_text(json.dumps(events))
    return report.Found(Folder(path))


def read(found):
    _, table, words = report._contrast(found)
    return {row[0]: row for row in table.rows}, words.text


def test_labels_are_compared_in_pairs(tmp_path, runs):
    rows, words = read(made_up(tmp_path, runs))
    interval = stats.ttest_rel(runs["b"], runs["a"]).confidence_interval(0.95)
    mean = (runs["b"] - runs["a"]).mean()
    assert rows["b"][4] == f"{mean:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]"
    assert rows["b"][1:3] == ["1", "6 of 6"]
    assert f"With kind b the val_accuracy is {-mean:.4f} lower than with a (6 pairs" in words
    assert words.endswith("Against a: b worse; c not shown to differ.")


def test_a_lower_loss_is_better(tmp_path, runs):
    _, words = read(made_up(tmp_path, runs, "val_loss"))
    assert words.endswith("Against a: b better; c not shown to differ.")


def test_a_run_that_diverged_leaves_its_pair_out(tmp_path, runs):
    rows, words = read(made_up(tmp_path, runs, lost=[("a", 2), ("b", 5)]))
    assert [rows[label][2] for label in LEVELS] == ["5 of 6", "5 of 6", "6 of 6"]
    assert [rows[label][5] for label in "bc"] == ["4", "5"]
    assert "(4 pairs" in words
