"""The report of a search, and searches that others can read."""

import csv
import json
import shutil

import numpy as np
import optuna
import pytest
from old import OLD
from scipy import stats

from tuner import export, report
from tuner.reports import contrast
from tuner.searches.folder import SearchFolder, SearchResults
from zoo.reports.document import Paragraph, Table

CONTRAST = {"by": "kind", "seeds": [1, 2, 3, 4, 5, 6]}
LEVELS = {"a": 0.5, "b": 0.4, "c": 0.5}


@pytest.fixture
def runs():
    """The objective of each label at each seed: b lies 0.1 lower, c where a does."""
    noise = np.random.default_rng(1).normal(0, 0.01, (3, 6))
    return {label: level + noise[i] for i, (label, level) in enumerate(LEVELS.items())}


def made_up(path, runs, objective="val_accuracy", lost=(), more=(), grown=()):
    path.mkdir(exist_ok=True)
    search = {"base": "none", "space": [{"name": "kind", "choice": list(LEVELS)}], "epochs": 1, "contrast": CONTRAST}
    search["objective"] = objective
    (path / "search.json").write_text(json.dumps({"search": search, "backend": "jax", "data_dir": None}))
    events = []

    def add(values, value):
        outcome = {"status": "finished" if value is not None else "diverged", "value": value}
        events.append({"event": "begun", "trial": f"{len(events):04}", "values": values})
        events.append({"event": "ended", "trial": events[-1]["trial"], "outcome": outcome})

    best = {}
    for label, level in LEVELS.items():
        best[label] = f"{len(events):04}"
        for _ in range(1 + dict(more).get(label, 0)):
            add({"kind": label}, level)
    for i in range(2 if grown else 1):
        for seed in CONTRAST["seeds"]:
            for label in grown if i else LEVELS:
                value = (
                    None
                    if (label, seed) in lost and not i
                    else runs[label][seed - 1] - 0.3 * (label in grown and not i)
                )
                add({"kind": label, "final/of": best[label], "final/seed": seed}, value)
        for label in grown if not i else ():
            best[label] = f"{len(events):04}"
            add({"kind": label}, LEVELS[label] + 0.1)
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
            accuracy = trial.outcome.value + 0.1
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


def test_the_best_of_a_search_that_grew_is_judged_alone(tmp_path, runs):
    """b has another best trial since: the runs of its old one, 0.3 lower and two of them lost, don't count."""
    made_up(tmp_path, runs, lost=[("b", 1), ("b", 2)], grown=["b"], more={"a": 1, "c": 1})
    labels, rows, _ = read(on_test_images(tmp_path, runs))
    assert labels["b"][3] == "6 of 6" and labels["b"][4].startswith(f"{runs['b'].mean() + 0.1:.4f} ± ")
    assert rows["b minus a"][1] == f"{100 * (runs['b'] - runs['a']).mean():+.2f}"
    assert rows["b minus a"][-1] == "beyond chance below"


def test_the_whole_report(tmp_path, runs, capsys):
    made_up(tmp_path, runs)
    (tmp_path / "note.txt").write_text("A copy of\nimages.")
    assert report.main([str(tmp_path)]) == 0
    text = (tmp_path / "report" / "report.md").read_text()
    assert "Summary. kind: of 2 planned comparisons 2 no verdict: confounded" in text and "A copy of images." in text
    assert f"`KERAS_BACKEND=jax python -m tuner.search SEARCH.json --out {tmp_path}`" in text


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
