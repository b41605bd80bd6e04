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
    assert (found["tanh"]["seeds"], found["arelu"]["seeds"]) == ("2", "0 of 2")
    assert found["arelu"]["accuracy"] == "2 diverged"
    assert found["atanh"]["accuracy"] == "missing"
    assert cells(folder, "table1")["relu"]["lenet"] == "0.8500 ± 0.0707 (0.5872)"
    assert cells(folder, "table1")["atanh"]["lenet"] == "missing (0.6683)"


def test_the_page_needs_no_network(folder):
    report.main([str(folder), "--note", "Said <first>."])
    page = (folder / "report" / "report.html").read_text()
    assert "<img" in page and not re.search(r'(src|href)="(?!data:)', page)
    assert "<p>Said &lt;first&gt;. Made up." in page
    assert "Of its 8 runs: 2 diverged, 4 finished, 2 missing." in page and "made up" in page


def test_words(folder):
    report.main([str(folder)])
    text = (folder / "report" / "report.md").read_text()
    assert "With ReLU lenet reaches 61.00 ± 1.41 % test accuracy (2 seeds). " in text
    assert "Beyond chance above it: tanh (+9.50 points, " in text  # t = 8.5 with 1.47 degrees of freedom: p = 0.032
    assert "ReLU's training loss after 3 epochs, 1.100, is reached by tanh after 2." in text
    assert "A step takes from 1.25 (tanh) to 1.25 (tanh) times as long as with ReLU." in text


def test_runs_that_differ_in_more_than_the_seed_stand_apart(folder):
    """Of an axis besides activation and seed, no value is a repetition of another."""
    path = folder / "sweep.json"
    sweep = json.loads(path.read_text())
    for run in sweep["runs"]:
        run["labels"]["training.optimizer.learning_rate"] = "0.1" if run["labels"].pop("seed") == "0" else "0.2"
        run["labels"]["training.batch_size"] = "50"
    path.write_text(json.dumps(sweep))
    assert report.main([str(folder)]) == 0
    for rate, accuracy in (("0.1", "70.00"), ("0.2", "71.00")):
        row = cells(folder, f"sound-lenet-learning_rate-{rate}")["tanh"]
        assert (row["seeds"], row["accuracy"], row["minus ReLU [95 %]"]) == ("1", accuracy, "")
    assert cells(folder, "table1")["relu"]["lenet, learning_rate 0.2"] == "0.9000 (0.5872)"


def test_weights_that_were_held_are_called_fixed(folder):
    path = folder / "sweep.json"
    sweep = json.loads(path.read_text())
    for run in sweep["runs"]:
        if run["labels"]["activation"] == "tanh":
            run["labels"]["activation"] = "method2"
            run["outputs"] = ["table4"]
            members = (("tanh", 0.5), ("sigmoid", 0.2), ("relu", 0.3))
            rows = "".join(f"3,conv1,{member},,{weight},fixed\n" for member, weight in members)
            (folder / "runs" / run["name"] / "mixing_weights.csv").write_text(
                f"epoch,site,member,channel,weight,held\n{rows}"
            )
    path.write_text(json.dumps(sweep))
    assert report.main([str(folder)]) == 0
    assert cells(folder, "table4")["method2 Y, fixed"]["conv1"] == "0.200 (0.332)"


def test_the_note_of_a_folder(folder):
    (folder / "note.txt").write_text("A copy\nof images.\n")
    report.main([str(folder)])
    assert "A copy of images. Made up." in (folder / "report" / "report.md").read_text()


DAMAGE = {
    "cut": ("metrics.json", '{"status": "fin', "metrics.json: can't be read as JSON"),
    "other": ("metrics.json", "[]", "metrics.json: not what zoo.train writes: it has no 'status'"),
    "unmeasured": (
        "metrics.json",
        '{"status": "finished", "images_per_second": 1, "peak_memory_mb": 1}',
        "metrics.json: this run did not measure test_accuracy",
    ),
    "history": ("history.csv", "epoch,loss\n1,what\n", "history.csv: loss is no number in each row"),
    "environment": ("environment.json", "{}", "environment.json: not what zoo.train writes: it has no 'backend'"),
}


@pytest.mark.parametrize("file, content, message", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_run(folder, file, content, message, capsys):
    (folder / "runs" / "tanh-1" / file).write_text(content)
    assert report.main([str(folder)]) == 2
    said = capsys.readouterr().err
    assert f"tanh-1/{message}" in said and said.count("\n") == 1
    assert not (folder / "report" / "report.html").exists()


def test_no_sweep(tmp_path, capsys):
    assert report.main([str(tmp_path)]) == 2
    assert "sweep.json: no such file; expected the folder of a zoo.sweep" in capsys.readouterr().err
