"""What a run computes: its batches, its recipe, its checkpoints, and that a kill makes no difference."""

import csv
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

import keras_adaptact as ka
from zoo import config, files, models, runs
from zoo.data import datasets, pipeline
from zoo.errors import UserError
from zoo.train import main, resume, run
from zoo.training import checkpoint, optimizers
from zoo.training.recorder import Recorder
from zoo.training.trainer import Stopped, Trainer

ROOT = Path(__file__).parents[1]
QUICK = str(ROOT / "configs/quickstart.json")
SMALL = ["dataset.limit=120", "dataset.test_limit=40", "training.epochs=3", "model.dropout=0.5"]
RECORDS = ("history.csv", "mixing_weights.csv", "parameters.csv")


def small(*overrides) -> list[str]:
    """The overrides of a short run, of which a later one wins."""
    return [f"{path}={value}" for path, value in dict(item.split("=", 1) for item in (*SMALL, *overrides)).items()]


def trainer(*overrides) -> Trainer:
    made = Trainer(config.load(QUICK, small(*overrides)))
    settings = made.config.dataset
    made.attach(datasets.load("digits", limit=settings.limit, test_limit=40, validation=settings.validation))
    return made


def read_csv(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def weights(folder: Path) -> list[np.ndarray]:
    return keras.models.load_model(folder / "model.keras").get_weights()


def equal(first: Path, second: Path) -> bool:
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in RECORDS)
    pairs = zip(weights(first), weights(second), strict=True)
    return all(a.tobytes() == b.tobytes() for a, b in pairs)


class Cut(Exception):
    """Stands for kill -9."""


# Batches


def test_an_epoch_takes_each_image_at_most_once():
    plan = pipeline.plan(100, 32, seed=1, epoch=2)
    indices, rows, columns, _ = plan.parts
    assert all(part.shape == (3, 32) for part in plan.parts) and plan.steps == 3
    assert len(np.unique(indices)) == 96
    assert set(rows.flat) == set(columns.flat) == set(range(9))
    again, other = pipeline.plan(100, 32, 1, 2), pipeline.plan(100, 32, 1, 3)
    assert all(np.array_equal(a, b) for a, b in zip(plan.parts, again.parts, strict=True)) and plan.seed == again.seed
    assert not np.array_equal(indices, other.parts[0]) and plan.seed != other.seed
    assert pipeline.plan(20, 32, 1, 2).parts[0].shape == (1, 20)


def test_augmentation_against_a_loop_over_images():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (50, 32, 32, 3), dtype="uint8")
    targets = np.eye(10, dtype="float32")[rng.integers(0, 10, 50)]
    plan = pipeline.plan(50, 16, seed=0, epoch=1)
    made = pipeline.Pipeline("channel", (np.zeros(3), np.ones(3)), True, "channels_last")
    x, y = made.batch(
        *map(ops.convert_to_tensor, (images, targets)), *(ops.convert_to_tensor(part[1]) for part in plan.parts)
    )
    expected = []
    for index, row, column, mirrored in zip(*(part[1] for part in plan.parts), strict=True):
        padded = np.pad(images[index], ((4, 4), (4, 4), (0, 0)))
        crop = padded[row : row + 32, column : column + 32]
        expected.append(crop[:, ::-1] if mirrored else crop)
    np.testing.assert_array_equal(ops.convert_to_numpy(x), np.stack(expected))
    np.testing.assert_array_equal(ops.convert_to_numpy(y), targets[plan.parts[0][1]])


@pytest.mark.parametrize("how", ["channel", "per_image"])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_standardization_is_that_of_the_data_module(how, data_format):
    images = np.concatenate([datasets.load("digits", limit=20).test.images[:20], np.full((1, 32, 32, 3), 7, "uint8")])
    known = pipeline.channel_statistics(images)
    expected = pipeline.standardize(images, how, known if how == "channel" else None)
    found = ops.convert_to_numpy(pipeline.Pipeline(how, known, False, data_format).inputs(images))
    if data_format == "channels_first":
        found = found.transpose(0, 2, 3, 1)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


# Recipe


