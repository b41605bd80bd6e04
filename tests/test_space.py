"""The space of a search, without training."""

import inspect
import json
from importlib.metadata import version
from pathlib import Path

import grpc
import keras_tuner
import numpy as np
import pytest
from keras_tuner.src import protos
from keras_tuner.src.distribute import oracle_chief, oracle_client
from keras_tuner.src.engine import base_tuner, conditions, oracle
from scipy import stats
from test_oracles import Study

from tuner.searches import entry, space
from zoo.errors import ConfigError

CONFIGS = Path(__file__).parents[1] / "configs"
MIXING = [
    {"name": "mixing", "path": "activation.weights", "choice": ["learned", {"label": "fixed", "value": None}]},
    {"path": "activation.weights", "name": "weights", "simplex": 3, "when": {"mixing": "fixed"}},
    {"path": "activation.normalization", "choice": ["sum", "softmax"], "when": {"mixing": "learned"}},
    {"name": "rate", "path": "training.optimizer.learning_rate", "float": [0.01, 0.1], "log": True},
]


def described(**changes):
    return {"base": "quickstart.json", "space": MIXING, "epochs": 2} | changes


def written(folder, **changes):
    path = folder / "search.json"
    path.write_text(json.dumps(described(**changes)))
    (folder / "quickstart.json").write_text((CONFIGS / "quickstart.json").read_text())
    return path


def test_a_point_becomes_a_config(tmp_path):
    path = written(tmp_path, executions=2, seed=5, limit=100)
    search = space.load(path)
    base = tmp_path / "quickstart.json"
    fixed = search.trial({"mixing": "fixed", "weights/0": 0.25, "weights/1": 1.0, "rate": 0.05}, base)
    assert fixed.activation.weights == [0.5, 0.0, 0.5]  # 1 - sqrt(1/4), then nothing of the rest
    assert fixed.activation.normalization == "sum"
    assert (fixed.training.seeds, fixed.training.epochs, fixed.dataset.limit) == ([5, 6], 2, 100)
    assert (fixed.metrics.test, fixed.metrics.report_batch) == (False, None)
    point = {"mixing": "learned", "activation.normalization": "softmax", "rate": 0.02}
    learned = search.result(point, base)
    assert (learned.activation.weights, learned.activation.normalization) == ("learned", "softmax")
    assert (learned.training.optimizer.learning_rate, learned.training.epochs) == (0.02, 15)
    assert (learned.dataset.validation, learned.dataset.limit, learned.metrics.test) == (0.0, None, True)
    assert search.labelled(point) == point


def test_fixed_weights_are_uniform_on_the_simplex():
    """Each of n weights then has the Beta(1, n - 1) distribution."""
    rng = np.random.default_rng(0)
    for n in (2, 3, 5):
        drawn = np.array([entry.simplex(rng.uniform(size=n - 1)) for _ in range(2000)])
        assert drawn.sum(axis=1) == pytest.approx(1.0)
        assert drawn.min() >= 0
        for weight in drawn.T:
            assert stats.kstest(weight, stats.beta(1, n - 1).cdf).pvalue > 0.001


def test_hyperparameters_are_active_only_if_their_conditions_hold():
    chain = [
        {"name": "a", "choice": ["on", "off"]},
        {"name": "b", "choice": ["on", "off"], "when": {"a": "on"}},
        {"name": "c", "boolean": True, "when": {"a": "on", "b": ["off"]}},
    ]
    search = space.parse(described(space=chain), "here")
    hp = search.hyperparameters()
    assert hp.values == {"a": "on", "b": "on"}
    assert [e.name for e in search.active({"a": "on", "b": "off", "c": True})] == ["a", "b", "c"]
    assert [e.name for e in search.active({"a": "off", "b": "off", "c": True})] == ["a"]
    hp.values = {"a": "on", "b": "off"}
    assert hp.is_active("c")
    hp.values = {"a": "off"}
    assert not hp.is_active("b")
    assert not hp.is_active("c")


