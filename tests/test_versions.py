"""Files that version 0.1.0 wrote: they open, resume and report as before."""

import csv
import json
import os
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from old import OLD

import keras_adaptact as ka
from zoo import config, evaluate, report, runs, sweep, train

EXPECTED = json.loads((OLD / "expected.json").read_text())
LAYERS = json.loads((OLD / "layers.json").read_text())
BACKEND = os.environ["KERAS_BACKEND"]


@pytest.mark.parametrize("name", LAYERS)
def test_a_compiled_model_opens_and_trains_on(name):
    """By layer and by channel in one model, with Adam's slots and the activations' own learning rate."""
    model = keras.models.load_model(OLD / "layers" / f"{name}.keras")
    assert all(
        isinstance(layer, ka.TrainableActivation | ka.PReLU) for layer in (model.layers[1], model.layers[3].activation)
    )
    x = np.sin(np.arange(6 * 4 * 4 * 2, dtype="float32")).reshape(6, 4, 4, 2)
    y = np.cos(np.arange(12, dtype="float32")).reshape(6, 2)
    np.testing.assert_allclose(model.predict(x, verbose=0), LAYERS[name]["outputs"], rtol=2e-4, atol=2e-5)
    model.jit_compile = BACKEND == "jax"  # what was saved is "auto", which is slow to compile, and none of this test
    losses = [float(model.train_on_batch(x, y)) for _ in range(2)]
    assert losses[0] == pytest.approx(LAYERS[name]["losses"][1], rel=2e-4)
    assert losses[1] != losses[0]


def copied(name: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(OLD / name, tmp_path / name))


def table(text: str) -> np.ndarray:
    return np.array([[float(cell) for cell in row] for row in list(csv.reader(text.splitlines()))[1:]])


def test_an_interrupted_run_resumes(tmp_path):
    run = copied(f"cut-{BACKEND}", tmp_path)
    assert train.main(["--resume", str(run)]) == 0
    expected = EXPECTED[BACKEND]
    found = table((run / "history.csv").read_text())
    np.testing.assert_allclose(found, table(expected["history.csv"]), rtol=2e-3, atol=1e-5)
    then, now = json.loads(expected["metrics.json"]), json.loads((run / "metrics.json").read_text())
    assert then.keys() <= now.keys() and now["status"] == "finished"
    assert now["test_loss"] == pytest.approx(then["test_loss"], rel=2e-3)
    last = [row[4] for row in csv.reader((run / "mixing_weights.csv").read_text().splitlines())][-3:]
    then = [row[4] for row in csv.reader(expected["mixing_weights.csv"].splitlines())][-3:]
    np.testing.assert_allclose([float(x) for x in last], [float(x) for x in then], rtol=2e-3)


def test_a_finished_run_is_evaluated_and_lends_its_weights(tmp_path):
    run = copied("finished", tmp_path)
    found, then = evaluate.evaluate(run), EXPECTED["jax"]["evaluation"]
    assert found["test_accuracy"] == then["test_accuracy"]
    assert found["test_loss"] == pytest.approx(then["test_loss"], rel=1e-4)
    held = runs.hold_weights(config.load(OLD / "tiny.json", [f'activation.weights={{"from_run":"{run}"}}']))
    assert len(held.activation) == 6 and sum(held.activation[0].weights) == pytest.approx(1, abs=1e-6)


@pytest.mark.skipif(BACKEND != "jax", reason="begun on jax, which another backend is refused for: see below")
def test_a_finished_run_stays_as_it_is(tmp_path):
    run = copied("finished", tmp_path)
    assert train.main(["--resume", str(run)]) == 0
    for path in (OLD / "finished").iterdir():
        assert path.read_bytes() == (run / path.name).read_bytes()


def test_a_sweep_is_done_and_reports(tmp_path, capsys):
    out = copied("sweep", tmp_path)
    assert sweep.main([str(OLD / "tiny-sweep.json"), "--out", str(out)]) == 0
    assert "2 of 2 runs are done" in capsys.readouterr().out
    assert report.main([str(out)]) == 0
    with (out / "report" / "sound-densenet.csv").open() as file:
        found = {row[0]: row for row in csv.reader(file)}
    assert any(cell.startswith("14.0") for cell in found["relu"]) and any(
        cell.startswith("12.0") for cell in found["method2"]
    )


