"""The folder that a model hub takes: Keras opens it, and the card says what the run measured."""

import shutil

import keras
import numpy as np
import pytest
from old import OLD

from zoo import card, files

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


@pytest.mark.parametrize("damage", ["no weights", "cut", "status", "taken"])
def test_what_can_not_be_uploaded_is_one_line(damage, tmp_path, capsys):
    run = shutil.copytree(RUN, tmp_path / "run")
    if damage == "no weights":
        (run / "model.keras").unlink()
    elif damage == "cut":
        (run / "model.keras").write_bytes((run / "model.keras").read_bytes()[:-1000])
    elif damage == "status":
        files.write_json(run / "metrics.json", files.read_json(run / "metrics.json") | {"status": "diverged"})
    else:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "mine.txt").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    assert card.main([str(run), str(tmp_path / "out")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1 and sorted(tmp_path.rglob("*")) == before
