"""Own data, and what is made of runs of own networks and data: sweeps, reports and searches."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zoo import config, report, sweep
from zoo.data import datasets, own, pictures
from zoo.data.pipeline import Pipeline
from zoo.data.splits import Form, Rows
from zoo.errors import DataError, UserError
from zoo.files import read_json

RNG = np.random.default_rng(0)
GOOD = {
    "x_train": RNG.normal(size=(30, 4)),
    "y_train": np.arange(30) % 3,
    "x_test": RNG.normal(size=(9, 4)),
    "y_test": np.arange(9) % 3,
}
OWN = Path(__file__).parents[1] / "examples" / "own"


def settings(tmp_path, **dataset):
    (tmp_path / "run.json").write_text(json.dumps({"dataset": dataset}))
    return config.load(tmp_path / "run.json").dataset


def loaded(tmp_path, arrays, **dataset):
    np.savez(tmp_path / "mine.npz", **{name: array for name, array in arrays.items() if array is not None})
    return datasets.load_for(settings(tmp_path, file="mine.npz", **dataset), None)


def test_a_file_is_split_as_the_zoos_own_data_are(tmp_path):
    found = loaded(tmp_path, GOOD, limit=20, validation=0.25)
    order = np.random.default_rng(0).permutation(30)[:20]
    np.testing.assert_array_equal(found.train.images, GOOD["x_train"][order[:15]].astype("float32"))
    np.testing.assert_array_equal(found.validation.labels, GOOD["y_train"][order[15:]])
    assert found.form == Form((4,), "float32", ("0", "1", "2"), ())
    given = GOOD | {"x_validation": GOOD["x_test"], "y_validation": GOOD["y_test"]}
    assert len(loaded(tmp_path, given).validation.labels) == 9 and len(loaded(tmp_path, given).train.labels) == 30
    assert loaded(tmp_path, given, validation=0).validation is None


@pytest.mark.parametrize(
    "y, options, classes, target",
    [
        (np.arange(30) % 2 == 0, {}, ("0", "1"), ()),
        ((np.arange(30) % 3)[:, None], {}, ("0", "1", "2"), ()),
        (np.eye(4)[np.arange(30) % 4], {}, ("0", "1", "2", "3"), ()),
        (np.array(["b", "a", "c"] * 10), {}, ("a", "b", "c"), ()),
        (np.array([b"b", b"a", "é".encode()] * 10), {}, ("a", "b", "é"), ()),
        (np.arange(30) % 3, {"classes": ["x", "y", "z"]}, ("x", "y", "z"), ()),
        (np.arange(30) % 3, {"classes": 5}, ("0", "1", "2", "3", "4"), ()),
        (np.arange(30) % 3 + 0.0, {"task": "classification"}, ("0", "1", "2"), ()),
        (np.arange(30) % 3, {"task": "regression"}, (), (1,)),
        (np.arange(30) / 7, {}, (), (1,)),
        (np.arange(120).reshape(30, 2, 2) // 3 % 2, {}, ("0", "1"), (2, 2)),
        (np.arange(60).reshape(30, 2) / 7, {}, (), (2,)),
    ],
)
def test_what_targets_say(y, options, classes, target, tmp_path):
    found = loaded(tmp_path, GOOD | {"y_train": y, "y_test": y[:9]}, **options)
    assert (found.classes, found.form.target) == (classes, target)


def test_names_of_classes_may_be_bytes(tmp_path):
    assert loaded(tmp_path, GOOD | {"classes": np.array([b"cat", b"dog", b"cow"])}).classes == ("cat", "dog", "cow")


def with_nan(name, sample):
    array = GOOD[name].astype("float64").copy()
    array[sample] = np.nan
    return {name: array}


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"y_train": None}, "has no y_train; expected x_train, y_train, x_test, y_test; there are x_test"),
        ({"y_train": np.arange(29) % 3}, "x_train has 30 samples, and y_train 29 targets"),
        (with_nan("x_train", 7), "x_train: sample 7 holds a value that is NaN"),
        (with_nan("y_test", 0), "y_test holds NaN"),
        ({"y_test": np.full(9, 3)}, "y_test: labels out of range: expected 0 to 2; found 3, at sample 0"),
        ({"y_train": np.arange(30) % 3 - 1}, "y_train: labels out of range: they count from 0; found -1"),
        ({"y_train": np.arange(30) % 3 * 2}, "none is 1"),
        ({"y_train": np.zeros(30, int)}, "one class only"),
        ({"y_train": np.full(30, 2.5), "y_test": np.full(9, 2.5)}, "every target is 2.5"),
        ({"x_test": np.zeros((9, 5))}, "x_test has samples of shape (5,), and x_train of (4,)"),
        ({"x_train": np.array([{}] * 30, object)}, "a pickle and is not opened"),
        ({"x_train": np.array(["a"] * 30)}, "expected numbers"),
        ({"x_train": np.zeros((0, 4)), "y_train": np.zeros(0, int)}, "expected samples"),
        ({"x_validation": GOOD["x_test"]}, "belong together"),
        ({"y_train": np.array([b"a", b"\xff\xfe", b"b"] * 10)}, "y_train: expected text in UTF-8; found b'\\xff\\xfe'"),
        ({"classes": np.array([b"a", b"\xff", b"b"])}, "classes: expected text in UTF-8; found b'\\xff'"),
    ],
)
def test_bad_arrays_are_named(changes, words, tmp_path):
    with pytest.raises(DataError) as caught:
        loaded(tmp_path, GOOD | changes)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_what_memory_does_not_hold_is_sent_to_a_folder_whose_arrays_stay_on_disk(tmp_path, monkeypatch):
    for module in (own, pictures):
        monkeypatch.setattr(module, "memory_of_machine", lambda: 1000.0)
    with pytest.raises(DataError, match=r"take .* GB.*numpy\.save as x_train\.npy"):
        loaded(tmp_path, GOOD)
    (tmp_path / "arrays").mkdir()
    for name, array in GOOD.items():
        np.save(tmp_path / "arrays" / f"{name}.npy", array)
    found = datasets.load_for(settings(tmp_path, folder="arrays", limit=20), None)
    assert isinstance(found.train.images, Rows) and isinstance(found.train.images.array, np.memmap)
    order = np.random.default_rng(0).permutation(30)[:18]
    np.testing.assert_array_equal(
        found.train.images[np.array([3, 0])], GOOD["x_train"][order[[3, 0]]].astype("float32")
    )
    monkeypatch.setattr(own, "memory_of_machine", lambda: None)
    assert found.digest() == loaded(tmp_path, GOOD, limit=20).digest()


@pytest.fixture
def album(tmp_path):
    """Two classes, of pictures of two sizes."""
    for split, count in (("train", 3), ("test", 1)):
        for name, value in (("cat", 10), ("dog", 200)):
            place = tmp_path / "album" / split / name
            place.mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (6 + 2 * (i % 2), 4), (value, i, 0)).save(place / f"{i}.png")
    return tmp_path / "album"


def test_pictures_in_folders(album, tmp_path):
    found = datasets.load_for(settings(tmp_path, folder="album", image_size=[5, 7], validation=0), None)
    assert found.classes == ("cat", "dog") and found.form == Form((5, 7, 3), "uint8", ("cat", "dog"), ())
    for image, label in zip(found.train.images, found.train.labels, strict=True):
        assert (image[..., 0] == (10, 200)[label]).all()
    grey = datasets.load_for(settings(tmp_path, folder="album", color_mode="grayscale", validation=0), None)
    assert grey.form.shape == (256, 256, 1)
    for path in album.rglob("1.png"):
        path.unlink()
    assert datasets.load_for(settings(tmp_path, folder="album", validation=0), None).form.shape == (4, 6, 3)


@pytest.mark.parametrize("kind", ["uint8", "uint16", "int32", "float32"])
def test_grey_is_as_bright_however_many_bits_it_has(kind, tmp_path):
    """Numbers of 32 bits have no white."""
    grey, path = np.array([[0, 3], [128, 255]]), tmp_path / "grey.tiff"
    Image.fromarray((grey * 256 if kind == "uint16" else grey).astype(kind)).save(path)
    if "32" in kind:
        with pytest.raises(DataError, match=f"{path}: .* have no known white; save it with 8 or 16 bits"):
            pictures.read(path, (2, 2), "L")
        return
    for suffix, mode in ((".tiff", "L"), (".png", "RGB"), (".pgm", "RGBA")):
        Image.open(path).save(path.with_suffix(suffix))
        np.testing.assert_array_equal(pictures.read(path.with_suffix(suffix), (2, 2), mode)[..., 0], grey)


@pytest.mark.parametrize(
    "break_it, words",
    [
        (lambda album: (album / "train/cat/0.png").write_bytes(b"none"), "train/cat/0.png: can't be read as a picture"),
        (lambda album: (album / "train/cow").mkdir(), "train/cow: holds no picture"),
        (lambda album: (album / "test").rename(album / "tests"), "has no folder test/"),
        (
            lambda album: (album / "test/cat").rename(album / "test/cow"),
            "y_test has the class 'cow', which isn't among cat, dog",
        ),
        (lambda album: [p.write_bytes(p.read_bytes()[:45]) for p in album.rglob("2.png")], "2.png: can't be read"),
    ],
)
def test_bad_pictures_are_named(break_it, words, album, tmp_path):
    break_it(album)
    with pytest.raises(DataError) as caught:
        datasets.load_for(settings(tmp_path, folder="album", validation=0), None)
    assert words in str(caught.value)


@pytest.mark.parametrize("how", ["none", "feature", "channel", "per_image", None])
def test_standardization_is_fitted_on_training_samples_and_written_down(how, tmp_path):
    found = loaded(tmp_path, GOOD | {"x_train": GOOD["x_train"] * [1e-4, 1, 5, 0] + 3}, validation=0)
    x = np.asarray(found.train.images, "float64")
    made = Pipeline.of(found, how, False, "channels_last")
    again = Pipeline.read(made.written(), "channels_last", Form.read(made.written(), ()))
    deviation = np.where(x.std(axis=0) > 0, x.std(axis=0), 1)
    alone = (x - x.mean(axis=1, keepdims=True)) / np.maximum(x.std(axis=1, keepdims=True), 0.5)
    expected = {"none": x, "per_image": alone}.get(how, (x - x.mean(axis=0)) / deviation)
    for pipeline in (made, again):
        values = np.asarray(pipeline.inputs(found.train.images).tolist())
        np.testing.assert_allclose(values, expected, rtol=2e-3, atol=2e-3)


def test_numbers_of_words_stay_integers(tmp_path):
    words = {name: np.arange(len(GOOD[name]) * 2).reshape(-1, 2) for name in ("x_train", "x_test")}
    found = loaded(tmp_path, GOOD | words)
    made = Pipeline.of(found, None, False, "channels_last")
    assert made.how == "none" and "int32" in str(made.inputs(found.train.images[:2]).dtype)


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("a.csv", "a,b\n1,2\n3,4\n", [[1, 2], [3, 4]]),
        ("a.csv", "1,2\n3,x\n", "line 2: expected 2 numbers"),
        ("a.csv", "1,2,3\n", "expected (n, 2)"),
        ("a.csv", "0,1\n3,4\n", "line 1 names columns, or is a sample"),
        ("a.csv", "1,2\n3,1e39\n", "row 1 holds a value that is NaN, infinite, or too large for float32"),
        ("a.csv", "a,b\n", "has no row of numbers"),
        ("a.npy", "no array", "can't be read as an array"),
        ("a.png", "", "no pictures"),
    ],
)
def test_samples_to_predict(name, content, words, tmp_path):
    path = tmp_path / name
    path.write_text(content)
    if isinstance(words, list):
        np.testing.assert_array_equal(pictures.read_samples(path, Form((2,), "float32")), words)
        return
    with pytest.raises(UserError) as caught:
        pictures.read_samples(path, Form((2,), "float32"))
    assert words in str(caught.value)


@pytest.fixture
def base(tmp_path):
    settings = config.load(OWN / "diabetes.json", ["training.epochs=1", "dataset.limit=64", "model.width=4"])
    content = settings.resolved(tmp_path) | {"$schema": None}
    (tmp_path / "base.json").write_text(json.dumps(content))
    return tmp_path / "base.json"


def test_a_sweep_of_a_regression_and_its_report(base, tmp_path):
    axes = {"activation": ["relu", "method1"], "seed": [0]}
    described = {"base": "base.json", "outputs": ["sound"], "axes": axes}
    (tmp_path / "sweep.json").write_text(json.dumps(described))
    out = tmp_path / "out"
    assert sweep.main([str(tmp_path / "sweep.json"), "--out", str(out)]) == 0
    assert report.main([str(out)]) == 0
    text = (out / "report" / "report.md").read_text()
    assert "R²" in text and "accuracy" not in text and "The report's measure" not in text
    with (out / "report" / "sound-mlp.csv").open() as file:
        row = next(row for row in csv.DictReader(file) if row["activation"] == "relu")
    value = read_json(out / "runs" / "base--relu--seed-0" / "metrics.json")["test_rmse"]
    assert row["root mean square error"] == f"{value:.4f}"
    assert all(str(tmp_path) not in path.read_text() for path in out.rglob("*.json"))


def test_a_search_of_a_regression(base, tmp_path, capsys):
    from tuner import report as search_report
    from tuner import search

    described = {"base": "base.json", "epochs": 1, "trials": 2, "confirm": 1, "objective": "val_rmse"}
    described |= {"space": [{"path": "activation.name", "choice": ["relu", "arelu"]}], "tuner": {"name": "grid"}}
    path = tmp_path / "search.json"
    path.write_text(json.dumps(described | {"objective": "val_accuracy"}))
    assert search.main([str(path), "--out", str(tmp_path / "none")]) == 2
    assert "val_accuracy isn't measured on this data; there are val_r2" in capsys.readouterr().err
    path.write_text(json.dumps(described))
    out = tmp_path / "searched"
    assert search.main([str(path), "--out", str(out)]) == 0
    values = [read_json(out / "trials" / f"{i:04d}.json")["value"] for i in range(2)]
    best = read_json(out / "trials" / f"{int(np.argmin(values)):04d}" / "config.json")["activation"]["name"]
    assert read_json(out / "best.json")["activation"]["name"] == best
    assert config.load(out / "best.json").model.build == f"{OWN / 'diabetes.py'}:mlp"
    assert search_report.main([str(out)]) == 0
