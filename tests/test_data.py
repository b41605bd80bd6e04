"""zoo.data: the two data sets, their fixed splits, the damaged files they refuse, standardization."""

import os
import pickle
import shutil
import struct
import subprocess
import sys
import tracemalloc
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from urllib.error import URLError

import numpy as np
import pytest

from zoo.data import cifar10, datasets, pipeline
from zoo.errors import DataError

ROOT = Path(__file__).parents[1]
RECORDS = 20  # images a file in these tests; the published files hold 10,000
STEMS = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]


@pytest.fixture(scope="module")
def cifar():
    """Made-up images and labels: 5 files of training records, then the test file's."""
    rng = np.random.default_rng(7)
    images = rng.integers(0, 256, (6 * RECORDS, 32, 32, 3), np.uint8)
    return images, rng.integers(0, 10, 6 * RECORDS).tolist()


@pytest.fixture
def small_files(monkeypatch):
    monkeypatch.setattr(cifar10, "RECORDS", RECORDS)


def planes(image):
    """An image's bytes in a CIFAR-10 file, one value at a time: channel by channel, row by row."""
    return bytes(int(image[row, col, ch]) for ch in range(3) for row in range(32) for col in range(32))


def python2_pickle(raw, labels, shape=None, dtype=b"u1"):
    """The published pickles' opcodes (protocol 2, written by Python 2), less their memo and file names."""
    rows, columns = shape or (len(labels), 3072)
    head = b"\x80\x02}(U\x0bbatch_labelU\x15training batch 1 of 5U\x06labels]("
    values = b"".join(b"K" + bytes([label]) for label in labels)
    array = b"eU\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01"
    size = b"M" + struct.pack("<H", rows) + b"M" + struct.pack("<H", columns) + b"\x86"
    kind = b"cnumpy\ndtype\nU\x02" + dtype + b"K\x00K\x01\x87R(K\x03U\x01|NNN" + b"J\xff\xff\xff\xff" * 2 + b"K\x00tb"
    return head + values + array + size + kind + b"\x89T" + struct.pack("<i", len(raw)) + raw + b"tbu."


def write_binary(folder, cifar):
    folder.mkdir(parents=True)
    for i, stem in enumerate(STEMS):
        pairs = list(zip(*cifar, strict=True))[i * RECORDS : (i + 1) * RECORDS]
        records = b"".join(bytes([label]) + planes(image) for image, label in pairs)
        (folder / f"{stem}.bin").write_bytes(records)


def write_pickles(folder, cifar, dump=python2_pickle):
    folder.mkdir(parents=True)
    for i, stem in enumerate(STEMS):
        part = slice(i * RECORDS, (i + 1) * RECORDS)
        raw = b"".join(planes(image) for image in cifar[0][part])
        (folder / stem).write_bytes(dump(raw, cifar[1][part]))


@pytest.fixture(scope="module")
def binary(tmp_path_factory, cifar):
    root = tmp_path_factory.mktemp("binary")
    write_binary(root / "cifar-10-batches-bin", cifar)
    return root


@pytest.fixture(scope="module")
def pickled(tmp_path_factory, cifar):
    root = tmp_path_factory.mktemp("pickled")
    write_pickles(root / "cifar-10-batches-py", cifar)
    return root


