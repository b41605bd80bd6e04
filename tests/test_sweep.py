"""Sweeps: how they expand to runs, what is trained, and what is left after mistakes and interruptions."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from unittest.mock import Mock

import pytest
from test_layout import ROOT

from zoo import pack, sweep
from zoo.errors import ConfigError, UserError
from zoo.reports import judge
from zoo.sweeps import display, grid, work
from zoo.sweeps.folder import SweepFolder


@pytest.fixture
def described(tmp_path):
    """A sweep of two runs that last seconds, and one that fails: its rules leave a site out."""
    dataset = {"name": "digits", "limit": 64, "test_limit": 20}
    (tmp_path / "base.json").write_text(
        json.dumps({"dataset": dataset, "training": {"epochs": 2, "batch_size": 32}, "metrics": {"report_batch": 10}})
    )
    bad = {"label": "partial", "value": [{"sites": "conv*", "name": "relu"}]}
    content = {"base": "base.json", "outputs": ["sound"], "axes": {"activation": ["relu", bad, "atanh"]}}
    path = tmp_path / "tiny.json"
    path.write_text(json.dumps(content))
    return path


def test_missing_runs_are_trained_and_a_failure_harms_no_other(described, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    out = tmp_path / "out"
    command = [str(described), "--out", str(out)]

    assert sweep.main([*command, "--dry-run"]) == 0
    assert "3 missing of 3 runs" in capsys.readouterr().out and not out.exists()
    assert sweep.main([*command, "--time-budget", "0s"]) == 0
    assert "0 of 3 runs are done" in capsys.readouterr().out

    assert sweep.main(command) == sweep.FAILED
    said = capsys.readouterr().out
    assert "2 of 3 runs are done" in said
    assert "failed: base--partial: error: " in said and "activation: no rule for the site 'fc3'" in said
    states = {run.name: SweepFolder(out, [], None).state(run) for run in grid.load(described)[1]}
    assert states == {"base--relu": "finished", "base--partial": "failed", "base--atanh": "finished"}

    files = {path: path.stat().st_mtime_ns for path in (out / "runs").glob("*/*")}
    older = out / "configs" / "base--relu.json"  # made before the field `test` was there
    content = json.loads(older.read_text())
    del content["metrics"]["test"]
    older.write_text(json.dumps(content))
    assert sweep.main([*command, "--only", "activation=relu,atanh"]) == 0
    assert "2 of 2 runs are done" in capsys.readouterr().out
    assert files == {path: path.stat().st_mtime_ns for path in (out / "runs").glob("*/*")}

    again = tmp_path / "again"  # packed, unpacked, and resumed
    assert pack.main([str(out), str(tmp_path / "packed")]) == 0
    assert pack.main([str(tmp_path / "packed"), str(again), "--unpack"]) == 0
    assert sweep.main([str(described), "--out", str(again), "--only", "activation=relu,atanh"]) == 0
    assert "2 of 2 runs are done" in capsys.readouterr().out
    assert pack.main([str(out), str(tmp_path / "other"), "--unpack"]) == 2
    assert "not a folder of zoo.pack" in capsys.readouterr().err and not (tmp_path / "other").exists()

    changed = json.loads(described.read_text()) | {"set": {"training.epochs": 3}}
    described.write_text(json.dumps(changed))
    assert sweep.main(command) == 2
    assert "trained with another training than the sweep has now" in capsys.readouterr().err

    from zoo import report

    assert report.main([str(out)]) == 0
    text = (out / "report" / "report.md").read_text()
    accuracy = json.loads((out / "runs" / "base--atanh" / "metrics.json").read_text())["test_accuracy"]
    assert f"| atanh | 1 | {100 * accuracy:.2f} |" in text and "| partial | 0 of 1 | 1 failed |" in text
    assert "weighted precision has a standard deviation of" in text


def test_a_run_has_one_process(described, tmp_path):
    _, planned = grid.load(described)
    mine, others = SweepFolder(tmp_path / "out", planned, None), SweepFolder(tmp_path / "out", planned, None)
    mine.prepare({}, planned)
    with mine.claim(planned[0]) as lock:
        assert lock is not None
        with others.claim(planned[0]) as second:
            assert second is None
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[lock])
    with others.claim(planned[0]) as second:
        assert second is None  # the run's own process lives on, though the one that began it is gone
    child.communicate(b"\n")
    with others.claim(planned[0]) as second:
        assert second is not None


def test_it_stops_in_time_and_resumes(described, tmp_path):
    """SIGTERM to the run, as the time budget sends it, and kill -9 to the sweep."""
    content = json.loads(described.read_text())
    content["axes"]["activation"] = ["relu"]
    content["set"] = {"training.epochs": 2000}
    described.write_text(json.dumps(content))
    out = tmp_path / "out"
    command = [sys.executable, "-m", "zoo.sweep", str(described), "--out", str(out)]
    checkpoint = out / "runs" / "base--relu" / "checkpoint.npz"

    def started():
        running = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True)
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        while not checkpoint.exists() or checkpoint.stat().st_mtime_ns == before:
            assert running.poll() is None
            time.sleep(0.2)
        return running

    running = started()
    (child,) = subprocess.run(["pgrep", "-P", str(running.pid)], capture_output=True, text=True).stdout.split()
    os.kill(int(child), signal.SIGTERM)
    said, _ = running.communicate()
    assert running.returncode == 0 and "base--relu: stopped" in said and "0 of 1 runs are done" in said

    running = started()
    os.killpg(running.pid, signal.SIGKILL)
    running.communicate()
    found = SweepFolder(out, grid.load(described)[1], None)
    assert found.state(found.planned[0]) == "begun"
    (left,) = display.seconds_left(found, os.environ["KERAS_BACKEND"]).values()
    assert left and left > 1


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--time-budget", "9"], "expected a time such as 90s, 9m or 2.5h; found '9'"),
        (["--limit", "0"], "expected a whole number, 1 or more; found '0'"),
    ],
)
def test_bad_arguments(described, arguments, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        sweep.main([str(described), *arguments])
    assert message in capsys.readouterr().err


def test_a_broken_pipe_is_not_blamed_on_the_folder(described, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(work, "work", Mock(side_effect=BrokenPipeError(32, "Broken pipe")))
    assert sweep.main([str(described), "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == "error: input or output: Broken pipe\n"


def test_comparisons_are_planned_before_the_runs(tmp_path):
    """Once a run has ended, other comparisons are another sweep."""
    (tmp_path / "base.json").write_text('{"dataset": {"name": "digits"}}')
    (tmp_path / "tiny.json").write_text(json.dumps({"base": "base.json", "axes": {"activation": ["relu", "tanh"]}}))
    planned = grid.load(tmp_path / "tiny.json")[1]
    mine = SweepFolder(tmp_path / "out", planned, None)
    mine.prepare({"plans": {"": {"primary": ["tanh", "relu"]}}}, planned)
    mine.prepare({"plans": {"": {"primary": ["relu", "tanh"]}}}, planned)
    mine.folder(planned[0]).mkdir()
    (mine.folder(planned[0]) / "metrics.json").write_text('{"status": "finished"}')
    mine.prepare({"plans": {"": {"primary": ["relu", "tanh"]}}}, [*planned, replace(planned[1], name="base--elu")])
    with pytest.raises(UserError, match="runs/base--relu: a run that this sweep doesn't list; give another --out"):
        mine.prepare({"plans": {"": {"primary": ["relu", "tanh"]}}}, planned[1:])
    with pytest.raises(UserError, match="the comparisons have changed since runs of this sweep ended"):
        mine.prepare({"plans": {"": {"primary": ["tanh", "relu"]}}}, planned)


SWEEPS = ROOT / "configs" / "sweeps"


@pytest.fixture
def write(tmp_path):
    (tmp_path / "base.json").write_text('{"dataset": {"name": "digits"}, "training": {"epochs": 3}}')

    def to(content, name="sweep.json"):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return to


def test_axes_set_fields(write):
    third = {"label": "a third", "value": {"name": "method2", "weights": [0.5, 0.25, 0.25]}}
    axes = {"seed": [7, 8], "activation": ["relu", third], "training.optimizer.learning_rate": [0.1]}
    _, planned = grid.load(write({"base": "base.json", "set": {"training.batch_size": 16}, "axes": axes}))
    assert [run.name for run in planned] == [
        "base--seed-7--relu--learning_rate-0.1",
        "base--seed-7--a_third--learning_rate-0.1",
        "base--seed-8--relu--learning_rate-0.1",
        "base--seed-8--a_third--learning_rate-0.1",
    ]
    last = planned[-1]
    assert last.labels == {
        "model": "lenet",
        "seed": "8",
        "activation": "a third",
        "training.optimizer.learning_rate": "0.1",
    }
    training = last.config.training
    assert (training.seeds, training.batch_size, training.epochs, training.optimizer.learning_rate) == ([8], 16, 3, 0.1)
    assert last.config.activation.weights == [0.5, 0.25, 0.25]


def test_exclusions_and_conditions(write):
    axes = {"activation": ["relu", "tanh", "arelu"], "seed": [0, 1]}
    exclude = [{"activation": ["tanh"], "seed": ["1"]}]
    _, planned = grid.load(write({"base": "base.json", "axes": axes, "exclude": exclude}))
    assert len(planned) == 5
    chosen = grid.only(planned, ["activation=tanh,relu", "seed=0"])
    assert [run.name for run in chosen] == ["base--relu--seed-0", "base--tanh--seed-0"]


def test_any_file_name_gives_names_of_folders(write):
    for name in ("my base", ".dot", "größe"):
        write('{"dataset": {"name": "digits"}}', f"{name}.json")
    write({"base": ["my base.json", ".dot.json", "größe.json"]}, "part 1.json")
    names = [run.name for run in grid.load(write({"parts": ["part 1.json"]}))[1]]
    assert names == ["part_1--my_base", "part_1--_dot", "part_1--gr_e"]


def test_two_recipes_of_one_network(write):
    write('{"dataset": {"name": "digits"}, "training": {"epochs": 9}}', "long.json")
    _, planned = grid.load(write({"base": ["base.json", "long.json"], "axes": {"seed": [0]}}))
    assert [run.labels for run in planned] == [{"model": "lenet", "base": b, "seed": "0"} for b in ("base", "long")]


def test_parts(write):
    write({"base": "base.json", "outputs": ["table1"], "axes": {"seed": [0]}}, "one.json")
    write({"base": "base.json", "axes": {"seed": [0]}}, "two.json")
    _, planned = grid.load(write({"parts": ["one.json", "two.json"]}))
    assert [(run.name, run.outputs) for run in planned] == [
        ("one--base--seed-0", ("table1",)),
        ("two--base--seed-0", ()),
    ]
    assert [run.name for run in grid.only(planned, ["sweep=two"])] == ["two--base--seed-0"]


def test_parts_of_one_name_are_refused(write, tmp_path):
    """Their plans would be taken for each other's."""
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        write({"base": "../base.json"}, f"{place}/one.json")
    with pytest.raises(ConfigError, match="parts: two are called one, which couldn't be told apart; rename one"):
        grid.load(write({"parts": ["a/one.json", "b/one.json"]}))


