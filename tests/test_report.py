"""A report against numbers worked out by hand from the files that it reads, and what it says of runs that mislead."""

import csv
import json
import math
import re
import shutil

import numpy as np
import pytest
from scipy import stats

from zoo import report
from zoo.files import LEARNED
from zoo.reports import document, judge, provenance, sound
from zoo.reports.groups import Results
from zoo.sweeps.folder import SweepFolder

ENVIRONMENT = {
    "backend": "jax",
    "device": "cpu",
    "processor": "one of a kind",
    "processors": 2,
    "versions": {"python": "3.11"},
    "git_commit": "abc",
    "git_changed_files": [],
    "code": {"keras_adaptact": "1", "zoo": "2"},
    "data": "made up",
    "data_dir": "/mnt/some where",
    "data_digest": "d1",
    "images": {"train": 9000, "validation": 1000, "test": 1000},
    "settings": {"OMP_NUM_THREADS": "1"},
}
LOSSES = {"relu": [[3.0, 2.0, 1.0], [3.0, 2.2, 1.2]], "tanh": [[2.0, 1.0, 0.5], [2.0, 1.1, 0.7]]}
ACCURACIES = {"relu": [0.60, 0.62], "tanh": [0.70, 0.71]}


def write_run(
    out, name, labels, accuracy, losses=(3.0, 2.0, 1.0), metrics=(), environment=(), settings=(), penalty=False
):
    """A run that finished with an accuracy; one that diverged, where that is None."""
    run = out / "runs" / name
    run.mkdir(parents=True)
    rate = labels.get("training.optimizer.learning_rate")
    config = {"model": {"name": "lenet"}, "activation": {"name": labels["activation"]}}
    training = {"batch_size": 50, "seeds": [int(labels.get("seed", 0))], "epochs": len(losses)}
    training |= {"optimizer": {"learning_rate": float(rate)}} if rate else {}
    found = {"status": "diverged", "seed": training["seeds"][0], "epochs": len(losses)}
    if accuracy is not None:
        found |= {
            "status": "finished",
            "validation_accuracy": accuracy,
            "test_accuracy": accuracy,
            "test_loss": 1.0,
            "test_precision_macro": 0.5,
            "test_precision_weighted": 0.45,
            "images_per_second": 5000.0 if labels["activation"] == "relu" else 4000.0,
            "peak_memory_mb": 100.0,
            "report_precision_max": 0.8,
        }
    for file, content in (
        ("config.json", config | {"training": training | dict(settings)}),
        ("environment.json", ENVIRONMENT | dict(environment)),
        ("metrics.json", found | dict(metrics)),
    ):
        (run / file).write_text(json.dumps(content))
    column = "loss" if penalty else "cross_entropy"
    with (run / "history.csv").open("w") as file:
        rows = ((epoch, loss + 1, loss) for epoch, loss in enumerate(losses, start=1))
        csv.writer(file).writerows(
            [("epoch", "loss", "cross_entropy"), *rows]
            if not penalty
            else [("epoch", column), *((e, x) for e, x, _ in rows)]
        )
    (run / "mixing_weights.csv").write_text("epoch,site,member,channel,weight\n")
    (run / "parameters.csv").write_text("epoch,site,parameter,index,value\n")


def write_sweep(out, runs, plan=None, outputs=("sound", "figure3")):
    runs = [{"name": name, "labels": {"model": "lenet"} | labels, "outputs": list(outputs)} for name, labels in runs]
    content = {"notes": "Made up.", "runs": runs, "backend": "jax", "file": "configs/sweeps/mine.json"}
    (out / "sweep.json").write_text(json.dumps(content | ({"plans": {"": plan}} if plan else {})))


def made(out, plan=None, **arms):
    """A sweep of LeNet with one run for each accuracy of each activation."""
    runs = []
    for name, accuracies in arms.items():
        for seed, accuracy in enumerate(accuracies):
            labels = {"activation": name, "seed": str(seed)}
            runs.append((f"{name}-{seed}", labels))
            if accuracy != "missing":
                write_run(out, f"{name}-{seed}", labels, accuracy, np.array([3.0, 2.0, 1.0]) + seed / 100)
    write_sweep(out, runs, plan)
    return out


def told(out):
    """The verdicts by their comparisons, and the report's text."""
    assert report.main([str(out)]) == 0
    sections = sound.sections(Results(out))
    (verdicts,) = judge.judge(sections).values()
    found = {f"{v.comparison.arm} minus {v.comparison.reference}": v for v in verdicts}
    return found, (out / "report" / "report.md").read_text()


