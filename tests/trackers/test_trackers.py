"""What `ActivationHistory(log=True)` hands on, as trackers keep it without a network."""

import keras
import numpy as np
import pytest

import keras_adaptact as ka

NAME = "hidden/a"


@pytest.fixture
def fit():
    """Trains with a tracker's callback after the history's, and returns what the parameter was after each epoch."""

    def fitted(callback):
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, activation=ka.AReLU(), name="hidden")])
        model.compile(keras.optimizers.SGD(0.1), "mse")
        history = ka.ActivationHistory(log=True)
        x = np.random.default_rng(0).normal(size=(16, 3))
        model.fit(x, np.ones((16, 4)), epochs=2, verbose=0, callbacks=[history, callback])
        values = [float(history.snapshots[step]["hidden"]["a"]) for step in (1, 2)]
        assert values[0] != values[1]
        return values

    return fitted


def test_weights_and_biases(fit, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    import wandb
    from wandb.integration.keras import WandbMetricsLogger

    with wandb.init(project="test", dir=str(tmp_path)) as run:
        values = fit(WandbMetricsLogger())
        assert run.summary[f"epoch/{NAME}"] == values[-1]


def test_mlflow(fit, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    import mlflow
    from mlflow.keras.callback import MlflowCallback

    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'mlflow.db'}")
    with mlflow.start_run() as run:
        values = fit(MlflowCallback())
    found = mlflow.MlflowClient().get_metric_history(run.info.run_id, NAME)
    assert [metric.value for metric in sorted(found, key=lambda metric: metric.step)] == values


def test_trackio(fit, tmp_path, monkeypatch):
    """It has no callback for Keras: its `log` takes an epoch's logs as they are."""
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))
    import trackio
    from trackio.sqlite_storage import SQLiteStorage

    trackio.init(project="test", name="mine")
    values = fit(keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: trackio.log(logs)))
    trackio.finish()
    assert [row[NAME] for row in SQLiteStorage.get_logs("test", "mine")] == values
