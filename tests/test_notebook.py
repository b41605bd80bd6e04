"""A comparison called with a function and arrays: the file that they become, its answer, and what is refused."""

import json
import math
import sys
from collections import OrderedDict
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from zoo import compare as command
from zoo import files, owncode
from zoo.comparisons import costs, inputs
from zoo.errors import UserError
from zoo.training.progress import Cost

WIDTH, RATE = 6, 0.05


class Scale(layers.Layer):
    def call(self, x):
        return x / math.sqrt(WIDTH)


def hidden(x, activation, name):
    return activation(name)(layers.Dense(WIDTH)(x))


def data():
    random = np.random.default_rng(0)
    x = random.normal(size=(90, 3))
    y = np.where(x[:, 0] > 0, "up", "down")
    return {"x_train": x[:60], "y_train": y[:60], "x_test": x[60:], "y_test": y[60:]}


SETTINGS = {"training": {"epochs": 2, "batch_size": 12}, "dataset": {"validation": np.float64(0.2)}}
ASKED = {"activations": ["relu", "tanh"], "rates": [RATE], "seeds": 2, "settings": SETTINGS}


@pytest.fixture(autouse=True)
def _nothing_imported(monkeypatch):
    monkeypatch.setattr(owncode, "_IMPORTED", {})
    monkeypatch.setattr(owncode, "_DIGESTS", {})
    monkeypatch.setattr("sys.path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in {"network", "some_nets"} & (sys.modules.keys() - before):
        del sys.modules[name]


@pytest.fixture
def build():
    outputs, x = 2, np.zeros(3)  # one is used, the other is the name of a local variable

    def network(activation, depth=1):
        inputs = keras.Input((3,))
        x = Scale()(inputs)
        for i in range(depth):
            x = hidden(x, activation, f"hidden{i}")
        return keras.Model(inputs, layers.Dense(outputs)(x))

    assert len(x) == 3
    return network


def test_the_answer_is_that_of_the_function_and_the_arrays(build, tmp_path, monkeypatch, capsys, in_process):
    """Tried by processes of their own; scores are those of the saved models on the arrays by hand."""
    monkeypatch.chdir(tmp_path)
    given = data()
    answer = command.compare(build, given, out=Path("out"), **ASKED)
    assert answer and answer.sentence in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"network.py", "data.npz", "compare.json"}
    for name, found in answer.content()["activations"].items():
        assert list(found["scores"]) == ["3", "4"]
        for seed, score in found["scores"].items():
            folder = tmp_path / "out" / "seeds" / "runs" / f"base--seed-{seed}--{name}--learning_rate-{RATE}"
            known = files.read_json(folder / "preprocessing.json")
            x = (given["x_test"] - known["channel_mean"]) / known["channel_deviation"]
            logits = keras.models.load_model(folder / "model.keras", {"Scale": Scale}).predict(
                x.astype("float32"), verbose=0
            )
            assert score == np.mean(np.array(known["classes"])[logits.argmax(1)] == given["y_test"])
    again = command.compare(build, given, out="out", **ASKED)
    assert again and again.content() == answer.content()
    given["x_train"] = given["x_train"] + 1
    with pytest.raises(UserError, match=r"data.npz: this comparison was begun with another one"):
        command.compare(build, given, out="out", **ASKED)
    with pytest.raises(
        UserError, match=r'config.s model: build "network.py:network", and not with build "[^ ]*:other"'
    ):
        command.compare(other, data(), out="out", **ASKED)
    with pytest.raises(UserError, match=r"network.py: this comparison was begun with another one"):
        command.compare(unlike(), data(), out="out", **ASKED)


def test_what_a_function_uses_comes_along(build):
    text = inputs.text_of(build)
    assert "np." not in text and "array" not in text  # of the `x` that is no local variable
    space: dict = {"__name__": "written"}
    exec(compile(text, "written.py", "exec"), space)
    assert {"Scale", "hidden", "WIDTH", "outputs", "network"} <= space.keys()
    model = space["network"](lambda name: layers.Activation("relu", name=name), depth=2)
    mine = build(lambda name: layers.Activation("relu", name=name), depth=2)
    model.set_weights(mine.get_weights())
    x = np.random.default_rng(1).normal(size=(4, 3)).astype("float32")
    np.testing.assert_array_equal(model.predict(x, verbose=0), mine.predict(x, verbose=0))