def around(center, count=6):
    return [round(center + i / 1000, 4) for i in range(count)]


@pytest.fixture
def folder(tmp_path):
    """LeNet with ReLU and tanh, two finished runs each; AReLU, which diverged; ATanh, which is missing."""
    runs = []
    for name in ("relu", "tanh", "arelu", "atanh"):
        for seed in (0, 1):
            labels = {"activation": name, "seed": str(seed)}
            runs.append((f"{name}-{seed}", labels))
            if name != "atanh":
                accuracy = ACCURACIES[name][seed] if name in ACCURACIES else None
                losses = LOSSES.get(name, LOSSES["relu"])[seed]
                more = {"report_precision_max": 0.8 + seed / 10} if accuracy else {}
                write_run(tmp_path, f"{name}-{seed}", labels, accuracy, losses, more)
    write_sweep(tmp_path, runs, outputs=("sound", "table1", "figure3"))
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
    assert tanh["accuracy"] == "70.50 ± 0.71" and found["relu"]["accuracy"] == "61.00 ± 1.41"
    assert tanh["area under loss"] == f"{2.0 / 2 + 1.05 + 0.6 / 2:.2f}"
    assert tanh["epochs to the baseline's loss"] == "2"  # 1.05, where ReLU ends at 1.1
    times = (tanh["ms a step"], found["relu"]["ms a step"], tanh["times the baseline's"])
    assert times == ("12.5", "10.0", "1.25")
    low, high = (f"{limit:.0%}" for limit in (stats.beta.ppf(0.025, 2, 1), 1))
    assert (tanh["seeds"], found["arelu"]["seeds"]) == ("2", "0 of 2")
    assert (tanh["runs lost [95 %]"], found["arelu"]["runs lost [95 %]"]) == ("", f"2 of 2: 100% [{low}, {high}]")
    assert found["arelu"]["accuracy"] == "2 diverged"
    assert found["atanh"]["accuracy"] == "missing"
    assert cells(folder, "table1")["relu"]["lenet"] == "0.8500 ± 0.0707 (0.5872)"
    assert cells(folder, "table1")["atanh"]["lenet"] == "missing (0.6683)"
    sound = cells(folder, "table1-sound")
    assert (sound["relu"]["lenet"], sound["arelu"]["lenet"]) == ("0.4500 ± 0.0000", "2 diverged")


def test_what_has_not_begun_is_named_not_tabulated(folder):
    asked = [("a-0", {"model": "alexnet", "activation": "relu"}), ("l-0", {"activation": "relu"})]
    write_sweep(folder, asked, outputs=("table1", "figure3"))
    assert report.main([str(folder)]) == 0
    assert list(cells(folder, "table1")["relu"]) == ["activation", "alexnet", "lenet"]  # no run at all: the plan
    write_run(folder, "l-0", asked[1][1], 0.6)
    assert report.main([str(folder)]) == 0
    text = (folder / "report" / "report.md").read_text()
    assert list(cells(folder, "table1")["relu"]) == ["activation", "lenet"] and "No run yet of: alexnet." in text


@pytest.mark.parametrize("epochs, limit", [(9, 2000), (150, None), (150, 2000)])
def test_a_small_table_says_so(epochs, limit, tmp_path):
    """One with fewer epochs or images than the report's; one as large says nothing."""
    labels = {"activation": "relu", "seed": "0"}
    write_run(tmp_path, "relu-0", labels, 0.6, np.linspace(3, 1, epochs))
    path = tmp_path / "runs" / "relu-0" / "config.json"
    dataset = {"dataset": {"name": "cifar10", "limit": limit}}
    path.write_text(json.dumps(json.loads(path.read_text()) | dataset))
    write_sweep(tmp_path, [("relu-0", labels)], outputs=("table1",))
    assert report.main([str(tmp_path)]) == 0
    text = (tmp_path / "report" / "report.md").read_text()
    said = f"In small: {epochs} epochs on 2,000 images of cifar10; the report's are 150 on 50,000 of CIFAR-10."
    assert (said in text) if limit else ("In small" not in text)


def test_the_page_needs_no_network(folder):
    report.main([str(folder), "--note", "Said <first>."])
    page = (folder / "report" / "report.html").read_text()
    assert "<img" in page and not re.search(r'(src|href)="(?!data:)', page)
    assert "<p>Said &lt;first&gt;. Made up." in page
    assert "Of its 8 runs: 2 diverged, 4 finished, 2 missing." in page and "made up" in page


