"""Imports go down only and in no circle, the table of places names what exists, and the README shows what runs."""

import ast
import collections
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_adaptact as ka
from docs import generate

ROOT = Path(__file__).parents[1]
PACKAGES = ("tuner", "zoo", "keras_adaptact")  # the highest first
FLOORS = {  # of a package, the highest first; "commands" are the modules that `python -m` starts, "tools" the others
    "tuner": ("commands", "reports", "workers", "trials", "searches", "tools"),
    "zoo": ("commands", "comparisons", "reports", "sweeps", "runs", "training", "models", "data", "config", "tools"),
}
README = (ROOT / "README.md").read_text()


def modules(root: Path) -> dict[str, Path]:
    """The modules of the packages by their dotted names."""
    found = {}
    for package in PACKAGES:
        for path in (root / package).rglob("*.py"):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(name: str, known: dict[str, Path]) -> Iterator[str]:
    """What a module imports of these, wherever in its code, also for the type checker alone."""
    path = known[name]
    package = name.split(".") if path.stem == "__init__" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        if isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            module = ".".join([*above, *filter(None, [node.module])])
            names = [f"{module}.{alias.name}" for alias in node.names]
            yield from (each if each in known else module for each in names if each in known or module in known)


def floor(name: str, path: Path) -> int:
    """How high a module stands in its package; 0 is the top."""
    package, *rest = name.split(".")
    if package not in FLOORS:
        return 0
    floors = FLOORS[package]
    if rest and rest[0] in floors:
        return floors.index(rest[0])
    is_command = len(rest) == 1 and '__name__ == "__main__"' in path.read_text(encoding="utf-8")
    return floors.index("commands" if is_command else "tools")


def faults(root: Path) -> list[str]:
    """Imports that go up, and a circle where there is one."""
    known = modules(root)
    graph = {name: set(imported(name, known)) - {name} for name in known}
    height = {name: (PACKAGES.index(name.split(".")[0]), floor(name, path)) for name, path in known.items()}
    found = [f"{a} imports {b}" for a, each in graph.items() for b in sorted(each) if height[b] < height[a]]
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found.append(" imports ".join(reversed(error.args[1])))
    return found


def test_imports_go_down_only_and_in_no_circle():
    assert faults(ROOT) == []


@pytest.mark.parametrize(
    "files, fault",
    [
        ({"zoo/models/a.py": "def f():\n    from zoo.training import b"}, "zoo.models.a imports zoo.training.b"),
        ({"zoo/a.py": "from zoo import config"}, "zoo.a imports zoo.config"),
        ({"keras_adaptact/a.py": "import zoo.a"}, "keras_adaptact.a imports zoo.a"),
        ({"zoo/data/a.py": "from .b import f", "zoo/data/b.py": "from zoo.data import a"}, "zoo.data.a imports zoo"),
        ({"tuner/searches/a.py": "if T:\n    from tuner.a import f"}, "tuner.searches.a imports tuner.a"),
    ],
    ids=["a room above", "a tool that knows a room", "a package above", "a circle", "for types"],
)
def test_a_fault_is_found(files, fault, tmp_path):
    there = {
        "zoo/a.py": "",
        "zoo/config/__init__.py": "",
        "zoo/training/b.py": "",
        "tuner/a.py": 'if __name__ == "__main__": 1',
    }
    for name, code in (there | files).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(code)
    (found,) = faults(tmp_path)
    assert found.startswith(fault)


def test_the_table_of_places_names_the_folders_that_exist():
    rows = re.findall(r"^\| (`[^|]+) \|", (ROOT / "docs" / "design.md").read_text(encoding="utf-8"), re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`([^`]+/)`", row)}
    files = [path for package in PACKAGES for path in (ROOT / package).glob("*/**/*.py")]
    files += (ROOT / "configs").glob("**/*.json")
    assert {f"{path.parent.relative_to(ROOT).as_posix()}/" for path in files} - named == set()
    for row in rows:
        folder = ""
        for name in re.findall(r"`([^`]+)`", row):
            folder = name.rpartition("/")[0] or folder  # "`zoo/a.py`, `b.py`"
            assert (ROOT / folder / name.rpartition("/")[2]).exists(), name


def test_a_class_of_the_experiment_has_a_name_of_its_own():
    """In `zoo` and `tuner`: engines alone are called alike, as one of them is loaded."""
    found = collections.Counter(
        node.name
        for package in ("zoo", "tuner")
        for path in (ROOT / package).rglob("*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef)
    )
    assert {name for name, count in found.items() if count > 1} == {"Engine"}


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
    said = README.replace("\n", " ")
    assert f"takes {generate.in_networks('method1').removesuffix(' times')} times as long" in said
    results = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    shown = {"lenet": ("method1", "method2", "arelu", "pelu", "swish"), "alexnet": ("method1", "method2", "arelu")}
    for network, names in shown.items():
        section = results.split(f"{{ #{network} }}")[1]
        for name in names:
            verdict = rf"^\| {name} minus relu(?: \(primary\))? \| (\S+) \| (\[.+?\]) \|.*\| beyond chance above \|$"
            row = re.search(verdict, section, re.MULTILINE)
            assert row and f"{row[1]} {row[2]}" in said
    sound = results.split("By the sound measure")[1]
    for name, title in (("relu", "ReLU"), ("method1", "method 1"), ("arelu", "AReLU")):
        row = re.search(rf"^\| {name} \| (\S+) \|$", sound, re.M)
        assert row and f"{row[1]} with {title}" in said


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
