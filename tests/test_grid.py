"""How a sweep expands to runs, and what it says about mistakes."""

import json
from collections import Counter

import pytest
from test_readme import ROOT

from zoo.errors import ConfigError
from zoo.reports import judge
from zoo.sweeps import grid

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
    tables = {"table1": 5 * 8, "table2": 8 * 3, "table3": 2, "table4": 2, "table5": 2 * 3 * 3, "figures": 2 * 8}
    assert counts | tables == counts
    assert counts["all"] == sum(tables.values())
    assert counts["honest"] == 5 * 13 * 7 and counts["quick"] == 16
    for name, epochs in {"table1": 150, "table2": 80, "table3": 50, "table5": 80}.items():
        assert {run.config.training.epochs for run in grid.load(SWEEPS / f"{name}.json")[1]} == {epochs}
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