def test_words(folder):
    report.main([str(folder)])
    text = (folder / "report" / "report.md").read_text()
    assert "With relu lenet reaches 61.00 ± 1.41 % test accuracy (2 seeds). " in text
    assert "The training cross-entropy of relu after 3 epochs, 1.100, is reached" not in text  # of a void section


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
        assert (row["seeds"], row["accuracy"]) == ("1", accuracy)
    assert cells(folder, "table1")["relu"]["lenet, learning_rate 0.2"] == "0.9000 (0.5872)"


def test_fixed_weights_are_called_fixed(folder):
    path = folder / "sweep.json"
    sweep = json.loads(path.read_text())
    for run in sweep["runs"]:
        if run["labels"]["activation"] == "tanh":
            run["labels"]["activation"] = "method2"
            run["outputs"] = ["table4"]
            members = (("tanh", 0.5), ("sigmoid", 0.2), ("relu", 0.3))
            rows = "".join(f"{e},conv1,{member},,{weight},fixed\n" for e in (1, 2, 3) for member, weight in members)
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
    "history": ("history.csv", "epoch,loss\n1,what\n2,1\n3,1\n", "history.csv: loss is not a number in every row"),
    "rate": ("metrics.json", '{"status": "finished", "images_per_second": null}', "metrics.json: not what zoo.train"),
    "model": (
        "config.json",
        '{"training": {}, "activation": {}, "model": []}',
        "config.json: not what zoo.train writes",
    ),
    "environment": ("environment.json", "{}", "environment.json: not what zoo.train writes: it has no 'backend'"),
}


ROWS = ["0,c,m,,1", "1,c,m,,1", "2,c,m,,1", "3,c,m,,1"]
for name, file, rows, message in (
    ("weight", "mixing_weights.csv", [*ROWS[:2], ROWS[3]], "c m has no row of epoch 2"),
    ("last weights", "mixing_weights.csv", ROWS[:3], "c m has no row of epoch 3"),
    ("twice", "mixing_weights.csv", [*ROWS, ROWS[1]], "not what zoo.train writes: line 6 is not finite"),
    ("other sites", "mixing_weights.csv", ROWS, "has other sites, names or epochs than that of tanh-0"),
    ("parameter", "parameters.csv", ROWS[1:], "c m has no row of epoch 0"),
):
    DAMAGE[name] = (file, "\n".join([",".join(LEARNED[file]), *rows]), f"{file}: {message}")


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
    (tmp_path / "sweep.json").write_text('{"notes": "", "runs": [{"name": 3, "labels": {}, "outputs": []}]}')
    assert report.main([str(tmp_path)]) == 2
    assert "sweep.json: not what zoo.sweep writes: runs.0.name: " in capsys.readouterr().err


# What misleads, and what is said of it


def test_a_diverged_arm_stays_in_the_family(tmp_path):
    """Of six seeds a side, 2 / 924 by 6 planned comparisons; that arelu diverged changes nothing."""
    arms = {name: around(0.5) for name in ("sigmoid", "asigmoid", "atanh")}
    found, text = told(made(tmp_path, relu=around(0.6), tanh=around(0.7), arelu=[None] * 6, **arms))
    family = 5 + 2  # against relu, and two against their twins
    assert len(found) == family and f"a family of {family}, named before the runs by default" in text
    assert found["tanh minus relu"].p == pytest.approx(family * 2 / math.comb(12, 6))
    assert (found["arelu minus relu"].status, found["arelu minus relu"].p) == ("lost", 1.0)
    assert "No verdict: runs lost: arelu minus relu (arelu lost 6 of 6)" in text


def test_survivors_get_no_verdict(tmp_path):
    found, text = told(made(tmp_path, relu=around(0.5), method1=[None, None, 0.555, None, 0.556, None]))
    assert "method1 (+5" not in text and "Beyond chance" not in text.replace("No verdict", "")
    verdict = found["method1 minus relu"]
    assert verdict.status == "lost" and verdict.guessed.mean == pytest.approx((0.555 + 0.556 + 0.4) / 6 - 0.5025)
    assert "method1 lost 4 of 6; those that finished differ by +5.30, with a lost run as a guess it is -25.07" in text
    row = cells(tmp_path, "comparisons-lenet")["method1 minus relu"]
    assert row["simultaneous 95 %"] == row["exact p"] == "" and row["lost runs as guesses"].startswith("-25.07 [")


