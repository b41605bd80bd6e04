"""KerasTuner's oracles with the tuner's fixes; the objective is a formula, and nothing is trained."""

import json
import math

import pytest

from tuner.searches import oracle, oracles, space
from tuner.searches.records import Outcome
from zoo.errors import UserError

SPACE = [
    {"name": "kind", "choice": ["a", "b"]},
    {"name": "x", "float": [0.0, 1.0]},
    {"name": "n", "int": [1, 4], "when": {"kind": "b"}},
]


class Study:
    """An oracle and an objective."""

    def __init__(self, journal=None, fails=lambda number: False, entries=SPACE, **settings):
        described = {"base": "none", "space": entries, "epochs": 9, "trials": 12, "seed": 0} | settings
        self.search = space.parse(described, "here")
        self.fails = fails
        self.oracle = oracles.of(self.search, self.outcome, journal=journal)

    def outcome(self, trial):
        if self.fails(int(trial)):
            return Outcome("failed", reason="it had to")
        point = self.oracle.trials[trial].hyperparameters.values
        value = sum(math.sin(7 * v) for v in point.values() if isinstance(v, float)) + (point.get("kind") == "b")
        return Outcome("finished", value, [value], [value])

    def go(self, trials=1000, worker="tuner0"):
        """Runs so many trials, or all, and returns every trial's values and outcome."""
        for _ in range(trials):
            trial = self.oracle.create_trial(worker)
            if trial.status == oracle.STOPPED:
                break
            self.oracle.end_trial(trial)
        return self.found()

    def found(self):
        return {t: (dict(self.oracle.trials[t].hyperparameters.values), o) for t, o in self.oracle.outcomes.items()}


TUNERS = {
    "random": {"tuner": {"name": "random"}},
    "grid": {"tuner": {"name": "grid"}, "trials": 30},
    "bayesian": {"tuner": {"name": "bayesian", "initial": 4}, "trials": 8},
    "hyperband": {"tuner": {"name": "hyperband"}},
    "contrast": {"contrast": {"by": "kind", "seeds": [7, 8]}},
    "apart": {"contrast": {"by": "kind", "seeds": [7, 8], "apart": True}, "tuner": {"name": "bayesian", "initial": 3}},
}


@pytest.mark.parametrize("settings", TUNERS.values(), ids=list(TUNERS))
def test_a_search_killed_anywhere_resumes_as_if_it_were_not(tmp_path, settings):
    whole = Study(**settings).go()
    assert len(whole) >= 8
    journal = tmp_path / "journal.jsonl"
    for cut in (1, 3, 2, 1, 4, 1000):
        study = Study(journal, **settings)
        study.go(cut)
        study.oracle.create_trial("tuner0")  # under way when it is cut off
    assert study.found() == whole
    assert study.oracle.is_over
    events = [json.loads(line) for line in journal.read_text().splitlines()]
    assert [e["trial"] for e in events if e["event"] == "ended"] == list(whole)


def test_seed_0_is_a_seed():
    assert Study().go() == Study().go()
    assert Study().go() != Study(seed=1).go()


def test_the_bayesian_search_repeats_no_point():
    entries = [{"name": "x", "choice": ["a", "b", "c"]}, {"name": "y", "int": [1, 4]}]
    found = Study(entries=entries, trials=20, tuner={"name": "bayesian", "initial": 3}).go()
    points = [tuple(values.values()) for values, _ in found.values()]
    assert len(set(points)) == len(points) >= 9  # of 12, then it may find no other


def test_failures_do_not_end_the_search_and_are_never_the_best():
    study = Study(fails=lambda number: number != 6)
    found = study.go()
    assert len(found) == 12
    assert study.oracle.ranking() == ["0006"]


def test_the_bayesian_search_does_not_come_back_to_where_it_failed():
    """The objective rises towards x = 1, where every trial fails: KerasTuner by itself proposes nothing else."""
    study = Study(
        entries=[{"name": "x", "float": [0.0, 1.0]}], tuner={"name": "bayesian", "initial": 4}, trials=16, seed=3
    )
    study.outcome = None
    values = study.oracle.trials

    def outcome(trial):
        x = values[trial].hyperparameters.values["x"]
        return Outcome("diverged", reason="too far") if x > 0.7 else Outcome("finished", x, [x], [x])

    study.oracle.outcome_of = outcome
    late = [o.status for _, o in study.go().values()][8:]
    assert late.count("diverged") <= len(late) / 2


