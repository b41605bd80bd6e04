"""A packed results folder holds what reports need of it, and reports are the same."""

import shutil
import subprocess

import numpy as np
import pytest
from old import OLD
from test_readme import ROOT

from tuner import report as search_report
from zoo import files, pack, report

FILES = ("config.json", "metrics.json", "history.csv", "timing.csv", "mixing_weights.csv", "parameters.csv")


@pytest.fixture
def sweep(tmp_path):
    shutil.copytree(OLD / "sweep", tmp_path / "sweep")
    for run in (tmp_path / "sweep" / "runs").glob("[!.]*"):
        files.write_predictions(run / "predictions.npz", {"test": np.arange(10), "test_labels": np.arange(10) % 3})
    return tmp_path / "sweep"


def packed(folder, out):
    assert pack.main([str(folder), str(out)]) == 0
    return out


def test_each_file_comes_out_as_it_went_in(sweep, tmp_path):
    out = packed(sweep, tmp_path / "packed")
    assert len(list(out.iterdir())) == 7 and not any(path.is_dir() for path in out.iterdir())
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


def test_no_tracked_file_names_a_home_or_a_temporary_folder():
    command = ["git", "grep", "-lIE", r"/(home|root|Users)/\w|/tmp/\w", "--", "results", "benchmarks/results", "docs"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 1, found.stdout + found.stderr  # 1: none


@pytest.mark.parametrize(
    "damage", ['{"file": "../out.json", "content": 1}', "[]", "{", '{"file": "runs/a/config.json"}']
)
def test_a_damaged_file_is_one_line(damage, sweep, tmp_path, capsys):
    out = packed(sweep, tmp_path / "packed")
    with (out / "runs.jsonl").open("a") as file:
        file.write(damage + "\n")
    capsys.readouterr()
    assert report.main([str(out)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "out.json").exists()


def test_what_holds_no_results_is_refused(tmp_path, capsys):
    assert pack.main([str(tmp_path), str(tmp_path / "out")]) == 2
    assert "with sweep.json or search.json" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
