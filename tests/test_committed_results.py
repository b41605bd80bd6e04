"""Committed results: their reports are made of them, and what the judge says of those of version 0.1.0."""

import csv
import math
import re
import shutil

import numpy as np
import pytest
from old import OLD
from scipy import stats
from test_readme import ROOT

from tuner import report as search_report
from zoo import report
from zoo.reports import groups, judge
from zoo.reports.sections import sound


@pytest.fixture(scope="module")
def cpu(tmp_path_factory):
    """Its folder, the verdicts on each network by their comparisons, and the report."""
    folder = shutil.copytree(OLD / "results" / "cpu", tmp_path_factory.mktemp("results") / "cpu")
    assert report.main([str(folder)]) == 0
    results = groups.Results(folder)
    found = judge.judge(sound.sections(results))
    verdicts = {title: {v.comparison[:2]: v for v in each} for title, each in found.items()}
    return folder, verdicts, (folder / "report" / "report.md").read_text()


@pytest.mark.parametrize("name, reporter", [("cpu", report), ("mixing", search_report)])
def test_a_committed_report_is_made_of_what_is_tracked(name, reporter, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert reporter.main([f"results/{name}", "--out", str(tmp_path)]) == 0
    committed = ROOT / "results" / name / "report"
    assert (tmp_path / "report.md").read_bytes() == (committed / "report.md").read_bytes()
    (text, drawn), (expected, tracked) = (shape(path / "figures.svg") for path in (tmp_path, committed))
    assert text == expected
    np.testing.assert_allclose(drawn, tracked, atol=0.2)  # another processor rounds another way


def shape(path):
    """A drawing without its numbers and the IDs made of them; and its numbers."""
    text = re.sub(r"\b[mp][0-9a-f]{10}\b", "", path.read_text())
    number = r"-?\d+(?:\.\d+)?"
    return re.sub(number, "", text), np.array([float(found) for found in re.findall(number, text)])


def accuracies(folder, name):
    runs = groups.Results(folder).groups("sound")[0].runs[name]
    return [run.metric("test_accuracy") for run in runs]


def test_alexnet_is_void(cpu):
    _, verdicts, text = cpu
    assert {v.status for v in verdicts["alexnet"].values()} == {"void"}
    said = (
        "alexnet is void: 2 seeds of relu, too few for 18 planned comparisons; 6 would do; relu's cross-entropy on test"
    )
    assert text.split("\n\n")[1].startswith(f"Summary. {said}") and text.split("### alexnet\n\n")[1].startswith(said)


def test_lenets_atanh_is_not_significant(cpu):
    """0.1.0 said p = 0.049, from a family that AlexNet's diverged arms had left."""
    folder, verdicts, _ = cpu
    found = verdicts["lenet"]
    atanh = found["atanh", "relu"]
    exact = stats.permutation_test(
        (accuracies(folder, "atanh"), accuracies(folder, "relu")),
        lambda x, y, axis: np.mean(x, axis=axis) - np.mean(y, axis=axis),
        n_resamples=np.inf,
    )
    assert (atanh.status, atanh.found.p) == ("open", pytest.approx(exact.pvalue, abs=1e-9)) and atanh.p > 0.1
    assert found["method1", "relu"].p == pytest.approx(18 * 2 / math.comb(12, 6))
    better = {pair for pair, verdict in found.items() if verdict.status == "above"}
    assert better == {("arelu", "relu"), ("method1", "relu"), ("method2", "relu"), ("asigmoid", "sigmoid")}
    twin = found["atanh", "tanh"]
    assert twin.status == "open" and 100 * twin.found.mean == pytest.approx(0.10, abs=0.005)


def test_what_older_runs_did_not_record_is_reported(cpu):
    folder, _, text = cpu
    assert "so whether their code differs isn't checked" in text
    assert "record their loss with its penalty alone" in text
    assert "lenet: 9,000 train, 1,000 validation, by its config" in text
    with (folder / "report" / "sound-lenet.csv").open() as file:
        assert {row["epochs to the baseline's loss"] for row in csv.DictReader(file)} == {""}


def test_mixing_is_confounded(tmp_path):
    folder = shutil.copytree(OLD / "results" / "mixing", tmp_path / "mixing")
    assert search_report.main([str(folder)]) == 0
    text = (folder / "report" / "report.md").read_text()
    assert "Summary. mixing: of 3 planned comparisons 3 no verdict: confounded." in text
    assert "unequal effort: 8 trials for searched and 13 for learned, median rate 0.00597 and 0.0651" in text
    assert "judged on the validation images used to choose (500 images, a standard error of 2.2 points)" in text
    assert "their best trials differ in method, granularity as well" in text
