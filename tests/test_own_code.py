"""Own networks, and the code that a config names."""

import json
import os
import shutil
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from zoo import config, evaluate, files, owncode, predict, runs, train
from zoo.errors import UserError
from zoo.files import read_history, read_table

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
OWN = Path(__file__).parents[1] / "examples" / "own"


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


@pytest.mark.parametrize("example", ["diabetes", "circles"])
def test_the_examples_train(example, tmp_path):
    settings = config.load(OWN / f"{example}.json", ["training.epochs=1", "dataset.limit=64", "dataset.test_limit=20"])
    (found,) = train.run(settings, tmp_path / "run")
    again = evaluate.evaluate(tmp_path / "run")
    for name, value in again.items():
        assert value == pytest.approx(found[name], rel=1e-4)
    run = runs.Run(tmp_path / "run")
    test = run.dataset().test
    outputs = run.predict(test.images)
    assert outputs.shape == (20, *run.form.outputs) == ((20, 16, 16, 2) if example == "circles" else (20, 1))
    if example == "circles":
        assert found["test_accuracy"] == pytest.approx((outputs.argmax(-1) == test.labels).mean())
        assert {row["site"] for row in read_table(tmp_path / "run" / "parameters.csv")} == {"coarse", "last"}


def test_arrays_on_disk_train_as_those_in_memory(tmp_path):
    """To the same losses, though each batch is read anew; and resume."""
    content = {"model": {"build": f"{OWN / 'diabetes.py'}:mlp", "width": 4}, "activation": {"name": "arelu"}}
    content |= {"training": {"epochs": 2, "batch_size": 20}, "dataset": {"folder": "arrays"}}
    x, y = np.random.default_rng(0).normal(size=(80, 10)), np.arange(80) / 80
    arrays = {"x_train": x[:60], "y_train": y[:60], "x_test": x[60:], "y_test": y[60:]}
    (tmp_path / "arrays").mkdir()
    for name, array in arrays.items():
        np.save(tmp_path / "arrays" / f"{name}.npy", array)
    np.savez(tmp_path / "all.npz", **arrays)
    found = {}
    for where in ({"folder": "arrays"}, {"file": "all.npz"}):
        (tmp_path / "run.json").write_text(json.dumps(content | {"dataset": where}))
        out = tmp_path / next(iter(where))
        train.run(config.load(tmp_path / "run.json"), out)
        found[next(iter(where))] = [row["loss"] for row in read_history(out / "history.csv")]
    assert found["folder"] == pytest.approx(found["file"], rel=1e-6)
    (tmp_path / "folder" / "metrics.json").unlink()
    assert train.main(["--resume", str(tmp_path / "folder")]) == 0
    np.save(tmp_path / "arrays" / "y_train.npy", y[:60] + 1)
    (tmp_path / "folder" / "metrics.json").unlink()
    assert train.main(["--resume", str(tmp_path / "folder")]) == 2


def test_a_network_of_keras_on_pictures(tmp_path, capsys):
    for split, count in (("train", 4), ("test", 2)):
        for i, name in enumerate("abc"):
            (tmp_path / "album" / split / name).mkdir(parents=True)
            for j in range(count):
                picture = Image.new("RGB", (40 - 8 * (j % 2), 32), (80 * i, 10 * j, 0))
                picture.save(tmp_path / "album" / split / name / f"{j}.png")
    content = {"model": {"application": "MobileNet", "alpha": 0.25, "dropout": 0.0}, "activation": {"name": "arelu"}}
    content |= {"dataset": {"folder": "album", "image_size": [32, 32], "validation": 0}}
    content |= {"training": {"epochs": 1, "batch_size": 12, "optimizer": {"learning_rate": 0.001}}}
    (tmp_path / "run.json").write_text(json.dumps(content))
    out = tmp_path / "run"
    assert train.main([str(tmp_path / "run.json"), "--out", str(out)]) == 0
    before = keras.applications.MobileNet(
        alpha=0.25, weights=None, classes=3, input_shape=(32, 32, 3), classifier_activation=None
    )
    sites = {row["site"] for row in read_table(out / "parameters.csv")}
    assert len(sites) == sum(isinstance(layer, keras.layers.ReLU) for layer in before.layers) == 27
    capsys.readouterr()
    assert predict.main([str(out), str(tmp_path / "album" / "test" / "a" / "1.png")]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert sorted(word.split()[0] for word in line.split(": ")[1].split(", ")) == ["a", "b", "c"]
    content["model"]["source"] = "tanh"
    (tmp_path / "run.json").write_text(json.dumps(content))
    assert train.main([str(tmp_path / "run.json"), "--out", str(tmp_path / "other")]) == 2
    assert "'tanh' is at no site" in capsys.readouterr().err
