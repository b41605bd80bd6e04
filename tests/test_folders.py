"""What is removed, replaced or locked in folders of runs and sweeps; independent of the backend."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from zoo import files, folders, sweep
from zoo.errors import UserError
from zoo.sweeps.folder import FOLDERS

ROOT = Path(__file__).parents[1]
DATASET = {"name": "digits", "limit": 64, "test_limit": 20}


@pytest.fixture
def described(tmp_path):
    content = {"dataset": DATASET, "training": {"epochs": 1, "batch_size": 32}, "metrics": {"report_batch": 10}}
    (tmp_path / "base.json").write_text(json.dumps(content))
    path = tmp_path / "tiny.json"
    path.write_text(json.dumps({"base": "base.json", "axes": {"activation": ["relu"]}}))
    return path


@pytest.fixture
def victim(tmp_path):
    folder = tmp_path / "victim"
    folder.mkdir()
    for name in ("mine.txt", "config.json", ".7.config.json"):
        (folder / name).write_text(f"dear {name}")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def hold(out: Path, kind: str, victim: Path) -> Path:
    """Files of the user in the folder of a sweep."""
    runs = out / "runs"
    if kind in ("runs", "logs", "configs"):
        (out / kind).symlink_to(victim)
        return out
    runs.mkdir()
    if kind == "file in a run":
        (runs / "base--relu").mkdir()
        (runs / "base--relu" / "mine.txt").write_text("dear")
    elif kind == "link for a run":
        (runs / "base--relu").symlink_to(victim)
    elif kind == "link in a run":
        (runs / "base--relu").mkdir()
        (runs / "base--relu" / "config.json").symlink_to(victim / "mine.txt")
    elif kind == "folder in a run":
        (runs / "base--relu" / "config.json").mkdir(parents=True)
    elif kind == "link for a lock":
        (runs / ".base--relu.lock").symlink_to(victim / "mine.txt")
    return out


KINDS = ("file in a run", "link for a run", "link in a run", "folder in a run", "link for a lock", *FOLDERS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_sweep_removes_no_files_of_the_user(kind, described, victim, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "sweep.json").write_text('{"runs": []}')
    hold(out, kind, victim)
    before = contents(tmp_path)
    assert sweep.main([str(described), "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1
    after = contents(tmp_path)
    assert {name: after[name] for name in before if "sweep.json" not in name} == {
        name: content for name, content in before.items() if "sweep.json" not in name
    }


@pytest.mark.parametrize("name", ["mine.txt", "sweep.json", "logs/mine.txt"])
def test_a_sweep_needs_a_folder_of_its_own(name, described, tmp_path, capsys):
    path = tmp_path / "out" / name
    path.parent.mkdir(parents=True)
    path.write_text('{"base": "mine"}')
    assert sweep.main([str(described), "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert contents(tmp_path / "out") == {name: b'{"base": "mine"}'}


def test_temporary_files_are_removed_and_nothing_else(tmp_path, victim):
    run = tmp_path / "run"
    run.mkdir()
    for name in (".12.metrics.json", ".12.mine", "12.metrics.json", "metrics.json"):
        (run / name).write_text("x")
    (run / ".13.metrics.json").symlink_to(victim / "mine.txt")
    folders.remove_unfinished(run)
    assert {path.name for path in run.iterdir()} == {".12.mine", "12.metrics.json", "metrics.json", ".13.metrics.json"}
    (run / "metrics.json").unlink()
    with pytest.raises(UserError, match="not a file of a run"):
        folders.clear_unbegun(run)
    assert len(list(run.iterdir())) == 3 and (victim / "mine.txt").exists()


def test_one_process_at_a_time_holds_a_run(tmp_path):
    code = "import sys; from pathlib import Path; from zoo import folders\n"
    code += "with folders.locked(Path(sys.argv[1])): print(1, flush=True); input()"
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline() == b"1\n"
        with (
            pytest.raises(UserError, match=rf"trained by process {process.pid} on .* since {time.strftime('%Y')}-"),
            folders.locked(tmp_path),
        ):
            pass
        process.kill()
    assert (tmp_path / folders.LOCK).exists()
    with folders.locked(tmp_path):  # that of the dead process is taken over
        assert json.loads((tmp_path / folders.LOCK).read_text())["process"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["a pipe", "a folder", "mine"])
def test_invalid_locks(kind, tmp_path):
    path = tmp_path / folders.LOCK
    {"a pipe": lambda: os.mkfifo(path), "a folder": path.mkdir, "mine": lambda: path.write_text("dear")}[kind]()
    with pytest.raises(UserError), folders.locked(tmp_path):
        pass
    assert path.exists() and path.is_file() == (kind == "mine")


def test_a_read_only_file_system_is_reported(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(UserError, match=r"x\.json: can't be written: Read-only file system"):
        files.write_whole(tmp_path / "x.json", refuse)