MISTAKES = [
    ({"trials": 0}, "trials"),
    ({"epochs": None}, "epochs"),
    ({"trails": 3}, "did you mean 'trials'"),
    ({"objective": "test_accuracy"}, "objective"),
    (
        {"tuner": {"name": "genetic"}},
        "tuner: expected one of 'random', 'grid', 'bayesian', 'hyperband'; found 'genetic'",
    ),
    ({"space": []}, "space"),
    ({"space": [{"name": "x", "path": "training.epochs"}]}, "one of choice, int, float, boolean, simplex"),
    ({"space": [{"choice": ["a"]}]}, "path, or at least a name"),
    ({"space": [{"name": "x", "float": [1.0, 0.5]}]}, "a lower and a higher bound"),
    ({"space": [{"name": "x", "float": [0.0, 0.5], "log": True}]}, "positive bounds"),
    ({"space": [{"name": "x", "choice": ["a", "a"]}]}, "two choices"),
    ({"space": [MIXING[0], MIXING[0]]}, "two entries"),
    ({"space": [MIXING[1]]}, "no entry before it is called 'mixing'"),
    ({"space": [MIXING[0], MIXING[1] | {"when": {"mixing": "frozen"}}]}, "found 'frozen'"),
    ({"space": [{"path": "training.epoch", "int": [1, 3]}]}, "unknown field 'epoch'"),
    ({"space": [{"path": "training.batch_size", "choice": ["few"]}]}, "training.batch_size"),
    ({"contrast": {"by": "mix", "seeds": [1, 2]}}, "no entry is called 'mix'"),
    ({"contrast": {"by": "rate", "seeds": [1, 2]}}, "at least two choices"),
    ({"contrast": {"by": "mixing", "seeds": [1, 1]}}, "they must differ"),
    ({"contrast": {"by": "mixing", "seeds": [1, 2]}, "seed": 2}, "and from [2]"),
    ({"contrast": {"by": "mixing", "seeds": [1]}}, "expected at least 2; found [1]"),
    ({"space": [MIXING[0] | {"name": "tuner/epochs"}]}, "a name can't contain a slash"),
    ({"space": [{"path": "training.seeds", "choice": [[1], [2]]}]}, "is set by the search"),
    ({"space": [{"path": "metrics.test", "boolean": True}]}, "is set by the search"),
    ({"tuner": "random"}, "expected an object"),
    (
        {"contrast": {"by": "mixing", "seeds": [1, 2], "apart": True}, "tuner": {"name": "grid"}},
        "can't search labels separately",
    ),
    ({"stopping": {"name": "median"}, "tuner": {"name": "hyperband"}}, "leave it out"),
    ({"stopping": {"name": "median"}, "executions": 2}, "needs executions: 1"),
    ({"base": "missing.json"}, "no such file"),
    ({"set": {"dataset.validation": 0.0}}, "leave no images to evaluate on"),
]


@pytest.mark.parametrize(("changes", "said"), MISTAKES)
def test_each_mistake_is_one_line(tmp_path, changes, said):
    path = written(tmp_path, **changes)
    with pytest.raises(ConfigError) as caught:
        space.load(path)
    assert str(path) in str(caught.value)
    assert said in str(caught.value)


@pytest.mark.parametrize("path", sorted((CONFIGS / "search").glob("*.json")), ids=lambda path: path.stem)
def test_committed_searches_are_right(path):
    assert space.load(path).notes


@pytest.mark.parametrize("change", [{"when": {"mixing": []}}, {"name": "\ud800"}, {"choice": ["\udfff"]}])
def test_an_entry_that_can_never_be_active_or_is_not_text(change, tmp_path):
    first, second, *_ = MIXING
    with pytest.raises(ConfigError, match=r"search\.json: "):
        space.load(written(tmp_path, space=[first, {**second, **change}]))


