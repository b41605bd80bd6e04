"""The report of a search whose trials are made up."""

import json

import numpy as np
import pytest
from scipy import stats

from tuner import report
from tuner.reports import contrast
from tuner.reports.trials import SearchResults
from tuner.searches.folder import SearchFolder
from zoo.reports.document import Paragraph, Table

CONTRAST = {"by": "kind", "seeds": [1, 2, 3, 4, 5, 6]}
LEVELS = {"a": 0.5, "b": 0.4, "c": 0.5}


@pytest.fixture
def runs():
    """The objective of each label at each seed: b lies 0.1 lower, c where a does."""
    noise = np.random.default_rng(1).normal(0, 0.01, (3, 6))
    return {label: level + noise[i] for i, (label, level) in enumerate(LEVELS.items())}


def made_up(path, runs, objective="val_accuracy", lost=(), more=()):
    path.mkdir(exist_ok=True)
    search = {"base": "none", "space": [{"name": "kind", "choice": list(LEVELS)}], "epochs": 1, "contrast": CONTRAST}
    search["objective"] = objective
    (path / "search.json").write_text(json.dumps({"search": search, "backend": "jax", "data_dir": None}))
    events = []

    def add(values, value):
        outcome = {"status": "finished" if value is not None else "diverged", "value": value}
        events.append({"event": "begun", "trial": f"{len(events):04}", "values": values})
        events.append({"event": "ended", "trial": events[-1]["trial"], "outcome": outcome})

    for label, level in LEVELS.items():
        for _ in range(1 + dict(more).get(label, 0)):
            add({"kind": label}, level)
    for seed in CONTRAST["seeds"]:
        for label in LEVELS:
            value = None if (label, seed) in lost else runs[label][seed - 1]
            add({"kind": label, "final/of": "0000", "final/seed": seed}, value)
    (path / "journal.json").write_text(json.dumps(events))
    return SearchResults(SearchFolder(path))


def read(found):
    """The table of the comparison, by label; the planned comparisons; and all words."""
    blocks = list(contrast.blocks(found))
    tables = {block.name: {row[0]: row for row in block.rows} for block in blocks if isinstance(block, Table)}
    words = "\n".join(block.text for block in blocks if isinstance(block, Paragraph))
    return tables["contrast"], tables["comparisons-contrast"], words


def on_test_images(path, runs):
    """What a search of today leaves behind: each run after it has looked at the test images."""
    for trial in found_again(path).finals:
        if trial.outcome.value is not None:
            folder = path / "trials" / trial.name
            folder.mkdir(parents=True)
            accuracy = runs[trial.point["kind"]][trial.point["final/seed"] - 1] + 0.1
            metrics = {"status": "finished", "test_accuracy": accuracy, "test_loss": 1.0}
            (folder / "metrics.json").write_text(json.dumps(metrics))
    return found_again(path)


def found_again(path):
    return SearchResults(SearchFolder(path))


def test_labels_are_judged_on_test_images(tmp_path, runs):
    """By the same test as a sweep's activations; p and interval are those of SciPy and of the order of the values."""
    made_up(tmp_path, runs)
    labels, rows, words = read(on_test_images(tmp_path, runs))
    p = stats.permutation_test(
        (runs["b"], runs["a"]), lambda x, y, axis: x.mean(axis) - y.mean(axis), n_resamples=np.inf
    ).pvalue
    mean = 100 * (runs["b"] - runs["a"]).mean()
    row = rows["b minus a"]
    assert (row[1], row[3], row[4], row[-1]) == (f"{mean:+.2f}", f"{p:.2g}", f"{2 * p:.2g}", "beyond chance below")
    assert labels["b"][1] == "1" and labels["b"][3].startswith("6 of 6")
    assert labels["a"][4].startswith(f"{runs['a'].mean() + 0.1:.4f} ± ")
    assert words.endswith("Against a: b worse; c not shown to differ.")


def test_images_used_to_choose_do_not_judge(tmp_path, runs):
    """As version 0.1.0 had it: the objective of the search, on its validation images."""
    _, rows, words = read(made_up(tmp_path, runs))
    assert (
        rows["b minus a"][-1] == "no verdict: confounded" and "judged on the validation images used to choose" in words
    )
    assert words.endswith("Against a: b, c without a verdict.")
    _, rows, words = read(made_up(tmp_path / "loss", runs, "val_loss"))
    assert rows["b minus a"][1] == f"{(runs['b'] - runs['a']).mean():+.4f}"


def test_unequal_effort_is_confounded(tmp_path, runs):
    made_up(tmp_path, runs, more={"b": 2})
    _, rows, words = read(on_test_images(tmp_path, runs))
    assert rows["b minus a"][-1] == "no verdict: confounded" and rows["c minus a"][-1] == "not told apart"
    assert "unequal effort: 3 trials for b and 1 for a" in words


def test_a_run_that_diverged_is_not_left_out(tmp_path, runs):
    made_up(tmp_path, runs, lost=[("a", 2), ("b", 5)])
    labels, rows, words = read(on_test_images(tmp_path, runs))
    assert [labels[label][3] for label in LEVELS] == ["5 of 6, 1 diverged", "5 of 6, 1 diverged", "6 of 6"]
    assert "b minus a (b lost 1 of 6; a lost 1 of 6; those that finished differ by" in words
    assert rows["c minus a"][-1] == "no verdict: runs lost (a lost 1 of 6)"


def test_the_whole_report(tmp_path, runs, capsys):
    made_up(tmp_path, runs)
    (tmp_path / "note.txt").write_text("A copy of\nimages.")
    assert report.main([str(tmp_path)]) == 0
    text = (tmp_path / "report" / "report.md").read_text()
    assert "Summary. kind: of 2 planned comparisons 2 no verdict: confounded" in text and "A copy of images." in text
    assert f"`KERAS_BACKEND=jax python -m tuner.search SEARCH.json --out {tmp_path}`" in text
