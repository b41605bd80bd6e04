"""A finished run: evaluated, used to classify pictures, and made a folder for a model hub."""

import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from old import OLD
from PIL import Image

from zoo import card, config, evaluate, files, predict
from zoo.data import datasets
from zoo.train import run

QUICK = str(Path(__file__).parents[1] / "configs/quickstart.json")


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "mine"
    run(config.load(QUICK, ["dataset.limit=300", "dataset.test_limit=60", "training.epochs=4"]), out)
    return out


@pytest.mark.parametrize("split", ["test", "validation"])
def test_evaluating_a_run_gives_its_metrics(finished, split, capsys):
    assert evaluate.main([str(finished), "--split", split]) == 0
    metrics = json.loads((finished / "metrics.json").read_text())
    found = json.loads((finished / f"evaluation-{split}.json").read_text())
    assert len(found) == 5
    for name, value in found.items():
        assert value == pytest.approx(metrics[name], rel=1e-4)
    with Image.open(finished / f"confusion-{split}.png") as picture:
        assert picture.size == (1125, 975) and len(picture.convert("L").getcolors()) > 20
    assert f"{split}_accuracy: {found[f'{split}_accuracy']:.4f}" in capsys.readouterr().out


def test_pictures_are_named_as_in_the_evaluation(finished, tmp_path, capsys):
    test = datasets.load("digits", limit=300, test_limit=60).test
    paths = [tmp_path / f"{i}.png" for i in range(60)]
    for image, path in zip(test.images, paths, strict=True):
        Image.fromarray(image).save(path)
    found = predict.predict(finished, paths)
    named = np.array([int(next(iter(each))) for each in found])
    accuracy = json.loads((finished / "metrics.json").read_text())["test_accuracy"]
    assert (named == test.labels).mean() == pytest.approx(accuracy)
    assert all(sum(each.values()) == pytest.approx(1) for each in found)

    Image.fromarray(test.images[0]).resize((90, 64)).convert("L").save(tmp_path / "wide.jpg")
    assert predict.main([str(finished), str(paths[0]), str(tmp_path / "wide.jpg"), "--top", "1"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"{paths[0]}: {next(iter(found[0]))} {next(iter(found[0].values())):.3f}"
    assert second.startswith(f"{tmp_path / 'wide.jpg'}: ")


def test_mistakes_are_one_line(finished, tmp_path, capsys):
    (tmp_path / "text.png").write_text("no picture")
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in finished.iterdir():
        (broken / path.name).write_bytes(path.read_bytes()[:3000])
    for name in ("config.json", "environment.json"):
        (broken / name).write_bytes((finished / name).read_bytes())
    for command, arguments, words in [
        (evaluate, [str(tmp_path)], "environment.json: no such file"),
        (evaluate, [str(broken)], "its weights don't fit the network"),
        (predict, [str(finished), str(tmp_path / "text.png")], "can't be read as a picture"),
        (predict, [str(finished), str(tmp_path / "none.png")], "no such file"),
        (predict, [str(finished), str(tmp_path / "text.png"), "--top", "0"], "--top 0"),
    ]:
        assert command.main(arguments) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ") and words in line


RUN = OLD / "finished"


@pytest.fixture
def uploaded(tmp_path):
    assert card.main([str(RUN), str(tmp_path / "mine")]) == 0
    return tmp_path / "mine"


def test_keras_opens_the_folder(uploaded):
    x = np.random.default_rng(0).normal(size=(4, 32, 32, 3)).astype("float32")
    of_folder, of_file = (keras.saving.load_model(path) for path in (uploaded, RUN / "model.keras"))
    if of_file.input_shape[1] == 3:
        x = x.transpose(0, 3, 1, 2)
    outputs = [keras.ops.convert_to_numpy(model(x, training=False)) for model in (of_folder, of_file)]
    np.testing.assert_array_equal(*outputs)


def test_the_card_says_what_was_measured(uploaded):
    text = (uploaded / "README.md").read_text()
    assert text.startswith("---\nlibrary_name: keras\nlicense: apache-2.0\n")
    assert "# densenet with method1" in text and "accuracy 12.00%" in text and "cross-entropy 2.386" in text
    assert "756 parameters" in text and "4 epochs" in text and 'load_model("mine")' in text
    assert files.read_json(uploaded / "run.json") == files.read_json(RUN / "config.json")


@pytest.mark.parametrize("damage", ["no weights", "cut", "status", "model", "taken"])
def test_what_can_not_be_uploaded_is_one_line(damage, tmp_path, capsys):
    run = shutil.copytree(RUN, tmp_path / "run")
    if damage == "no weights":
        (run / "model.keras").unlink()
    elif damage == "cut":
        (run / "model.keras").write_bytes((run / "model.keras").read_bytes()[:-1000])
    elif damage == "status":
        files.write_json(run / "metrics.json", files.read_json(run / "metrics.json") | {"status": "diverged"})
    elif damage == "model":
        files.write_json(run / "config.json", files.read_json(run / "config.json") | {"model": []})
    else:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "mine.txt").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    assert card.main([str(run), str(tmp_path / "out")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1 and sorted(tmp_path.rglob("*")) == before
