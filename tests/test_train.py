"""The training command, run as a user runs it."""

import csv
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_adaptact as ka
from zoo import backend, config, environment, files, models
from zoo.config.schema import Activation, Rule
from zoo.data import datasets, pipeline
from zoo.environment import recorded_path
from zoo.errors import UserError
from zoo.train import main, run
from zoo.training import metrics

ROOT = Path(__file__).parents[1]
QUICK = str(ROOT / "configs/quickstart.json")
SMALL = ["dataset.limit=200", "dataset.test_limit=64", "training.epochs=2"]
FILES = {
    "config.json", "environment.json", "preprocessing.json", "history.csv", "timing.csv", "mixing_weights.csv",
    "parameters.csv",
    "checkpoint.npz", "metrics.json", "model.keras", "predictions.npz", "card.md"
}  # fmt: skip


def read_csv(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_a_run_records_no_absolute_path(tmp_path):
    """And finds its images again, also after both were moved."""
    (tmp_path / "before" / "images").mkdir(parents=True)
    settings = [*SMALL, "training.seeds=[0,1]"]
    place = ["--out", str(tmp_path / "before" / "run"), "--data-dir", str(tmp_path / "before" / "images")]
    assert main([QUICK, "--set", *settings, *place]) == 0
    shutil.move(tmp_path / "before", tmp_path / "after")
    for path in (tmp_path / "after" / "run").rglob("*.json"):
        assert str(tmp_path) not in path.read_text(), path.name
    for folder in (tmp_path / "after" / "run", tmp_path / "after" / "run" / "seed-1"):
        recorded = json.loads((folder / "environment.json").read_text())["data_dir"]
        assert recorded_path(folder, recorded).resolve() == tmp_path / "after" / "images"
    assert main(["--resume", str(tmp_path / "after" / "run")]) == 0


def test_a_run_leaves_its_folder(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(environment, "_features", lambda: {"avx2"})
    out = tmp_path / "run"
    assert main([QUICK, "--set", *SMALL, "training.dtype=mixed_bfloat16", "--out", str(out)]) == 0
    assert {path.name for path in out.iterdir()} == FILES
    printed = capsys.readouterr().out
    assert keras.backend.backend() in printed and "epoch 2/2" in printed and str(out) in printed
    assert printed.count("mixed_bfloat16 is slow with") == (keras.backend.backend() == "torch")

    resolved = json.loads((out / "config.json").read_text())
    assert resolved["training"]["epochs"] == 2 and resolved["dataset"]["standardize"] == "channel"
    assert config.load(out / "config.json").resolved() == resolved
    made = json.loads((out / "environment.json").read_text())
    assert made["backend"] == keras.backend.backend() and made["versions"]["keras"] == keras.__version__
    assert made["command"].startswith("python -m zoo.train ") and "training.epochs=2" in made["command"]
    assert made["processor"] and made["code"].keys() == {"keras_adaptact", "zoo"}

    history = read_csv(out / "history.csv")
    assert [row["epoch"] for row in history] == ["1", "2"]
    assert all(math.isfinite(float(value)) for row in history for value in row.values())
    assert {"loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "report_precision"} < history[0].keys()
    assert [row["epoch"] for row in read_csv(out / "timing.csv")] == ["1", "2"]

    mixing = read_csv(out / "mixing_weights.csv")
    assert {row["epoch"] for row in mixing} == {"0", "1", "2"}
    assert {row["site"] for row in mixing} == {"conv1", "conv2", "fc3"}
    assert [row["member"] for row in mixing[:3]] == ["tanh", "sigmoid", "relu"]
    for i in range(0, len(mixing), 3):
        assert sum(float(row["weight"]) for row in mixing[i : i + 3]) == pytest.approx(1, abs=1e-6)
    assert float(mixing[-1]["weight"]) != float(mixing[2]["weight"])  # they were learned

    found = json.loads((out / "metrics.json").read_text())
    values = [float(row["report_precision"]) for row in history]
    assert found["report_precision_max"] == max(values) and found["report_precision_last"] == values[-1]
    assert values[found["report_precision_max_epoch"] - 1] == max(values)


def test_the_saved_model_is_the_one_that_was_measured(tmp_path):
    out = tmp_path / "run"
    run(config.load(QUICK, SMALL), out)
    images = datasets.load("digits", limit=200, test_limit=64)
    known = pipeline.channel_statistics(images.train.images)
    model = keras.models.load_model(out / "model.keras")
    inputs = pipeline.standardize(images.test.images, "channel", known)
    if keras.backend.backend() == "torch":  # whose convolutions are fast with channels first
        inputs = inputs.transpose(0, 3, 1, 2)
    logits = model.predict(inputs, verbose=0)
    found = json.loads((out / "metrics.json").read_text())
    assert (logits.argmax(1) == images.test.labels).mean() == pytest.approx(found["test_accuracy"])
    last = [row for row in read_csv(out / "mixing_weights.csv") if row["epoch"] == "2" and row["site"] == "fc3"]
    np.testing.assert_allclose(
        model.get_layer("fc3_activation").mixing_weights, [float(row["weight"]) for row in last], rtol=1e-6
    )


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    settings = config.load(QUICK, SMALL)
    for name in ("first", "second"):
        run(settings, tmp_path / name)
    for file in ("history.csv", "mixing_weights.csv"):
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()


def test_several_seeds_lie_beside_each_other_with_a_summary(tmp_path):
    out = tmp_path / "run"
    found = run(config.load(QUICK, [*SMALL[:2], "training.epochs=1", "training.seeds=[3, 5]"]), out)
    whole = {"seed-3", "seed-5", "config.json", "environment.json", "summary.json"}
    assert {path.name for path in out.iterdir()} == whole
    for seed in (3, 5):
        assert {path.name for path in (out / f"seed-{seed}").iterdir()} == FILES
        assert json.loads((out / f"seed-{seed}" / "config.json").read_text())["training"]["seeds"] == [seed]
    first, second = (metrics["test_accuracy"] for metrics in found)
    assert first != second
    summary = json.loads((out / "summary.json").read_text())
    assert summary["finished"] == [3, 5] and summary["diverged"] == []
    assert summary["test_accuracy"]["mean"] == pytest.approx((first + second) / 2)
    assert summary["test_accuracy"]["std"] == pytest.approx(abs(first - second) / 2**0.5)


def test_a_run_without_validation_or_report_measure(tmp_path):
    settings = config.load(
        QUICK, [*SMALL[:2], "training.epochs=1", "dataset.validation=0", "metrics.report_batch=null"]
    )
    (found,) = run(settings, tmp_path / "run")
    assert not [name for name in found if name.startswith(("report", "validation"))]
    assert list(read_csv(tmp_path / "run" / "history.csv")[0]) == [
        "epoch",
        "loss",
        "accuracy",
        "cross_entropy",
        "learning_rate",
    ]


def test_predictions_give_the_accuracy_again(tmp_path):
    (found,) = run(config.load(QUICK, [*SMALL[:2], "training.epochs=1"]), tmp_path / "run")
    with np.load(tmp_path / "run" / "predictions.npz", allow_pickle=False) as file:
        arrays = dict(file)
    assert sorted(arrays) == ["test", "test_labels", "validation", "validation_labels"]
    for split, images in (("test", 64), ("validation", 20)):
        right = arrays[split] == arrays[f"{split}_labels"]
        assert right.shape == (images,) and right.mean() == found[f"{split}_accuracy"]
    assert files.read_json(tmp_path / "run" / "environment.json", "images")["images"] == {
        "train": 180,
        "validation": 20,
        "test": 64,
    }


def test_code_is_known_by_its_tree_and_what_changed_in_it(monkeypatch):
    said = {"rev-parse": "tree", "diff": ""}
    monkeypatch.setattr(environment, "_git", lambda what, *_: said[what])
    assert environment.code("zoo") == "tree"
    said["diff"] = "- one line"
    changed = environment.code("zoo")
    assert changed.startswith("tree+")
    said["diff"] = "- another"
    assert environment.code("zoo") not in ("tree", changed)
    said["rev-parse"] = None
    monkeypatch.setattr(environment, "version", lambda package: "0.2.0")
    assert environment.code("zoo") == "0.2.0"


def refusal(capsys, *arguments) -> str:
    """The one line that a command says before it exits with status 2."""
    assert main(list(arguments)) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ")
    return lines[0]


@pytest.mark.parametrize(
    "override, words",
    [
        ("activation.name=relv", f"{QUICK}: activation: Unknown activation 'relv'. Did you mean 'relu'?"),
        ("activation.granularity=pixel", "activation.granularity"),
        ("activation.weights=[1,2]", "one finite number for each of tanh, sigmoid, relu"),
        ('activation={"name":"relu","normalization":"softmax"}', "'relu' takes no options"),
        ('activation=[{"sites":"conv*","name":"relu"}]', "no rule for the site 'fc3'"),
        (
            'activation=[{"sites":"cnv*","name":"arelu"},{"sites":"*","name":"relu"}]',
            f"{QUICK}: activation.0.sites: 'cnv*' is not the first match of any site; there are conv1, conv2, fc3",
        ),
        ('activation=[{"sites":"*","name":"relu"},{"sites":"fc*","name":"relu"}]', "activation.1.sites: 'fc*'"),
        (
            'activation={"name":"method2","weights":{"from_run":"runs/nowhere"}}',
            f"{QUICK}: activation.weights.from_run: runs/nowhere/mixing_weights.csv: no such file",
        ),
        ("dataset.limit=100000", f"{QUICK}: dataset.limit=100000: there are 1,437"),
        ("dataset.limit=5", f"{QUICK}: dataset.validation=0.1 of 5"),
        ("training.devices=64", f"{QUICK}: training"),
        ("training.epochs=x", "training.epochs"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(override, words, tmp_path, capsys):
    assert words in refusal(capsys, QUICK, "--set", override, "--out", str(tmp_path / "run"))
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("dear")
    assert "not empty" in refusal(capsys, QUICK, "--out", str(tmp_path))
    assert "can't create the folder" in refusal(capsys, QUICK, "--out", str(tmp_path / "mine.txt"))
    assert (tmp_path / "mine.txt").read_text() == "dear" and len(list(tmp_path.iterdir())) == 1


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text("old")

    def fail(unfinished):
        unfinished.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match="No space left"):
        files.write_whole(path, fail)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    files.write_json(path, {"loss": [float("nan"), 1.5]})
    assert json.loads(path.read_text()) == {"loss": [None, 1.5]}


def test_a_nan_loss_ends_the_run(tmp_path, capsys):
    out = tmp_path / "run"
    rate = "training.optimizer.learning_rate=1e30"
    assert main([QUICK, "--set", *SMALL, rate, "training.seeds=[0,1]", "--out", str(out)]) == 3
    assert {path.name for path in (out / "seed-1").iterdir()} == FILES - {"predictions.npz", "card.md"}
    found = json.loads((out / "seed-0" / "metrics.json").read_text())
    assert found["status"] == "diverged" and found["epochs"] == 1 and "test_loss" not in found
    assert [row["loss"] for row in read_csv(out / "seed-0" / "history.csv")] == ["nan"]
    assert json.loads((out / "summary.json").read_text()) == {"finished": [], "diverged": [0, 1]}
    went = found["divergence"]
    assert went["step"] == 2 and went["value_step"] == 1 and went["learning_rate"] > 1e29
    first, second, *_ = capsys.readouterr().out[1:].split("seed 0: ")[1].splitlines()
    assert first.startswith("NaN loss in epoch 1; diverged at step 2") and went["site"] in first
    assert second.startswith("try --set training.optimizer.learning_rate=")
    assert main(["--resume", str(out)]) == 3  # and stays so


def test_no_dtype_is_called_slow_where_that_is_not_known(monkeypatch):
    for features in (set(), {"avx2", "avx512_bf16"}):
        monkeypatch.setattr(environment, "_features", lambda features=features: features)
        assert environment.slow_dtype("torch", "mixed_bfloat16") == ""
    monkeypatch.setattr(environment, "_features", lambda: {"avx2"})
    monkeypatch.setattr(environment, "_device", lambda backend: "NVIDIA H100")
    assert environment.slow_dtype("torch", "mixed_bfloat16") == environment.slow_dtype("torch", "float32") == ""


def test_a_missing_package_is_one_line(monkeypatch, capsys):
    def fail(*arguments):
        raise ModuleNotFoundError("No module named 'pydantic'", name="pydantic")

    monkeypatch.setattr("zoo.train._main", fail)
    assert "'.[zoo]'" in refusal(capsys, QUICK)


def test_rules_choose_by_site():
    rules = [
        Rule(sites="conv*", name="arelu"),
        Rule(sites="*", name="method1", granularity="channel"),
    ]
    model = models.build(config.Config(activation=rules), classes=10)
    assert type(model.get_layer("conv2_activation")) is ka.AReLU
    assert type(model.get_layer("fc3_activation")) is ka.Method1
    assert model.get_layer("fc3_activation").mixing_weights.shape == (3, 120)
    assert model.get_layer("conv1_activation") is not model.get_layer("conv2_activation")


def test_lenet_has_the_papers_sizes():
    """Counts worked out by hand: (5*5*3+1)*6, (5*5*6+1)*16, (8*8*16+1)*120, (120+1)*10."""
    model = models.build(config.Config(), classes=10)
    counts = {layer.name: layer.count_params() for layer in model.layers if layer.count_params()}
    assert counts == {"conv1": 456, "conv2": 2416, "fc3": 123000, "logits": 1210}
    shapes = [tuple(model.get_layer(name).output.shape[1:]) for name in ("pool1", "pool2", "fc3_activation")]
    assert shapes == [(16, 16, 6), (8, 8, 16), (120,)]
    method1 = models.build(config.Config(activation=Activation(name="method1")), classes=10)
    assert method1.count_params() == model.count_params() + 3 * 15


def test_metrics_against_hand_counts():
    logits = np.array([[2.0, 0, 0], [2.0, 0, 0], [0, 2.0, 0], [0, 2.0, 0], [0, 2.0, 0]])
    labels = np.array([0, 1, 1, 1, 2])
    found = metrics.sound(logits, labels, ("a", "b", "c"), "test")
    assert found["test_accuracy"] == pytest.approx(3 / 5)
    assert found["test_precision_per_class"] == pytest.approx({"a": 1 / 2, "b": 2 / 3, "c": 0})
    assert found["test_precision_macro"] == pytest.approx((1 / 2 + 2 / 3 + 0) / 3)
    assert found["test_precision_weighted"] == pytest.approx((1 * 1 / 2 + 3 * 2 / 3 + 1 * 0) / 5)
    total = math.log(math.exp(2) + 2)
    assert found["test_loss"] == pytest.approx((3 * (total - 2) + 2 * total) / 5)
    assert metrics.report(logits, labels) == pytest.approx(found["test_precision_weighted"])
    batch = metrics.report_batch(np.zeros(1000), 64, seed=1, epoch=2)
    assert len(set(batch)) == 64 and not np.array_equal(batch, metrics.report_batch(np.zeros(1000), 64, 1, 3))


def test_help_loads_no_backend():
    code = (
        "import sys, zoo.train\ntry: zoo.train.main(['--help'])\nexcept SystemExit: pass\n"
        "print(sorted({'keras', 'jax', 'torch', 'tensorflow', 'numpy', 'pydantic', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "--data-dir" in done.stdout and done.stdout.endswith("[]\n")


def test_the_library_imports_keras_and_numpy_only():
    code = (
        "import sys, keras; packages = lambda: {name.partition('.')[0] for name in sys.modules}\n"
        "before = packages(); import keras_adaptact; print(sorted(packages() - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "['keras_adaptact']"


@pytest.fixture
def installed(monkeypatch, tmp_path):
    """Pretends that these backends are installed, and that the user's Keras folder is empty."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.delenv("KERAS_BACKEND")
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "2")
    found = []
    monkeypatch.setattr(backend, "find_spec", lambda name: name in found or None)
    return found


def test_the_backend_that_is_installed_is_used(installed, monkeypatch, tmp_path):
    with pytest.raises(UserError, match="no backend is installed"):
        backend.choose()
    installed.append("tensorflow")
    (tmp_path / "keras.json").write_text(json.dumps(backend.SELF_WRITTEN))
    assert backend.choose() == os.environ["KERAS_BACKEND"] == "tensorflow"
    monkeypatch.delenv("KERAS_BACKEND")
    installed.append("torch")
    assert backend.choose() == "torch"  # though Keras's own keras.json says tensorflow
    monkeypatch.delenv("KERAS_BACKEND")
    (tmp_path / "keras.json").write_text(json.dumps(backend.SELF_WRITTEN | {"backend": "jax"}))
    with pytest.raises(
        UserError, match=r"keras\.json names jax, which is not installed \(installed: torch, tensorflow\)"
    ):
        backend.choose()
    installed.append("jax")
    assert backend.choose() == "jax"
    monkeypatch.setenv("KERAS_BACKEND", "theano")
    with pytest.raises(UserError, match="KERAS_BACKEND names 'theano'; expected one of"):
        backend.choose()


def test_the_file_that_keras_writes_itself_does_not_count(tmp_path):
    environment = os.environ | {"KERAS_HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", "import keras"], env=environment, check=True, capture_output=True)
    assert json.loads((tmp_path / "keras.json").read_text()) == backend.SELF_WRITTEN
