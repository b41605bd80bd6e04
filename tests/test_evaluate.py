"""A finished run: evaluated, and used to classify pictures."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zoo import config, evaluate, predict
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
