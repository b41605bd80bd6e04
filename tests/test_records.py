"""Files read back from the folders of runs, damaged in many ways; independent of the backend."""

import json
import pickle
import zipfile

import pytest
from old import OLD

from tuner.searches.folder import Folder
from zoo import config, files
from zoo.data import cifar10
from zoo.errors import ConfigError, DataError, UserError

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
        Folder(tmp_path).open() if name == "search.json" else files.read_json(path)


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