def refusal(*args, **options):
    """The one line of the DataError that load raises."""
    with pytest.raises(DataError) as caught:
        datasets.load(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def assert_is_cifar(loaded, cifar):
    """Loaded whole: the training images in the documented shuffled order, the test images in theirs."""
    images, labels = cifar[0], np.array(cifar[1])
    train, test = 5 * RECORDS, RECORDS
    order = np.random.default_rng(0).permutation(train)
    np.testing.assert_array_equal(loaded.train.images, images[:train][order])
    np.testing.assert_array_equal(loaded.train.labels, labels[:train][order])
    order = np.random.default_rng(1).permutation(test)
    np.testing.assert_array_equal(loaded.test.images, images[train:][order])
    np.testing.assert_array_equal(loaded.test.labels, labels[train:][order])
    for split in (loaded.train, loaded.test):
        assert (split.images.dtype, split.labels.dtype) == (np.uint8, np.int32)
        assert split.images.flags.c_contiguous


def test_importing_loads_no_backend():
    code = "import sys, zoo.data; print([m for m in ('keras', 'sklearn') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


# --- digits


def test_digits_are_the_scans_of_scikit_learn():
    from sklearn.datasets import load_digits

    raw, target = load_digits(return_X_y=True)
    loaded = datasets.load("digits", validation=0)
    assert (len(loaded.train.images), len(loaded.test.images), loaded.validation) == (1437, 360, None)
    images = np.concatenate([loaded.train.images, loaded.test.images])
    labels = np.concatenate([loaded.train.labels, loaded.test.labels])
    assert (images.shape, images.dtype, labels.dtype) == ((1797, 32, 32, 3), np.uint8, np.int32)

    expected = Counter(
        (tuple(round(v * 255 / 16) for v in scan), int(digit)) for scan, digit in zip(raw, target, strict=True)
    )
    corners = images[:, ::4, ::4, 0].reshape(1797, 64).tolist()
    assert Counter((tuple(scan), int(digit)) for scan, digit in zip(corners, labels, strict=True)) == expected
    for row in range(4):
        for col in range(4):
            for channel in range(3):
                np.testing.assert_array_equal(images[:, row::4, col::4, channel], images[:, ::4, ::4, 0])

    share = np.bincount(target) * 360 / 1797
    assert np.all(abs(np.bincount(loaded.test.labels) - share) < 1)
    assert loaded.classes == tuple("0123456789")
    assert "load_digits" in loaded.provenance


def test_digits_ignore_the_folder_of_cifar10(tmp_path):
    assert len(datasets.load("digits", data_dir=tmp_path / "none").train.labels) == 1437 - 143


def test_unknown_name():
    message = refusal("mnists")
    assert "'mnists'" in message and "digits" in message and "cifar10" in message


# --- splits


@pytest.mark.parametrize(
    ("limit", "share", "train", "validation"),
    [(None, 0.1, 1294, 143), (None, 0, 1437, None), (100, 0.1, 90, 10), (105, 0.25, 79, 26), (2, 0.5, 1, 1)],
)
def test_split_sizes(limit, share, train, validation):
    loaded = datasets.load("digits", limit=limit, validation=share)
    assert len(loaded.train.images) == len(loaded.train.labels) == train
    assert (loaded.validation and len(loaded.validation.labels)) == validation
    assert len(loaded.test.labels) == 360


def test_validation_is_capped(monkeypatch):
    assert datasets.MAX_VALIDATION == 5000
    monkeypatch.setattr(datasets, "MAX_VALIDATION", 40)
    loaded = datasets.load("digits", validation=0.5)
    assert (len(loaded.train.labels), len(loaded.validation.labels)) == (1397, 40)


def test_limits_are_nested_and_validation_comes_off_the_end():
    whole = datasets.load("digits", validation=0)
    for n in (100, 200, 1437):
        part = datasets.load("digits", limit=n, test_limit=n // 4, validation=0.1)
        assert len(part.test.labels) == n // 4
        for field in ("images", "labels"):
            both = np.concatenate([getattr(part.train, field), getattr(part.validation, field)])
            np.testing.assert_array_equal(both, getattr(whole.train, field)[:n])
            np.testing.assert_array_equal(getattr(part.test, field), getattr(whole.test, field)[: n // 4])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"limit": 1438}, ["limit=1438", "1,437"]),
        ({"limit": 0}, ["limit=0", "1 to 1437"]),
        ({"limit": -1}, ["limit=-1", "1 to 1437"]),
        ({"test_limit": 361}, ["test_limit=361", "360"]),
        ({"test_limit": 0}, ["test_limit=0", "1 to 360"]),
        ({"validation": 1.0}, ["validation=1.0", "share < 1"]),
        ({"validation": -0.1}, ["validation=-0.1", "0 <= share"]),
        ({"validation": float("nan")}, ["validation=nan"]),
        ({"limit": 9, "validation": 0.1}, ["validation=0.1", "of 9 ", "is 0"]),
        ({"limit": 1, "validation": 0.9}, ["validation=0.9", "of 1 ", "is 0"]),
    ],
)
def test_impossible_splits(options, words):
    message = refusal("digits", **options)
    assert all(word in message for word in words), message


# --- cifar10 from a folder


def test_binary_bytes_land_at_row_column_and_channel(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10, "RECORDS", 1)
    for stem in STEMS:
        record = bytearray(3073)
        record[0] = 9  # label
        record[1 + 0 * 1024 + 32 * 2 + 5] = 11  # red, row 2, column 5
        record[1 + 1 * 1024 + 32 * 0 + 31] = 22  # green, row 0, column 31
        record[1 + 2 * 1024 + 32 * 31 + 0] = 33  # blue, row 31, column 0
        (tmp_path / f"{stem}.bin").write_bytes(record)
    loaded = datasets.load("cifar10", data_dir=tmp_path, limit=1, validation=0)
    image = loaded.test.images[0]
    assert (image[2, 5, 0], image[0, 31, 1], image[31, 0, 2], image.sum()) == (11, 22, 33, 66)
    assert loaded.test.labels.tolist() == [9]
    assert loaded.classes[9] == "truck" and loaded.classes[0] == "airplane" and len(loaded.classes) == 10


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("layout", ["binary", "pickled"])
def test_both_layouts_from_the_folder_or_its_parent(layout, inside, cifar, small_files, request):
    root = request.getfixturevalue(layout)
    folder = next(root.iterdir())
    loaded = datasets.load("cifar10", data_dir=str(folder if inside else root), validation=0)
    assert_is_cifar(loaded, cifar)
    assert loaded.provenance == f"CIFAR-10 files in {folder.name}"


def test_binary_is_preferred(tmp_path, binary, pickled, small_files):
    for root in (binary, pickled):
        shutil.copytree(root, tmp_path, dirs_exist_ok=True)
    assert datasets.load("cifar10", data_dir=tmp_path).provenance.endswith("cifar-10-batches-bin")


def test_the_hand_written_pickle_is_what_python_reads(cifar):
    raw = b"".join(planes(image) for image in cifar[0][:3])
    batch = pickle.loads(python2_pickle(raw, cifar[1][:3]), encoding="bytes")
    assert batch[b"labels"] == cifar[1][:3]
    np.testing.assert_array_equal(batch[b"data"], cifar[0][:3].transpose(0, 3, 1, 2).reshape(3, 3072))


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_rewritten_by_python3(protocol, tmp_path, cifar, small_files):
    def dump(raw, labels):
        array = np.frombuffer(raw, np.uint8).reshape(-1, 3072).copy()
        return pickle.dumps({"data": array, "labels": labels}, protocol)

    write_pickles(tmp_path / "py", cifar, dump)
    assert_is_cifar(datasets.load("cifar10", data_dir=tmp_path / "py", validation=0), cifar)


class Evil:
    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("kind", ["system", "exec", "hidden in the labels"])
def test_malicious_pickles_do_not_run(kind, protocol, tmp_path, small_files):
    mark = tmp_path / "ran"
    evil = Evil(exec, f"open({str(mark)!r}, 'w').close()") if kind == "exec" else Evil(os.system, f"touch {mark}")
    content = {"labels": [evil], "data": None} if kind.startswith("hidden") else evil
    file = tmp_path / "data_batch_1"
    file.write_bytes(pickle.dumps(content, protocol))
    pickle.loads(file.read_bytes())
    assert mark.exists(), "this pickle is meant to run under plain pickle"
    mark.unlink()

    message = refusal("cifar10", data_dir=tmp_path)
    assert str(file) in message and "refused" in message and ("system" in message or "exec" in message)
    assert not mark.exists()


@pytest.mark.parametrize(
    "name",
    ["numpy fromfile", "numpy.core.multiarray fromstring", "numpy.core _reconstruct", "_codecs lookup"],
)
def test_other_globals_are_refused(name, tmp_path, small_files):
    module, attribute = name.split()
    (tmp_path / "data_batch_1").write_bytes(f"c{module}\n{attribute}\n.".encode())
    assert f"{module}.{attribute}" in refusal("cifar10", data_dir=tmp_path)


# --- cifar10: missing and damaged files


def damage(root, tmp_path, name, content):
    """A copy of the layout under root, one file of which is replaced (None: removed); that file."""
    file = shutil.copytree(next(root.iterdir()), tmp_path / "damaged") / name
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    return file


def binary_records(n, label=3):
    return bytes([label, *bytes(3072)]) * n


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (None, "No such file"),
        (b"", "holds 0 bytes"),
        (binary_records(RECORDS)[:-1], "holds 61,459 bytes"),
        (binary_records(RECORDS - 1), "holds 58,387 bytes"),
        (binary_records(RECORDS + 1), "holds 64,533 bytes"),
        (binary_records(RECORDS - 1) + binary_records(1, label=10), "[10]"),
        (binary_records(RECORDS, label=255), "[255, 255, 255]"),
    ],
)
@pytest.mark.parametrize("stem", ["data_batch_1", "data_batch_4", "test_batch"])
def test_damaged_binary_files(stem, content, found, tmp_path, binary, small_files):
    file = damage(binary, tmp_path, f"{stem}.bin", content)
    message = refusal("cifar10", data_dir=file.parent)
    assert message.startswith(f"{file}: ") and found in message and "expected a published" in message
    assert "--data-dir" in message and "dataset.name=digits" in message and "network" in message


