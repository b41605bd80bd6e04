"""Committed results: their reports are made of them, and what the judge says of those of version 0.1.0."""

import csv
import gzip
import json
import lzma
import math
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from old import OLD
from scipy import stats
from test_layout import ROOT

from docs import evidence, generate
from tuner import report as search_report
from zoo import files, pack, report
from zoo.errors import UserError
from zoo.reports import groups, judge, sound


@pytest.fixture(scope="module")
def cpu(tmp_path_factory):
    """Its folder, the verdicts on each network by their comparisons, and the report."""
    folder = shutil.copytree(OLD / "results" / "cpu", tmp_path_factory.mktemp("results") / "cpu")
    assert report.main([str(folder)]) == 0
    results = groups.Results(folder)
    found = judge.judge(sound.sections(results))
    verdicts = {title: {v.comparison[:2]: v for v in each} for title, each in found.items()}
    return folder, verdicts, (folder / "report" / "report.md").read_text()


def test_the_page_of_results_is_made_of_what_is_tracked(monkeypatch):
    monkeypatch.chdir(ROOT)
    page, pictures = evidence.page()
    assert page == (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    assert {path.name for path in generate.PICTURES.glob("results-*")} == pictures.keys()
    for name, picture in pictures.items():
        (text, drawn), (expected, tracked) = map(shape, (picture, (generate.PICTURES / name).read_text()))
        assert text == expected
        np.testing.assert_allclose(drawn, tracked, atol=0.2)  # another processor rounds another way


def test_the_summary_for_programs_says_the_same(monkeypatch):
    monkeypatch.chdir(ROOT)
    tracked = json.loads((ROOT / "results" / "summary.json").read_text(encoding="utf-8"))
    assert tracked == evidence.summary()
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    for network in tracked["networks"].values():
        for name, found in network["activations"].items():
            said = rf"^\| {name} \| {found['seeds']}\b.* \| {100 * found['mean']:.2f}\b"
            assert re.search(said, page, re.MULTILINE)


def shape(drawing):
    """A drawing without its numbers and the IDs made of them; and its numbers."""
    text = re.sub(r"\b[mp][0-9a-f]{10}\b", "", drawing)
    number = r"-?\d+(?:\.\d+)?"
    return re.sub(number, "", text), np.array([float(found) for found in re.findall(number, text)])


def test_pictures_say_each_style_once():
    for path in generate.PICTURES.glob("*.svg"):
        text = path.read_text(encoding="utf-8")
        for part in text.split("<svg ")[1:]:
            sheet, _, drawing = part.partition("</style>")
            styles = re.findall(r' style="[^"]*"', drawing)
            assert len(styles) == len(set(styles))
            assert set(re.findall(r'class="(\w+)"', drawing)) == set(re.findall(r"^\.(\w+)\{", sheet, re.MULTILINE))


def accuracies(folder, name):
    runs = groups.Results(folder).groups("sound")[0].runs[name]
    return [run.metric("test_accuracy") for run in runs]


def test_alexnet_is_void(cpu):
    _, verdicts, text = cpu
    assert {v.status for v in verdicts["alexnet"].values()} == {"void"}
    said = (
        "alexnet is void: 2 seeds of relu, too few for 18 planned comparisons; 6 would do; relu's cross-entropy on test"
    )
    assert text.split("\n\n")[1].startswith(f"Summary. {said}") and text.split("### alexnet\n\n")[1].startswith(said)


def test_lenets_atanh_is_not_significant(cpu):
    """0.1.0 said p = 0.049, from a family that AlexNet's diverged arms had left."""
    folder, verdicts, _ = cpu
    found = verdicts["lenet"]
    atanh = found["atanh", "relu"]
    exact = stats.permutation_test(
        (accuracies(folder, "atanh"), accuracies(folder, "relu")),
        lambda x, y, axis: np.mean(x, axis=axis) - np.mean(y, axis=axis),
        n_resamples=np.inf,
    )
    assert (atanh.status, atanh.found.p) == ("open", pytest.approx(exact.pvalue, abs=1e-9)) and atanh.p > 0.1
    assert found["method1", "relu"].p == pytest.approx(18 * 2 / math.comb(12, 6))
    better = {pair for pair, verdict in found.items() if verdict.status == "above"}
    assert better == {("arelu", "relu"), ("method1", "relu"), ("method2", "relu"), ("asigmoid", "sigmoid")}
    twin = found["atanh", "tanh"]
    assert twin.status == "open" and 100 * twin.found.mean == pytest.approx(0.10, abs=0.005)


def test_what_older_runs_did_not_record_is_reported(cpu):
    folder, _, text = cpu
    assert "so whether their code differs isn't checked" in text
    assert "record their loss with its penalty alone" in text
    assert "lenet: 9,000 train, 1,000 validation, by its config" in text
    with (folder / "report" / "sound-lenet.csv").open() as file:
        assert {row["epochs to the baseline's loss"] for row in csv.DictReader(file)} == {""}


def test_mixing_is_confounded(tmp_path):
    folder = shutil.copytree(OLD / "results" / "mixing", tmp_path / "mixing")
    assert search_report.main([str(folder)]) == 0
    text = (folder / "report" / "report.md").read_text()
    assert "Summary. mixing: of 3 planned comparisons 3 no verdict: confounded." in text
    assert "unequal effort: 8 trials for searched and 13 for learned, median rate 0.00597 and 0.0651" in text
    assert "judged on the validation images used to choose (500 images, a standard error of 2.2 points)" in text
    assert "their best trials differ in method, granularity as well" in text


FILES = ("config.json", "metrics.json", "history.csv", "timing.csv", "mixing_weights.csv", "parameters.csv")


@pytest.fixture
def sweep(tmp_path):
    shutil.copytree(OLD / "sweep", tmp_path / "sweep")
    for i, run in enumerate((tmp_path / "sweep" / "runs").glob("[!.]*")):
        found = {"test": (np.arange(10) + i) % 4, "test_labels": np.arange(10) % 3, "validation": np.arange(5 + i)}
        files.write_predictions(run / "predictions.npz", found)
    return tmp_path / "sweep"


def packed(folder, out):
    assert pack.main([str(folder), str(out)]) == 0
    return out


def test_each_file_comes_out_as_it_went_in(sweep, tmp_path):
    out = packed(sweep, tmp_path / "packed")
    assert len(list(out.iterdir())) == 2 and not any(path.is_dir() for path in out.iterdir())
    again = pack.unpack(out, tmp_path / "again")
    for run in (sweep / "runs").glob("[!.]*"):
        there = again / "runs" / run.name
        for name in FILES:
            assert (there / name).read_bytes() == (run / name).read_bytes(), (run.name, name)
        with np.load(run / "predictions.npz") as old, np.load(there / "predictions.npz") as new:
            assert all(np.array_equal(old[name], new[name]) for name in old.files) and old.files == new.files
        assert (
            files.read_json(run / "environment.json")["versions"]
            == (files.read_json(there / "environment.json")["versions"])
        )


def test_the_same_folder_is_packed_to_the_same_bytes(sweep, tmp_path):
    once, again = packed(sweep, tmp_path / "once"), packed(sweep, tmp_path / "again")
    assert {path.suffix for path in once.iterdir()} == {".xz", ".npz"}
    assert all(path.read_bytes() == (again / path.name).read_bytes() for path in once.glob("*.xz"))


def test_folders_of_the_first_format_open(tmp_path):
    """One table for all runs, uncompressed; runs with fewer columns, or no row, had a line of their own."""
    old = tmp_path / "old"
    old.mkdir()
    (old / "sweep.json").write_text("{}")
    lines = (
        {"file": "runs/a/config.json", "content": {"x": 1}},
        {"file": "runs/b/history.csv", "columns": ["epoch"]},
        {"file": "runs/c/history.csv", "columns": ["epoch", "loss"]},
    )
    (old / "runs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (old / "history.csv").write_text("run,epoch,loss\nruns/a,1,0.5\nruns/a,2,0.25\nruns/b,1,\n")
    new = pack.unpack(old, tmp_path / "new")
    assert json.loads((new / "runs/a/config.json").read_text()) == {"x": 1} and (new / "sweep.json").exists()
    tables = {run: (new / "runs" / run / "history.csv").read_text() for run in "abc"}
    assert tables == {"a": "epoch,loss\n1,0.5\n2,0.25\n", "b": "epoch\n1\n", "c": "epoch,loss\n"}


def test_a_folder_of_the_first_format_without_a_column_is_refused(tmp_path):
    line = {"file": "runs/a/history.csv", "columns": ["epoch", "loss"]}
    (tmp_path / "runs.jsonl").write_text(json.dumps(line) + "\n")
    (tmp_path / "history.csv").write_text("run,epoch\nruns/a,1\n")
    with pytest.raises(UserError, match=r"history\.csv: runs/a has a column 'loss', and the table none"):
        pack.unpack(tmp_path, tmp_path / "new")


def test_folders_with_rows_open(tmp_path):
    """Those of the second format, compressed by gzip."""
    line = {"file": "runs/a/history.csv", "columns": ["epoch", "loss"], "rows": [["1", "0.5"], ["2", "0.25"]]}
    (tmp_path / "runs.jsonl.gz").write_bytes(gzip.compress(json.dumps(line).encode()))
    new = pack.unpack(tmp_path, tmp_path / "new")
    assert (new / "runs/a/history.csv").read_text() == "epoch,loss\n1,0.5\n2,0.25\n"


CELLS = (
    (["1.9883276224136353", "", "nan", "inf"], ["1.9883276", "", "nan", "inf"]),
    (["1.9883276224136353", "0.3"], None),  # 0.3 is none of single precision
    (["1e+300", "0.5"], None),
    (["convolution", "0.5"], None),
    (["0.5", "2.0"], None),  # as short already
    (["-0.10000000149011612", "1.0000000200408773e+20"], ["-0.1", "1e+20"]),
)


@pytest.mark.parametrize("cells, short", CELLS)
def test_numbers_of_single_precision_are_packed_with_its_digits(cells, short):
    entry = pack._by_column(["x"], [[cell] for cell in cells])
    assert entry == {"columns": {"x": short or cells}, "float32": ["x"] if short else []}
    assert pack._rows(entry) == [(cell,) for cell in cells]


@pytest.mark.parametrize("name, reporter", [("sweep", report), ("search", search_report)])
def test_reports_are_the_same(name, reporter, tmp_path, monkeypatch):
    shutil.copytree(OLD / name, tmp_path / "whole" / name)
    packed(OLD / name, tmp_path / "packed" / name)
    texts = []
    for kind in ("whole", "packed"):
        monkeypatch.chdir(tmp_path / kind)
        assert reporter.main([name]) == 0
        lines = (tmp_path / kind / name / "report" / "report.md").read_text().splitlines()
        texts.append([line for line in lines if not line.startswith(("Made by", "| data "))])  # they name folders
    assert texts[0] == texts[1] and len(texts[0]) > 20


def test_paths_of_the_machine_are_cut():
    content = {
        "command": "python -m zoo.train /a b/c.json --out=/x/y/ '/q/r' w/z 3/4",
        "data_dir": "/data",
        "n": [1, "/u/v"],
    }
    expected = {"command": "python -m zoo.train a b/c.json --out=y 'r' w/z 3/4", "data_dir": None, "n": [1, "v"]}
    assert pack._without_paths(content) == expected


def test_the_repository_is_small():
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    paths = [ROOT / name for name in names.split("\0") if name and (ROOT / name).exists()]
    assert len(paths) < 350
    assert sum(path.stat().st_size for path in paths) < 4_000_000


def test_no_tracked_file_names_a_home_or_a_temporary_folder():
    command = ["git", "grep", "-lIE", r"/(home|root|Users)/\w|/tmp/\w", "--", "results", "benchmarks/results", "docs"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 1, found.stdout + found.stderr  # 1: none


DAMAGES = (
    '{"file": "../out.json", "content": 1}',
    "[]",
    "{",
    '{"file": "runs/a/config.json"}',
    '{"file": "a.csv", "columns": [], "rows": 1}',
    '{"file": "a.csv", "columns": {"a": ["1"], "b": []}, "float32": []}',
    '{"file": "a.csv", "columns": {"a": ["b"]}, "float32": ["a"]}',
    '{"file": "predictions.npz", "runs": 1}',
    '{"file": "predictions.npz", "runs": {"test": ["a"]}}',
)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_one_line(damage, sweep, tmp_path, capsys):
    out = packed(sweep, tmp_path / "packed")
    with lzma.open(out / "runs.jsonl.xz", "at") as file:
        file.write(damage + "\n")
    capsys.readouterr()
    assert report.main([str(out)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize("name", ["new/er", "empty", "link", "."])
def test_a_failed_unpack_leaves_nothing_and_another_fills_the_folder(name, sweep, tmp_path, monkeypatch, capsys):
    whole, broken = packed(sweep, tmp_path / "packed"), tmp_path / "broken"
    shutil.copytree(whole, broken)
    with lzma.open(broken / "runs.jsonl.xz", "at") as file:
        file.write("[]\n")
    (tmp_path / "place" / "empty").mkdir(parents=True)
    (tmp_path / "place" / "link").symlink_to("empty")
    monkeypatch.chdir(tmp_path / "place" / ("empty" if name == "." else ""))
    before = sorted(tmp_path.rglob("*"))
    assert pack.main([str(broken), name, "--unpack"]) == 2
    assert "broken" in capsys.readouterr().err and sorted(tmp_path.rglob("*")) == before
    assert pack.main([str(whole), name, "--unpack"]) == 0
    assert (Path(name) / "sweep.json").read_bytes() == (sweep / "sweep.json").read_bytes()


def test_a_truncated_file_is_one_line(sweep, tmp_path, capsys):
    out = packed(sweep, tmp_path / "packed")
    path = out / "runs.jsonl.xz"
    path.write_bytes(path.read_bytes()[:-20])
    capsys.readouterr()
    assert report.main([str(out)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{path}: can't be read" in line


def test_what_holds_no_results_is_refused(tmp_path, capsys):
    assert pack.main([str(tmp_path), str(tmp_path / "out")]) == 2
    assert "with sweep.json or search.json" in capsys.readouterr().err
    assert pack.main([str(ROOT / "results" / "report"), str(tmp_path / "out")]) == 2
    assert "packed already" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
