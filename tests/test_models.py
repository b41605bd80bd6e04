"""The zoo's networks: their structure against the papers' and other libraries' numbers, and that they train."""

import math
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_adaptact as ka
from zoo import models
from zoo.config.schema import Config
from zoo.models.blocks import GroupedConv2D, LocalResponseNormalization

BACKEND = keras.backend.backend()
ZOO = (Path(__file__).parents[1] / "docs" / "zoo.md").read_text(encoding="utf-8")
SMALL = {
    "lenet": {},
    "alexnet": {"widths": [16, 24]},
    "googlenet": {"width": 1 / 64},
    "resnet50": {"width": 4, "blocks": [2, 1]},
    "densenet": {"growth": 4, "blocks": [2, 1]},
}
every_network = pytest.mark.parametrize("network", SMALL)


@pytest.fixture(autouse=True)
def _quick_on_jax(monkeypatch):
    """Draws kernels in NumPy, as JAX compiles a program for each shape, and has XLA optimize less."""
    rng = np.random.default_rng(0)

    def draw(self, shape, dtype=None):
        return ops.convert_to_tensor(rng.normal(0, math.sqrt(2 / math.prod(shape[:-1])), shape), dtype)

    monkeypatch.setattr(keras.initializers.VarianceScaling, "__call__", draw)
    if BACKEND == "jax":
        import jax

        jax.config.update("jax_disable_most_optimizations", True)
        yield
        jax.config.update("jax_disable_most_optimizations", False)
    else:
        yield


def build(network, activation="relu", **fields):
    activation = [dict(rule) for rule in activation] if isinstance(activation, list) else {"name": activation}
    return models.build(Config(model={"name": network} | fields, activation=activation), classes=10)


def outline(network, activation="relu", **fields):
    """A network whose weights have shapes and no values: quick to build, however large."""
    with keras.StatelessScope(initialize_variables=False):
        return build(network, activation, **fields)


def sites(model):
    return [layer.name.removesuffix("_activation") for layer in model.layers if layer.name.endswith("_activation")]


def images(size=8):
    x = np.random.default_rng(1).normal(size=(size, 32, 32, 3)).astype("float32")
    return x.transpose(0, 3, 1, 2) if keras.config.image_data_format() == "channels_first" else x


def logits_of(model):
    """On JAX by one program, on the others step by step: what each is quickest with, once."""
    model.compile(run_eagerly=BACKEND != "jax")
    return model.predict_on_batch(images())


def randomize(model):
    """Makes the numbers of each vector differ, so that it shows where they end up."""
    rng = np.random.default_rng(2)
    model.set_weights([w + rng.uniform(0, 0.5, w.shape) if w.ndim == 1 else w for w in model.get_weights()])


# Structure

SITES = {
    "lenet": {"conv1", "conv2", "fc3"},
    "alexnet": {"conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7"},
    "googlenet": {"conv1", "conv2", "conv3"}
    | {
        f"inception_{name}_{branch}"
        for name in ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")
        for branch in ("1x1", "3x3_reduce", "3x3", "5x5_reduce", "5x5", "pool_proj")
    },
    "resnet50": {"conv1"}
    | {
        f"conv{stage}_block{block}_{part}"
        for stage, blocks in ((2, 3), (3, 4), (4, 6), (5, 3))
        for block in range(1, blocks + 1)
        for part in ("1", "2", "out")
    },
    "densenet": {"transition1", "transition2", "transition3", "final"}
    | {
        f"block{block}_layer{layer}_{part}"
        for block, size in ((1, 6), (2, 12), (3, 48), (4, 32))
        for layer in range(1, size + 1)
        for part in ("1", "2")
    },
}


def alexnet_sum(conv1, flat):
    """Kernels (48 and 192 are half of 96 and 384), batch norm's four vectors, and the head."""
    convolutions = conv1 * 3 * 96 + 5 * 5 * 48 * 256 + 3 * 3 * 256 * 384 + 3 * 3 * 192 * 384 + 3 * 3 * 192 * 256
    dense = flat * 1024 + 1024 * 2048
    return convolutions + dense + 4 * (96 + 256 + 384 + 384 + 256 + 1024 + 2048) + 2048 * 10 + 10


