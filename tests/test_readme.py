"""The README shows what really runs."""

import re
from pathlib import Path

import keras
import numpy as np

import keras_adaptact as ka

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_examples_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, *others = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    found: dict = {}
    exec(first, found)
    model = found["model"]
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(np.ones((4, 32, 32, 3)), np.arange(4), verbose=0)
    for example in others:
        exec(example, found)


def test_every_layer_has_a_row():
    rows = re.findall(r"^\| `(\w+)\(.*?\)` \| `(\w+)` \|", README, re.MULTILINE)
    types = {name: value for name, value in vars(ka).items() if isinstance(value, type)}
    layers = {name for name, value in types.items() if issubclass(value, keras.layers.Layer)} - {"TrainableActivation"}
    assert {layer for layer, _ in rows} == layers
    assert {name for _, name in rows} <= set(ka.names())


def test_ci_calls_the_test_command():
    command = (ROOT / ".ci" / "run").read_text().splitlines()[-1]
    assert f"\n{command}\n" in README and command.endswith("nox")


def test_the_paths_in_the_map_exist():
    paths = re.findall(r"`((?:keras_adaptact|zoo|tuner|tests|configs)/[\w./]*)`", README)
    assert paths and all((ROOT / path).exists() for path in paths if not path.endswith("/") or (ROOT / path).is_dir())