def good(n):
    return python2_pickle(bytes(3072 * n), [3] * n)


def dumped(**batch):
    return pickle.dumps(batch, 4)


ZEROS = np.zeros((RECORDS, 3072), np.uint8)
LABELS = [3] * RECORDS


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (None, "No such file"),
        (b"", "EOFError"),
        (b"<html>404</html>", "UnpicklingError"),
        (good(RECORDS)[:-1], "EOFError: Ran out of input"),
        (good(RECORDS)[:1000], "truncated"),
        (good(RECORDS)[:30], "truncated"),
        (good(RECORDS - 1), f"shape ({RECORDS - 1},)"),
        (pickle.dumps([1, 2], 4), "pickles a list"),
        (dumped(data=ZEROS, fine_labels=LABELS), "['data', 'fine_labels']"),
        (dumped(labels=LABELS), "['labels']"),
        (dumped(data=ZEROS.tolist(), labels=LABELS), "uint8 array"),
        (dumped(data=ZEROS.astype(np.float32), labels=LABELS), "uint8 array"),
        (dumped(data=ZEROS[:, :100].copy(), labels=LABELS), f"shape ({RECORDS}, 100)"),
        (dumped(data=ZEROS, labels=LABELS[1:]), f"shape ({RECORDS - 1},)"),
        (dumped(data=ZEROS, labels="3" * RECORDS), "labels (a list)"),
        (dumped(data=ZEROS, labels=[10, *LABELS[1:]]), "[10]"),
        (dumped(data=ZEROS, labels=[-1, *LABELS[1:]]), "[-1]"),
        (dumped(data=ZEROS, labels=[0.5, *LABELS[1:]]), "[0.5]"),
        (dumped(data=ZEROS, labels=[True] * RECORDS), "integers 0 to 9"),
        (dumped(data=ZEROS, labels=[{}, *LABELS[1:]]), "integers 0 to 9"),
        (dumped(data=ZEROS, labels=[[1, 2], *LABELS[1:]]), "ValueError"),
        (python2_pickle(bytes(100), LABELS), "cannot reshape"),
        (python2_pickle(bytes(8 * 3072 * RECORDS), LABELS, dtype=b"O8"), "uint8 array"),
    ],
)
def test_damaged_pickles(content, found, tmp_path, pickled, small_files):
    file = damage(pickled, tmp_path, "data_batch_3", content)
    message = refusal("cifar10", data_dir=file.parent)
    assert message.startswith(f"{file}: ") and found in message and "expected a published" in message
    assert "--data-dir" in message and "dataset.name=digits" in message and "network" in message