def test_a_part_may_need_what_the_sweep_sets(write):
    write({"base": "base.json", "axes": {"activation": ["relu"]}, "set": {"training.seeds": [0, 1]}}, "one.json")
    path = write({"parts": ["one.json"], "set": {"training.seeds": [3]}})
    assert list(grid.plans(path, grid.load(path)[0])) == ["one"]


def test_parts_in_small(write):
    """What a sweep of parts sets holds for each run, and hides no axis of a part."""
    write({"base": "base.json", "set": {"training.epochs": 7, "training.batch_size": 32}}, "one.json")
    write({"base": "base.json", "axes": {"seed": [0, 1]}}, "two.json")
    asked = {"parts": ["one.json", "two.json"], "set": {"training.epochs": 3, "dataset.limit": 99}}
    _, planned = grid.load(write(asked))
    found = [(run.config.training.epochs, run.config.training.batch_size, run.config.dataset.limit) for run in planned]
    usual = planned[1].config.training.batch_size
    assert found == [(3, 32, 99), (3, usual, 99), (3, usual, 99)] and usual != 32
    with pytest.raises(ConfigError, match="can't be an axis of a part"):
        grid.load(write(asked | {"set": {"training.seeds": [0]}}))


MISTAKES = {
    "typo": ({"base": "base.json", "axis": {}}, "unknown field 'axis'; did you mean 'axes'?"),
    "nothing to run": ({"notes": "none"}, "either base, or parts"),
    "both": ({"base": "base.json", "parts": ["x.json"]}, "either base, or parts"),
    "no such base": ({"base": "bas.json"}, "no such file; did you mean"),
    "no such field": (
        {"base": "base.json", "axes": {"training.epoch": [1]}},
        "training: unknown field 'epoch'; did you mean 'epochs'?",
    ),
    "bad value": ({"base": "base.json", "axes": {"training.epochs": [1, 0]}}, "training.epochs: .* found 0 .given by"),
    "empty axis": ({"base": "base.json", "axes": {"seed": []}}, "axes.seed: an axis needs at least one value"),
    "unnamed": ({"base": "base.json", "axes": {"activation": [{"name": "relu"}]}}, "needs a label"),
    "several seeds": ({"base": "base.json", "set": {"training.seeds": [0, 1]}}, 'give the sweep an axis "seed"'),
    "twice": ({"base": "base.json", "axes": {"seed": [0, 0]}}, "two runs are named base--seed-0"),
    "excludes no network": (
        {"base": "base.json", "exclude": [{"model": ["lenett"]}]},
        "exclude.model: no value of this axis has the label 'lenett'; there are lenet",
    ),
    "excludes no axis": (
        {"base": "base.json", "axes": {"seed": [0]}, "exclude": [{"sed": ["0"]}]},
        "exclude.sed: no such axis; the axes are model, seed",
    ),
    "nothing left": (
        {"base": "base.json", "axes": {"seed": [0]}, "exclude": [{"seed": ["0"]}]},
        "no run is left",
    ),
    "excludes nothing": (
        {"base": "base.json", "axes": {"seed": [0]}, "exclude": [{"seed": ["1"]}]},
        "no value of this axis has the label '1'",
    ),
    "unknown output": ({"base": "base.json", "outputs": ["table9"]}, "outputs.0: Input should be 'table1'"),
}