def test_a_search_reports_and_resumes(tmp_path, capsys):
    from tuner import report as search_report
    from tuner import search

    out = copied("search", tmp_path)
    assert search_report.main([str(out)]) == 0
    with (out / "report" / "ranking.csv").open() as file:
        assert [row["trial"] for row in csv.DictReader(file)] == ["0002", "0000", "0001"]
    for name in ("tiny.json", "tiny-search.json"):
        shutil.copy(OLD / name, tmp_path)
    asked = json.loads((tmp_path / "tiny-search.json").read_text()) | {"trials": 4}
    (tmp_path / "tiny-search.json").write_text(json.dumps(asked))
    status = search.main([str(tmp_path / "tiny-search.json"), "--out", str(out), "--resume"])
    said = capsys.readouterr()
    if BACKEND == "jax":
        assert status == 0 and "4 trials" in said.out and (out / "trials" / "0003.json").exists()
        for trial in ("0000", "0001", "0002"):
            path = f"trials/{trial}/history.csv"
            assert (out / path).read_bytes() == (OLD / "search" / path).read_bytes()
    else:
        assert status == 2 and f'backend: "jax" then, "{BACKEND}" now' in said.err


def test_it_opens_and_trains_on_as_it_did(tmp_path):
    known = np.load(OLD / "channels" / "known.npz")
    x = np.random.default_rng(0).normal(size=(16, 6, 3)).astype("float32")
    y = np.tanh(x[:, :1, 0])
    model = keras.models.load_model(OLD / "channels" / "model.keras")
    np.testing.assert_allclose(model.predict(x, verbose=0), known["outputs"], rtol=1e-5, atol=1e-6)
    model.save(tmp_path / "again.keras")
    model = keras.models.load_model(tmp_path / "again.keras")
    losses = model.fit(x, y, epochs=3, batch_size=16, shuffle=False, verbose=0).history["loss"]
    np.testing.assert_allclose(losses, known["losses"], rtol=1e-4)


def test_its_weights_open_in_a_layer_of_today(tmp_path):
    old = keras.models.load_model(OLD / "channels" / "model.keras").layers[1]
    rows, today = keras.Sequential([keras.Input((6, 4)), old]), ka.AReLU("channel", channels=4)
    rows.save_weights(tmp_path / "old.weights.h5")
    keras.Sequential([keras.Input((6, 4)), today]).load_weights(tmp_path / "old.weights.h5")
    assert old.variables[0].shape == (4, 4) and today.variables[0].shape == (16,)
    for name, value in old.get_parameters().items():
        np.testing.assert_array_equal(today.get_parameters()[name], value)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_a_prelu_of_series_keeps_its_shape_and_opens_in_one_of_today(data_format, tmp_path):
    """It was a matrix, which no configuration said; today it has a further axis, and computes the same."""
    today = ka.PReLU("channel", data_format=data_format)
    config = today.get_config()
    del config["storage"]
    old = ka.PReLU.from_config(config)
    models = [keras.Sequential([keras.Input((4, 3)), layer]) for layer in (old, today)]
    channels = 3 if data_format == "channels_last" else 4
    matrix = (1, 3) if data_format == "channels_last" else (4, 1)
    assert tuple(old.alpha.shape) == matrix and tuple(today.alpha.shape) == (1, *matrix)
    assert ka.get(old)._storage == "rows"
    slopes = np.linspace(-0.5, 0.5, channels, dtype="float32").reshape(matrix)
    old.alpha.assign(slopes)
    models[0].save_weights(tmp_path / "old.weights.h5")
    models[1].load_weights(tmp_path / "old.weights.h5")
    z = np.random.default_rng(0).normal(size=(2, 4, 3)).astype("float32")
    expected = np.where(z > 0, z, slopes * z)
    for model in models:
        np.testing.assert_allclose(keras.ops.convert_to_numpy(model(z)), expected, rtol=1e-6)
    models[1].save(tmp_path / "today.keras")
    again = keras.models.load_model(tmp_path / "today.keras")
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(again(z)), keras.ops.convert_to_numpy(models[1](z)))