def googlenet_sum(conv1, conv2, five=5, norms=4, classes=10):
    """Of the paper's Table 1: input, 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection."""
    table = [
        (192, 64, 96, 128, 16, 32, 32),
        (256, 128, 128, 192, 32, 96, 64),
        (480, 192, 96, 208, 16, 48, 64),
        (512, 160, 112, 224, 24, 64, 64),
        (512, 128, 128, 256, 24, 64, 64),
        (512, 112, 144, 288, 32, 64, 64),
        (528, 256, 160, 320, 32, 128, 128),
        (832, 256, 160, 320, 32, 128, 128),
        (832, 384, 192, 384, 48, 128, 128),
    ]
    found = conv1 * conv1 * 3 * 64 + norms * 64  # conv1
    found += conv2[0] ** 2 * 64 * conv2[1] + norms * conv2[1]  # conv2
    found += 3 * 3 * conv2[1] * 192 + norms * 192  # conv3
    for maps, one, reduce3, three, reduce5, fives, pool in table:
        found += maps * (one + reduce3 + reduce5 + pool)  # the 1x1 convolutions of the input
        found += 3 * 3 * reduce3 * three + five * five * reduce5 * fives
        found += norms * (one + reduce3 + three + reduce5 + fives + pool)
    return found + 1024 * classes + classes


def densenet_sum(conv1, growth, norms=4, classes=10):
    """A bottleneck: norm, 1x1 to four growths, norm, 3x3 to one growth. A transition: norm, 1x1 to half."""
    maps = 2 * growth
    found = conv1 * conv1 * 3 * maps
    for block, size in enumerate((6, 12, 48, 32)):
        if block:
            found += norms * maps + maps * maps // 2
            maps //= 2
        for _ in range(size):
            found += norms * maps + maps * 4 * growth + norms * 4 * growth + 3 * 3 * 4 * growth * growth
            maps += growth
    return found + norms * maps + maps * classes + classes


def resnet50_sum():
    """That of keras.applications, less the biases of its 53 convolutions."""
    with keras.StatelessScope(initialize_variables=False):
        theirs = keras.applications.ResNet50(weights=None, input_shape=(32, 32, 3), classes=10, include_top=True)
    biases = [layer.filters for layer in theirs.layers if isinstance(layer, layers.Conv2D) and layer.use_bias]
    assert len(biases) == 53 and sum(biases) == 26_560
    return theirs.count_params() - sum(biases)


def lenet_sum():
    return (5 * 5 * 3 + 1) * 6 + (5 * 5 * 6 + 1) * 16 + (8 * 8 * 16 + 1) * 120 + (120 + 1) * 10


def test_the_sums_give_what_torchvision_publishes():
    """Its counts are of trainable parameters, for 1000 classes.

    Its GoogLeNet, without the auxiliary classifiers, has a 1x1x64 conv2 and 3x3 kernels for 5x5; its DenseNet201 has
    batch norm after conv1. The last sum leaves out batch norm's statistics and has the larger head.
    """
    assert googlenet_sum(7, (1, 64), five=3, norms=2, classes=1000) == 6_624_904
    assert densenet_sum(7, growth=32, norms=2, classes=1000) + 2 * 64 == 20_013_928
    assert resnet50_sum() - 2 * 26_560 + 990 * 2049 == 25_557_032