@pytest.mark.parametrize("content, message", MISTAKES.values(), ids=MISTAKES)
def test_mistakes(write, content, message):
    with pytest.raises(ConfigError, match=message):
        grid.load(write(content))


@pytest.mark.parametrize("condition", ["activation", "activation=gelu", "size=3"])
def test_conditions_that_meet_nothing(write, condition):
    _, planned = grid.load(write({"base": "base.json", "axes": {"activation": ["relu"]}}))
    with pytest.raises(ConfigError, match=f"--only {condition}"):
        grid.only(planned, [condition])


def test_the_sweeps_of_the_project():
    """The report's protocol, as EXPERIMENTS.md and its tables have it."""
    counts = {path.stem: len(grid.load(path)[1]) for path in SWEEPS.glob("*.json")}
    tables = {"table1": 5 * 8, "table2": 8 * 3, "table3": 2, "table4": 2, "table5": 2 * 3 * 3}
    assert counts | tables == counts
    assert counts["all"] == sum(tables.values())
    assert counts["honest"] == 5 * 13 * 7 and counts["quick"] == 16
    for name, epochs in {"table1": 150, "table2": 80, "table3": 50, "table5": 80}.items():
        assert {run.config.training.epochs for run in grid.load(SWEEPS / f"{name}.json")[1]} == {epochs}
    assert {run.config.training.epochs for run in grid.load(SWEEPS / "small.json")[1]} == {10}
    held = Counter(str(run.config.activation.weights) for run in grid.load(SWEEPS / "table5.json")[1])
    assert sorted(held.values()) == [6, 6, 6]
    for name, count in counts.items():
        assert f"{count} runs" in json.loads((SWEEPS / f"{name}.json").read_text())["notes"]


