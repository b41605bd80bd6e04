"""Models that break folds: each keeps its numbers, or the site is left alone with its reason."""

import functools

import keras
import numpy as np
import pytest
from exact import CPU_RUNS_CHANNELS_FIRST, IMAGES, RNG, Gated, Standardized, X, call, folds, model_of, strong
from keras import layers, ops

import keras_adaptact as ka


@pytest.mark.parametrize("make", [layers.LSTM, layers.GRU, layers.SimpleRNN, Gated], ids=lambda make: make.__name__)
def test_an_activation_that_is_not_the_last_step_stays(make):
    (site,) = folds(model_of((6, 5), make(4, activation=strong()), layers.Dense(2)))
    assert not site.moved and site.place == "inside" and "isn't known" in site.why


@pytest.mark.parametrize(
    "wrap",
    [
        lambda: layers.Bidirectional(layers.LSTM(4, activation=strong())),
        lambda: layers.TimeDistributed(layers.Dense(4, activation=strong())),
        lambda: layers.RNN(layers.SimpleRNNCell(4, activation=strong())),
        lambda: layers.RNN(layers.StackedRNNCells([layers.LSTMCell(4, activation=strong()), layers.GRUCell(3)])),
        lambda: layers.SpectralNormalization(layers.Dense(4, activation=strong())),
    ],
)
def test_what_a_wrapper_holds_stays(wrap):
    plan = folds(model_of((6, 5), wrap(), layers.Dense(2)))
    assert plan and all(not site.moved and site.why.startswith("inside a ") for site in plan)


def test_the_kernel_of_a_subclass_stays():
    plan = folds(model_of((8, 8, 3), Standardized(4, 3), strong(), Standardized(4, 3, activation=strong())), IMAGES)
    assert [(site.moved, site.why) for site in plan] == [
        ("", "a Standardized can't take a scale; standardized_1 after it can't be moved through"),
        ("", "where Standardized applies it isn't known"),
    ]


@pytest.mark.parametrize("axis", [1, 2])
def test_channels_on_another_axis(axis):
    """Every axis has four places, so that sizes don't tell them apart."""
    x = RNG.normal(size=(3, 4, 4, 4)).astype("float32")
    activation = strong(granularity="channel", channels=4)
    activation.set_parameters(a=np.arange(1.0, 5.0), c=np.arange(4.0))
    model = model_of((4, 4, 4), layers.BatchNormalization(axis=axis), activation)
    (site,) = folds(model, x)
    assert not site.moved and "another axis" in site.why


@pytest.mark.skipif(not CPU_RUNS_CHANNELS_FIRST, reason="TensorFlow has no such convolution on a CPU")
def test_channels_first_beside_channels_last():
    x = RNG.normal(size=(3, 4, 4, 4)).astype("float32")
    for first, last in (("channels_first", "channels_last"), ("channels_last", "channels_first")):
        activation = strong(granularity="channel", channels=4, data_format=last)
        activation.set_parameters(a=np.arange(1.0, 5.0), b=np.arange(1.0, 5.0))
        conv = functools.partial(layers.Conv2D, 4, 1, data_format=first)
        assert [site.moved for site in folds(model_of((4, 4, 4), conv(), activation, conv()), x)] == [""]
        pool = layers.AveragePooling2D(2, data_format=first)
        (site,) = folds(model_of((4, 4, 4), activation, pool, layers.Conv2D(3, 1, data_format=last)), x)
        assert "pools over the channels" in site.why


def test_a_kernel_that_a_nested_model_also_calls():
    inner = keras.Sequential([layers.Input((5,)), layers.Dense(5, name="shared"), strong(), layers.Dense(5)])
    inputs = keras.Input((5,))
    outputs = layers.Add()([inner(inputs), inner.layers[0](inputs), inner.layers[2](inputs)])
    plan = folds(keras.Model(inputs, outputs), X[:, 0])
    assert [site.moved for site in plan] == [""] and "used elsewhere" in plan[0].why


def test_a_dropout_that_always_drops():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5,))
    x = layers.Dropout(0.9, seed=3)(strong()(layers.Dense(64)(inputs)), training=True)
    model = keras.Model(inputs, layers.Dense(2)(x))
    (site,) = ka.plan_folding(model)
    assert site.moved == "a, c into dense" and "has other arguments" in site.why
    np.testing.assert_allclose(call(ka.fold_activations(model), X[:, 0]), call(model, X[:, 0]), atol=1e-5)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "float16"])
def test_low_precision_is_not_rounded_anew(policy):
    keras.config.set_dtype_policy(policy)
    model = model_of((5,), layers.Dense(4), strong(), layers.Dense(2))
    plan = ka.plan_folding(model)
    np.testing.assert_array_equal(call(ka.fold_activations(model), X[:, 0]), call(model, X[:, 0]))
    assert plan[0].why == f"it computes in {policy.removeprefix('mixed_')}"


@pytest.mark.parametrize("function", ["sin", "cos", "erf", "square", "arctan", "abs", "softmax"])
def test_any_function_is_folded(function, tmp_path):
    activation = ka.AdaptiveActivation(function, a_initializer=0.5, b_initializer=2.0, d_initializer=0.3)
    model = model_of((5,), layers.Dense(4, activation=activation), layers.Dense(2))
    (site,) = folds(model, X[:, 0])
    assert site.becomes == function and site.moved == "a into dense; b, d into dense_1" and not site.why
    folded = ka.fold_activations(model)
    folded.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        call(keras.saving.load_model(tmp_path / "model.keras"), X[:, 0]), call(folded, X[:, 0])
    )


def test_a_function_of_ones_own_is_folded(monkeypatch):
    from keras_adaptact import registry

    monkeypatch.setattr(registry, "_REGISTERED", dict(registry._REGISTERED))
    ka.register("ripple", lambda z: z + ops.sin(z))
    for function in ("ripple", lambda z: ops.sin(z) * ops.tanh(z)):
        activation = ka.AdaptiveActivation(function, a_initializer=0.5, c_initializer=0.2, b_initializer=2.0)
        (site,) = folds(model_of((5,), layers.Dense(4), activation, layers.Dense(2)), X[:, 0])
        assert site.moved and not site.why


def test_a_plan_of_folding_prints_as_a_table():
    keras.utils.clear_session()
    model = model_of((6, 5), layers.LSTM(4, activation=strong()), layers.Dense(3, activation=strong()), layers.Dense(2))
    assert str(ka.plan_folding(model)).splitlines() == [
        "site   kind   function  becomes  moved                               why the rest stays",
        "lstm   LSTM   ATanh     ATanh                                        where LSTM applies it isn't known",
        "dense  Dense  ATanh     tanh     a, c into dense; b, d into dense_1",
        "1 of 2 folded into other layers",
    ]


def test_regularized_and_constrained_kernels_are_folded():
    kernel = {"kernel_regularizer": "l2", "kernel_constraint": keras.constraints.NonNeg(), "activity_regularizer": "l1"}
    model = model_of((5,), layers.Dense(4, **kernel), strong(), layers.Dense(2, **kernel))
    assert folds(model, X[:, 0])[0].becomes == "tanh"
