"""Own code: imported where a command is given a config, and from a run's folder only as it was."""

import json
import os
import shutil
import sys

import keras
import numpy as np
import pytest

from zoo import config, evaluate, files, owncode, predict, runs, train
from zoo.errors import UserError

NETS = """
import keras
from keras import layers
import parts


def mlp(activation, width=4, outputs=1):
    x = inputs = keras.Input((3,))
    for name in parts.SITES:
        x = activation(name)(layers.Dense(width)(x))
    return keras.Model(inputs, layers.Dense(outputs)(x))


def load():
    import numpy as np
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 3))
    y = x[:, 0] - 2 * x[:, 1]
    return {"x_train": x[:40], "y_train": y[:40], "x_test": x[40:], "y_test": y[40:]}


def no_sites(activation):
    inputs = keras.Input((3,))
    return keras.Model(inputs, layers.Dense(1)(inputs))


def no_model(activation):
    return 3


def two(activation):
    inputs = keras.Input((3,))
    return keras.Model(inputs, layers.Dense(2)(activation("a")(inputs)))


def raises(activation):
    raise ZeroDivisionError("by me")
"""
SETTINGS = {"epochs": 2, "batch_size": 10, "optimizer": {"name": "adam", "learning_rate": 0.01}}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder of a user's: a network that has a part of it in another file, data, and a config."""
    monkeypatch.setattr(owncode, "_IMPORTED", {})
    monkeypatch.setattr(owncode, "_DIGESTS", {})
    monkeypatch.setattr("sys.path", list(sys.path))
    monkeypatch.setenv(owncode.TRUST, "")  # and gone after the test
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "my_nets.py").write_text(NETS)
    (mine / "parts.py").write_text("SITES = ('first', 'second')\n")
    content = {"model": {"build": "my_nets.py:mlp"}, "activation": {"name": "method1"}}
    content |= {"dataset": {"load": "my_nets.py:load"}, "training": SETTINGS}
    (mine / "run.json").write_text(json.dumps(content))
    yield mine
    for name in [name for name in sys.modules if name.startswith("my_nets") or name == "parts"]:
        del sys.modules[name]


def refused(capsys) -> str:
    said = capsys.readouterr().err
    (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
    return line


def test_a_regression_from_end_to_end(place, tmp_path, capsys):
    out = tmp_path / "run"
    assert train.main([str(place / "run.json"), "--out", str(out)]) == 0
    rows = files.read_history(out / "history.csv")
    assert rows[1]["loss"] < rows[0]["loss"] and {"mae", "mse", "val_r2", "val_rmse"} < rows[0].keys()
    assert {r["site"] for r in files.read_table(out / "mixing_weights.csv")} == {"first", "second"}
    recorded = {each["copy"]: each["path"] for each in files.read_json(out / "environment.json")["own_code"]}
    assert recorded == {"code/my_nets.py": "../mine/my_nets.py", "code/parts.py": "../mine/parts.py"}
    assert str(tmp_path) not in (out / "config.json").read_text() + (out / "environment.json").read_text()

    x = np.array([[1.0, 2, 3], [0, 0, 0]])
    np.save(tmp_path / "x.npy", x)
    found = np.array([row["value"] for row in predict.predict(out, [tmp_path / "x.npy"])])
    known = json.loads((out / "preprocessing.json").read_text())
    inputs = (x - known["channel_mean"]) / known["channel_deviation"]
    model = keras.models.load_model(out / "model.keras")
    np.testing.assert_allclose(found, model.predict(inputs.astype("float32"), verbose=0)[:, 0], rtol=1e-4, atol=1e-5)

    test = runs.Run(out).dataset().test
    f, y = runs.Run(out).predict(test.images)[:, 0].astype("float64"), test.labels[:, 0].astype("float64")
    metrics = evaluate.evaluate(out)
    assert metrics["test_mae"] == pytest.approx(np.abs(f - y).mean(), rel=1e-6)
    assert metrics["test_rmse"] == pytest.approx(np.sqrt(((f - y) ** 2).mean()), rel=1e-6)
    assert metrics["test_r2"] == pytest.approx(1 - ((f - y) ** 2).sum() / ((y - y.mean()) ** 2).sum(), rel=1e-6)
    assert (out / "scatter-test.png").exists()


def test_changed_code_is_not_run_unless_its_copy_is_trusted(place, tmp_path, capsys):
    out = tmp_path / "run"
    train.run(config.load(place / "run.json"), out)
    before = evaluate.evaluate(out)
    (place / "parts.py").write_text("raise RuntimeError('changed code ran')\n")
    assert evaluate.main([str(out)]) == 2
    assert "parts.py: changed since the run" in (line := refused(capsys)) and "--trust" in line
    owncode._IMPORTED.clear()
    sys.modules.pop("parts")
    assert evaluate.main([str(out), "--trust"]) == 0
    assert json.loads((out / "evaluation-test.json").read_text()) == pytest.approx(before)
    del os.environ[owncode.TRUST]
    shutil.rmtree(place)
    assert train.main(["--resume", str(out)]) == 2 and "is gone" in refused(capsys)
    (out / "code" / "my_nets.py").write_text("raise RuntimeError('changed copy ran')\n")
    os.environ[owncode.TRUST] = "1"
    with pytest.raises(UserError, match="isn't there any more"):
        runs.Run(out)


@pytest.mark.parametrize(
    "override, words",
    [
        ("model.build=my_nets.py:mlb", "has no function 'mlb'; there are mlp, load"),
        ("model.build=nowhere.py:mlp", "nowhere.py: can't be read as code: No such file"),
        ("model.build=no_such_module:mlp", "there is no such module"),
        ("model.build=my_nets.py:no_sites", "has no sites"),
        ("model.build=my_nets.py:no_model", "returned a int, and no Keras model"),
        ("model.build=my_nets.py:two", "outputs of shape (2,), and the data has numbers to be learned; expected (1,)"),
        ("model.depth=3", "unexpected keyword argument 'depth'"),
        ("training.batch_size=64", "training.batch_size: 64, and there are 36 training samples"),
        ("metrics.report_batch=8", "metrics.report_batch"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(override, words, place, tmp_path, capsys):
    out = tmp_path / "run"
    assert train.main([str(place / "run.json"), "--set", override, "--out", str(out)]) == 2
    assert words in refused(capsys) and not out.exists()


def test_without_keras_hub_it_is_said_what_to_install(place, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "keras_hub", None)
    content = json.loads((place / "run.json").read_text()) | {"model": {"kerashub": "my_preset/"}}
    (place / "run.json").write_text(json.dumps(content))
    out = tmp_path / "run"
    assert train.main([str(place / "run.json"), "--out", str(out)]) == 2
    assert "the package keras-hub is not installed; pip install '.[hub]'" in refused(capsys) and not out.exists()


def test_a_users_own_error_comes_with_its_traceback(place, tmp_path, capsys):
    out = tmp_path / "run"
    assert train.main([str(place / "run.json"), "--set", "model.build=my_nets.py:raises", "--out", str(out)]) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("error: ") and "my_nets.py:raises: raised ZeroDivisionError: by me" in said[0]
    assert said[-1] == "ZeroDivisionError: by me" and any("my_nets.py" in line for line in said[1:])
    assert not any("owncode.py" in line for line in said[1:]) and not out.exists()
