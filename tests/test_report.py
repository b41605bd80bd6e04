"""A report against numbers worked out by hand from the files that it reads."""

import csv
import json
import re

import pytest

from zoo import report

ENVIRONMENT = {
    "backend": "jax",
    "device": "cpu",
    "processors": 2,
    "versions": {"python": "3.11"},
    "git_commit": "abc",
    "git_changed_files": [],
    "data": "made up",
}
LOSSES = {"relu": [[3.0, 2.0, 1.0], [3.0, 2.2, 1.2]], "tanh": [[2.0, 1.0, 0.5], [2.0, 1.1, 0.7]]}
ACCURACIES = {"relu": [0.60, 0.62], "tanh": [0.70, 0.71]}


@pytest.fixture
def folder(tmp_path):
    """LeNet with ReLU and tanh, two finished runs each; AReLU, which diverged; ATanh, which is missing."""
    runs = []
    for name in ("relu", "tanh", "arelu", "atanh"):
        for seed in (0, 1):
            run = tmp_path / "runs" / f"{name}-{seed}"
            labels = {"model": "lenet", "activation": name, "seed": str(seed)}
            runs.append({"name": run.name, "labels": labels, "outputs": ["sound", "table1", "figure3"]})
            if name == "atanh":
                continue
            run.mkdir(parents=True)
            for file, content in (
                ("config.json", {"activation": {"name": name}, "training": {"batch_size": 50}}),
                ("environment.json", ENVIRONMENT),
            ):
                (run / file).write_text(json.dumps(content))
            metrics = {"status": "diverged"}
            if name in ACCURACIES:
                metrics = {
                    "status": "finished",
                    "test_accuracy": ACCURACIES[name][seed],
                    "test_precision_macro": 0.5,
                    "images_per_second": 5000.0 if name == "relu" else 4000.0,
                    "peak_memory_mb": 100.0,
                    "report_precision_max": 0.8 + seed / 10,
                }
            (run / "metrics.json").write_text(json.dumps(metrics))
            with (run / "history.csv").open("w") as file:
                rows = enumerate(LOSSES.get(name, LOSSES["relu"])[seed], start=1)
                csv.writer(file).writerows([("epoch", "loss"), *rows])
            (run / "mixing_weights.csv").write_text("epoch,site,member,channel,weight\n")
            (run / "parameters.csv").write_text("epoch,site,parameter,index,value\n")
    (tmp_path / "sweep.json").write_text(json.dumps({"notes": "Made up.", "runs": runs, "backend": None}))
    return tmp_path


def cells(folder, table):
    with (folder / "report" / f"{table}.csv").open() as file:
        return {
            row[0]: dict(zip(header, row, strict=True)) for header, *rows in [list(csv.reader(file))] for row in rows
        }


def test_cells(folder):
    assert report.main([str(folder)]) == 0
    found = cells(folder, "sound-lenet")
    tanh = found["tanh"]
    # 0.705 - 0.61; the standard error is sqrt((0.0002 + 0.00005) / 4 * 2) = 0.01118, with 1.47 degrees of freedom
    assert tanh["accuracy"] == "70.50 ± 0.71" and found["relu"]["accuracy"] == "61.00 ± 1.41"
    low, high = map(float, re.findall(r"[-+][\d.]+(?=[,\]])", tanh["minus ReLU [95 %]"]))
    assert tanh["minus ReLU [95 %]"].startswith("+9.50 [") and (low + high) / 2 == pytest.approx(9.5, abs=0.02)
    assert tanh["area under loss"] == f"{2.0 / 2 + 1.05 + 0.6 / 2:.2f}"
    assert tanh["epochs to ReLU's loss"] == "2"  # 1.05, where ReLU ends at 1.1
    assert (tanh["ms a step"], found["relu"]["ms a step"], tanh["times ReLU's"]) == ("12.5", "10.0", "1.25")
    assert found["arelu"]["accuracy"] == "2 diverged"
    assert found["atanh"]["accuracy"] == "missing"
    assert cells(folder, "table1")["relu"]["lenet"] == "0.8500 ± 0.0707 (0.5872)"
    assert cells(folder, "table1")["atanh"]["lenet"] == "missing (0.6683)"


def test_the_page_needs_no_network(folder):
    report.main([str(folder), "--note", "Said <first>."])
    page = (folder / "report" / "report.html").read_text()
    assert "<img" in page and not re.search(r'(src|href)="(?!data:)', page)
    assert "<p>Said &lt;first&gt;. Made up." in page
    assert "4 of 8 runs are finished" in page and "made up" in page


def test_no_sweep(tmp_path, capsys):
    assert report.main([str(tmp_path)]) == 2
    assert "sweep.json: no such file; expected the folder of a zoo.sweep" in capsys.readouterr().err