@pytest.mark.parametrize(
    "network, stem, count, sizes",
    [
        ("lenet", None, lenet_sum, {"conv1": 32, "pool1": 16, "pool2": 8}),
        (
            "alexnet",
            "reference",
            lambda: alexnet_sum(11 * 11, flat=256),
            {"conv1": 16, "pool1": 7, "conv2": 7, "pool2": 3, "conv5": 3, "pool5": 1},
        ),
        (
            "alexnet",
            "cifar",
            lambda: alexnet_sum(3 * 3, flat=7 * 7 * 256),
            {"conv1": 32, "conv2": 32, "pool2": 15, "conv5": 15, "pool5": 7},
        ),
        (
            "googlenet",
            "reference",
            lambda: googlenet_sum(7, (3, 192)),
            {"conv1": 16, "pool1": 8, "conv3": 8, "inception_3b": 4, "inception_4e": 2, "inception_5b": 1},
        ),
        (
            "googlenet",
            "cifar",
            lambda: googlenet_sum(3, (3, 192)),
            {"conv1": 32, "conv3": 32, "inception_3b": 16, "inception_4e": 8, "inception_5b": 4},
        ),
        (
            "resnet50",
            "reference",
            resnet50_sum,
            {"conv1": 16, "pool1": 8, "conv2_block3_add": 8, "conv3_block4_add": 4, "conv4_block6_add": 2}
            | {"conv5_block3_add": 1},
        ),
        (
            "resnet50",
            "cifar",
            lambda: resnet50_sum() - 7 * 7 * 3 * 64 + 3 * 3 * 3 * 64,
            {"conv1": 32, "conv2_block3_add": 32, "conv3_block4_add": 16, "conv4_block6_add": 8, "conv5_block3_add": 4},
        ),
        (
            "densenet",
            "reference",
            lambda: densenet_sum(7, growth=24),
            {"conv1": 16, "block1_layer6_2": 16, "block2_layer12_2": 8, "block3_layer48_2": 4, "block4_layer32_2": 2},
        ),
        (
            "densenet",
            "cifar",
            lambda: densenet_sum(3, growth=24),
            {"conv1": 32, "block1_layer6_2": 32, "block2_layer12_2": 16, "block3_layer48_2": 8, "block4_layer32_2": 4},
        ),
    ],
)
def test_structure(network, stem, count, sizes):
    """Sites, parameters, and height and width of the maps that each stage ends with."""
    model = outline(network, **{"stem": stem} if stem else {})
    assert sorted(sites(model)) == sorted(SITES[network])
    assert {name: tuple(model.get_layer(name).output.shape[1:3]) for name in sizes} == {
        name: (size, size) for name, size in sizes.items()
    }
    parameters = count()
    assert model.count_params() == parameters
    if stem != "reference":
        assert f"| `{network}` | {len(SITES[network])} | {parameters:,} |" in ZOO


def test_the_sites_are_as_many_as_published():
    assert {network: len(names) for network, names in SITES.items()} == {
        "lenet": 3, "alexnet": 7, "googlenet": 57, "resnet50": 49, "densenet": 200
    }  # fmt: skip


def test_densenet_counts_as_that_of_keras():
    with keras.StatelessScope(initialize_variables=False):
        theirs = keras.applications.DenseNet121(weights=None, input_shape=(32, 32, 3), classes=10)
    ours = outline("densenet", stem="reference", blocks=[6, 12, 24, 16], growth=32)
    assert ours.count_params() == theirs.count_params() - theirs.get_layer("conv1_bn").count_params()


@every_network
def test_batch_norm_or_biases(network):
    for data_format, axis in (("channels_last", -1), ("channels_first", 1)):
        keras.config.set_image_data_format(data_format)
        for norm in ("batch", "none"):
            found = outline(network, **SMALL[network] | {"norm": norm}).layers
            norms = [layer for layer in found if isinstance(layer, layers.BatchNormalization)]
            settings = {(layer.momentum, layer.epsilon, layer.axis) for layer in norms}
            assert settings == ({(0.9, 1e-5, axis)} if norm == "batch" else set())
            weighty = [layer for layer in found if isinstance(layer, layers.Conv2D | layers.Dense)]
            assert {layer.use_bias for layer in weighty if layer.name != "logits"} == {norm == "none"}


@every_network
def test_rules_choose_by_site(network):
    names = {"conv*": "arelu", "*_1": "swish", "*": "method2"}
    there = {"densenet": ("*_1", "*"), "resnet50": ("conv*",)}.get(network, ("conv*", "*"))  # a rule needs a site
    model = outline(network, [{"sites": each, "name": names[each]} for each in there], **SMALL[network])
    for site in sites(model):
        chosen = ka.AReLU if site.startswith("conv") else ka.Swish if site.endswith("_1") else ka.Method2
        assert type(model.get_layer(f"{site}_activation")) is chosen


# Behaviour


@every_network
def test_every_activation_learns(network):
    """With the reference stem; the tests below have the cifar stem, which is the default."""
    slow = (BACKEND, network) == ("jax", "googlenet")  # XLA takes twice as long for 57 times method 1
    stem = {} if network == "lenet" else {"stem": "reference"}
    model = build(network, "method2" if slow else "method1", **SMALL[network] | stem)
    activations = [model.get_layer(f"{site}_activation") for site in sites(model)]
    before = [layer.get_weights() for layer in activations]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(1.0), loss, run_eagerly=BACKEND != "jax")
    assert np.isfinite(model.train_on_batch(images(), np.arange(8)))
    for layer, old in zip(activations, before, strict=True):
        for a, b in zip(old, layer.get_weights(), strict=True):
            assert np.isfinite(b).all() and np.abs(b - a).max() > 1e-6, layer.name