def test_a_baseline_without_its_best_seeds_is_reported(tmp_path):
    found, text = told(made(tmp_path, relu=[*around(0.5, 3), *["missing"] * 3], tanh=around(0.6)))
    assert found["tanh minus relu"].status == "incomplete" and "relu has 3 of 6 runs" in text
    assert "3 missing" in cells(tmp_path, "sound-lenet")["relu"]["seeds"]


def test_states_have_their_own_names(tmp_path):
    made(tmp_path, relu=around(0.5), tanh=around(0.6))
    metrics = tmp_path / "runs" / "tanh-0" / "metrics.json"
    metrics.write_text(json.dumps(json.loads(metrics.read_text()) | {"status": "stopped"}))
    told(tmp_path)
    assert cells(tmp_path, "sound-lenet")["tanh"]["seeds"] == "5 of 6, 1 stopped"


VOID = {
    "few": ({"relu": around(0.5, 2), "tanh": around(0.6, 2)}, "2 seeds of relu, too few for 1 planned"),
    "chance": ({"relu": around(0.1, 6), "tanh": around(0.104)}, "relu reaches 10.25 %, near the 10.00 % of a guess"),
}


@pytest.mark.parametrize("arms, reason", VOID.values(), ids=VOID)
def test_a_void_section_says_so_first(tmp_path, arms, reason):
    _, text = told(made(tmp_path, **arms))
    said = f"lenet is void: {reason}"
    assert text.split("\n\n")[1].startswith(f"Summary. {said}")
    assert text.split("### lenet\n\n")[1].startswith(said)
    assert "beyond chance" not in text.lower()


def test_a_baseline_worse_than_a_guess_is_void(tmp_path):
    made(tmp_path, tanh=around(0.6), relu=[])
    runs = [(f"tanh-{i}", {"activation": "tanh", "seed": str(i)}) for i in range(6)]
    for seed in range(6):
        labels = {"activation": "relu", "seed": str(seed)}
        runs.append((f"relu-{seed}", labels))
        write_run(tmp_path, f"relu-{seed}", labels, 0.25 + seed / 100, np.arange(3.0) + seed, {"test_loss": 2.45})
    write_sweep(tmp_path, runs)
    assert "lenet is void: relu's cross-entropy on test images is 2.45, above the ln 10 = 2.303" in told(tmp_path)[1]


def test_a_loss_with_its_penalty_is_marked(tmp_path):
    runs = []
    for name in ("relu", "tanh"):
        for seed in range(6):
            labels = {"activation": name, "seed": str(seed)}
            runs.append((f"{name}-{seed}", labels))
            losses = np.array([9.0, 8.0, 7.0 - (name == "tanh")]) + seed / 10
            write_run(
                tmp_path,
                f"{name}-{seed}",
                labels,
                0.5 + seed / 100,
                losses,
                settings={"weight_decay": 1.0},
                penalty=True,
            )
    write_sweep(tmp_path, runs)
    _, text = told(tmp_path)
    assert "record their loss with its penalty alone, so how fast it falls isn't compared" in text
    assert "Training loss with penalty (older runs) against epoch" in text
    assert cells(tmp_path, "sound-lenet")["tanh"]["epochs to the baseline's loss"] == ""


OTHER = {
    "data": ({"data_digest": "d2"}, {}, "the digest of their images: d1 (relu-0 and 10 more), d2 (tanh-5)"),
    "backend": ({"backend": "torch"}, {}, "backend: jax (relu-0 and 10 more), torch (tanh-5)"),
    "code": ({"code": {"keras_adaptact": "1", "zoo": "3"}}, {}, "code: keras_adaptact 1, zoo 2 (relu-0 and 10"),
    "config": ({}, {"optimizer": {"learning_rate": 0.3}}, "config training.optimizer.learning_rate: 0.05 (relu-0"),
}


