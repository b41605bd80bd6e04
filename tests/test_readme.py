"""The README shows what really runs."""

import re
from pathlib import Path

import keras
import numpy as np

import keras_adaptact as ka
from docs import generate

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


def test_it_is_short():
    assert len(README.splitlines()) <= 120


def test_its_numbers_are_those_measured():
    assert f"takes {generate.in_networks('method1').removesuffix(' times')} times as long" in README
    report = (ROOT / "results" / "cpu" / "report" / "report.md").read_text(encoding="utf-8")
    for name in ("method1", "arelu"):
        row = re.search(rf"^\| {name} minus relu \| (\S+) \| (\[.+?\]) \|.*\| beyond chance above \|$", report, re.M)
        assert row and f"{row[1]} {row[2]}" in README


def test_every_layer_has_a_row():
    types = {name: value for name, value in vars(ka).items() if isinstance(value, type)}
    layers = {name for name, value in types.items() if issubclass(value, keras.layers.Layer)} - {"TrainableActivation"}
    rows = generate.rows()
    assert {layer for layer, *_ in rows} == layers
    assert {name for _, name, *_ in rows} <= set(ka.names())


def test_ci_calls_the_test_command():
    command = (ROOT / ".ci" / "run").read_text().splitlines()[-1]
    assert f"\n{command}\n" in README and command.endswith("nox")


def test_the_places_in_the_map_exist():
    page = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    places = [part for row in re.findall(r"^\| (`.*?`) \|", page, re.MULTILINE) for part in re.findall(r"`(.+?)`", row)]
    assert len(places) > 40
    folder = ""
    for place in places:  # one without a folder lies in that of the one before
        folder = place.rpartition("/")[0] if "/" in place.rstrip("/") else folder
        assert (ROOT / place).exists() or (ROOT / folder / place).exists(), place