def test_comparisons_are_named(write):
    axes = {"activation": ["relu", "tanh", "method1"], "training.optimizer.learning_rate": [0.1, 0.2]}
    asked = {
        "primary": ["method1", "relu"],
        "secondary": [["tanh", "relu"]],
        "tuned": "training.optimizer.learning_rate",
    }
    path = write({"base": "base.json", "axes": axes, "comparisons": asked})
    sweep, _ = grid.load(path)
    plan = grid.plans(path, sweep)
    assert plan[""]["primary"] == ["method1", "relu"] and plan[""]["tuned"] == asked["tuned"]
    joined = write({"parts": ["sweep.json"]}, "all.json")
    assert grid.plans(joined, grid.load(joined)[0]) == {"sweep": plan[""]}


WRONG_COMPARISONS = {
    "unknown": (
        {"primary": ["method2", "relu"]},
        "the sweep has no activation 'method2'; there are relu, tanh",
    ),
    "baseline": ({"baseline": "elu"}, "the sweep has no activation 'elu'"),
    "axis": ({"tuned": "training.epochs"}, "comparisons.tuned: no axis training.epochs; the axes are activation"),
    "twice": (
        {"primary": ["tanh", "relu"], "secondary": [["relu", "tanh"]]},
        "listed once; found ['relu', 'tanh']",
    ),
    "itself": ({"secondary": [["tanh", "tanh"]]}, "needs two different activations"),
    "typo": ({"second": []}, "unknown field"),
}


@pytest.mark.parametrize("asked, message", WRONG_COMPARISONS.values(), ids=WRONG_COMPARISONS)
def test_wrong_comparisons(write, asked, message):
    with pytest.raises(ConfigError) as caught:
        grid.load(write({"base": "base.json", "axes": {"activation": ["relu", "tanh"]}, "comparisons": asked}))
    assert message in str(caught.value)


def test_the_honest_sweep_has_enough_seeds_for_its_plan():
    path = SWEEPS / "honest.json"
    sweep, planned = grid.load(path)
    networks, seeds = ({run.labels[axis] for run in planned} for axis in ("model", "seed"))
    family = len(networks) * len(sweep.comparisons.pairs)
    assert len(seeds) == judge.enough(family) and len(planned) == 455
