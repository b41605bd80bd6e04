"""Folded models compute what the trained ones do, with less."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_adaptact as ka

X = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype("float32")


def call(model, x=X):
    return ops.convert_to_numpy(model(x, training=False))


def shaken(model) -> keras.Model:
    """A model whose numbers are all others, as after training."""
    rng = np.random.default_rng(1)
    for variable in model.variables:
        if "seed" not in variable.path:
            old = ops.convert_to_numpy(variable.value)
            new = old + rng.normal(0.0, 0.2, old.shape)
            variable.assign(np.abs(new) if "variance" in variable.path else new)
    return model


def agree(model, folded, x=X):
    expected, found = call(model, x), call(folded, x)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def kinds(model) -> list[str]:
    return [type(layer).__name__ for layer in model._flatten_layers(include_self=False)]


def network(make, norm=False) -> keras.Model:
    """Sites as layers of their own and in `activation=`, with pooling, padding and a flattening between."""
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            layers.Input((8, 8, 3)),
            layers.Conv2D(6, 3, use_bias=not norm),
            *([layers.BatchNormalization()] if norm else []),
            make(6),
            layers.AveragePooling2D(2),
            layers.Conv2D(4, 3, padding="same", activation=make(4)),
            layers.MaxPooling2D(2),
            layers.Conv2D(5, 1, activation=make(5)),
            layers.GlobalAveragePooling2D(),
            layers.Dense(5, activation=make(5)),
            layers.Dropout(0.5),
            layers.Dense(2),
        ]
    )


SPECS = {
    "asigmoid": {"name": "asigmoid"},
    "atanh": {"name": "atanh"},
    "arelu": {"name": "arelu"},
    "adaptive": {"name": "adaptive", "function": "softplus"},
    "swish": {"name": "swish"},
    "frelu": {"name": "frelu"},
    "pelu": {"name": "pelu"},
    "method1": {"name": "method1"},
    "method2": {"name": "method2", "normalization": "softmax"},
}


@pytest.mark.parametrize("norm", [False, True], ids=["plain", "norm"])
@pytest.mark.parametrize("granularity", ["layer", "channel"])
@pytest.mark.parametrize("spec", SPECS.values(), ids=list(SPECS))
def test_outputs_agree(spec, granularity, norm, tmp_path):
    def make(channels):
        more = {"granularity": "channel", "channels": channels} if granularity == "channel" else {}
        return ka.get(spec | more)

    model = shaken(network(make, norm))
    before = call(model)
    folded = ka.fold_activations(model)
    agree(model, folded)
    np.testing.assert_array_equal(call(model), before)  # and the model is as it was
    assert not any(
        layer.trainable_variables for layer in folded._flatten_layers() if isinstance(layer, ka.TrainableActivation)
    )
    folded.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(call(keras.saving.load_model(tmp_path / "model.keras")), call(folded))


@pytest.mark.parametrize("name", ["asigmoid", "atanh", "swish", "frelu", "pelu"])
def test_plain_layers_are_left_where_everything_folds(name):
    model = shaken(keras.Sequential([layers.Input((3,)), layers.Dense(4), ka.get(name), layers.Dense(2)]))
    folded = ka.fold_activations(model)
    agree(model, folded, X[:, 0, 0])
    assert kinds(folded) == ["InputLayer", "Dense", "Activation", "Dense"] or kinds(folded) == [
        "Dense",
        "Activation",
        "Dense",
    ]


@pytest.mark.parametrize("a, b, c, d", [(1.5, 0.25, 0.3, -0.2), (-0.5, 2.0, 0.1, 0.4), (-0.5, -2.0, 0.1, 0.4)])
def test_arelu_becomes_a_leaky_relu(a, b, c, d):
    model = keras.Sequential([layers.Input((3,)), layers.Dense(4), ka.AReLU(), layers.Dense(2)])
    model.layers[1].set_parameters(a=a, b=b, c=c, d=d)
    folded = ka.fold_activations(model)
    agree(model, folded, X[:, 0, 0])
    assert (kinds(folded)[-2] == "LeakyReLU") == (a * b > 0)


def test_an_arelu_that_is_nearly_straight_stays():
    model = keras.Sequential([layers.Input((3,)), layers.Dense(4), ka.AReLU(), layers.Dense(2)])
    model.layers[1].set_parameters(a=1.0, b=0.9999, c=0.5, d=-0.5)
    folded = ka.fold_activations(model)
    agree(model, folded, X[:, 0, 0])
    assert kinds(folded)[-2] == "AReLU"


def test_mixtures_lose_members_without_weight():
    three = ka.Mixture(["atanh", "sigmoid", "relu"], weights=[0.5, 0.0, 0.5])
    one = ka.Mixture(["atanh", "sigmoid"], weights=[0.5, 0.0])
    stack = [layers.Input((3,)), layers.Dense(4), three, layers.Dense(4), one, layers.Dense(2)]
    model = shaken(keras.Sequential(stack))
    for layer, weights in ((three, [0.5, 0.0, 0.5]), (one, [0.5, 0.0])):
        layer.set_parameters(weights=np.array(weights))
    folded = ka.fold_activations(model)
    agree(model, folded, X[:, 0, 0])
    assert folded.layers[1].member_names == ["atanh", "relu"]
    assert kinds(folded)[-2] == "Activation"


def test_a_layer_that_others_use_too_is_left_alone():
    inputs = keras.Input((3,))
    shared = layers.Dense(4)(inputs)
    x = layers.Dense(4)(ka.ATanh()(shared))
    out = layers.Dense(2)(layers.Add()([x, shared]))
    model = shaken(keras.Model(inputs, [out, ka.ASigmoid()(out)]))
    folded = ka.fold_activations(model)
    for ours, theirs in zip(folded(X[:, 0, 0]), model(X[:, 0, 0]), strict=True):
        np.testing.assert_allclose(ops.convert_to_numpy(ours), ops.convert_to_numpy(theirs), rtol=1e-5, atol=1e-5)
    assert kinds(folded).count("Activation") == 0


def test_models_in_models():
    inner = keras.Sequential([layers.Input((3,)), layers.Dense(4), ka.ATanh(), layers.Dense(3)], name="inner")
    inputs = keras.Input((3,))
    model = shaken(keras.Model(inputs, layers.Dense(2)(inner(inner(inputs)))))
    folded = ka.fold_activations(model)
    agree(model, folded, X[:, 0, 0])
    assert "ATanh" not in kinds(folded)


def test_subclassed_models_are_refused():
    class Own(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(ValueError, match=r"subclassed.*Received"):
        ka.fold_activations(Own())


@pytest.mark.skipif(keras.config.backend() != "tensorflow", reason="elsewhere Keras makes float32 of float64")
def test_a_slope_keeps_all_digits_of_float64():
    keras.config.set_dtype_policy("float64")
    model = keras.Sequential([layers.Input((3,)), layers.Dense(4), ka.AReLU(), layers.Dense(2)])
    model.layers[1].set_parameters(a=1.0, b=0.3, c=0.2, d=0.2)
    x = np.random.default_rng(0).normal(size=(16, 3))
    expected, found = call(model, x), call(ka.fold_activations(model), x)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-14)
    assert found.dtype == "float64"


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.5, -9.0])
@pytest.mark.parametrize("spec", [*SPECS.values(), "xielu", "dyt", {"name": "mixture", "members": ["pelu", "relu"]}])
def test_numbers_out_of_bounds_are_folded_exactly_or_stay(spec, value):
    model = keras.Sequential([layers.Input((3,)), layers.Dense(4), ka.get(spec), layers.Dense(2)])
    for variable in model.layers[1].variables:  # as an optimizer other than Keras's leaves them
        variable.assign(np.full(variable.shape, value))
    (site,) = ka.plan_folding(model)
    assert site.moved or site.why
    if np.isfinite(value):
        agree(model, ka.fold_activations(model), X[:, 0, 0])
    else:
        np.testing.assert_array_equal(*(call(m, X[:, 0, 0]) for m in (model, ka.fold_activations(model))))


def test_what_stays_in_a_wrapper_is_frozen_too():
    model = keras.Sequential([layers.Input((8, 3)), layers.TimeDistributed(layers.Dense(4, activation=ka.AReLU()))])
    folded = ka.fold_activations(model)
    assert [layer.trainable for layer in ka.trainable_activations(folded).values()] == [False]
    assert [layer.trainable for layer in ka.trainable_activations(model).values()] == [True]


def test_what_has_an_activity_regularizer_stays():
    """Of the activation, of the layer that it is in, and of the one before it, whose outputs would be others."""
    penalty = keras.regularizers.L2(1.0)
    strong = {"a_initializer": 0.7, "b_initializer": 3.0, "c_initializer": 0.1}
    for stack in (
        [layers.Dense(5, activation=ka.ATanh(activity_regularizer=penalty, **strong))],
        [layers.Dense(5, activation=ka.ATanh(**strong), activity_regularizer=penalty)],
        [layers.Dense(5, activity_regularizer=penalty), ka.ATanh(**strong)],
    ):
        model = keras.Sequential([layers.Input((4,)), *stack, layers.Dense(2)])
        x, y = np.ones((3, 4), "float32"), np.zeros((3, 2))
        losses = []
        for each in (model, ka.fold_activations(model)):
            each.compile("sgd", "mse")
            losses.append(each.evaluate(x, y, verbose=0))
        assert losses[1] == pytest.approx(losses[0], rel=1e-5)
        assert "an activity regularizer" in str(ka.plan_folding(model))
