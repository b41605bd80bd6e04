"""`get`, `names` and `register`."""

import functools

import keras
import numpy as np
import pytest
from keras import ops

import keras_adaptact as ka
from keras_adaptact import registry


@pytest.fixture
def clean_registry(monkeypatch):
    monkeypatch.setattr(registry, "_REGISTERED", dict(registry._REGISTERED))


def test_every_name_gives_a_layer():
    needs = {"adaptive": {"function": "tanh"}, "mixture": {"members": ["tanh", "relu"]}}
    for name in ka.names():
        layer = ka.get({"name": name} | needs.get(name, {}))
        assert isinstance(layer, keras.layers.Layer)
        assert ops.convert_to_numpy(layer(np.array([[0.5, -0.5]], "float32"))).shape == (1, 2)
        again = type(layer).from_config(layer.get_config())
        np.testing.assert_array_equal(*(ops.convert_to_numpy(f(np.array([[0.5, -0.5]]))) for f in (layer, again)))


def test_the_reports_and_the_baselines_are_there():
    expected = "sigmoid asigmoid tanh atanh relu arelu method1 method2 leaky_relu prelu swish frelu pelu"
    assert set(expected.split()) <= set(ka.names())
    assert isinstance(ka.get("prelu"), keras.layers.PReLU)
    assert isinstance(ka.get({"name": "leaky_relu", "negative_slope": 0.1}), keras.layers.LeakyReLU)


@pytest.mark.parametrize(
    "spec",
    [
        "arelu",
        {"name": "method2", "granularity": "channel"},
        ka.Method1,
        ka.AReLU(b_initializer=0.25),
        "relu",
        ops.sin,
    ],
)
def test_a_fresh_layer_every_time(spec):
    first, second = ka.get(spec), ka.get(spec, name="conv1_activation")
    assert first is not second and type(first) is type(second)
    assert second.name == "conv1_activation" != first.name
    if isinstance(spec, keras.layers.Layer):
        assert first is not spec and first.b == 0.25
        first.set_parameters(b=0.5)
        assert spec.b == second.b == 0.25


def test_a_serialized_layer_is_a_spec():
    layer = ka.get(keras.saving.serialize_keras_object(ka.AReLU(b_initializer=0.25, name="x")))
    assert layer.b == 0.25


@pytest.mark.parametrize(
    "spec, words",
    [
        ("arelv", "'arelv'.*Did you mean 'arelu'"),
        (
            {"name": "method2", "granularty": "channel"},
            "'granularty'.*Did you mean 'granularity'.*options: weights",
        ),
        ({"name": "relu", "granularity": "channel"}, "'relu' takes no options.*granularity"),
        ({"name": "adaptive"}, "needs the option 'function'"),
        ({"granularity": "channel"}, 'needs a "name"'),
        ({"class_name": "ATanh"}, 'a "class_name" and a "config"'),
        (ka.Mixture, "'Mixture' needs the option 'members'"),
        ({"name": "adaptive", "function": "arelu"}, "plain elementwise function.*'arelu'"),
    ],
)
def test_a_bad_spec_is_one_clear_error(spec, words):
    with pytest.raises(ValueError, match=words):
        ka.get(spec)


@pytest.mark.parametrize("spec", [None, 3, ["relu"]])
def test_a_spec_of_another_type(spec):
    with pytest.raises(TypeError, match="Received"):
        ka.get(spec)


def test_register(clean_registry, tmp_path):
    ka.register("damped_sine", lambda z: ops.sin(z) * ops.exp(-ops.abs(z)))

    ka.register("thirds", {"name": "method2", "weights": [1 / 3, 1 / 3, 1 / 3]})
    ka.register("alias", "arelu")
    assert {"damped_sine", "thirds", "alias"} <= set(ka.names())
    np.testing.assert_allclose(ka.get({"name": "thirds", "granularity": "layer"}).mixing_weights, [1 / 3] * 3)
    assert isinstance(ka.get("alias"), ka.AReLU)

    model = keras.Sequential(
        [
            keras.layers.Input((1,)),
            ka.get("damped_sine"),
            ka.AdaptiveActivation("damped_sine"),
            ka.Mixture(["damped_sine", {"name": "damped_sine"}]),
        ]
    )
    model.save(tmp_path / "model.keras")
    x = np.array([[0.5]], "float32")
    once = np.sin(0.5) * np.exp(-0.5)
    twice = np.sin(once) * np.exp(-once)
    thrice = np.sin(twice) * np.exp(-twice)
    for each in (model, keras.models.load_model(tmp_path / "model.keras")):
        np.testing.assert_allclose(ops.convert_to_numpy(each(x)), [[thrice]], rtol=1e-5)

    ka.register("mine", ka.AReLU(b_initializer=0.25))
    first, second = ka.get("mine"), ka.get("mine")
    first.b = 0.5
    assert second.b == 0.25 and ka.get({"name": "alias", "b_initializer": 0.25}).b == 0.25
    assert ka.Mixture(["alias", "mine", {"name": "gelu"}]).member_names == ["arelu", "arelu_2", "gelu"]

    for name in ("arelu", "thirds", "relu", ""):
        with pytest.raises(ValueError, match="name"):
            ka.register(name, "relu")
    with pytest.raises(ValueError, match="Unknown activation"):
        ka.register("new", "no_such")
    with pytest.raises(TypeError, match="Received: 3"):
        ka.register("new", 3)