ORACLE = ("trials", "ongoing_trials", "tuner_ids", "hyperparameters", "_retry_queue", "_seed_state", "_duplicate")
ORACLE += ("_random_values", "_save_trial", "save", "reload")
NAMES = {  # used by: what has them, and the names
    "tuner.searches.oracle.JournaledOracle": (lambda: Study().oracle, ORACLE),
    "tuner.searches.oracles.GridOracle": (lambda: Study(tuner={"name": "grid"}).oracle, ("_populate_next",)),
    "tuner.searches.oracles.BayesianOracle": (
        lambda: Study(tuner={"name": "bayesian"}).oracle,
        ("gpr", "_random_state", "_nonfixed_space", "_vectorize_trials"),
    ),
    "tuner.searches.oracles.HyperbandOracle": (lambda: Study(tuner={"name": "hyperband"}).oracle, ("_brackets",)),
    "tuner.searches.entry.under": (keras_tuner.HyperParameters, ("_conditions",)),
    "tuner.workers.service.Chief": (lambda: oracle_chief, ("OracleServicer",)),
    "tuner.workers.service._Client": (lambda: oracle_client, ("OracleClient", "TIMEOUT")),
    "tuner.workers.service.Worker": (
        lambda: base_tuner.BaseTuner,
        ("search", "pre_create_trial", "_try_run_and_update_trial", "on_trial_end", "project_dir"),
    ),
}


@pytest.mark.parametrize("user", NAMES)
def test_names_are_where_they_were(user):
    made, names = NAMES[user]
    missing = [name for name in names if not hasattr(made(), name)]
    assert not missing, f"{user} takes {missing} from KerasTuner, and version {version('keras-tuner')} has none"


def test_conditions_make_a_hyperparameter_active():
    """tuner.searches.entry.under puts `conditions.Parent` into `HyperParameters._conditions`."""
    hp = keras_tuner.HyperParameters()
    hp.Choice("kind", ["a", "b"])
    hp._conditions = [conditions.Parent("kind", ["b"])]
    hp.Int("n", 1, 4)
    hp._conditions = []
    assert "n" not in hp.values and [entry.name for entry in hp.space] == ["kind", "n"]
    hp.values = {"kind": "b"}
    hp.ensure_active_values()
    assert hp.values.keys() == {"kind", "n"}


def test_a_released_trial_comes_first():
    """tuner.searches.oracle.JournaledOracle moves trials of dead workers from `ongoing_trials` to `_retry_queue`."""
    found = Study().oracle
    first = found.create_trial("tuner0")
    assert found.ongoing_trials["tuner0"] is found.trials[first.trial_id]
    found._retry_queue.append(found.ongoing_trials.pop("tuner0").trial_id)
    assert found.create_trial("tuner1").trial_id == first.trial_id


def test_calls_are_locked_by_what_is_looked_up_in_a_table():
    """tuner.searches.oracle.JournaledOracle has a lock of its own, and puts one into `LOCKS` that never closes."""
    found = Study().oracle
    with pytest.raises(KeyError):
        oracle.Oracle.update_trial(found, "none", {"objective": 1.0})
    assert found.create_trial("tuner0").trial_id == "0000"
    assert "LOCKS[oracle].acquire()" in inspect.getsource(oracle.synchronized)


def test_brackets_hold_rounds_of_trials():
    """tuner.searches.oracles.HyperbandOracle keeps the weights of what stands in `_brackets`."""
    study = Study(tuner={"name": "hyperband"})
    study.go(3)
    assert study.oracle.candidates() == {"0000", "0001", "0002"}


def test_every_call_of_a_client_goes_through_its_stub(monkeypatch):
    """tuner.workers.service._Client puts the secret into `stub`, whose methods take metadata."""
    for name, value in (("IP", "127.0.0.1"), ("PORT", "1")):
        monkeypatch.setenv(f"KERASTUNER_ORACLE_{name}", value)
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "tuner0")
    called = []

    class Stub:
        def __getattr__(self, name):
            called.append(name)
            return lambda request, **options: getattr(protos.get_service(), f"{name}Response")()

    client = oracle_client.OracleClient(None)
    assert isinstance(client.stub.CreateTrial, grpc.UnaryUnaryMultiCallable)
    client.stub = Stub()
    trial = keras_tuner.engine.trial.Trial(keras_tuner.HyperParameters(), "0000", "COMPLETED")
    client.create_trial("tuner0")
    client.update_trial("0000", {"objective": 1.0})
    client.end_trial(trial)
    client.get_trial("0000")
    assert called == ["CreateTrial", "UpdateTrial", "EndTrial", "GetTrial"]


def test_trials_are_numbered():
    """tuner.searches.records takes a name of a trial for what becomes a folder: digits."""
    for name in ("random", "grid", "bayesian", "hyperband"):
        assert Study(tuner={"name": name}).oracle.create_trial("tuner0").trial_id == "0000"
