"""What the tuner uses of KerasTuner beyond its public API: if a release changes it, these tests say what broke."""

import inspect
from importlib.metadata import version

import grpc
import keras_tuner
import pytest
from keras_tuner.src import protos
from keras_tuner.src.distribute import oracle_chief, oracle_client
from keras_tuner.src.engine import base_tuner, conditions, oracle
from test_oracles import Study

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