def test_a_lambda_and_a_partial_are_saved_by_their_names(clean_registry, tmp_path):
    ka.register("cube", lambda z: z**3)
    ka.register("steep", functools.partial(keras.activations.leaky_relu, negative_slope=0.5))
    model = keras.Sequential([keras.layers.Input((1,)), ka.get("cube"), ka.get("steep")])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(ops.convert_to_numpy(loaded(np.array([[-2.0]]))), [[-4.0]])


def test_a_function_that_will_not_be_found_again_is_warned_of():
    def cubic(z):
        return z**3

    with pytest.warns(UserWarning, match="can't be loaded elsewhere"):
        ka.AdaptiveActivation(cubic).get_config()


class Cubic:
    """A function that is an object."""

    def __call__(self, z):
        return z**3


@pytest.mark.parametrize(
    "function", [lambda z: z**3, functools.partial(pow, 2.0), Cubic()], ids=["lambda", "partial", "object"]
)
def test_a_function_without_a_name_is_refused_where_it_is_saved(function, tmp_path):
    """In one line that says what to do. It can be used, copied and folded all the same."""
    x = np.array([[0.5]], "float32")
    for activation in (
        ka.AdaptiveActivation(function),
        ka.Mixture([function, "tanh", function]),
        ka.Mixture(["relu", ka.AdaptiveActivation(function)]),
    ):
        inner = keras.layers.Dense(2, activation=activation)
        model = keras.Sequential([keras.layers.Input((1,)), inner, keras.layers.ReLU()])
        with pytest.raises(ValueError, match=r"^A function without a name .*keras_adaptact.register\(") as why:
            model.save(tmp_path / "model.keras")
        assert "\n" not in str(why.value)
        for copied in (ka.fold_activations(model), ka.replace_activations(model, "relu", "arelu", layers="re_lu*")):
            found = ops.convert_to_numpy(copied(x))
            np.testing.assert_allclose(found, ops.convert_to_numpy(model(x)), rtol=1e-5)
        again = copied.layers[0].activation
        assert getattr(again, "member_names", None) == getattr(activation, "member_names", None)
        assert getattr(again, "function", function) is function


def test_plain_functions_of_others_are_left_as_they_are():
    assert keras.saving.get_registered_name(ops.sin) == "sin"


def test_a_layer_of_a_users_own(clean_registry):
    @ka.register("snake")
    @keras.saving.register_keras_serializable(package="tests")
    class Snake(ka.TrainableActivation):
        a = ka.Parameter(1.0)

        def formula(self, z, a):
            return z + ops.sin(a * z) ** 2 / a

    layer = ka.get({"name": "snake", "a_initializer": 2.0, "granularity": "channel", "channels": 1})
    y = ops.convert_to_numpy(layer(np.array([[0.5]], "float32")))
    np.testing.assert_allclose(y, [[0.5 + np.sin(1.0) ** 2 / 2]], rtol=1e-6)
    assert layer.a == [2.0]
    mixed = ka.Mixture(["snake", "relu"], weights=[1, 0])
    np.testing.assert_allclose(ops.convert_to_numpy(mixed(np.array([[0.5]]))), [[0.5 + np.sin(0.5) ** 2]], rtol=1e-6)


def test_a_layer_whose_configuration_has_no_name():
    class Nameless(keras.layers.Layer):
        def get_config(self):
            return {}

        def call(self, x):
            return x

    assert isinstance(ka.get(Nameless()), Nameless)
