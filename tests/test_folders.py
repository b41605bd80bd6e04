"""Folders of runs and sweeps: what is removed, replaced or locked there, and damaged files that are read back."""

import json
import os
import pickle
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from old import OLD

from tuner.searches.folder import SearchFolder
from zoo import config, files, folders, sweep, train
from zoo.data import cifar10, pictures
from zoo.data.splits import Form
from zoo.errors import ConfigError, DataError, UserError
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


SHAPES = [
    "null",
    "[]",
    "{}",
    "3",
    '"x"',
    "[" * 100_000,
    "",
    "{",
    '{"status": 1}',
    '{"status": "finished", "x": NaN}',
    "\xff",
]
NAMES = ("metrics.json", "environment.json", "preprocessing.json", "sweep.json")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("content", SHAPES, ids=lambda content: content[:12])
def test_json_of_the_wrong_shape_is_one_line(name, content, tmp_path):
    path = tmp_path / name
    path.write_text(content, encoding="latin1")
    if (name, content) == ("environment.json", "{}"):
        return  # who reads it says what is missing
    if name == "environment.json" and content.startswith('{"status'):
        return
    with pytest.raises(UserError) as caught:
        files.read_json(path)
    assert str(caught.value).startswith(f"{path}: ") and len(str(caught.value)) < 400


def test_a_link_to_itself_is_one_line(tmp_path, capsys):
    (tmp_path / "loop.npz").symlink_to("loop.npz")
    described = tmp_path / "mine.json"
    described.write_text(json.dumps({"model": {"build": "nets.py:mlp"}, "dataset": {"file": "loop.npz"}}))
    assert train.main([str(described), "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert "loop.npz" in said and said.count("\n") == 1


@pytest.mark.parametrize("content, compressed", [(b"no array", zipfile.ZIP_STORED), (None, zipfile.ZIP_LZMA)])
def test_members_that_are_no_arrays_are_one_line(content, compressed, tmp_path):
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w", compressed) as file:
        file.writestr("x.npy", content or bytes(range(256)) * 9)
    if not content:
        whole = path.read_bytes()
        path.write_bytes(whole[:60] + bytes(20) + whole[80:])
    with pytest.raises(UserError, match=f"{path}: can't be read as predictions: "):
        files.read_predictions(path)
    with pytest.raises(UserError, match=f"{path}: can't be read as an array: "):
        pictures.read_samples(path, Form((2,), "float32"))


def test_damaged_arrays_are_one_line(tmp_path):
    path = tmp_path / "predictions.npz"
    files.write_predictions(path, {"test": np.arange(1000)})
    path.write_bytes(path.read_bytes()[:60] + bytes(20) + path.read_bytes()[80:])
    with pytest.raises(UserError, match=f"{path}: can't be read as predictions: "):
        files.read_predictions(path)
    path = tmp_path / "x.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00\x01\x00{")
    with pytest.raises(UserError, match=f"{path}: can't be read as an array: "):
        pictures.read_samples(path, Form((2,), "float32"))


@pytest.mark.parametrize(
    "field, value",
    [("channel_deviation", [0.0, 1, 1]), ("channel_mean", [None, 1, 1]), ("channel_mean", []), ("standardize", "x")],
)
def test_statistics_that_standardize_nothing(field, value, tmp_path):
    path = tmp_path / "preprocessing.json"
    path.write_text(json.dumps(json.loads((OLD / "finished" / path.name).read_text()) | {field: value}))
    with pytest.raises(UserError, match=rf"not what zoo\.train writes: {field}"):
        files.read_json(path)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "\n",
        "loss\n1\n",
        "epoch,loss\n1\n",
        "epoch,loss\n1,x\n",
        "epoch,loss\n2,1\n",
        "epoch\n1\n1\n",
        "\0",
        '"' * 200_000,
    ],
    ids=range(9),
)
def test_invalid_histories(content, tmp_path):
    path = tmp_path / "history.csv"
    path.write_text(content)
    with pytest.raises(UserError) as caught:
        files.read_history(path)
    assert str(caught.value).startswith(f"{path}: ") and len(str(caught.value)) < 400


@pytest.mark.parametrize("name", ["environment.json", "sweep.json", "search.json"])
def test_a_later_version_is_named(name, tmp_path):
    path = tmp_path / name
    path.write_text('{"schema": 7}')
    with pytest.raises(UserError, match="written by a later version"):
        SearchFolder(tmp_path).open() if name == "search.json" else files.read_json(path)


@pytest.mark.parametrize(
    "override",
    [
        "training.epochs=9223372036854775808",
        f"training.batch_size={10**30}",
        f"metrics.report_batch={10**30}",
        'activation={"name":"method1","weights":[0,0,0]}',
        'activation={"name":"arelu","a_initializer":true}',
        "training.seeds.\u0660=3",
        ".".join(["a"] * 5000) + "=1",
        'model={"name":"resnet50","width":1000000}',
        'model={"name":"densenet","growth":100000}',
    ],
)
def test_absurd_values_are_refused(override, tmp_path):
    path = tmp_path / "base.json"
    path.write_text('{"training": {"seeds": [0]}}')
    with pytest.raises(ConfigError) as caught:
        config.load(path, [override])
    assert len(str(caught.value)) < 1000


def test_a_pickle_that_nests_is_refused_before_it_is_built(tmp_path):
    path = tmp_path / "data_batch_1"
    path.write_bytes(b"\x80\x02)" + b"\x85" * 2_000_000 + b".")
    with pytest.raises(DataError, match="more parts than a file of CIFAR-10"):
        cifar10._read_pickle(path)
    path.write_bytes(pickle.dumps({"labels": [1], "data": 3}, 2))
    with pytest.raises(DataError, match="pickles the keys"):
        cifar10._read_pickle(path)


RECORDS = {
    "null": b"null",
    "empty": b"{}",
    "epoch": b'{"epoch": 1, "step": 0, "seconds": 0.0, "recorded": '
    b'{"history": [], "timing": [], "mixing": [], "parameters": []}}',
}


@pytest.mark.parametrize("kind", [*RECORDS, "flip", "method", "encrypted", "shape", "pickled"])
def test_a_damaged_checkpoint_is_one_line(kind, tmp_path):
    """Made of one that version 0.1.0 wrote, which holds no checksum."""
    import numpy as np

    from zoo.training import checkpoint

    source, path = OLD / "cut-jax" / "checkpoint.npz", tmp_path / "checkpoint.npz"
    with np.load(source) as file:
        arrays = {name: file[name] for name in file.files}
    if kind in RECORDS:
        arrays["record"] = np.frombuffer(RECORDS[kind], "uint8")
        np.savez(path, **arrays)
    elif kind == "pickled":
        np.savez(path, **arrays | {"00000": np.array([{}], dtype=object)})
    else:
        content = bytearray(source.read_bytes())
        central = content.rfind(b"PK\x01\x02")
        offset = {
            "flip": 200,
            "method": central + 10,
            "encrypted": central + 8,
            "shape": content.find(b"'shape': (") + 10,
        }[kind]
        content[offset] ^= 1 if kind != "method" else 77
        path.write_bytes(content)
    with pytest.raises((ValueError, KeyError, NotImplementedError, RuntimeError, OSError, zipfile.BadZipFile)):
        found = checkpoint._arrays(path, 1e8)
        checkpoint._check(json.loads(found.pop("record").tobytes()), found)
