"""The guides show what really runs, and the gallery is what its script writes."""

import csv
import gzip
import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import keras
import numpy as np
import pytest
from test_layout import ROOT

import keras_adaptact as ka
from benchmarks import stability_report
from docs import generate
from zoo import files
from zoo.comparisons import costs
from zoo.training.progress import Cost

PAGES = sorted((ROOT / "docs").glob("*.md"))
GUIDES = [page for page in PAGES if "```python" in page.read_text(encoding="utf-8")]


@pytest.mark.usefixtures("_registry")
@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_a_guide_runs(page, tmp_path, monkeypatch, in_process):
    """Its blocks, in order, as one program in an empty folder."""
    monkeypatch.chdir(tmp_path)
    if page.stem == "compare":  # a process for each run takes longer
        monkeypatch.setattr(costs, "measure", lambda *given: dict.fromkeys(given[2].activations, Cost(1, 1)))
    text = page.read_text(encoding="utf-8")
    found: dict = {"__name__": page.stem}
    for block in re.finditer(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        before = "\n" * (text.count("\n", 0, block.start()) + 1)  # an error names the line of the page
        exec(compile(before + block[1], page, "exec"), found)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_every_public_name_has_an_entry_in_the_reference():
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    found = re.findall(r"^::: keras_adaptact\.(\w+)$", page, re.MULTILINE)
    public = re.findall(r"^from .* import \w+ as (\w+)$", Path(ka.__file__).read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(found) == sorted(public)
    assert {name for name in dir(ka) if not name.startswith("_")} == set(public)


def test_every_page_is_in_the_navigation():
    listed = re.findall(r": ([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    pages = [str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")]
    assert sorted(listed) == sorted(pages)


def test_the_gallery_is_up_to_date():
    assert (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8") == generate.text()


def test_the_page_of_fields_is_up_to_date():
    page = (ROOT / "docs" / "fields.md").read_text(encoding="utf-8")
    assert page == generate.fields_page()
    for row in (
        "| `growth` | `densenet` | integer ≥ 1, ≤ 256 | `24` | filters that a bottleneck adds |",
        "| `seeds` | list of integers ≥ 0 | needed | one run of each label with each |",
    ):
        assert page.count(f"\n{row}\n") == 1


def test_the_gallery_shows_every_layer():
    layers = {n for n, v in vars(ka).items() if isinstance(v, type) and issubclass(v, keras.layers.Layer)}
    shown = re.findall(r"^## (\w+)$", generate.text(), re.MULTILINE)
    assert set(shown) == layers - {"TrainableActivation"}
    picture = ElementTree.parse(generate.PICTURES / "gallery.svg")
    assert [title.text for title in picture.findall("{*}text")] == shown
    assert len(picture.findall("{*}svg/{*}g")) == len(shown)


def test_costs_are_those_measured():
    """One cell followed by hand, and what has no measurement says so."""
    page = generate.text()
    measured = generate.table("every activation", "torch")["rows"]
    in_float32 = [row for row in measured if row["dtype"] == "float32" and row["granularity"] == "layer"]
    (ratio,) = [row["times_relu"] for row in in_float32 if row["activation"] == "method1"]
    section = page.split("## Method1\n")[1].split("## ")[0]
    assert f"torch {ratio:.2f} times" in section
    assert page.split("## Mixture\n")[1].split("## ")[0].count("not measured") == 3
    assert (ROOT / "docs" / "costs.md").read_text(encoding="utf-8").count(generate.costs()) == 1
    largest = max(row["times_relu"] for row in in_float32)
    over = len([row for row in measured if row["times_relu"] > row["goal"]])
    assert re.search(rf"^\| torch \|.*\| {over} of {len(measured)} \|$", generate.costs(), re.MULTILINE)
    assert re.search(rf"^\| torch \| [\d.]+, {largest:.2f} \|", generate.costs(), re.MULTILINE)


def test_limits_are_those_measured():
    """One of them counted by hand, and the sentence on accuracies."""
    cells = stability_report.grid.Cells(generate.STABILITY)
    page = (ROOT / "docs" / "training-well.md").read_text(encoding="utf-8")
    assert page.count(generate.stability(cells)) == 1
    start = {"backend": "tensorflow", "data": "digits", "network": "lenet", "optimizer": "momentum"}
    worst: dict[tuple, float] = {}
    with gzip.open(generate.STABILITY, "rt", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if all(row[name] == value for name, value in start.items()) and row["seed"] in "012":
                key = row["activation"], row["granularity"], row["training"], int(row["step"])
                worst[key] = min(float(row["accuracy"]), worst.get(key, 1.0))
    relu, leaky, limited = (
        max(step for *names, step in worst if names == [*key] and worst[(*key, step)] >= 0.5)
        for key in (("relu", "", ""), ("leaky_relu", "", ""), ("method1", "layer", "limited"))
    )
    (row,) = [row for row in stability_report.table(cells) if "lenet, digits, momentum | method1 |" in row]
    assert row.endswith(f"| >={limited - min(relu, leaky):+d} |") and limited > min(relu, leaky)
    bare, limited = np.mean(stability_report.at_best_rates(cells), axis=0)
    assert f"pairs is {bare:.4f} without and {limited:.4f} with it" in " ".join(page.split())


def test_pictures_can_be_drawn():
    for _, name, *_ in generate.rows():
        curve, slope = generate.picture(name).axes
        assert len(curve.get_lines()) == len(slope.get_lines()) == 5  # three of them curves, two the axes


def test_exports_are_those_measured():
    """The guide's table is what its script writes, and one cell is followed by hand."""
    assert (ROOT / "docs" / "ship-it.md").read_text(encoding="utf-8").count(generate.exports()) == 1
    rows = json.loads(files.read_text(ROOT / "benchmarks/results/checks.json.xz"))["export"]["torch"]["rows"]
    off = [float(row["result"]) for row in rows if row["format"] == "openvino"]  # fails where one failed
    assert f"| all, {max(off):.1e} |" in generate.exports().splitlines()[4]


def test_recipes_train_as_measured():
    """No run diverged, and where a loss rose the page says so."""
    page = (ROOT / "docs" / "zoo.md").read_text(encoding="utf-8")
    assert page.count(generate.recipes()) == 1
    rows = json.loads(files.read_text(ROOT / "benchmarks/results/checks.json.xz"))["recipes"]["rows"]
    assert len(rows) == 5 * 2 * 8 and {row["status"] for row in rows} == {"finished"}
    rose = {(r["network"], r["recipe"], r["activation"]) for r in rows if r["last_loss"] > max(r["first_loss"], 2.303)}
    assert rose == {("resnet50", "modern", name) for name in ("relu", "tanh")}