@pytest.mark.parametrize("environment, settings, message", OTHER.values(), ids=OTHER)
def test_runs_that_can_not_be_compared(tmp_path, capsys, environment, settings, message):
    made(tmp_path, relu=around(0.5), tanh=around(0.6, 5))
    labels = {"activation": "tanh", "seed": "5"}
    write_run(tmp_path, "tanh-5", labels, 0.65, [1.0, 1.0, 1.0], environment=environment, settings=settings)
    write_sweep(tmp_path, [(f"{n}-{i}", {"activation": n, "seed": str(i)}) for n in ("relu", "tanh") for i in range(6)])
    assert report.main([str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert f"runs that are compared differ in {message}" in said and said.count("\n") == 1
    assert not (tmp_path / "report").exists()
    assert report.main([str(tmp_path), "--mixed"]) == 0
    text = (tmp_path / "report" / "report.md").read_text()
    assert f"Note: lenet: runs that are compared differ in {message}" in text


def test_another_commit_of_the_same_code_divides_nothing(tmp_path):
    made(tmp_path, relu=around(0.5), tanh=around(0.6, 5))
    write_run(tmp_path, "tanh-5", {"activation": "tanh", "seed": "5"}, 0.65, [1, 1, 1], environment={"git_commit": "d"})
    write_sweep(tmp_path, [(f"{n}-{i}", {"activation": n, "seed": str(i)}) for n in ("relu", "tanh") for i in range(6)])
    assert "Note:" not in told(tmp_path)[1]


def test_times_of_two_machines_are_not_compared(tmp_path):
    made(tmp_path, relu=around(0.5), tanh=around(0.6, 5))
    write_run(tmp_path, "tanh-5", {"activation": "tanh", "seed": "5"}, 0.65, [1, 1, 1], environment={"processor": "x"})
    write_sweep(tmp_path, [(f"{n}-{i}", {"activation": n, "seed": str(i)}) for n in ("relu", "tanh") for i in range(6)])
    assert "different machines, so times aren't compared" in told(tmp_path)[1]
    assert cells(tmp_path, "sound-lenet")["tanh"]["times the baseline's"] == ""


def test_a_run_that_diverges_on_test_samples_alone_is_lost_there(tmp_path):
    made(tmp_path, relu=around(0.5), tanh=around(0.6))
    said = {"status": "diverged", "epochs": 3, "validation_loss": 1.0, "test_loss": None, "test_r2": None}
    (tmp_path / "runs" / "tanh-0" / "metrics.json").write_text(json.dumps(said))
    found, text = told(tmp_path)
    assert found["tanh minus relu"].reason == "tanh lost 1 of 6"
    assert SweepFolder(tmp_path, [], None).result(Results(tmp_path).every[6]) == ""
    assert "Note: tanh-0: diverged on test samples alone, where the loss is NaN or infinite." in text


def test_seeds_and_networks_may_have_labels(tmp_path):
    """The sweep says beside them what the runs are to have."""
    path = made(tmp_path, relu=around(0.5), tanh=around(0.6)) / "sweep.json"
    content = json.loads(path.read_text())
    for run in content["runs"]:
        run |= {"seed": int(run["labels"]["seed"]), "network": "lenet"}
        run["labels"] |= {"model": "small", "seed": f"the {run['seed']}th"}
    path.write_text(json.dumps(content))
    assert told(tmp_path)[0]["tanh minus relu"].status == "above" and cells(tmp_path, "sound-small")


WRONG = {
    "r2": ({"test_r2": None}, (), "test_r2 is None; R² is 1 at most"),
    "share": ({"test_accuracy": 10.0281}, (), "test_accuracy is 10.0281; a share lies between 0 and 1"),
    "percent": ({"test_accuracy": 57.3}, (), "test_accuracy is 57.3; a share"),
    "text": ({"validation_accuracy": "0.5"}, (), "validation_accuracy is 0.5; a share lies between 0 and 1"),
    "no time": ({"images_per_second": 0.0}, (), "images_per_second is 0.0; it is above 0"),
    "huge": ({"test_loss": 10**400}, (), "; it is 0 or more"),
    "loss": ({"test_loss": -0.1}, (), "test_loss is -0.1; it is 0 or more"),
    "seed": ({"seed": 7}, (), "the sweep says seed 5, and the run has seed 7"),
    "cut": ({"epochs": 9}, (), "history.csv: it has 3 rows, and metrics.json says 9 epochs"),
    "config seed": ({}, {"seeds": [8]}, "the sweep says seed 5, and the run has seed 8"),
    "short": ({}, {"epochs": 5}, "the run is finished after 3 epochs of 5"),
    "long": ({}, "long", "history.csv: cross_entropy is of another length than in tanh-0; such runs have no mean"),
    "copy": ({}, "copy", "it has the same history as tanh-4; a run counts once"),
}


@pytest.mark.parametrize("metrics, settings, message", WRONG.values(), ids=WRONG)
def test_an_impossible_run_is_refused_by_name(tmp_path, capsys, metrics, settings, message):
    made(tmp_path, relu=around(0.5), tanh=around(0.6, 5))
    losses = {"copy": [3.04, 2.04, 1.04], "long": [1.0] * 4}.get(str(settings), [1.0] * 3)
    settings = {} if isinstance(settings, str) else settings
    write_run(tmp_path, "tanh-5", {"activation": "tanh", "seed": "5"}, 0.65, losses, metrics, settings=settings)
    write_sweep(tmp_path, [(f"{n}-{i}", {"activation": n, "seed": str(i)}) for n in ("relu", "tanh") for i in range(6)])
    assert report.main([str(tmp_path), "--mixed"]) == 2
    said = capsys.readouterr().err
    assert "tanh-5" in said and message in said and said.count("\n") == 1


def test_an_impossible_score_chooses_no_rate(tmp_path, capsys):
    out = ladder(tmp_path, {name: {"0.1": around(0.5), "0.2": around(0.6)} for name in ("relu", "tanh")})
    path = out / "runs" / "tanh-0.2-3" / "metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"validation_accuracy": None}))
    assert report.main([str(out)]) == 2
    said = capsys.readouterr().err
    assert said == f"error: {path}: validation_accuracy is None; a share lies between 0 and 1\n"


def test_a_run_that_is_not_what_the_sweep_planned(tmp_path, capsys):
    made(tmp_path, relu=around(0.5), tanh=around(0.6))
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "tanh-2.json").write_text('{"activation": {"name": "elu"}, "notes": "x"}')
    assert report.main([str(tmp_path)]) == 2
    assert 'activation.name is "tanh", and the sweep planned "elu"' in capsys.readouterr().err


def test_predictions_are_held_against_the_accuracy(tmp_path, capsys):
    made(tmp_path, relu=around(0.5), tanh=around(0.6))
    predictions = tmp_path / "runs" / "tanh-0" / "predictions.npz"
    np.savez(predictions, test=np.zeros(10, "uint8"), test_labels=np.array([0] * 7 + [1] * 3, "uint8"))
    assert report.main([str(tmp_path)]) == 2
    assert "test_accuracy is 0.6, and by predictions.npz it is 0.7" in capsys.readouterr().err


def test_the_error_of_the_images(tmp_path):
    """By hand: from predictions, the deviation of what the arms differ by on each image; else by the binomial."""
    made(tmp_path, relu=[0.5] * 6, tanh=[0.6] * 6)
    row = cells_of(tmp_path)
    assert row["error of the images"] == f"at most {100 * math.sqrt((0.5 * 0.5 + 0.6 * 0.4) / 1000):.2f}"
    for name, right in (("relu", 5), ("tanh", 6)):
        for seed in range(6):
            path = tmp_path / "runs" / f"{name}-{seed}" / "predictions.npz"
            np.savez(path, test=np.zeros(10, "uint8"), test_labels=(np.arange(10) >= right).astype("uint8"))
    each = np.zeros(10)
    each[5] = 1
    assert cells_of(tmp_path)["error of the images"] == f"{100 * each.std(ddof=1) / math.sqrt(10):.2f}"
    np.savez(path, test=np.zeros(20, "uint8"), test_labels=(np.arange(20) >= 12).astype("uint8"))  # of other images
    assert cells_of(tmp_path)["error of the images"] == row["error of the images"]


def cells_of(out):
    assert report.main([str(out)]) == 0
    return cells(out, "comparisons-lenet")["tanh minus relu"]


def test_the_plan_of_a_sweep(tmp_path):
    plan = {"primary": ["method1", "relu"], "secondary": [["method1", "arelu"]]}
    found, text = told(
        made(tmp_path, plan, relu=around(0.5), arelu=around(0.58), method1=around(0.6), tanh=around(0.9))
    )
    assert list(found) == ["method1 minus relu", "method1 minus arelu"]
    p = 2 * 2 / math.comb(12, 6)
    assert found["method1 minus relu"].p == pytest.approx(p)
    low, high = found["method1 minus relu"].found[1:3]
    interval = f"[{100 * low:+.2f}, {100 * high:+.2f}]"
    assert f"The primary comparison, method1 minus relu: +10.00 points {interval}, p = {p:.2g} by Holm's" in text
    assert "a family of 2, named before the runs." in text


def test_an_adaptive_function_is_compared_with_its_twin(tmp_path):
    found, _ = told(made(tmp_path, relu=around(0.5), tanh=around(0.55), atanh=around(0.551)))
    assert found["atanh minus tanh"].status == "open" and found["atanh minus relu"].status == "above"


def ladder(out, rates, plan=None):
    runs = []
    for name, values in rates.items():
        for rate, accuracies in values.items():
            for seed, accuracy in enumerate(accuracies):
                labels = {"activation": name, "seed": str(seed), "training.optimizer.learning_rate": rate}
                runs.append((f"{name}-{rate}-{seed}", labels))
                write_run(out, f"{name}-{rate}-{seed}", labels, accuracy, np.array([3.0, 2.0, 1.0]) + seed / 100)
    write_sweep(out, runs, {"tuned": "training.optimizer.learning_rate"} | (plan or {}))
    return out


def test_each_activation_is_judged_at_its_own_best_rate(tmp_path):
    """A rate at which a run is lost is nobody's best."""
    relu = {"0.1": around(0.5), "0.2": around(0.6)}
    tanh = {"0.1": around(0.55), "0.2": [*around(0.8, 5), None]}
    found, text = told(ladder(tmp_path, {"relu": relu, "tanh": tanh}))
    assert found["tanh minus relu"].status == "below" and found["tanh minus relu"].found.mean == pytest.approx(-0.05)
    effort = cells(tmp_path, "effort-lenet")
    assert effort["relu"]["tuned over"] == "2 values (0.1, 0.2), 12 runs"
    own, baselines = "at its own learning rate", "at relu's"
    assert effort["relu"][own] == effort["relu"][baselines] and effort["relu"][own].startswith("0.2: 60.25 ± ")
    assert effort["tanh"][own].startswith("0.1: 55.25 ± ") and effort["tanh"][baselines].startswith("0.2: 80.20 ± ")
    assert "test accuracy against learning rate" in text


def test_what_is_best_at_the_last_value_tried_is_said(tmp_path):
    rates = "1e-1", "0.3", "0.2"
    relu, tanh = (dict(zip(rates, map(around, best), strict=True)) for best in ((0.5, 0.6, 0.7), (0.5, 0.7, 0.6)))
    _, text = told(ladder(tmp_path, {"relu": relu, "tanh": tanh}))
    note = "the best learning rate of tanh (0.3) is the lowest or the highest that was tried, so that a better one may"
    assert f"Note, lenet: {note} lie beyond." in text


def test_nothing_is_judged_while_tuning_goes_on(tmp_path):
    """Of ReLU's second rate one run of six isn't there."""
    relu = {"0.1": around(0.5), "0.2": around(0.6)}
    out = ladder(tmp_path, {"relu": relu, "tanh": {rate: around(0.7) for rate in relu}})
    shutil.rmtree(out / "runs" / "relu-0.2-5")
    found, _ = told(out)
    verdict = found["tanh minus relu"]
    assert verdict.status == "incomplete" and verdict.reason.endswith("relu is tuned over 11 of 12 runs")


def test_a_head_start_is_told_from_a_better_end(tmp_path):
    """Seven epochs: at the fifth tanh is 0.1 ahead, at the last 0.02."""
    runs = []
    for name, values in {"relu": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7], "tanh": [0.2] * 4 + [0.6, 0.7, 0.72]}.items():
        for seed in range(2):
            labels = {"activation": name, "seed": str(seed)}
            runs.append((f"{name}-{seed}", labels))
            write_run(tmp_path, f"{name}-{seed}", labels, values[-1], [1.0] * 7)
            history = tmp_path / "runs" / f"{name}-{seed}" / "history.csv"
            head, *rows = history.read_text().split()
            rows = [f"{row},{value + seed / 50}" for row, value in zip(rows, values, strict=True)]
            history.write_text("\n".join([f"{head},val_accuracy", *rows]) + "\n")
    write_sweep(tmp_path, runs)
    assert report.main([str(tmp_path)]) == 0
    tanh = cells(tmp_path, "head-start-lenet")["tanh"]
    assert tanh["epoch 5"].startswith("61.00 ± ") and tanh["epoch 7"].startswith("73.00 ± ")
    assert (tanh["5 minus relu"], tanh["7 minus relu"]) == ("+10.00", "+2.00")