TABLE = OrderedDict(a=1)


def other(activation):
    return keras.Model()


def uses_a_table(activation):
    return TABLE


def nested():
    def network(activation):
        return TABLE

    return network


def unlike():
    def network(activation):
        return None

    return network


def test_a_function_that_can_be_imported_stays_where_it_is():
    assert inputs.code_of(other) == f"{Path(__file__).resolve()}:other"
    assert inputs.code_of(nested()) is None


@pytest.mark.parametrize(
    "given, changes, message",
    [
        (nested(), {}, "network: network uses TABLE, a OrderedDict; write it into a file, and give "),
        (lambda activation: None, {}, "network: expected a function made by def; found <function <lambda>"),
        (len, {}, "network: expected a function made by def"),
        (3, {}, "network: data goes with a function, or where it is"),
        ({}, {}, "network: data goes with a function"),
        (
            other,
            {"data": ["relu"]},
            "data: expected a dict of arrays, or a config's dataset; found a list; activations",
        ),
        (other, {"data": None}, "data: other needs some: a dict with x_train, y_train, x_test, y_test"),
        (other, {"x_test": None}, "data: has no x_test"),
        (other, {"x_val": np.zeros(3)}, "data: unknown 'x_val'; expected x_train"),
        (other, {"x_test": np.full((30, 3), np.nan)}, "data: x_test: sample 0 holds a value that is NaN"),
        (other, {"y_test": ["up"] * 29}, "data: x_test has 30 samples, and y_test 29 targets"),
        (other, {"y_train": np.array([None] * 60)}, "data: y_train: an array of Python objects"),
        (other, {"settings": {"training": {"epoch": 1}}}, "other.json: training: unknown field 'epoch'"),
        (other, {"settings": {"training": {"epochs": len}}}, "settings.training.epochs: expected what JSON holds"),
        ("gone.json", {"data": None, "settings": {"training": {}}}, "settings: belong to a function and its data"),
    ],
)
def test_bad_calls_are_one_line_and_write_nothing(given, changes, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arrays = {name: value for name, value in (data() | changes).items() if value is not None}
    asked = ASKED | {key: changes[key] for key in ("settings",) if key in changes}
    arrays = changes["data"] if "data" in changes else {key: arrays[key] for key in arrays if key != "settings"}
    with pytest.raises(UserError) as error:
        command.compare(given, arrays, **asked)
    assert message in str(error.value) and "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_what_a_function_raises_is_said_without_the_folder_that_is_gone(tmp_path, monkeypatch, capsys):
    def network(activation):
        raise ZeroDivisionError("by me")

    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^relu: network.py:network: raised ZeroDivisionError: by me$"):
        command.compare(network, data(), **ASKED)
    assert list(tmp_path.iterdir()) == []


NETS = """
from keras import Input, Model, layers


def two(activation):
    inputs = Input((3,))
    return Model(inputs, layers.Dense(2)(activation("a")(inputs)))
"""


def test_a_dataset_of_a_config_stands_in_place_of_arrays(tmp_path, monkeypatch, in_process):
    """Its paths start from the working directory, and it isn't copied."""
    monkeypatch.chdir(tmp_path)
    np.savez("mine.npz", **data())
    monkeypatch.setattr(costs, "measure", lambda *_: {"relu": Cost(1, 1), "tanh": Cost(1, 1)})
    (tmp_path / "some_nets.py").write_text(NETS)
    answer = command.compare("some_nets.py:two", {"file": Path("mine.npz")}, out="out", **ASKED)
    assert answer and json.loads((tmp_path / "out" / "base.json").read_text())["dataset"]["file"] == "../mine.npz"
    assert not (tmp_path / "out" / "data.npz").exists()