def test_the_published_size_is_required(binary, pickled):
    assert "10,000 records of 3,073 = 30,730,000" in refusal("cifar10", data_dir=binary)
    assert "10,000 images" in refusal("cifar10", data_dir=pickled)


def test_a_folder_in_a_files_place(tmp_path, small_files):
    (tmp_path / "test_batch.bin").mkdir()
    assert "data_batch_1.bin: FileNotFoundError" in refusal("cifar10", data_dir=tmp_path)
    (tmp_path / "data_batch_1").mkdir()
    (tmp_path / "test_batch.bin").rmdir()
    assert "data_batch_1: IsADirectoryError" in refusal("cifar10", data_dir=tmp_path)


def test_no_such_folder_and_an_empty_one(tmp_path):
    assert "is not a folder; ways out: --data-dir" in refusal("cifar10", data_dir=tmp_path / "none")
    (tmp_path / "cifar-10-batches-bin").mkdir()
    assert "holds no CIFAR-10 file; ways out: --data-dir" in refusal("cifar10", data_dir=tmp_path)


# --- cifar10 by Keras


def fake_keras(monkeypatch, load_data):
    cifar10 = SimpleNamespace(load_data=load_data)
    fake = SimpleNamespace(__version__="9.9", datasets=SimpleNamespace(cifar10=cifar10))
    monkeypatch.setitem(sys.modules, "keras", fake)