def test_unequal_effort_is_confounded(tmp_path):
    relu, tanh = {"0.1": around(0.5)}, {"0.1": around(0.55), "0.2": around(0.6)}
    found, text = told(ladder(tmp_path, {"relu": relu, "tanh": tanh}))
    assert found["tanh minus relu"].status == "confounded" and "No verdict: confounded: tanh minus relu" in text


def test_commands_can_be_pasted(tmp_path):
    _, text = told(made(tmp_path, relu=around(0.5), tanh=around(0.6)))
    sweep = f"python -m zoo.sweep configs/sweeps/mine.json --out {tmp_path} --data-dir '/mnt/some where'"
    assert f"`KERAS_BACKEND=jax OMP_NUM_THREADS=1 {sweep}`" in text
    assert "one of a kind" in text and "lenet: 9,000 train, 1,000 validation, 1,000 test" in text and "d1" in text


def test_several_networks(tmp_path):
    """Interquartile mean, probability of improvement and ranks, where two networks aren't void."""
    runs = []
    for place, base in (("one", 0.5), ("two", 0.7)):
        for name, more in (("relu", 0.0), ("tanh", 0.1)):
            for seed, accuracy in enumerate(around(base + more)):
                labels = {"activation": name, "seed": str(seed), "base": place}
                runs.append((f"{place}-{name}-{seed}", labels))
                write_run(tmp_path, f"{place}-{name}-{seed}", labels, accuracy, np.array([3.0, 2.0, 1.0]) + seed / 100)
    write_sweep(tmp_path, runs)
    assert report.main([str(tmp_path)]) == 0
    tanh = cells(tmp_path, "networks")["tanh"]
    middle = np.sort([*around(0.6), *around(0.8)])[3:-3].mean()
    assert tanh["interquartile mean, %"].startswith(f"{100 * middle:.2f} [")
    assert (tanh["better than the baseline"], tanh["mean rank"]) == ("1.00 [1.00, 1.00]", "1.00")