@every_network
def test_mixed_precision_and_files(network, tmp_path):
    """Half precision gives nearly the same logits, in float32; the saved model gives exactly the same."""
    whole = build(network, **SMALL[network])
    randomize(whole)
    expected = logits_of(whole)
    for dtype in ("bfloat16", "float16"):
        keras.config.set_dtype_policy(f"mixed_{dtype}")
        model = build(network, **SMALL[network])
        model.set_weights(whole.get_weights())
        assert model.get_layer("conv1").compute_dtype == dtype
        logits = logits_of(model)
        assert logits.dtype == "float32"
        assert 0 < np.abs(logits - expected).max() < 0.05 * np.abs(expected).max()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", compile=False)
    np.testing.assert_array_equal(logits_of(loaded), logits)


@every_network
def test_data_formats_agree(network, tmp_path):
    """One weights file gives the same logits with channels first; on CPU TensorFlow has no such convolutions."""
    last = build(network, **SMALL[network])
    randomize(last)
    last.save_weights(tmp_path / "model.weights.h5")
    expected = logits_of(last)
    keras.config.set_image_data_format("channels_first")
    first = build(network, **SMALL[network])
    first.load_weights(tmp_path / "model.weights.h5")
    if BACKEND != "tensorflow":
        np.testing.assert_allclose(logits_of(first), expected, rtol=1e-4, atol=1e-4)


# The two layers


def test_grouped_convolution_sees_its_own_group():
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(2, 6, 5, 4)), rng.normal(size=(3, 3, 2, 6))
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)]), (3, 3), axis=(1, 2))
    halves = [(windows[:, :, :, :2], kernel[..., :3]), (windows[:, :, :, 2:], kernel[..., 3:])]
    expected = np.concatenate([np.einsum("nhwcij,ijco->nhwo", window, k) for window, k in halves], axis=-1)
    for data_format, order in each_data_format():
        layer = GroupedConv2D(6, 3, groups=2, padding="same", use_bias=False, data_format=data_format)
        layer.build(x.transpose(order).shape)
        layer.set_weights([kernel])
        found = layer(x.transpose(order).astype("float32"))
        np.testing.assert_allclose(ops.convert_to_numpy(found), expected.transpose(order), rtol=1e-4, atol=1e-4)


def each_data_format():
    """With the order that a channels-last array is transposed to; on CPU TensorFlow convolves the first only."""
    yield "channels_last", (0, 1, 2, 3)
    if BACKEND != "tensorflow":
        yield "channels_first", (0, 3, 1, 2)


@pytest.mark.parametrize("size", [5, 4])
def test_local_response_normalization(size):
    """Against the definition of `torch.nn.functional.local_response_norm`, whose alpha is `size` times ours."""
    z = np.random.default_rng(0).normal(0, 30, (2, 3, 4, 7)).astype("float32")
    expected = np.empty_like(z)
    for channel in range(7):
        around = [c for c in range(channel - size // 2, channel + (size - 1) // 2 + 1) if 0 <= c < 7]
        mean = sum(z[..., c].astype("float64") ** 2 for c in around) / size
        expected[..., channel] = z[..., channel] / (2 + size * 1e-4 * mean) ** 0.75
    for axis, order in ((-1, (0, 1, 2, 3)), (1, (0, 3, 1, 2))):
        layer = LocalResponseNormalization(size, axis=axis)
        found = ops.convert_to_numpy(layer(z.transpose(order)))
        np.testing.assert_allclose(found, expected.transpose(order), rtol=1e-5)
    if BACKEND == "torch":
        import torch

        theirs = torch.nn.functional.local_response_norm(
            torch.tensor(z.transpose(0, 3, 1, 2)), size, size * 1e-4, 0.75, 2.0
        )
        np.testing.assert_allclose(theirs.numpy(), expected.transpose(0, 3, 1, 2), rtol=1e-5)


def test_local_response_normalization_squares_in_float32():
    """In float16 the square of 300 is infinite, and the output would be 0."""
    layer = LocalResponseNormalization(dtype="mixed_float16")
    found = ops.convert_to_numpy(layer(np.full((1, 1, 1, 1), 300.0)))
    assert found.dtype == "float16"
    np.testing.assert_allclose(found, 300 / (2 + 1e-4 * 300**2) ** 0.75, rtol=1e-3)