@pytest.mark.parametrize("axes", [(0, 1, 2, 3), (0, 3, 1, 2)], ids=["channels_last", "channels_first"])
def test_what_keras_gives(axes, monkeypatch, cifar):
    images, labels = cifar[0].transpose(axes), np.array(cifar[1], np.uint8)[:, np.newaxis]
    n = 5 * RECORDS
    fake_keras(monkeypatch, lambda: ((images[:n], labels[:n]), (images[n:], labels[n:])))
    loaded = datasets.load("cifar10", validation=0)
    assert_is_cifar(loaded, cifar)
    assert loaded.provenance == "keras 9.9 keras.datasets.cifar10.load_data()"


@pytest.mark.parametrize(
    "error",
    [
        URLError("no route to host"),
        OSError(28, "No space left on device"),
        EOFError("Compressed file ended before the end-of-stream marker was reached"),
        Exception("URL fetch failure\non somewhere:\n" + "very long " * 100),
        KeyError("data"),
    ],
)
def test_a_failing_download_is_one_line(error, monkeypatch, tmp_path):
    def load_data():
        raise error

    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    fake_keras(monkeypatch, load_data)
    message = refusal("cifar10")
    assert type(error).__name__ in message and len(message) < 800
    assert "--data-dir" in message and "dataset.name=digits" in message and "network" in message
    assert "delete" not in message

    archive = tmp_path / "datasets" / "cifar-10-batches-py-target_archive"
    archive.parent.mkdir()
    archive.write_bytes(b"cut")
    assert f"delete {archive}" in refusal("cifar10")