def test_a_trial_belongs_to_its_worker_until_it_falls_silent(tmp_path):
    journal = tmp_path / "journal.jsonl"
    oracle = Study(journal).oracle
    first, second = oracle.create_trial("one"), oracle.create_trial("two")
    assert first.trial_id != second.trial_id
    again = Study(journal).oracle  # the chief died, and comes again
    assert again.create_trial("one").trial_id == first.trial_id
    again.heard["two"] -= 100
    assert again.release(50) == [second.trial_id]
    assert again.create_trial("three").trial_id == second.trial_id
    again.end_trial(second)
    again.end_trial(second)  # of the worker that was given up for dead
    assert list(again.outcomes) == [second.trial_id]


def test_nothing_ends_while_a_trial_may_come_back():
    study = Study(trials=2)
    trials = [study.oracle.create_trial(worker) for worker in ("one", "two")]
    study.oracle.end_trial(trials[0])
    assert study.oracle.create_trial("one").status == oracle.IDLE
    assert not study.oracle.is_over
    study.oracle.end_trial(trials[1])
    assert study.oracle.create_trial("one").status == oracle.STOPPED
    assert study.oracle.is_over


def test_nothing_ends_during_the_comparison():
    study = Study(contrast={"by": "kind", "seeds": [7, 8]})
    study.go(12)
    finals = [study.oracle.create_trial(f"worker {i}") for i in range(4)]
    assert study.oracle.create_trial("worker 4").status == oracle.IDLE
    for trial in finals:
        study.oracle.end_trial(trial)
    assert study.oracle.create_trial("worker 4").status == oracle.STOPPED


@pytest.mark.parametrize("name", ["grid", "random"])
def test_no_worker_is_idle_while_there_are_points(name):
    study = Study(tuner={"name": name}, entries=[{"name": "x", "choice": ["a", "b", "c"]}])
    trials = [study.oracle.create_trial(f"worker {i}") for i in range(3)]
    assert {trial.hyperparameters.values["x"] for trial in trials} == {"a", "b", "c"}


def test_a_grid_is_whole():
    found = Study(tuner={"name": "grid"}, entries=[SPACE[0], SPACE[2]], trials=50).go()
    assert sorted(tuple(v.values()) for v, _ in found.values()) == [("a",), ("b", 1), ("b", 2), ("b", 3), ("b", 4)]


def test_a_changed_journal_is_refused(tmp_path):
    journal = tmp_path / "journal.jsonl"
    Study(journal).go(3)
    lines = journal.read_text().splitlines()
    event = json.loads(lines[3])
    assert event["event"] == "begun"
    event["values"]["x"] = 0.5
    lines[3] = json.dumps(event)
    journal.write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match="can't be replayed"):
        Study(journal)


def test_the_best_of_each_label_is_trained_again():
    study = Study(contrast={"by": "kind", "seeds": [7, 8]})
    found = study.go()
    first = {t: v for t, v in found.items() if "final/seed" not in v[0]}
    best = {k: max((o.value, t) for t, (v, o) in first.items() if v["kind"] == k)[1] for k in ("a", "b")}
    finals = [v for v, _ in found.values() if "final/seed" in v]
    assert [(v["final/of"], v["final/seed"]) for v in finals] == [(best[k], seed) for seed in (7, 8) for k in "ab"]
    assert len(first) == 12