def test_the_learning_rate_warms_up_and_falls():
    def rates(**schedule):
        settings = {"epochs": 10, "optimizer": {"learning_rate": 0.5}, "schedule": schedule}
        found = optimizers._learning_rate(config.Config(training=settings), steps=10)
        return [float(ops.convert_to_numpy(found(step))) for step in (0, 5, 10, 55, 100)]

    expected = [0.5 * (1 + math.cos(math.pi * share)) / 2 for share in (0, 0.5, 1)]
    np.testing.assert_allclose(rates(name="cosine", warmup=0.1), [0, 0.25, *expected], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(rates(name="constant", warmup=0.1), [0, 0.25, 0.5, 0.5, 0.5], rtol=1e-5)
    np.testing.assert_allclose(rates(name="constant", warmup=0.0), [0.5] * 5, rtol=1e-6)
    np.testing.assert_allclose(rates(name="steps", epochs=[1, 5]), [0.5, 0.5, 0.05, 0.005, 0.005], rtol=1e-5)
    one = config.Config(training={"epochs": 1, "schedule": {"warmup": 0.99}})
    assert optimizers._learning_rate(one, steps=1) is not None


def one_step(*overrides) -> tuple[dict, dict]:
    """The values of each variable before and after a step of plain gradient descent with rate 0.5."""
    sgd = 'training.optimizer={"name":"sgd","learning_rate":0.5,"momentum":0.0,"nesterov":false}'
    constant = 'training.schedule={"name":"constant","warmup":0.0}'
    made = trainer(sgd, constant, *overrides)
    made._start(0)
    before = values(made.model)
    made._reseed_dropout(0, 1)
    made.engine.train(pipeline.plan(108, 32, seed=0, epoch=1), 0, 1)
    made.engine.synchronize()
    return before, values(made.model)


def values(model) -> dict[str, np.ndarray]:
    """By layer and variable: paths of activations are numbered over all models of a process."""
    layers = [(layer.name, v) for layer in model.layers for v in layer.trainable_variables]
    return {f"{name}/{v.name}": ops.convert_to_numpy(v.value) for name, v in layers}


def test_weight_decay_is_an_l2_penalty_on_kernels_alone():
    before, plain = one_step("activation.name=method1")
    _, decayed = one_step("activation.name=method1", "training.weight_decay=0.1")
    for path, start in before.items():
        expected = plain[path] - 0.5 * 0.1 * start * path.endswith("kernel")
        np.testing.assert_allclose(decayed[path], expected, rtol=1e-4, atol=1e-6)
    assert sum(path.endswith("kernel") for path in before) == 4


def test_steps_of_activations_are_limited_and_of_nothing_else():
    sgd = 'training.optimizer={"momentum":0.0,"nesterov":false,"learning_rate":0.5}'
    before, free = one_step("activation.name=method1", sgd, "training.activation_step=null")
    _, limited = one_step("activation.name=method1", sgd, "training.activation_step=1e-4")
    for path, start in before.items():
        step = free[path] - start
        factor = min(1.0, 1e-4 / np.linalg.norm(step)) if "_activation" in path else 1.0
        np.testing.assert_allclose(limited[path] - start, factor * step, rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize("optimizer", ['{"momentum":0.0,"nesterov":false}', '{"name":"adam"}'])
def test_activations_have_a_learning_rate_of_their_own(optimizer):
    chosen = "activation.name=method1", f"training.optimizer={optimizer}", "training.activation_step=null"
    before, plain = one_step(*chosen)
    _, slower = one_step(*chosen, "training.activation_rate=0.25")
    for path, start in before.items():
        factor = 0.25 if "_activation" in path else 1
        np.testing.assert_allclose(slower[path] - start, factor * (plain[path] - start), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_low_precision_trains(dtype, tmp_path):
    (found,) = run(config.load(QUICK, small(f"training.dtype={dtype}", "training.epochs=4")), tmp_path / "run")
    losses = [float(row["loss"]) for row in read_csv(tmp_path / "run/history.csv")]
    assert losses[-1] < losses[0] and found["status"] == "finished"


def test_the_loss_on_a_fixed_batch_is_cross_entropy():
    """One step's loss, without dropout, against NumPy on the logits before it."""
    made = trainer("model.dropout=0.0", "training.label_smoothing=0.2", "training.weight_decay=0.1")
    kernels = [ops.convert_to_numpy(v) for v in made.model.trainable_variables if v.name == "kernel"]
    penalty = 0.05 * sum((kernel.astype("float64") ** 2).sum() for kernel in kernels)
    plan = pipeline.plan(108, 32, seed=0, epoch=1)
    logits = made.engine.predict(made.dataset.train.images[plan.parts[0][0]]).astype("float64")
    labels = made.dataset.train.labels[plan.parts[0][0]]
    made.model.reset_metrics()
    made.engine.train(plan, 0, 1)
    made.engine.synchronize()
    logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    smooth = 0.8 * np.eye(10)[labels] + 0.02
    found = {name: float(value) for name, value in made.model.get_metrics_result().items()}
    assert found["loss"] == pytest.approx(-(smooth * logs).sum(1).mean() + penalty, rel=1e-4)
    assert found["cross_entropy"] == pytest.approx(-logs[range(32), labels].mean(), rel=1e-4)
    assert found["accuracy"] == pytest.approx((logits.argmax(1) == labels).mean())


# Cuts


@pytest.mark.parametrize("where", ["in the first epoch", "between checkpoint and history", "on the way", "at the end"])
def test_a_killed_run_ends_as_one_that_was_not(where, tmp_path, monkeypatch):
    on_the_way = where == "on the way"
    settings = config.load(QUICK, small(f"training.checkpoint_minutes={1e-9 if on_the_way else 10}"))
    run(settings, tmp_path / "whole")
    calls = []

    def cut(self, *arguments, original=None, at=None):
        calls.append(1)
        if len(calls) == at:
            raise Cut
        return original(self, *arguments)

    place, name, at = {
        "in the first epoch": (Trainer, "_held_out", 1),
        "between checkpoint and history": (Recorder, "write", 2),
        "on the way": (Trainer, "_save", 4),
        "at the end": (Trainer, "_finish", 1),
    }[where]
    original = getattr(place, name)
    with monkeypatch.context() as patched, pytest.raises(Cut):
        patched.setattr(place, name, lambda self, *arguments: cut(self, *arguments, original=original, at=at))
        run(settings, tmp_path / "cut")
    (tmp_path / "cut" / ".123.history.csv").write_text("half")
    keras.utils.set_random_seed(99)
    resume(tmp_path / "cut")
    assert equal(tmp_path / "whole", tmp_path / "cut")
    assert not list((tmp_path / "cut").glob(".*"))
    before = (tmp_path / "cut" / "metrics.json").stat().st_mtime_ns
    resume(tmp_path / "cut")  # finished: stays
    assert (tmp_path / "cut" / "metrics.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("where", ["_save", "_held_out"], ids=["after the first epoch", "in the first epoch"])
def test_a_run_that_version_0_1_0_began_resumes(tmp_path, monkeypatch, where):
    """Its checkpoint holds no cross-entropy, and so its history gets none; all else is as it would have been."""
    settings = config.load(QUICK, small(f"training.checkpoint_minutes={1e-9 if where == '_held_out' else 10}"))
    run(settings, tmp_path / "whole")
    original, calls = getattr(Trainer, where), []

    def cut(self, *arguments):
        calls.append(1)
        if len(calls) == {"_save": 2, "_held_out": 1}[where]:
            raise Cut
        return original(self, *arguments)

    with monkeypatch.context() as patched, pytest.raises(Cut):
        patched.setattr(Trainer, where, cut)
        run(settings, tmp_path / "cut")
    path = tmp_path / "cut" / checkpoint.NAME
    with np.load(path) as file:
        arrays = dict(file)
    record = json.loads(arrays.pop(checkpoint.RECORD).tobytes())
    del record["recorded"]["left_out"], record["digest"]
    for row in record["recorded"]["history"]:
        del row["cross_entropy"]
    for name in sorted(arrays)[-2:]:
        del arrays[name]
    arrays[checkpoint.RECORD] = np.frombuffer(json.dumps(record).encode(), "uint8")
    np.savez(path, **arrays)
    resume(tmp_path / "cut")
    whole, found = (read_csv(tmp_path / name / "history.csv") for name in ("whole", "cut"))
    assert found == [{k: v for k, v in row.items() if k != "cross_entropy"} for row in whole]
    pairs = zip(weights(tmp_path / "whole"), weights(tmp_path / "cut"), strict=True)
    assert all(a.tobytes() == b.tobytes() for a, b in pairs)


def test_a_diverged_run_that_was_killed_is_not_trained_further(tmp_path, monkeypatch):
    def cut(*arguments):
        raise Cut

    settings = config.load(QUICK, small('training.optimizer={"learning_rate":1e30}'))
    with monkeypatch.context() as patched, pytest.raises(Cut):
        patched.setattr(Trainer, "_finish", cut)
        run(settings, tmp_path / "run")
    (found,) = resume(tmp_path / "run")
    assert found["status"] == "diverged" and found["epochs"] == 1


def test_a_later_seed_is_what_it_is_alone(tmp_path):
    run(config.load(QUICK, small("training.seeds=[4,7]")), tmp_path / "both")
    run(config.load(QUICK, small("training.seeds=[7]")), tmp_path / "alone")
    assert equal(tmp_path / "both" / "seed-7", tmp_path / "alone")


def test_a_run_resumes_where_no_backend_is_named(tmp_path):
    """On the one that it was begun on, whatever Keras would take by itself."""
    run(config.load(QUICK, small("training.epochs=1")), tmp_path / "run")
    named = os.environ | {"KERAS_HOME": str(tmp_path)}
    environment = {name: value for name, value in named.items() if name != "KERAS_BACKEND"}
    command = [sys.executable, "-m", "zoo.train", "--resume", str(tmp_path / "run")]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"on the {keras.config.backend()} backend" in done.stdout


def test_what_cannot_be_resumed_is_reported(tmp_path, capsys):
    def refusal(*arguments):
        assert main(list(arguments)) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    assert "environment.json: no such file" in refusal("--resume", str(tmp_path))
    assert "--set, --out and --dry-run are for new runs" in refusal("--resume", str(tmp_path), "--out", "x")
    out = tmp_path / "run"
    run(config.load(QUICK, small("training.epochs=1")), out)
    (out / "metrics.json").unlink()
    (out / checkpoint.NAME).write_bytes((out / checkpoint.NAME).read_bytes()[:5000])
    assert "checkpoint.npz: the checkpoint can't be read" in refusal("--resume", str(out))
    other = config.load(out / "config.json", ['activation.name="relu"'])
    files.write_json(out / "config.json", other.resolved())
    (out / checkpoint.NAME).unlink()
    recorded = {"history": [], "timing": [], "mixing": [], "parameters": []}
    checkpoint.save(out, trainer()._variables(), {"epoch": 0, "step": 0, "seconds": 0.0, "recorded": recorded})
    assert "config.json: changed since this run began" in refusal("--resume", str(out))
    environment = files.read_json(out / "environment.json")
    del environment["config_digest"]  # as version 0.2.0, which had none, wrote it
    files.write_json(out / "environment.json", environment)
    assert "is of another network" in refusal("--resume", str(out))
    files.write_json(out / "environment.json", environment | {"data_digest": "0"})
    assert "with other images" in refusal("--resume", str(out))
    others = {"jax": "torch", "torch": "tensorflow", "tensorflow": "jax"}
    files.write_json(out / "environment.json", environment | {"backend": others[keras.config.backend()]})
    assert "this run was begun on" in refusal("--resume", str(out))


# Held weights


def test_weights_are_fixed_at_what_a_run_learned(tmp_path):
    run(config.load(QUICK, SMALL), tmp_path / "learned")
    learned = runs.mixing_weights(tmp_path / "learned")
    assert set(learned) == {"conv1", "conv2", "fc3"} and learned["fc3"]["relu"] != pytest.approx(1 / 3, abs=1e-6)
    held = small(f'activation.weights={{"from_run": "{tmp_path / "learned"}"}}')
    run(config.load(QUICK, held), tmp_path / "held")
    rows = read_csv(tmp_path / "held/mixing_weights.csv")
    assert {row["epoch"] for row in rows} == {"0", "1", "2", "3"}
    assert {row["held"] for row in rows} == {"fixed"}
    assert {row["held"] for row in read_csv(tmp_path / "learned/mixing_weights.csv")} == {"learned"}
    for row in rows:
        assert float(row["weight"]) == pytest.approx(learned[row["site"]][row["member"]], rel=1e-6)
    written = config.load(tmp_path / "held/config.json")
    assert [rule.sites for rule in written.activation] == ["conv1", "conv2", "fc3"]
    assert written.activation[2].weights == list(learned["fc3"].values()) and str(tmp_path) in written.notes


def test_weights_that_do_not_fit_are_refused(tmp_path):
    run(config.load(QUICK, small("training.epochs=1")), tmp_path / "learned")
    run(config.load(QUICK, small("training.epochs=1", 'activation={"name":"relu"}')), tmp_path / "relu")

    def held(name, folder):
        return config.load(QUICK, [f'activation={{"name":"{name}","weights":{{"from_run":"{tmp_path / folder}"}}}}'])

    for name, folder, words in [
        ("method1", "learned", "mixes tanh, sigmoid, relu at conv1, and method1 mixes atanh, asigmoid, arelu"),
        ("arelu", "learned", "arelu isn't a mixture"),
        ("method2", "relu", "has no mixtures"),
        ("method2", "nowhere", "no such file"),
    ]:
        with pytest.raises(UserError, match=words):
            runs.hold_weights(held(name, folder))


# TensorBoard


def test_tensorboard_shows_the_history_also_of_a_resumed_run(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    settings = config.load(QUICK, small("metrics.tensorboard=true"))
    rows: list[dict] = []

    def is_over():  # after two epochs
        return len(rows) == 2

    with pytest.raises(Stopped):
        run(settings, tmp_path / "run", is_over=is_over, is_enough=rows.append)
    resume(tmp_path / "run")
    shown = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    history = read_csv(tmp_path / "run" / "history.csv")
    names = set(history[0]) - {"epoch"}
    assert {"loss", "val_accuracy", "report_precision"} <= names == set(shown.Tags()["tensors"])
    for name in names:
        found = {event.step: event.tensor_proto.float_val[0] for event in shown.Tensors(name)}
        assert found == {int(row["epoch"]): pytest.approx(float(row[name]), rel=1e-6) for row in history}


def test_missing_tensorboard_is_reported_before_training(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard.summary", None)
    with pytest.raises(UserError, match=r"metrics.tensorboard: .* pip install '.\[tensorboard\]'"):
        run(config.load(QUICK, small("metrics.tensorboard=true")), tmp_path / "run")
    assert not (tmp_path / "run").exists()


# Devices


def test_two_devices_share_a_batch(tmp_path):
    """On virtual CPU devices of JAX; the gradient is that of the whole batch, as on one device."""
    arguments = [QUICK, "--set", *small("training.devices=2", "model.dropout=0.0")]
    if keras.config.backend() != "jax":
        assert main(arguments) == 2
        return
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    command = [sys.executable, "-m", "zoo.train", *arguments, "--out", str(tmp_path / "two")]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    run(config.load(QUICK, small("model.dropout=0.0")), tmp_path / "one")
    for one, two in zip(weights(tmp_path / "one"), weights(tmp_path / "two"), strict=True):
        np.testing.assert_allclose(two, one, rtol=1e-3, atol=1e-4)


def test_more_devices_than_there_are(capsys):
    assert main([QUICK, "--set", "training.devices=16"]) == 2
    assert "training.devices: 16" in capsys.readouterr().err


def test_the_factory_builds_a_fresh_layer_for_each_site():
    model = models.build(config.Config(activation={"name": "arelu"}), 10)
    found = [layer for layer in model.layers if isinstance(layer, ka.AReLU)]
    assert len({id(layer) for layer in found}) == 3


def test_a_history_is_written_by_the_names_of_its_columns(tmp_path):
    recorder = Recorder(tmp_path)
    recorder.history = [{"epoch": 1, "loss": 2.0, "accuracy": 0.1}, {"epoch": 2, "accuracy": 0.2, "loss": 1.0}]
    recorder.write()
    assert (tmp_path / "history.csv").read_text() == "epoch,loss,accuracy\n1,2.0,0.1\n2,1.0,0.2\n"
