"""Where the channels of a site are, and what is claimed of how it starts."""

import functools

import keras
import numpy as np
import pytest
from exact import CPU_RUNS_CHANNELS_FIRST, RNG, Gated, call, folds, model_of, replaced
from keras import layers, ops

import keras_adaptact as ka


@pytest.mark.parametrize("kind", ["activation", "layer", "function"])
def test_channels_are_where_the_model_has_them(kind):
    inputs = keras.Input((4, 6, 8))
    norm = layers.BatchNormalization(axis=1)
    x = norm(inputs)
    x = {"activation": layers.Activation("relu"), "layer": layers.ReLU(), "function": ops.relu}[kind](x)
    model = keras.Model(inputs, x)
    spec = {"name": "arelu", "granularity": "channel"}
    (site,) = ka.plan_replacement(model, "relu", spec)
    assert (site.axis, site.channels) == (1, 4)
    (made,) = [v for v in ka.replace_activations(model, "relu", spec).layers if isinstance(v, ka.AReLU)]
    assert made.data_format == "channels_first" and made.a.shape == (4,)


@pytest.mark.skipif(not CPU_RUNS_CHANNELS_FIRST, reason="TensorFlow has no such convolution on a CPU")
def test_channels_first_by_what_comes_before_or_after():
    inputs = keras.Input((3, 8, 8))
    conv = functools.partial(layers.Conv2D, 4, 3, data_format="channels_first")
    model = keras.Model(inputs, layers.ReLU()(layers.Dropout(0.1)(conv()(layers.ReLU()(inputs)))))
    new = ka.replace_activations(model, "relu", {"name": "method1", "granularity": "channel"})
    sizes = [
        layer.atanh_a.shape if hasattr(layer, "atanh_a") else layer.get_parameters()["atanh_a"].shape
        for layer in new.layers
        if isinstance(layer, ka.Method1)
    ]
    assert sizes == [(3,), (4,)]


def test_the_data_format_of_what_is_replaced_is_kept():
    model = model_of((4, 6, 8), ka.AReLU(granularity="channel", data_format="channels_first"))
    new = ka.replace_activations(model, "arelu", {"name": "atanh", "granularity": "channel"})
    assert new.layers[0].data_format == "channels_first" and new.layers[0].a.shape == (4,)


def test_channels_in_the_middle_are_refused():
    model = model_of((4, 6, 8), layers.BatchNormalization(axis=2), layers.ReLU())
    (site,) = ka.plan_replacement(model, "relu", {"name": "arelu", "granularity": "channel"})
    assert not site.replaced and site.why == "its channels are on axis 2 of 4"


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_recurrent_convolutions_have_channels_of_their_own(data_format):
    if data_format == "channels_first" and not CPU_RUNS_CHANNELS_FIRST:
        pytest.skip("TensorFlow has no such convolution on a CPU")
    model = model_of((2, 4, 4, 4), layers.ConvLSTM2D(5, 3, activation="relu", data_format=data_format))
    x = RNG.normal(size=(2, 2, 4, 4, 4)).astype("float32")
    new = ka.replace_activations(model, "relu", {"name": "arelu", "granularity": "channel"})
    np.testing.assert_array_equal(call(new, x), call(model, x))
    assert new.layers[0].activation.a.shape == (5,)
    new.layers[0].activation.set_parameters(b=np.arange(5) / 10)
    folds(new, x)


def test_where_own_code_computes_an_activation_is_not_guessed():
    model = model_of((6, 5), Gated(4, activation="relu"))
    (site,) = ka.plan_replacement(model, "relu", {"name": "arelu", "granularity": "channel"})
    assert not site.replaced and "isn't known" in site.why
    replaced(model)


def test_a_leaky_relu_by_its_name_is_keras_own():
    z = np.linspace(-3, 3, 7).astype("float32")
    np.testing.assert_allclose(ops.convert_to_numpy(ka.get("leaky_relu")(z)), np.where(z > 0, z, 0.2 * z), rtol=1e-6)
    model = model_of((5,), layers.Dense(4, activation="leaky_relu"), layers.LeakyReLU(0.2), layers.LeakyReLU())
    plan = ka.plan_replacement(model, "leaky_relu", {"name": "arelu", "b_initializer": 0.2})
    assert [(site.replaced, site.starts_equal) for site in plan] == [(True, True), (True, True), (False, None)]
    sloped = ka.get({"name": "leaky_relu", "negative_slope": 0.1}, name="mine")
    assert (sloped.negative_slope, sloped.name, type(sloped)) == (0.1, "mine", layers.LeakyReLU)
    with pytest.raises(ValueError, match="no option 'slope'"):
        ka.get({"name": "leaky_relu", "slope": 0.1})


def test_torch_computes_parts_of_tensors_and_their_ends_by_other_instructions():
    """So that PELU isn't ELU there to the bit, nor an adaptive GELU GELU behind a slice; what is claimed holds."""
    inputs = keras.Input((6, 8))
    x = layers.Activation("elu")(layers.Dense(3, use_bias=False)(inputs))
    y = layers.Activation("gelu")(inputs[..., ::2])
    inner = keras.Sequential([layers.Input((6, 4)), layers.Activation("gelu")])
    model = keras.Model(inputs, [x, y, inner(inputs[..., ::2]), layers.Activation("gelu")(inputs)])
    z = RNG.normal(size=(1, 6, 8)).astype("float32")
    for function, new in (("elu", "pelu"), ("gelu", {"name": "adaptive", "function": "gelu"})):
        plan = [site for site in ka.plan_replacement(model, function, new) if site.replaced]
        for site in plan:
            copied = ka.replace_activations(model, function, new, layers=site.name)
            equal = all(map(np.array_equal, call(copied, z), call(model, z)))
            assert equal or not site.starts_equal
    if keras.config.backend() == "torch":
        assert [s.starts_equal for s in ka.plan_replacement(model, "elu", "pelu") if s.replaced] == [False]
        assert sorted(site.starts_equal for site in plan) == [False, False, True]