def test_the_real_keras_without_a_network_and_with_a_cut_download(tmp_path):
    """Keras's own code over a urlopen which first fails, then gives a few bytes: two lines, and the file."""
    code = """
import io, urllib.error, urllib.request
from zoo import errors
from zoo.data import datasets

class Cut(io.BytesIO):
    info = lambda self: {}

def fail(*args):
    raise urllib.error.URLError("no network here")

for urlopen in (fail, lambda *args: Cut(b"cut")):
    urllib.request.urlopen = urlopen
    try:
        datasets.load("cifar10")
    except errors.DataError as error:
        print("DataError:", error)
"""
    backend = os.environ.get("KERAS_BACKEND") or next(filter(find_spec, ("tensorflow", "jax", "torch")))
    environment = os.environ | {"KERAS_BACKEND": backend, "KERAS_HOME": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    offline, cut = (line for line in run.stdout.splitlines() if "DataError:" in line)
    assert "no network here" in offline and "--data-dir" in offline and "delete" not in offline
    assert "Incomplete or corrupted" in cut and "--data-dir" in cut
    (archive,) = tmp_path.glob("datasets/*")
    assert f"delete {archive} if it is incomplete" in cut


# --- standardization


@pytest.fixture
def images(monkeypatch):
    """Ten images of unlike brightness, over chunks of three."""
    monkeypatch.setattr(pipeline, "CHUNK", 3)
    rng = np.random.default_rng(3)
    return (rng.integers(0, 256, (10, 6, 5, 3)) // np.arange(1, 11)[:, None, None, None]).astype(np.uint8)


def test_per_image(images):
    images[4] = 200  # constant: the floor on the deviation makes it zero
    images[5] = 7
    images[5, 0, 0, 0] = 8  # deviation under the floor of 1/sqrt(90)
    out = pipeline.standardize(images, "per_image")
    assert (out.dtype, out.shape) == (np.float32, images.shape)
    for image, got in zip(images.astype(float), out, strict=True):
        expected = (image - image.mean()) / max(image.std(), 1 / np.sqrt(90))
        np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-7)
    assert not out[4].any()
    assert images[5].std() < 1 / np.sqrt(90)


def test_channel(images):
    mean, std = pipeline.channel_statistics(images)
    assert mean.dtype == std.dtype == np.float64
    values = images.reshape(-1, 3).astype(float)
    np.testing.assert_allclose(mean, values.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(std, values.std(axis=0), rtol=1e-12)
    out = pipeline.standardize(images, "channel", statistics=(mean, std))
    assert (out.dtype, out.shape) == (np.float32, images.shape)
    expected = (images - values.mean(axis=0)) / values.std(axis=0)
    np.testing.assert_allclose(out, expected, rtol=1e-6, atol=1e-7)
    other = pipeline.standardize(images[:2], "channel", statistics=(np.array([1.0, 2, 3]), np.array([1.0, 2, 4])))
    np.testing.assert_allclose(other[1, 2, 3], (images[1, 2, 3] - [1.0, 2, 3]) / [1, 2, 4], rtol=1e-6)


def test_a_constant_channel_becomes_zero(images):
    images[..., 1] = 77
    statistics = pipeline.channel_statistics(images)
    assert statistics[1][1] == pytest.approx(1 / np.sqrt(10 * 6 * 5))
    assert not pipeline.standardize(images, "channel", statistics)[..., 1].any()


@pytest.mark.parametrize("options", [("minmax",), ("channel",), ("per_image", (0, 1))])
def test_standardize_refuses(options, images):
    with pytest.raises(ValueError, match="per_image"):
        pipeline.standardize(images, *options)


def test_memory_stays_near_the_output(monkeypatch):
    monkeypatch.setattr(pipeline, "CHUNK", 50)
    many = np.zeros((1000, 32, 32, 3), np.uint8)
    size = many.size * 4
    for how in ("per_image", "channel"):
        tracemalloc.start()
        pipeline.standardize(many, how, pipeline.channel_statistics(many) if how == "channel" else None)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert size < peak < 1.5 * size
