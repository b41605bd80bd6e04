"""Files of the user beside, inside and behind links of an output folder survive whatever a command does.

A command either does its work around them, or refuses in one line with status 2.
"""

import json
import os
import random
import shutil
from functools import partial
from pathlib import Path

import keras
import pytest
from old import OLD

import tuner.report
import tuner.search
from benchmarks import robustness
from tuner.searches import journal
from tuner.searches.folder import SearchFolder
from zoo import config, evaluate, files, manifest, predict, report, sweep, train
from zoo.errors import UserError
from zoo.reports import document
from zoo.sweeps.folder import SweepFolder

QUICK = str(Path(__file__).parents[1] / "configs" / "quickstart.json")
TINY = ["dataset.limit=64", "dataset.test_limit=20", "training.epochs=1", "training.batch_size=32"]
TINY += ["metrics.report_batch=10"]
BACKEND = keras.config.backend()


class Home:
    """A home folder with canaries; `plant` adds more."""

    def __init__(self, path: Path):
        self.path, self.victim = path, path / "victim"
        self.victim.mkdir(parents=True)
        self.links: dict[Path, str] = {}
        self.files: dict[Path, bytes] = {}
        self.file(path / "mine.txt")
        self.file(self.victim / "mine.txt")

    def file(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.files[path] = f"dear {path.name}".encode()
        path.write_bytes(self.files[path])

    def link(self, path: Path, to: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(to)
        self.links[path] = str(to)

    def plant(self, path: Path, kind: str) -> None:
        if kind == "inside":
            self.file(path)
        else:
            self.file(self.victim / path.name)
            self.link(path, self.victim / path.name)

    def check(self) -> None:
        for path, content in self.files.items():
            assert path.read_bytes() == content, path
        for path, to in self.links.items():
            assert path.is_symlink() and str(path.readlink()) == to, path
        known = {path for path in self.files if path.is_relative_to(self.victim)}
        assert {path for path in self.victim.rglob("*") if path.is_file()} == known


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Canaries beside an output folder `out`, and unlike any name in it."""
    found = Home(tmp_path / "home")
    monkeypatch.chdir(found.path)
    yield found
    found.check()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "mine"
    train.run(config.load(QUICK, TINY), out)
    return out


def refused(status: int, capsys) -> None:
    said = capsys.readouterr().err
    assert status == 2 and said.startswith("error: ") and said.count("\n") == 1, said


KINDS = ("inside", "behind a link")


@pytest.mark.parametrize("kind", [*KINDS, "the folder is a link", "unlike"])
@pytest.mark.parametrize("options", [[], ["--out", "out"]], ids=["by default", "--out"])
def test_reports(kind, options, home, capsys, monkeypatch):
    blocks = [document.Table("table1", "a", ["a"], [["1"]]), document.Paragraph("b")]
    monkeypatch.setattr(report, "blocks", lambda *_: blocks)
    monkeypatch.setattr(tuner.report, "blocks", lambda *_: blocks)
    for name, command in {"sweep": report.main, "search": tuner.report.main}.items():
        source = Path(shutil.copytree(OLD / name, home.path / name))
        out = home.path / "out" if options else source / "report"
        if kind == "the folder is a link":
            home.victim.mkdir(exist_ok=True)
            if not options:
                home.link(out, home.victim)
                refused(command([name, *options]), capsys)
            continue
        if kind == "unlike":
            home.file(out / "table2.csv")
            home.file(out / "mine" / "report.md")
            assert command([name, *options]) == command([name, *options]) == 0
            home.file(out / "report.md")  # its user edits it
            refused(command([name, *options]), capsys) if not capsys.readouterr().err else None
            shutil.rmtree(out)
            home.files = {path: content for path, content in home.files.items() if path.is_relative_to(home.victim)}
            continue
        for file in ("table1.csv", "report.md", "report.html", manifest.MANIFEST):
            home.plant(out / file, kind)
            refused(command([name, *options]), capsys)
            assert {path.name for path in out.iterdir()} <= {file, manifest.MANIFEST}
            home.check()
            (out / file).unlink()
            home.files.pop(out / file, None)
            home.links.pop(out / file, None)
            shutil.rmtree(out)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["evaluation-test.json", "confusion-test.png", manifest.MANIFEST])
def test_evaluations(name, kind, home, finished, capsys):
    run = Path(shutil.copytree(finished, home.path / "out"))
    home.file(run / "evaluation.txt")
    home.plant(run / name, kind)
    refused(evaluate.main(["out"]), capsys)
    assert evaluate.main(["out", "--split", "validation"]) == (2 if name == manifest.MANIFEST else 0)
    assert predict.main(["out", "mine.txt"]) == 2


def test_a_run(home, capsys):
    out = home.path / "out"
    for path in (out / "mine.txt", out / "seed-0" / "mine.txt"):
        home.file(path)
        refused(train.main([QUICK, "--set", *TINY, "--out", "out"]), capsys)
        path.unlink()
        del home.files[path]
        shutil.rmtree(out)
    home.link(home.path / "linked", home.victim)
    refused(train.main([QUICK, "--set", *TINY, "--out", "linked"]), capsys)
    home.file(out / ".lock")
    refused(train.main([QUICK, "--set", *TINY, "--out", "out"]), capsys)


@pytest.mark.parametrize("name", ["history.csv", "checkpoint.npz", "model.keras", "metrics.json", "tensorboard"])
def test_a_resumed_run(name, home, capsys):
    out = Path(shutil.copytree(OLD / f"cut-{BACKEND}", home.path / "out"))
    home.file(out / "mine.txt")
    (out / name).unlink(missing_ok=True)
    home.link(out / name, home.victim if name == "tensorboard" else home.victim / "nothing")
    if name == "tensorboard":
        home.file(home.victim / "events.out.tfevents.1.mine")
        settings = json.loads((out / "config.json").read_text())
        settings["metrics"]["tensorboard"] = True
        (out / "config.json").write_text(json.dumps(settings))
    refused(train.main(["--resume", "out"]), capsys)


def test_seeds(home, capsys):
    out = home.path / "out"
    settings = config.load(QUICK, [*TINY, "training.seeds=[0,1]"])
    with pytest.raises(KeyboardInterrupt):
        train.run(settings, out, is_enough=interrupt)
    shutil.rmtree(out / "seed-1", ignore_errors=True)
    home.file(out / "seed-1" / "history.csv")
    refused(train.main(["--resume", "out"]), capsys)
    shutil.rmtree(out / "seed-1")
    del home.files[out / "seed-1" / "history.csv"]
    home.link(out / "seed-1", home.victim)
    refused(train.main(["--resume", "out"]), capsys)


def interrupt(row):
    raise KeyboardInterrupt


@pytest.fixture
def described(home):
    (home.path / "base.json").write_text(json.dumps({"dataset": {"name": "digits", "limit": 64}}))
    path = home.path / "tiny.json"
    path.write_text(json.dumps({"base": "base.json", "axes": {"activation": ["relu"]}}))
    return path


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "name",
    ["sweep.json", "configs/base--relu.json", "logs/base--relu.txt", "logs/base--relu.failed.json"]
    + [f"{folder}/{manifest.MANIFEST}" for folder in (".", "configs", "logs")],
)
@pytest.mark.parametrize("options", [[], ["--limit", "1"], ["--time-budget", "9m"]], ids=["", "limit", "budget"])
def test_sweeps(name, kind, options, home, described, capsys, monkeypatch):
    monkeypatch.setattr("zoo.process.subprocess.Popen", lambda *_, **__: pytest.fail("a run was started"))
    out = home.path / "out"
    if name != "sweep.json":
        SweepFolder(out, [], None).prepare({}, [])
        (out / name).unlink(missing_ok=True)
    home.plant(out / name, kind)
    refused(sweep.main([str(described), "--out", "out", *options]), capsys)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "name", ["search.json", "base.json", "best.json", "ended.json", "journal.jsonl", "tuner0.log", ".lock", "trials"]
)
def test_searches(name, kind, home, capsys, monkeypatch):
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: pytest.fail("a worker was started"))
    monkeypatch.setenv("KERAS_BACKEND", BACKEND)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # so that no nvidia-smi is started, either
    for file in ("tiny.json", "tiny-search.json"):
        shutil.copy(OLD / file, home.path)
    out = Path(shutil.copytree(OLD / "search", home.path / "out"))
    content = json.loads((out / "search.json").read_text()) | {"backend": BACKEND}
    (out / "search.json").write_text(json.dumps(content))
    for part in ("", "trials"):
        manifest.adopt(out / part)
    files.write_json(out / "search.json", {"schema": 1} | content)
    if name == "trials":
        shutil.rmtree(out / name)
    else:
        (out / name).unlink(missing_ok=True)
        lines = (out / manifest.MANIFEST).read_text().splitlines()
        kept = [line for line in lines if f'"{name}"' not in line]
        (out / manifest.MANIFEST).write_text("\n".join(kept) + "\n")
    home.plant(out / name, kind)
    asked = json.loads((OLD / "tiny-search.json").read_text()) | {"trials": 4}
    (home.path / "tiny-search.json").write_text(json.dumps(asked))
    refused(tuner.search.main(["tiny-search.json", "--out", "out", "--resume"]), capsys)


@pytest.mark.parametrize("kind", KINDS)
def test_files_of_trials(kind, home):
    """Outcomes, deaths, weights and runs that are handed on."""
    folder = SearchFolder(home.path / "out")
    for part in ("trials", "confirm"):
        (folder.path / part).mkdir(parents=True)
    for name, write in {
        "trials/0001.json": lambda: folder.write_outcome("0001", folder.ended("0001")),
        "trials/0002/history.csv": lambda: folder.promote("0002", "0000"),
        "trials/0003/mine.txt": lambda: folder.promote("0003", "0000"),
        "trials/0004/config.json": lambda: folder.clear(folder.run("0004")) if kind != "inside" else refuse(),
        "tuner0.json": lambda: folder.at_work("tuner0", None),
        "best.json": lambda: manifest.remove(folder.best),
    }.items():
        if name == "trials/0002/history.csv" and kind == "inside":
            continue  # by name it is a run's own
        shutil.copytree(OLD / "finished", folder.path / "trials" / "0000", dirs_exist_ok=True)
        home.plant(folder.path / name, kind)
        with pytest.raises(UserError):
            write()
        home.check()
    assert journal.exists(folder.journal) is False


def refuse():
    raise UserError("a run's own by name")


@pytest.mark.parametrize("length", [0, 10, len(manifest.FIRST)])
def test_a_manifest_cut_in_its_first_line_is_begun_again(length, tmp_path):
    (tmp_path / manifest.MANIFEST).write_text(manifest.FIRST[:length])
    (tmp_path / "a.txt").write_text("a user's")
    with pytest.raises(UserError, match=r"a\.txt: not written by this software"):
        manifest.claim(tmp_path / "a.txt")
    manifest.claim(tmp_path / "b.txt")
    (tmp_path / "b.txt").touch()
    assert [each.name for each in manifest.own(tmp_path)] == ["b.txt"]
    assert (tmp_path / manifest.MANIFEST).read_text().startswith(manifest.FIRST + "\n")


def test_a_manifest_is_whole_or_cut(tmp_path):
    path = tmp_path / "a.txt"
    manifest.claim(path)
    path.write_text("x")
    with (tmp_path / manifest.MANIFEST).open("a") as file:
        file.write('["b.t')  # a machine that crashed
    manifest.claim(tmp_path / "c.txt")
    assert [each.name for each in manifest.own(tmp_path)] == ["a.txt"]
    (tmp_path / "b.txt").write_text("mine")
    with pytest.raises(UserError, match="not written by this software"):
        manifest.claim(tmp_path / "b.txt")
    os.link(path, tmp_path / "d.txt")
    with pytest.raises(UserError):
        manifest.remove(tmp_path / "d.txt")


ATTACKS = {
    "configs": (robustness.configs, 300),
    "commands": (robustness.commands, 6),
    "damages": (partial(robustness.folders, alone=True), 10),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_generated_input_is_answered_or_refused(name):
    attack, count = ATTACKS[name]
    found = attack(count, random.Random(1))
    assert not [kind for kind in found if kind.startswith("failed")], found
    assert len(found) >= 2 or name == "commands"
