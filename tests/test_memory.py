"""A network that doesn't fit into memory is refused before any of it is allocated."""

import json
import math

import keras
import numpy as np
import pytest

from zoo import config, environment, models, train
from zoo.errors import ConfigError
from zoo.training import memory

QUICK = "configs/quickstart.json"


def test_more_memory_than_any_machine_has(capsys):
    for override in (
        'model={"name":"resnet50","width":4096}',
        'model={"name":"densenet","growth":256,"bottleneck":256,"blocks":[64,64]}',
        'model={"name":"alexnet","widths":[16384,16384]}',
    ):
        found = config.load(QUICK, [override, "training.batch_size=1000000", "dataset.name=cifar10"])
        with pytest.raises(ConfigError, match=r"need at least [0-9.,]+ GB; there are [0-9.,]+ GB; lower"):
            memory.check(found)


def test_it_counts_the_network_that_is_built_then(monkeypatch):
    found = config.load(QUICK, ['activation={"name":"method1","granularity":"channel"}'])
    model = models.build(found, 10)
    kept = sum(math.prod(layer.output.shape[1:]) for layer in model.layers)
    batch = found.training.batch_size
    assert found.training.optimizer.name == "sgd"  # a parameter, its gradient and its momentum
    needed = 4 * (3 * model.count_params() + memory.KEPT * batch * kept)
    monkeypatch.setattr(memory, "available", lambda: 1.001 * needed)  # it counts dropout's state, too
    memory.check(found)
    monkeypatch.setattr(memory, "available", lambda: 0.999 * needed)
    with pytest.raises(ConfigError, match=f"parameters and {kept:,} layer outputs for each of {batch} images"):
        memory.check(found)


NETS = """
from keras import Input, Model, Sequential, layers


def wide(activation, width=1, look=False):
    inputs = Input((4,))
    inside = Sequential([layers.Dense(width, name="first"), activation("a")])
    model = Model(inputs, layers.Dense(2)(inside(inputs)))
    if look:
        assert model.get_weights()[0].shape == (4, width)
    return model
"""


@pytest.mark.parametrize("look", [False, True])
def test_own_networks_are_counted_too(look, tmp_path, monkeypatch):
    """Before they are built; after it, where their code looks at values. By hand for a width of 100, and Adam: 702
    parameters with three more values each, and a share of 100 + 100 + 2 outputs (and the 4 inputs) of 10 samples."""
    (tmp_path / "some_nets.py").write_text(NETS)
    np.savez(tmp_path / "x.npz", x_train=np.zeros((50, 4)), y_train=np.arange(50) % 2, x_test=np.zeros((4, 4)),
             y_test=np.arange(4) % 2)  # fmt: skip
    content = {"model": {"build": "some_nets.py:wide", "width": 100, "look": look}, "dataset": {"file": "x.npz"}}
    training = {"batch_size": 10, "epochs": 1, "optimizer": {"name": "adam"}}
    (tmp_path / "run.json").write_text(json.dumps(content | {"training": training, "activation": {"name": "relu"}}))
    found = config.load(tmp_path / "run.json")
    needed = 4 * (4 * 702 + memory.KEPT * 10 * 206)
    monkeypatch.setattr(memory, "available", lambda: 0.999 * needed)
    with pytest.raises(ConfigError, match=r"702 parameters and 206 layer outputs for each of 10 images need at least"):
        train.run(found, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(memory, "available", lambda: 1.001 * needed)
    assert train.run(found, tmp_path / "out")[0]["status"] == "finished"


def test_its_variables_are_forgotten():
    memory.check(config.load(QUICK))
    assert not keras.src.backend.common.global_state.get_global_attribute("uninitialized_variables")


def test_the_machine_is_asked():
    assert 1e8 < environment.memory_of_machine() < 1e15


@pytest.mark.parametrize(
    "activation",
    [
        '{"name":"arelu","a_initializer":{"class_name":"Constant","config":{"value":"x"}}}',
        '{"name":"method1","weights_constraint":{"class_name":"UnitNorm","config":{"axis":99}},"normalization":"none"}',
        '{"name":"arelu","a_regularizer":{"class_name":"L2","config":{"l2":"x"}}}',
    ],
)
def test_an_activation_that_cannot_be_built_is_one_line(activation, tmp_path, capsys):
    out = tmp_path / "out"
    assert train.main([QUICK, "--set", f"activation={activation}", "--out", str(out)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {QUICK}: activation") and not out.exists()
