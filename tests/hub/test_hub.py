"""Networks of KerasHub, from presets that are written here: the same functions as theirs, trained, and refused."""

import json

import keras
import keras_hub
import numpy as np
import pytest

from zoo import config, evaluate, models, owncode, predict, train
from zoo.data.splits import Form
from zoo.errors import UserError
from zoo.files import read_json, read_table

PICTURES = Form((16, 16, 3), "uint8", ("a", "b", "c"))
TOKENS = Form((6,), "int32", ("a", "b"))


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A small ResNet and a small BERT, as presets; pictures of two shades, and a config."""
    monkeypatch.setenv(owncode.TRUST, "")
    keras.utils.set_random_seed(0)
    resnet = keras_hub.models.ResNetBackbone(
        input_conv_filters=[64], input_conv_kernel_sizes=[3], stackwise_num_filters=[64, 64],
        stackwise_num_blocks=[1, 1], stackwise_num_strides=[1, 2], block_type="basic_block",
    )  # fmt: skip
    resnet.save_to_preset(str(tmp_path / "resnet"))
    bert = keras_hub.models.BertBackbone(
        vocabulary_size=20, num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=16, max_sequence_length=6
    )
    bert.save_to_preset(str(tmp_path / "bert"))
    random = np.random.default_rng(0)
    y = random.integers(0, 3, 60)
    x = (random.integers(0, 60, (60, 16, 16, 3)) + 60 * y[:, None, None, None]).astype("uint8")
    np.savez(tmp_path / "pictures.npz", x_train=x[:40], y_train=y[:40], x_test=x[40:], y_test=y[40:])
    return tmp_path


def settings(place, preset, name, **model):
    training = {"epochs": 2, "batch_size": 12, "optimizer": {"name": "adam", "learning_rate": 0.01}}
    content = {"model": {"kerashub": preset} | model, "activation": {"name": name}, "training": training}
    (place / "run.json").write_text(json.dumps(content | {"dataset": {"file": "pictures.npz"}}))
    return config.load(place / "run.json")


def test_a_network_of_images_is_its_backbone_averaged(place):
    """With ReLU in the place of ReLU, and the weights of the preset."""
    model = models.build(settings(place, "resnet/", "relu", weights="preset"), form=PICTURES)
    theirs = keras_hub.models.Backbone.from_preset(str(place / "resnet"))
    x = np.random.default_rng(1).normal(size=(4, 16, 16, 3)).astype("float32")
    kernel, bias = model.get_layer("logits").get_weights()
    wanted = theirs.predict(x, verbose=0).mean(axis=(1, 2)) @ kernel + bias
    np.testing.assert_allclose(model.predict(x, verbose=0), wanted, rtol=1e-4, atol=1e-5)
    random = models.build(settings(place, "resnet", "relu"), form=PICTURES)  # a folder, without its slash
    assert np.abs(random.predict(x, verbose=0) - wanted).max() > 1e-3


def test_texts_are_rows_of_tokens_filled_up_with_zeros(place):
    model = models.build(settings(place, "bert/", "tanh", source="tanh", weights="preset"), form=TOKENS)
    theirs = keras_hub.models.Backbone.from_preset(str(place / "bert"))
    x = np.array([[3, 4, 5, 0, 0, 0], [7, 8, 9, 10, 11, 12]], "int32")
    given = {"token_ids": x, "padding_mask": (x != 0).astype("int32"), "segment_ids": np.zeros_like(x)}
    kernel, bias = model.get_layer("logits").get_weights()
    wanted = theirs.predict(given, verbose=0)["pooled_output"] @ kernel + bias
    np.testing.assert_allclose(model.predict(x, verbose=0), wanted, rtol=1e-4, atol=1e-5)
    most = models.build(settings(place, "bert/", "arelu"), form=TOKENS)  # its approximate GELU, which Keras can't name
    assert len(most.trainable_weights) > len(model.trainable_weights)
    pooled = next(layer for layer in most._flatten_layers() if layer.name == "pooled_dense")
    assert pooled.activation is keras.activations.tanh


def test_it_trains_and_is_what_it_was(place, capsys):
    """Every ReLU is a site; a preset that changed is refused, and the copy of its structure is enough."""
    settings(place, "resnet/", "arelu")
    out = place / "run"
    assert train.main([str(place / "run.json"), "--out", str(out)]) == 0
    sites = {row["site"] for row in read_table(out / "parameters.csv")}
    theirs = keras_hub.models.Backbone.from_preset(str(place / "resnet"))
    relus = [layer for layer in theirs.layers if getattr(layer, "activation", None) is keras.activations.relu]
    assert len(sites) == len(relus) > 3
    assert read_json(out / "config.json")["model"]["kerashub"] == "../resnet/"
    before = evaluate.evaluate(out)
    assert before["test_accuracy"] == pytest.approx(read_json(out / "metrics.json")["test_accuracy"])
    np.save(place / "x.npy", np.load(place / "pictures.npz")["x_test"][:2])
    assert len(predict.predict(out, [place / "x.npy"])) == 2
    structure = place / "resnet" / "config.json"
    structure.write_text(structure.read_text().replace('"basic_block"', '"bottleneck_block"'))
    capsys.readouterr()
    assert evaluate.main([str(out)]) == 2
    assert "config.json: changed since the run" in capsys.readouterr().err
    assert evaluate.main([str(out), "--trust"]) == 0
    assert json.loads((out / "evaluation-test.json").read_text())["test_loss"] == pytest.approx(before["test_loss"])


@pytest.mark.parametrize(
    "model, form, message",
    [
        ({"kerashub": "gone/"}, PICTURES, "gone: not what save_to_preset writes: it has no config.json"),
        ({"kerashub": "resnet/"}, TOKENS, "resnet doesn't take samples of shape (6,)"),
        ({"kerashub": "resnet/", "source": "tanh"}, PICTURES, "'tanh' is at no site of resnet; there are "),
        ({"kerashub": "resnet/", "dept": 3}, PICTURES, "model.dept: ResNetBackbone has no such option"),
        ({"kerashub": "resnet/", "weights": "imagenet"}, PICTURES, "model.weights"),
        ({"kerashub": "resnet/", "dtype": "float16"}, PICTURES, "dtype comes from other fields"),
    ],
)
def test_what_does_not_fit_is_one_line(model, form, message, place):
    with pytest.raises(UserError) as error:
        preset = model.pop("kerashub")
        models.build(settings(place, preset, "relu", **model), form=form)
    assert message in str(error.value) and "\n" not in str(error.value)
