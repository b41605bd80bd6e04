"""Comparisons: what is trained, what the answer says by statistics done independently, and what a kill leaves."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from scipy import stats
from test_layout import ROOT
from test_report import ENVIRONMENT

from zoo import compare as command
from zoo import config, files, manifest, train
from zoo.comparisons import costs, question
from zoo.comparisons.folder import Folder
from zoo.errors import UserError
from zoo.sweeps.folder import SweepFolder
from zoo.training import trainer
from zoo.training.progress import Cost

RATES = (0.01, 0.05, 0.1)
BEST = {"relu": 0.05, "method1": 0.01, "tanh": 0.1}  # the rate of each that is best on validation data
ABOVE = {"relu": 0.0, "method1": 0.05, "tanh": -0.04, "swish": 0.002}  # ReLU on test data


@pytest.fixture
def network(tmp_path):
    path = tmp_path / "my.json"
    dataset = {"name": "digits", "limit": 64, "test_limit": 20, "validation": 0.25}
    path.write_text(json.dumps({"dataset": dataset, "training": {"epochs": 3, "batch_size": 16}}))
    return path


@pytest.fixture
def made_up(monkeypatch):
    """Runs whose scores are made up, and take no time; the names of those that were trained."""
    trained, metric = [], {"name": "accuracy", "lost": set()}

    def run(sweep, planned, lock, deadline, show):
        label, rate = planned.labels["activation"], planned.config.training.optimizer.learning_rate
        seed, epochs = planned.config.training.seeds[0], planned.config.training.epochs
        trained.append(planned.name)
        if metric.get("failed", "none") in planned.name:
            sweep.fail(planned, "by order")
            return "failed"
        manifest.remove(sweep._failure(planned))
        folder = sweep.folder(planned)
        folder.mkdir()
        files.write_json(folder / "config.json", planned.config.resolved())
        files.write_json(folder / "environment.json", ENVIRONMENT | {"backend": os.environ["KERAS_BACKEND"]})
        found = {"status": "finished", "seed": seed, "epochs": epochs, "seconds": 20.0, "parameters": 10}
        noise = np.random.default_rng([seed, len(label), 3]).normal(0, 0.01)
        pace = (4000.0 if label == "method1" else 5000.0) * (1 + noise)
        found |= {"images_per_second": pace, "peak_memory_mb": 100.0}
        validation = metric.get("validation", {}).get((label, rate, seed))
        if validation is None:
            validation = 0.7 - abs(np.log(rate / BEST.get(label, 0.05))) / 10
        found[f"validation_{metric['name']}"] = float(validation)
        if planned.config.metrics.test:
            noise = np.random.default_rng([seed, len(label), 2]).normal(0, 0.007)
            found |= {f"test_{metric['name']}": float(0.8 + ABOVE[label] + noise), "test_loss": 1.0}
        if (label, seed) in metric["lost"]:
            found = {"status": "diverged", "seed": seed, "epochs": epochs}
        files.write_json(folder / "metrics.json", found)
        losses = np.linspace(2, 1, epochs) + seed / 100
        rows = [(epoch, loss, loss, 0.5) for epoch, loss in enumerate(losses, start=1)]
        files.write_csv(folder / "history.csv", ("epoch", "loss", "cross_entropy", f"val_{metric['name']}"), rows)
        return sweep.state(planned)

    monkeypatch.setattr(SweepFolder, "run", run)
    monkeypatch.setattr(
        costs, "measure", lambda path, overrides, asked, *_: dict.fromkeys(asked.activations, Cost(1, 2))
    )
    return trained, metric


def asked(network, *options):
    rates = ["--rates", *map(str, RATES), "--rate-seeds", "1", "--seeds", "6"]
    return command.main([str(network), "--out", str(network.parent / "out"), *rates, *options])


def answer(network):
    return json.loads((network.parent / "out" / "report" / "answer.json").read_text())


def test_an_answer(network, made_up, capsys):
    names = ["relu", "method1", "tanh", "swish"]
    assert asked(network, "--activations", *names) == 0
    said, found = capsys.readouterr().out, answer(network)
    arms = {name: np.array(list(found["activations"][name]["scores"].values())) for name in names}

    raw, verdicts = [], {each["activation"]: each for each in found["comparisons"]}
    for name in names[1:]:
        test = stats.permutation_test((arms[name], arms["relu"]), lambda x, y: x.mean() - y.mean(), n_resamples=np.inf)
        raw.append(test.pvalue)
        assert verdicts[name]["difference"]["mean"] == pytest.approx(arms[name].mean() - arms["relu"].mean())
    order = np.argsort(raw)
    corrected = np.maximum.accumulate(np.array(raw)[order] * [3, 2, 1])
    for i, p in zip(order, corrected, strict=True):
        assert verdicts[names[1 + i]]["p_holm"] == pytest.approx(min(p, 1))
    assert [verdicts[name]["verdict"] for name in names[1:]] == ["above", "below", "open"]
    times = found["activations"]["method1"]["times_the_training_time"]
    low, high = (100 * verdicts["method1"]["difference"][end] for end in ("low", "high"))
    gain = 100 * (arms["method1"].mean() - arms["relu"].mean())
    assert (
        f"method1 improves accuracy over relu on your data by {gain:.2f} points, 95 % interval {low:.2f} to "
        f"{high:.2f}, at {times['value']:.2f} times the training time ({times['low']:.2f} to {times['high']:.2f}); "
        "tanh worsens accuracy by "
    ) in found["sentence"]
    assert "; swish shows no difference that 6 seeds could see" in found["sentence"]
    assert times["low"] < 1.25 < times["high"] < 1.3 and found["sentence"].count("training time") == 1
    assert found["sentence"] in said
    page = (network.parent / "out" / "report" / "report.html").read_text()
    assert page.index(found["sentence"]) < page.index("<table>") and 'src="http' not in page
    assert asked(network, "--activations", *names) == 0
    assert (network.parent / "out" / "report" / "report.html").read_text() == page


def test_each_activation_has_as_many_runs_and_no_choice_sees_test_data(network, made_up):
    trained, _ = made_up
    assert asked(network, "--activations", "relu", "method1", "tanh") == 0
    fresh = [f"base--seed-{seed}--{name}" for seed in range(1, 7) for name in ("relu", "method1", "tanh")]
    assert len(trained) == 9 + 18 and all(name.endswith("--seed-0") for name in trained[:9])
    assert [name.rpartition("--")[0] for name in trained[9:]] == fresh
    for path in (network.parent / "out" / "rates" / "configs").glob("*.json"):
        settings = config.load(path)
        assert not settings.metrics.test and settings.training.seeds == [0] and settings.training.epochs == 2
    found = answer(network)["activations"]
    assert {name: each["learning_rate"] for name, each in found.items()} == BEST
    assert all(list(each["scores"]) == ["1", "2", "3", "4", "5", "6"] for each in found.values())
    page = (network.parent / "out" / "report" / "report.md").read_text()
    assert "the best learning rate of method1 (0.01), tanh (0.1) is the lowest or the highest" in page


def test_runs_that_diverged_leave_no_verdict(network, made_up):
    made_up[1]["lost"] |= {("method1", 2), ("method1", 4)}
    assert asked(network, "--activations", "relu", "method1", "tanh") == 0
    found = answer(network)
    assert "method1 gets no verdict (method1 lost 2 of 6)" in found["sentence"]
    assert found["sentence"].startswith("tanh worsens accuracy relative to relu on your data by")


def test_too_few_seeds_say_so(network, made_up):
    assert asked(network, "--activations", "relu", "method1", "--seeds", "3") == 0
    assert (
        "Nothing can be said: 3 seeds of relu, too few for 1 planned comparisons; 5 would do"
        in answer(network)["sentence"]
    )


def test_regression(network, made_up):
    made_up[1]["name"] = "r2"
    assert asked(network, "--activations", "relu", "method1") == 0
    assert answer(network)["score"] == "r2"
    assert re.match(r"method1 improves R² over relu on your data by 0\.0\d+, 95 %", answer(network)["sentence"])


def test_seeds_can_grow_and_the_page_says_that_it_was_looked_at(network, made_up, capsys):
    trained, _ = made_up
    assert asked(network, "--activations", "relu", "method1") == 0
    count = len(trained)
    assert asked(network, "--activations", "relu", "method1", "--seeds", "8") == 0
    assert len(trained) == count + 4
    assert "looked at with 6 seeds before it got 8" in (network.parent / "out" / "report" / "report.md").read_text()
    capsys.readouterr()
    assert asked(network, "--activations", "relu", "method1") == 2
    assert "this comparison has 8 seeds, which can grow and not become 6" in capsys.readouterr().err


def test_it_says_how_long_it_takes_and_writes_nothing(network, made_up, capsys):
    assert asked(network, "--activations", "relu", "method1", "--dry-run") == 0
    seconds = 2 * (3 * (1 + 2 * 2) + 6 * (1 + 3 * 2))
    assert f"18 of 18 runs are left, about {seconds} s of training" in capsys.readouterr().out
    assert not (network.parent / "out").exists() and not made_up[0]


def test_an_interrupted_or_failed_comparison_has_no_answer(network, made_up, monkeypatch, capsys):
    trained, metric = made_up
    options = ["--activations", "relu", "method1"]
    assert asked(network, *options, "--time-budget", "0s") == 0
    assert "no answer yet; the same command resumes" in capsys.readouterr().out and not trained
    metric["failed"] = "method1--learning_rate-0.1--seed-0"
    assert asked(network, *options) == 1
    said = capsys.readouterr().out
    assert "no answer yet" in said and "failed: base--method1--learning_rate-0.1--seed-0: by order" in said
    assert len(trained) == 6  # and no seed
    del metric["failed"]
    assert asked(network, *options) == 0
    assert len(trained) == 6 + 1 + 12 and "method1 improves accuracy" in answer(network)["sentence"]


@pytest.mark.parametrize(
    "options, message",
    [
        (["--activations", "relu"], "a comparison needs two activations or more; found relu"),
        (["--activations", "relu", "relu"], "two activations are called relu; give one a label: LABEL=relu"),
        (["--activations", "relu", "é=tanh", "ü=elu"], "é and ü are alike as names of folders"),
        (["--activations", "relu", "x={"], "not valid JSON"),
        (
            ["--activations", "relu", 'x={"name": "arelu", "granularity": "row"}'],
            "activation.granularity: Input should",
        ),
        (
            ["--activations", "relu", "tanh", "--set", "dataset.validation=0"],
            "leaves no data to choose learning rates on",
        ),
        (["--activations", "relu", "tanh", "--rates", "2000"], "2000 learning rates: expected 40 at most"),
        (["--activations", "relu", "tanh", "--seeds", "99999999"], "99999999 seeds: expected 1 to 10,000"),
        (["--activations", "relu", "tanh", "--rate-seeds", "99999999"], "99999999 runs of each rate: expected 1 to"),
        (
            ["--activations", "relu", "tanh", "--set", "training.epoch=1"],
            "unknown field 'epoch'; did you mean 'epochs'?",
        ),
    ],
)
def test_bad_input(network, made_up, options, message, capsys):
    assert asked(network, *options) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1
    assert not (network.parent / "out").exists()


def test_another_question_is_another_folder(network, made_up, capsys):
    assert asked(network, "--activations", "relu", "tanh") == 0
    capsys.readouterr()
    assert asked(network, "--activations", "relu", "swish") == 2
    assert "begun with activations: relu, tanh, and not with relu, swish; give another --out" in capsys.readouterr().err
    assert asked(network, "--activations", "relu", "tanh", "--set", "training.batch_size=8") == 2
    said = capsys.readouterr().err
    assert "begun with the config's training: batch_size 16, and not with batch_size 8; give" in said
    (network.parent / "full").mkdir()
    (network.parent / "full" / "mine.txt").write_text("mine")
    assert asked(network, "--activations", "relu", "tanh", "--out", str(network.parent / "full")) == 2
    assert "not empty and holds no comparison" in capsys.readouterr().err


def test_what_cannot_be_trained_is_found_before_anything_is_written(network, capsys):
    assert asked(network, "--activations", "nonsense", "relu") == 2
    assert "nonsense" in capsys.readouterr().err.splitlines()[-1]
    assert not (network.parent / "out").exists()


def test_paths_in_a_dict_start_from_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = {"activation": {"name": "relu"}, "dataset": {"file": "gone.npz"}, "model": {"name": "lenet"}}
    with pytest.raises(UserError, match=re.escape(f"{tmp_path / 'gone.npz'}: no such file")):
        command.compare(content, activations=["relu", "tanh"], out="out")
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_measures_steps(network, monkeypatch, capsys):
    monkeypatch.setattr(trainer, "ENOUGH", 0.05)
    assert train.main([str(network), "--dry-run"]) == 0
    cost = Cost.read(capsys.readouterr().out)
    assert cost and cost.start > 0 and cost.epoch > 0
    assert cost.of(3) == pytest.approx(cost.start + 3 * cost.epoch)


def test_a_killed_comparison_resumes_with_the_same_result(network, tmp_path, monkeypatch, in_process):
    """kill -9 in the first run, then the rest: the same histories as those of a comparison that nobody cut off."""
    options = {"training.epochs": 12}
    content = json.loads(network.read_text())
    content["training"] |= {"epochs": 12}
    network.write_text(json.dumps(content))
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    settings = config.load(network)
    words_ = ["--activations", "relu", "atanh", "--rates", "0.01", "0.05", "--rate-seeds", "1", "--rate-epochs", "12"]
    words_ += ["--seeds", "2"]
    for out in (whole, cut):
        chosen = question.ask(settings, ["relu", "atanh"], [0.01, 0.05], 1, 12, 2)
        folder = Folder(out, settings, chosen, os.environ["KERAS_BACKEND"])
        folder.begin({label: Cost(1, 1) for label in chosen.activations})
    running = subprocess.Popen(
        [sys.executable, "-m", "zoo.compare", str(network), *words_, "--out", str(cut)],
        cwd=ROOT, start_new_session=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    first = cut / "rates" / "runs" / "base--relu--learning_rate-0.01--seed-0"
    while not (first / "checkpoint.npz").exists():
        assert running.poll() is None
        time.sleep(0.05)
    os.killpg(running.pid, signal.SIGKILL)
    running.communicate()
    assert options and not (cut / "seeds").exists()
    for out in (whole, cut):
        assert command.main([str(network), *words_, "--out", str(out)]) == 0
    histories = sorted(path.relative_to(whole) for path in whole.glob("*/runs/*/history.csv"))
    assert len(histories) == 8
    for path in histories:
        assert (whole / path).read_bytes() == (cut / path).read_bytes()
    one, other = (json.loads((out / "report" / "answer.json").read_text()) for out in (whole, cut))
    assert one["comparisons"] == other["comparisons"]


def test_several_runs_a_rate_choose_it_and_none_of_them_is_judged(network, made_up):
    """One run of tanh is lucky at 0.01, and method1 is as good at 0.05, ReLU's best, as at 0.01."""
    lucky = dict.fromkeys([("tanh", 0.01, seed) for seed in (0, 2)], 0.5) | {("tanh", 0.01, 1): 0.9}
    near = {("method1", 0.01, seed): 0.70 + 0.01 * (seed - 1) for seed in range(3)}
    near |= {("method1", 0.05, seed): 0.699 + 0.01 * (seed - 1) for seed in range(3)}
    made_up[1]["validation"] = lucky | near
    assert asked(network, "--activations", "relu", "method1", "tanh", "--rate-seeds", "3") == 0
    found = answer(network)["activations"]
    assert {name: each["learning_rate"] for name, each in found.items()} == {"relu": 0.05, "method1": 0.05, "tanh": 0.1}
    assert all(list(each["scores"]) == ["3", "4", "5", "6", "7", "8"] for each in found.values())
    assert len(made_up[0]) == 3 * 3 * 3 + 3 * 6
    page = (network.parent / "out" / "report" / "report.md").read_text()
    assert "with the same 3 learning rates (0.01, 0.05, 0.1), 3 runs of 2 epochs each, and has the one with" in page