def test_what_has_not_begun_is_in_the_family(tmp_path):
    """A network of three that are planned is judged as one of three."""
    runs = []
    for place in ("one", "two", "three"):
        for name, center in (("relu", 0.5), ("tanh", 0.6)):
            for seed, accuracy in enumerate(around(center)):
                labels = {"activation": name, "seed": str(seed), "base": place}
                runs.append((f"{place}-{name}-{seed}", labels))
                if place == "one":
                    losses = np.array([3.0, 2.0, 1.0]) + seed / 100
                    write_run(tmp_path, f"{place}-{name}-{seed}", labels, accuracy, losses)
    write_sweep(tmp_path, runs)
    assert report.main([str(tmp_path)]) == 0
    assert cells(tmp_path, "comparisons-lenet-one")["tanh minus relu"]["p (Holm)"] == f"{3 * 2 / math.comb(12, 6):.2g}"
    text = (tmp_path / "report" / "report.md").read_text()
    assert "a family of 3, named before the runs" in text and "two: " not in text.split("\n\n")[1]


def test_outputs_that_do_not_fit_leave_the_rest(tmp_path):
    """A network without a column in the report's Table 1, and an activation without mixing weights in its Table 3."""
    labels = {"activation": "relu", "seed": "0"}
    settings = {"optimizer": {"learning_rate": 0.1}}
    write_run(tmp_path, "relu-0", labels, 0.6, metrics={"report_precision_last": 0.5}, settings=settings)
    write_sweep(tmp_path, [("relu-0", {"model": "mine"} | labels)], outputs=("table1", "table3", "figure3"))
    path = tmp_path / "runs" / "relu-0" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model": {"build": "nets.py:mine"}}))
    assert report.main([str(tmp_path)]) == 0
    assert cells(tmp_path, "table1")["relu"] == {"activation": "relu", "mine": "0.8000"}


def test_what_has_the_same_name_lies_beside(tmp_path):
    tables = [document.Table("a", str(i), ("x",), [[str(i)]]) for i in range(2)]
    document.write(tmp_path, "Two", tables)
    assert [(tmp_path / f"{name}.csv").read_text().split() for name in ("a", "a-2")] == [["x", "0"], ["x", "1"]]


def test_what_is_the_same_machine():
    class Run:
        def __init__(self, **environment):
            self.environment = environment

    assert provenance.same_machine([Run(processor="a", git_commit="b"), Run(processor="a", git_commit="c")])
    assert not provenance.same_machine([Run(processor="a"), Run(processor="b")])
