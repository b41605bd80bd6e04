"""Mixtures: normalizations, fixed and learned weights, freezing and freeing."""

import functools

import keras
import numpy as np
import pytest
from keras import layers, ops
from test_layers import penalty

import keras_adaptact as ka

Z = np.linspace(-3, 3, 7, dtype="float32")[None]


def run(layer):
    return ops.convert_to_numpy(layer(Z))


def test_method_1_and_2_are_spellings_of_mixture():
    assert isinstance(ka.Method1(), ka.Mixture) and isinstance(ka.Method2(), ka.Mixture)
    assert ka.Method1().member_names == ["atanh", "asigmoid", "arelu"]
    assert ka.Method2().member_names == ["tanh", "sigmoid", "relu"]
    np.testing.assert_array_equal(run(ka.Method2()), run(ka.Mixture(["tanh", "sigmoid", "relu"])))
    np.testing.assert_array_equal(run(ka.Method1()), run(ka.Mixture([ka.ATanh(), ka.ASigmoid(), ka.AReLU()])))


def test_members_of_every_kind():
    bump = functools.partial(lambda z, sign: ops.exp(sign * ops.square(z)), sign=-1)
    layer = ka.Mixture(
        [
            "gelu",
            ka.ATanh(a_initializer=2.0),
            ka.ATanh(),
            {"name": "adaptive", "function": "sin"},
            bump,
            ka.Swish(),
        ]
    )
    assert layer.member_names == ["gelu", "atanh", "atanh_2", "adaptiveactivation", "partial", "swish"]
    parameters = layer.get_parameters()
    assert parameters["atanh_a"] == 2.0 and parameters["atanh_2_a"] == 1.0 and parameters["swish_beta"] == 1.0
    expit = 1 / (1 + np.exp(-Z))
    from scipy.stats import norm

    terms = [Z * norm.cdf(Z), np.tanh(2 * Z), np.tanh(Z), np.sin(Z), np.exp(-(Z**2)), Z * expit]
    np.testing.assert_allclose(run(layer), np.mean(terms, axis=0), rtol=1e-5, atol=1e-6)


def test_a_member_layer_shares_nothing_with_the_mixture():
    member = ka.ATanh()
    first, second = ka.Mixture([member, "relu"]), ka.Mixture([member, "relu"])
    first.set_parameters(atanh_a=2.0)
    assert member.a == 1.0 and second.get_parameters()["atanh_a"] == 1.0
    assert len(first.weights) == 2  # its parameters and its mixing weights


@pytest.mark.parametrize("members", [["method1"], [ka.Method2], ["leaky_relu"], [], "tanh", [keras.layers.ReLU()], [3]])
def test_what_cannot_be_a_member(members):
    with pytest.raises((ValueError, TypeError), match="Received"):
        ka.Mixture(members)


@pytest.mark.parametrize("weights", [[1, 1, 1], [1 / 3, 1 / 3, 1 / 3], [0.2, -1.0, 3.0]])
@pytest.mark.parametrize("normalization", ["sum", "softmax", "none"])
def test_fixed_weights_are_used_as_given_and_stay(weights, normalization):
    layer = ka.Method2(weights=weights, normalization=normalization)
    expected = weights[0] * np.tanh(Z) + weights[1] / (1 + np.exp(-Z)) + weights[2] * np.maximum(Z, 0)
    np.testing.assert_allclose(run(layer), expected, rtol=1e-5, atol=1e-6)
    assert layer.trainable_variables == []
    model = keras.Sequential([layers.Input((7,)), layer, layers.Dense(1)])
    model.compile("adam", "mse")
    model.fit(np.repeat(Z, 8, 0), np.ones((8, 1)), verbose=0)
    np.testing.assert_array_equal(layer.mixing_weights, np.array(weights, "float32"))


@pytest.mark.parametrize("weights", ["fixed", [1, 1], [1, 1, np.nan], 3, "123"])
def test_bad_weights_are_errors(weights):
    with pytest.raises(ValueError, match="tanh, sigmoid, relu"):
        ka.Method2(weights=weights)


@pytest.mark.parametrize("granularity", ["layer", "channel"])
def test_learned_and_fixed_have_the_same_layout(granularity):
    channels = {"channels": 5} if granularity == "channel" else {}
    learned = ka.Method1(granularity=granularity, **channels)
    fixed = ka.Method1(weights=[1, 2, 3], granularity=granularity, **channels)
    assert [(w.name, w.shape) for w in learned.weights] == [(w.name, w.shape) for w in fixed.weights]
    fixed.set_weights(learned.get_weights())
    np.testing.assert_array_equal(fixed.mixing_weights, learned.get_parameters()["weights"])  # raw, used as they are


def test_what_a_run_learned_can_be_held_fixed():
    learned = ka.Method2(weights_initializer=[1.0, 2.0, 5.0])
    held = ka.Method2(weights=learned.mixing_weights)
    np.testing.assert_allclose(run(held), run(learned), rtol=1e-6)
    changed = held.get_config() | {"weights": [0.2, 0.3, 0.5]}
    np.testing.assert_allclose(ka.Method2.from_config(changed).mixing_weights, [0.2, 0.3, 0.5])
    with pytest.raises(ValueError, match="no `weights_initializer`"):
        ka.Method2(weights=[1, 1, 1], weights_initializer=[5, 6, 7])


