"""Networks and data of one's own, trained on each backend."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from zoo import config, evaluate, predict, runs, train
from zoo.files import read_history, read_table

OWN = Path(__file__).parents[1] / "examples" / "own"


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