@pytest.mark.parametrize("name", ["random", "grid", "bayesian"])
def test_a_search_with_a_comparison_may_grow(name, tmp_path):
    """What is in the journal is replayed as it was; then come new trials, and runs of what is the best now."""
    settings = {"contrast": {"by": "kind", "seeds": [7, 8]}, "tuner": {"name": name}}
    before = Study(tmp_path / "journal.jsonl", trials=4, **settings).go()
    study = Study(tmp_path / "journal.jsonl", trials=8, **settings)
    assert study.found() == before
    found = study.go()
    assert len([values for values, _ in found.values() if "final/seed" not in values]) == 8
    assert list(found.values())[: len(before)] == list(before.values())
    best = {found[trial][0]["kind"]: trial for trial in reversed(study.oracle.ranking())}
    finals = {(values["final/of"], values["final/seed"]) for values, _ in found.values() if "final/seed" in values}
    assert {(trial, seed) for trial in best.values() for seed in (7, 8)} <= finals


@pytest.mark.parametrize("name", ["random", "bayesian"])
def test_labels_searched_separately_get_equally_many_trials(name):
    found = Study(contrast={"by": "kind", "seeds": [7, 8], "apart": True}, tuner={"name": name}).go()
    kinds = [values["kind"] for values, _ in found.values() if "final/seed" not in values]
    assert kinds == ["a", "b"] * 6
    assert all(("n" in values) == (values["kind"] == "b") for values, _ in found.values())


def test_a_label_without_points_leaves_its_trials_to_the_others():
    study = Study(entries=[SPACE[0], SPACE[2]], contrast={"by": "kind", "seeds": [7, 8], "apart": True})
    found = [v for v, _ in study.go().values() if "final/seed" not in v]
    assert sorted(tuple(v.values()) for v in found) == [("a",), ("b", 1), ("b", 2), ("b", 3), ("b", 4)]


def test_labels_searched_separately_with_several_workers():
    """Guesses at trials under way are of the label's own process: there are as many numbers as that label has."""
    study = Study(contrast={"by": "kind", "seeds": [7, 8], "apart": True}, tuner={"name": "bayesian", "initial": 2})
    workers = {f"tuner{i}": study.oracle.create_trial(f"tuner{i}") for i in range(3)}
    for i in range(30):
        worker = f"tuner{i % 3}"
        study.oracle.end_trial(workers[worker])
        workers[worker] = study.oracle.create_trial(worker)
        if workers[worker].status != oracle.RUNNING:
            break
    kinds = [t.hyperparameters.values["kind"] for t in list(study.oracle.trials.values())[:12]]
    assert kinds == ["a", "b"] * 6


def test_poor_trials_are_stopped_by_the_median():
    """By hand: running means up to epoch 2 are 0.35, 0.45, 0.55, 0.65, whose median is 0.5."""
    study = Study(stopping={"name": "median", "epochs": 2, "trials": 4})
    curves = [[0.3, 0.4], [0.4, 0.5], [0.5, 0.6], [0.6, 0.7]]
    for curve in curves:
        study.oracle.outcome_of = lambda trial, curve=curve: Outcome("finished", curve[-1], curve[-1:], curve)
        study.oracle.end_trial(study.oracle.create_trial("tuner0"))
    statuses = []
    for values in ((0.1, 0.49), (0.51, 0.2), (0.1, 0.51)):
        trial = study.oracle.create_trial("tuner0")
        told = [study.oracle.update_trial(trial.trial_id, {"objective": v}, e) for e, v in enumerate(values, start=1)]
        statuses.append([t.status for t in told])
        study.oracle.outcome_of = lambda trial: Outcome(
            "diverged", curve=[math.nan] * 2, reason="leaves the median alone"
        )
        study.oracle.end_trial(trial)
    assert statuses == [[oracle.RUNNING, oracle.STOPPED]] + [[oracle.RUNNING] * 2] * 2
    trial = study.oracle.create_trial("tuner0")  # whose first epoch a chief heard that has died
    assert study.oracle.update_trial(trial.trial_id, {"objective": 0.49}, 2).status == oracle.STOPPED


def test_a_trial_that_was_stopped_early_is_never_the_best():
    study = Study(trials=2)
    for outcome in (Outcome("stopped", 0.9, [0.9], [0.9]), Outcome("finished", 0.5, [0.5], [0.5])):
        study.oracle.outcome_of = lambda trial, outcome=outcome: outcome
        study.oracle.end_trial(study.oracle.create_trial("tuner0"))
    assert study.oracle.ranking() == ["0001", "0000"]