def test_parameters_of_members_take_settings():
    layer = ka.Method1(atanh_a_initializer=0.5, arelu_b_regularizer=keras.regularizers.L1(2.0))
    layer.set_parameters(arelu_b=0.25)
    assert layer.get_parameters()["atanh_a"] == 0.5 and penalty(layer) == pytest.approx(0.5)
    copied = ka.get(layer)
    assert copied.get_parameters()["atanh_a"] == 0.5
    assert ka.get({"name": "method1", "asigmoid_d_initializer": 2.0}).get_parameters()["asigmoid_d"] == 2.0
    with pytest.raises(ValueError, match=r"has the parameters .*asigmoid_d.*Received: asigmoid_e_initializer"):
        ka.get({"name": "method1", "asigmoid_e_initializer": 2.0})


def test_frozen_and_freed_mixtures_stay_the_same_function():
    learned = ka.Method2(weights_initializer=[1.0, 2.0, 5.0])
    np.testing.assert_allclose(learned.mixing_weights, [0.125, 0.25, 0.625])
    before = run(learned)
    learned.weights_trainable = False
    assert learned.trainable_variables == []
    np.testing.assert_array_equal(run(learned), before)
    copy = ka.Method2.from_config(learned.get_config())
    assert copy.trainable_variables == [] and not copy.weights_trainable
    learned.trainable = False
    learned.trainable = True  # a layer set free leaves its frozen mixing weights frozen
    assert learned.trainable_variables == []

    fixed = ka.Method2(weights=[1, 1, 1])
    before = run(fixed)
    fixed.weights_trainable = True
    assert len(fixed.trainable_variables) == 1
    np.testing.assert_array_equal(run(fixed), before)
    fixed.trainable = False
    assert fixed.trainable_variables == []


def test_a_frozen_mixture_reloads(tmp_path):
    layer = ka.Method1(weights_initializer=[1.0, 2.0, 5.0], weights_trainable=False)
    model = keras.Sequential([layers.Input((7,)), layer])
    layer.set_parameters(atanh_a=2.0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras").layers[0]
    np.testing.assert_array_equal(again.mixing_weights, layer.mixing_weights)
    assert again.get_parameters()["atanh_a"] == 2.0 and not again.weights_trainable


@pytest.mark.parametrize("learning_rate", [1e3, 1e30, np.inf])
def test_sum_stays_finite_whatever_the_optimizer_does(learning_rate):
    layer = ka.Method2()
    model = keras.Sequential([layers.Input((7,)), layer])
    model.compile(keras.optimizers.SGD(1.0), "mse")
    model.optimizer.learning_rate = learning_rate
    for target in (-1e3, 1e3):
        model.train_on_batch(Z, np.full_like(Z, target))
        raw = layer.get_parameters()["weights"]
        assert np.all(raw >= np.float32(1e-3))
        assert np.all(np.isfinite(layer.mixing_weights)) and layer.mixing_weights.sum() == pytest.approx(1, 1e-5)


def test_bounds_hide_no_divergence():
    """A NaN is no number within the bounds, and stays to be seen."""
    layer = ka.Method2()
    model = keras.Sequential([layers.Input((7,)), layer])
    model.compile(keras.optimizers.SGD(1.0), "mse")
    model.optimizer.learning_rate = np.nan
    model.train_on_batch(Z, Z)
    assert np.all(np.isnan(layer.get_parameters()["weights"]))


def test_raw_weights_out_of_bounds_are_refused():
    layer = ka.Method2()
    for out_of_bounds in ([1, -1, 0.001], [1, 1, 2e4]):
        with pytest.raises(ValueError, match="between"):
            layer.set_parameters(weights=out_of_bounds)
        with pytest.raises(ValueError, match="between"):
            ka.Method2(weights_initializer=out_of_bounds)
    np.testing.assert_array_equal(layer.get_parameters()["weights"], [1, 1, 1])
    started = ka.Method2(weights_initializer=keras.initializers.RandomNormal(seed=1))
    assert np.all(started.get_parameters()["weights"] >= np.float32(1e-3))


def test_weights_take_settings_too():
    layer = ka.Method2(weights_regularizer=keras.regularizers.L1(1.0), weights_constraint=keras.constraints.UnitNorm())
    assert penalty(layer) == pytest.approx(3.0)
    copy = ka.get(layer)
    assert penalty(copy) == pytest.approx(3.0)
    constrained = ops.convert_to_numpy(copy._raw_weights.constraint(ops.array([3.0, 4.0, -12.0])))
    np.testing.assert_allclose(constrained, [3 / 13, 4 / 13, 1e-3], rtol=1e-5)


def test_by_channel_each_channel_has_its_own_weights():
    layer = ka.Method2(granularity="channel", weights=[1, 0, 0], channels=2)
    layer.set_parameters(weights=np.array([[1, 0], [0, 0], [0, 1]]))
    y = ops.convert_to_numpy(layer(np.array([[-1.0, -1.0], [2.0, 2.0]], "float32")))
    np.testing.assert_allclose(y, [[np.tanh(-1), 0], [np.tanh(2), 2]], rtol=1e-6)
    assert layer.mixing_weights.shape == (3, 2)


def test_members_by_channel_need_a_mixture_by_channel():
    with pytest.raises(ValueError, match="granularity"):
        ka.Mixture(["tanh", ka.ATanh(granularity="channel")])
    ka.Mixture(["tanh", ka.ATanh(granularity="channel")], granularity="channel")


def test_a_member_has_no_variables_beside_its_parameters():
    class Extra(ka.TrainableActivation):
        a = ka.Parameter(1.0)

        def __init__(self, **options):
            super().__init__(**options)
            self.extra = self.add_weight(name="extra")

        def formula(self, z, a):
            return a * z + self.extra

    with pytest.raises(ValueError, match=r"which has no other variables. Received: .*, which has extra"):
        ka.Mixture([Extra(), "tanh"])
