"""Activations replaced in models that exist: nothing else changes, and everything is told."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_adaptact as ka
from zoo import models
from zoo.config.schema import Config
from zoo.data import datasets

X = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype("float32")
SILU, GELU = ({"name": "adaptive", "function": name} for name in ("silu", "gelu"))


def call(model, x=X):
    return ops.convert_to_numpy(model(x, training=False))


def values(model):
    return [np.array(ops.convert_to_numpy(v.value)) for v in model.variables]


def trainable_activations(model):
    return [layer for layer in model._flatten_layers() if isinstance(layer, ka.TrainableActivation)]


@keras.saving.register_keras_serializable("tests")
def own_relu(z):
    return ops.maximum(z, 0)


def over_images(z):
    return z - ops.mean(z, axis=(1, 2), keepdims=True)


def nested() -> keras.Model:
    """A model with relu in every form: `activation=`, layers, functions, in nested models, and one layer twice."""
    inner = keras.Sequential(
        [
            layers.Input((8, 8, 3)),
            layers.Conv2D(4, 3, activation="relu", name="conv"),
            layers.BatchNormalization(),
            layers.ReLU(name="plain"),
            layers.ReLU(6.0, name="six"),
            layers.SeparableConv2D(4, 3, activation=own_relu, name="own"),
        ],
        name="inner",
    )
    inputs = keras.Input((8, 8, 3), name="image")
    x = inner(inputs)
    twice = layers.Activation("relu", name="twice")
    x = twice(layers.Conv2D(4, 1)(twice(x)))
    x = ops.relu(x - 0.1)
    x = keras.activations.relu(x - 0.1)
    gate = layers.Dense(4, activation="sigmoid", name="gate")(layers.GlobalAveragePooling2D()(x))
    x = layers.Flatten()(layers.Multiply()([x, gate]))
    return keras.Model(inputs, layers.Dense(1, activation="sigmoid", name="head")(x), name="whole")


def test_every_form_of_relu_is_found_and_nothing_else():
    plan = ka.plan_replacement(nested(), "relu", "arelu")
    found = {site.name: site.replaced for site in plan}
    called = {name for name in found if name.startswith(("relu", "re_lu"))}  # as Keras numbers its operations
    assert len(called) == 2
    assert found == dict.fromkeys(["inner/conv", "inner/plain", "inner/own", "twice", *called], True) | dict.fromkeys(
        ["inner/six", "gate", "head"], False
    )
    assert {site.starts_equal for site in plan if site.replaced} == {True}
    assert str(plan).splitlines()[-1] == "6 of 9 replaced" and len(str(plan).splitlines()) == 11


@pytest.mark.parametrize("granularity", ["layer", "channel"])
def test_a_copy_computes_the_same_and_is_independent(granularity, tmp_path):
    model = nested()
    model.get_layer("inner").layers[1].moving_mean.assign(np.arange(4.0))
    model.compile("sgd", lambda y, p: ops.mean(y - p))  # a loss that can't be copied
    before, weights = call(model), values(model)
    spec = {"name": "arelu", "granularity": granularity}
    new = ka.replace_activations(model, "relu", spec)
    np.testing.assert_array_equal(call(new), before)
    names = [layer.name for layer in model.layers]
    assert [layer.name for layer in new.layers if layer.name in names] == names  # functions became layers
    sizes = [layer.a.size for layer in trainable_activations(new)]
    assert sizes == [4 if granularity == "channel" else 1] * 6 and not trainable_activations(model)

    start = [layer.get_parameters() for layer in trainable_activations(new)]
    new.compile("sgd", "mse")
    new.fit(X, np.ones((4, 1)), verbose=0)
    for layer, parameters in zip(trainable_activations(new), start, strict=True):
        assert any(np.any(layer.get_parameters()[name] != value) for name, value in parameters.items())
    np.testing.assert_array_equal(call(model), before)
    for now, then in zip(values(model), weights, strict=True):
        np.testing.assert_array_equal(now, then)

    trained = call(new)
    new.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(call(keras.saving.load_model(tmp_path / "model.keras")), trained)
    new.save_weights(tmp_path / "model.weights.h5")
    again = ka.replace_activations(model, "relu", spec)
    again.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(call(again), trained)


def test_it_can_be_undone():
    model = nested()
    there = ka.replace_activations(model, "relu", "arelu")
    back = ka.replace_activations(there, "arelu", "relu")
    assert not trainable_activations(back) and back.count_params() == model.count_params()
    np.testing.assert_array_equal(call(back), call(model))


def test_gates_and_heads_stay_unless_they_are_named():
    model = nested()
    why = {site.name: site.why for site in ka.plan_replacement(model, "sigmoid", "asigmoid")}
    assert why["gate"] == "a gate: its output is multiplied" and why["head"] == "an output of whole"
    with pytest.raises(ValueError, match="No activation of whole matches"):
        ka.replace_activations(model, "sigmoid", "asigmoid")
    new = ka.replace_activations(model, "sigmoid", "asigmoid", layers=["ga*"])
    assert [layer.name for layer in trainable_activations(new)] == ["gate_activation"]


def test_layers_are_chosen_by_pattern_and_by_function():
    model = nested()
    plan = ka.plan_replacement(model, "relu", "arelu", layers="inner/*")
    assert [site.name for site in plan if site.replaced] == ["inner/conv", "inner/plain", "inner/own"]
    plan = ka.plan_replacement(model, None, "atanh", layers="six")
    assert [(site.name, site.starts_equal) for site in plan if site.replaced] == [("inner/six", False)]
    new = ka.replace_activations(model, choose=lambda layer: {"conv": "method2", "six": ka.Swish}.get(layer.name))
    assert {layer.name: type(layer) for layer in trainable_activations(new)} == {
        "conv_activation": ka.Method2,
        "six": ka.Swish,
    }


def test_a_function_of_the_model_is_known_by_its_name():
    def gentle(z):
        return ops.tanh(0.5 * z)

    model = keras.Sequential([layers.Input((4,)), layers.Dense(3, activation=gentle), layers.Dense(3, "relu")])
    assert [site.replaced for site in ka.plan_replacement(model, "gentle", "atanh")] == [True, False]
    with pytest.raises(ValueError, match="Unknown activation 'gentler'"):
        ka.plan_replacement(model, "gentler", "atanh")


def test_a_relu_of_six_is_replaced_where_it_is_named():
    plan = ka.plan_replacement(nested(), layers.ReLU(6.0), {"name": "adaptive", "function": "relu6"})
    assert [(site.name, site.starts_equal) for site in plan if site.replaced] == [("inner/six", True)]


def test_what_is_hidden_is_told():
    model = keras.Sequential(
        [layers.Input((5, 3)), layers.TimeDistributed(layers.Dense(2, activation="relu", name="in")), layers.LSTM(2)]
    )
    plan = ka.plan_replacement(model, "tanh", "atanh")
    assert [site.replaced for site in plan] == [False, True, False]
    assert plan[0].name.endswith("/layer") and "gate" in plan[2].why
    x = X[:, :5, :3, 0]
    np.testing.assert_array_equal(call(ka.replace_activations(model, "tanh", "atanh"), x), call(model, x))


@keras.saving.register_keras_serializable("tests")
class Block(layers.Layer):
    """Calls what nobody sees."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense, self.act = layers.Dense(4, activation="relu", name="dense"), layers.ReLU(name="act")

    def build(self, shape):
        self.dense.build(shape)

    def call(self, x):
        return ops.relu(self.act(self.dense(x)) - 0.1)


def test_code_that_cannot_be_seen_is_told():
    inputs = keras.Input((5, 3))
    x = layers.Lambda(lambda z: ops.relu(z), name="lambda")(Block(name="block")(inputs))
    plan = ka.plan_replacement(
        keras.Model(inputs, layers.Bidirectional(layers.LSTM(2), name="both")(x)), "relu", "arelu"
    )
    assert [(site.name, site.function) for site in plan] == [
        ("block/dense", "relu"),
        ("block/act", "ReLU"),
        ("block", "?"),
        ("lambda", "?"),
        ("both/forward_layer", "tanh"),
        ("both/backward_layer", "tanh"),
    ]
    assert [site.name for site in plan if site.replaced] == ["block/dense", "block/act"]


def test_gates_are_known_behind_a_reshaping():
    inputs = keras.Input((6,))
    gate = layers.Reshape((2, 3))(layers.Dense(6, activation="sigmoid", name="gate")(inputs))
    attention = layers.Softmax(name="attention")(layers.Reshape((2, 3))(inputs))
    x = layers.Dot((2, 2))([attention, gate * layers.Reshape((2, 3))(inputs)])
    x = layers.Dense(4, activation="sigmoid", name="between")(layers.Flatten()(x))
    out = layers.Reshape((2, 2))(layers.Dense(4, activation="sigmoid", name="head")(x))
    model = keras.Model(inputs, out, name="whole")
    told = {site.name: site.why for site in ka.plan_replacement(model, "sigmoid", "asigmoid")}
    assert told["between"] == "matches" and told["head"] == "an output of whole" and "gate" in told["gate"]
    assert "gate" in {s.name: s.why for s in ka.plan_replacement(model, "softmax", "asigmoid")}["attention"]


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_layers_of_low_precision_are_found(policy):
    stack = [
        layers.Input((3,)),
        layers.Dense(4, dtype=policy),
        layers.ReLU(dtype=policy),
        layers.Dense(2, dtype=policy),
    ]
    model = keras.Sequential(stack)
    new = ka.replace_activations(model, "relu", "arelu")
    np.testing.assert_array_equal(call(new, X[:, 0, 0]), call(model, X[:, 0, 0]))
    assert [layer.compute_dtype for layer in trainable_activations(new)] == [policy.removeprefix("mixed_")]


def test_layers_with_lora_and_of_integers():
    for change in (lambda model: model.layers[0].enable_lora(2), lambda model: model.layers[0].quantize("int8")):
        model = keras.Sequential([layers.Input((3,)), layers.Dense(4, activation="relu"), layers.Dense(2)])
        change(model)
        new = ka.replace_activations(model, "relu", "arelu")
        np.testing.assert_array_equal(call(new, X[:, 0, 0]), call(model, X[:, 0, 0]))
        trainable_activations(new)[0].set_parameters(a=1.2, b=0.3, c=0.1, d=-0.1)
        expected = call(new, X[:, 0, 0])
        np.testing.assert_allclose(call(ka.fold_activations(new), X[:, 0, 0]), expected, atol=1e-5)


def test_prelu_of_keras_is_found():
    model = keras.Sequential([layers.Input((3,)), layers.PReLU(), layers.Dense(2)])
    assert [site.replaced for site in ka.plan_replacement(model, "prelu", "arelu")] == [True]


def test_a_function_that_asks_for_images_is_another_one():
    model = keras.Sequential([layers.Input((8, 8, 3)), layers.Conv2D(4, 3, activation=over_images), layers.ReLU()])
    assert [site.replaced for site in ka.plan_replacement(model, "relu", "arelu")] == [False, True]


@keras.saving.register_keras_serializable("tests")
class Trainer(keras.Model):
    """A functional model with a method of its own."""

    def hello(self):
        return self.name


class Calling(keras.Model):
    """A functional model with a call of its own."""

    def call(self, x, training=None):
        return super().call(x) * 2


class Sized(keras.Model):
    def __init__(self, units):
        inputs = keras.Input((3,))
        super().__init__(inputs, layers.Dense(units, activation="relu")(inputs))


def test_a_class_of_its_own_is_kept_or_left_behind_with_a_word():
    inputs = keras.Input((3,))
    outputs = layers.Dense(2, activation="relu")(inputs)
    model = Trainer(inputs, outputs)
    assert ka.fold_activations(ka.replace_activations(model, "relu", "arelu")).hello() == model.name
    model = Sized(2)
    with pytest.warns(UserWarning, match="without what Sized adds"):
        new = ka.replace_activations(model, "relu", "arelu")
    assert not isinstance(new, Sized)
    np.testing.assert_array_equal(call(new, X[:, 0, 0]), call(model, X[:, 0, 0]))
    with pytest.raises(ValueError, match="subclassed"):
        ka.replace_activations(Calling(inputs, outputs), "relu", "arelu")


@pytest.mark.parametrize("place", ["model", "inner", "inner/plain", "twice"])
@pytest.mark.parametrize("copy", [lambda m: ka.replace_activations(m, "relu", "arelu"), ka.fold_activations])
def test_a_call_that_was_set_is_not_copied(place, copy):
    model = part = nested()
    for name in place.split("/") if place != "model" else ():
        part = part.get_layer(name)
    part.call = part.call  # as Keras's calibrations leave it
    copy(model)
    part.call = lambda x, **options: 2 * x
    with pytest.raises(ValueError, match=r"`call`.* was set.*Received"):
        copy(model)


@pytest.mark.skipif(keras.config.backend() != "torch", reason="it is torch's")
@pytest.mark.parametrize("wrap", [lambda module: module, layers.TimeDistributed], ids=["alone", "inside"])
def test_a_torch_module_is_changed_in_place_alone(wrap):
    import torch

    wrapped = wrap(layers.TorchModuleWrapper(torch.nn.Linear(3, 3)))
    model = keras.Sequential([layers.Input((8, 3)), wrapped, layers.ReLU()])
    expected = call(model, X[:, 0])
    for copy in (lambda m: ka.replace_activations(m, "relu", "arelu"), ka.fold_activations):
        with pytest.raises(ValueError, match=r"it wraps a torch module.*`in_place=True`.*Received"):
            copy(model)
    ka.replace_activations(model, "relu", "arelu", in_place=True)
    np.testing.assert_array_equal(call(model, X[:, 0]), expected)


class Subclassed(keras.Model):
    def call(self, x):
        return ops.relu(x)


@keras.saving.register_keras_serializable("tests")
class Unconfigured(layers.Layer):
    def __init__(self, *sizes):
        super().__init__()


@pytest.mark.parametrize(
    "make, words",
    [
        (Subclassed, "subclassed"),
        (lambda: keras.Sequential([layers.Input((2,)), layers.ReLU(), Unconfigured(3)]), "can't be rebuilt"),
    ],
)
def test_what_cannot_be_rebuilt_is_an_error(make, words):
    with pytest.raises(ValueError, match=rf"(?s){words}.*Received"):
        ka.replace_activations(make(), "relu", "arelu")


@pytest.mark.parametrize(
    "arguments",
    [
        {"new": "arelu"},
        {"source": "relu"},
        {"source": "relu", "new": "arelu", "choose": lambda layer: None},
        {"source": "rule", "new": "arelu"},
        {"source": "elu", "new": "arelo"},
        {"source": "relu", "new": "arelu", "layers": 3},
        {"source": "relu", "new": "arelu", "layers": [3]},
        {"source": "relu", "new": 3},
        {"choose": "arelu"},
        {"choose": lambda layer: 3},
        {"choose": lambda layer: "arelo"},
    ],
)
def test_bad_arguments_are_errors(arguments):
    with pytest.raises((TypeError, ValueError), match=r"Received|Unknown activation"):
        ka.replace_activations(nested(), **arguments)


@pytest.mark.parametrize(
    "function",
    [
        lambda model: ka.replace_activations(model, "relu", "arelu"),
        lambda model: ka.plan_replacement(model, "relu", "arelu"),
        ka.fold_activations,
        ka.freeze_activations,
        ka.unfreeze_activations,
        ka.optimizer_for,
        ka.check,
        ka.plot_activations,
        ka.activation_table,
        ka.mixing_weights,
        lambda model: ka.observe(model, X),
        ka.nearest,
        lambda model: ka.only_activations(model).__enter__(),
        lambda model: ka.animate_activations(model, "never.gif"),
        ka.ActivationHistory,
    ],
)
def test_what_is_no_model_is_an_error(function):
    with pytest.raises(TypeError, match=r"Received: 3|not int"):
        function(3)


def test_policies_formats_and_frozen_layers_are_kept():
    keras.config.set_image_data_format("channels_first")
    with_dense = keras.Sequential([layers.Input((7, 3)), layers.Dense(5, activation="relu", dtype="mixed_float16")])
    with_dense.layers[0].trainable = False
    new = ka.replace_activations(with_dense, "relu", {"name": "arelu", "granularity": "channel"})
    activation = new.layers[0].activation
    assert activation.a.shape == (5,) and activation.compute_dtype == "float16" and not new.trainable_variables


@pytest.mark.skipif(
    keras.config.backend() != "tensorflow", reason="no backend has a part in it, and JAX takes a minute to build them"
)
@pytest.mark.parametrize(
    "name, source, new, replaced, kept",
    [
        ("VGG16", "relu", "arelu", 15, {}),
        ("MobileNetV3Small", "relu", "arelu", 14, {"hard_silu": 19, "ReLU": 9}),
        ("EfficientNetB0", "silu", SILU, 49, {"sigmoid": 16}),
    ],
)
def test_networks_of_keras(name, source, new, replaced, kept):
    model = getattr(keras.applications, name)(weights=None, input_shape=(32, 32, 3), classes=3, pooling="avg")
    plan = ka.plan_replacement(model, source, new)
    assert sum(site.replaced for site in plan) == replaced
    others = [site.function for site in plan if not site.replaced]
    assert {function: others.count(function) for function in others} == {**kept, "softmax": 1}


def test_fine_tuning_starts_where_training_ended():
    config = Config.model_validate({"model": {"name": "lenet"}, "activation": {"name": "relu"}})
    model = models.build(config, 10)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    digits = datasets.load("digits").train
    x, y = digits.images[:256] / np.float32(255), digits.labels[:256]
    model.fit(x, y, epochs=3, verbose=0)
    new = ka.replace_activations(model, "relu", "arelu")
    new.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    loss, accuracy = new.evaluate(x, y, verbose=0)
    assert (loss, accuracy) == tuple(model.evaluate(x, y, verbose=0)) and accuracy > 0.2


# Training


def test_freezing():
    model = ka.replace_activations(nested(), "relu", "method1")
    own = sum(len(layer.variables) for layer in trainable_activations(model))
    every = len(model.trainable_variables)
    assert ka.freeze_activations(model) is model and len(model.trainable_variables) == every - own > 0
    assert ka.unfreeze_activations(model) is model and len(model.trainable_variables) == every


def test_only_activations_are_warmed_up():
    model = ka.replace_activations(nested(), "relu", "arelu")
    model.get_layer("inner").layers[0].trainable = False
    every, before = len(model.trainable_variables), values(model)
    with ka.only_activations(model):
        model.compile("sgd", "mse")
        model.fit(X, np.ones((4, 1)), verbose=0)
    after = zip(model.variables, before, values(model), strict=True)
    moved = {variable.name for variable, old, new in after if np.any(new != old)}
    assert moved <= {"parameters", "moving_mean", "moving_variance"} and "parameters" in moved
    assert len(model.trainable_variables) == every
    model.compile("sgd", "mse")
    model.fit(X, np.ones((4, 1)), verbose=0)
    with pytest.raises(ValueError, match=r"no trainable activations.*Received"), ka.only_activations(nested()):
        pass


class RandomReLU(layers.ReLU):
    """Leaky in training."""

    def call(self, inputs, training=False):
        return ops.where(inputs > 0, inputs, 0.3 * inputs) if training else ops.relu(inputs)


class Penalized(layers.Activation):
    def call(self, inputs):
        self.add_loss(ops.mean(inputs))
        return super().call(inputs)


def straight_through(x):
    """ReLU, with another slope."""
    return ops.relu(x) + 0.1 * (x - ops.stop_gradient(x))


def as_relu(x):
    return ops.where(x > 0, x, 0.0)


@pytest.mark.parametrize("in_place", [False, True])
def test_what_trains_in_another_way_is_another_function(in_place):
    stack = [RandomReLU(), Penalized("relu"), layers.Activation(straight_through), layers.Activation(as_relu)]
    stack += [layers.Dense(3, activation=straight_through), layers.Dense(3, activation=as_relu)]
    model = keras.Sequential([layers.Input((4,)), *stack])
    plan = ka.plan_replacement(model, "relu", "arelu", in_place=in_place)
    assert [site.replaced for site in plan] == [False, False, False, True, False, True]
    assert {site.why for site in plan if not site.replaced} == {"another function"}
    chosen = ka.plan_replacement(model, choose=lambda layer: "arelu", in_place=in_place)
    assert all(site.replaced for site in chosen)
    assert [site.starts_equal for site in chosen] == [False, False, False, True, False, True]


def test_pooling_and_normalizing_are_no_activations():
    inputs = keras.Input((8, 8, 3))
    x = ops.average_pool(ops.normalize(ops.max_pool(layers.Conv2D(4, 3)(inputs), 2)), 3)
    x = ops.glu(ops.relu(x))
    model = keras.Model(
        inputs, layers.GlobalAveragePooling2D()(ops.depth_to_space(ops.concatenate([x, x], axis=-1), 2))
    )
    assert [site.kind for site in ka.plan_replacement(model, choose=lambda layer: "arelu")] == ["Relu"]


def test_an_activation_keeps_its_own_dtype():
    head = layers.Dense(1, activation=layers.Activation("sigmoid", dtype="float32"), name="head", dtype="mixed_float16")
    model = keras.Sequential([layers.Input((4,)), head])
    changed = ka.replace_activations(model, "sigmoid", "asigmoid", layers="head")
    assert changed.layers[-1].activation.compute_dtype == "float32" and changed.layers[-1].compute_dtype == "float16"
    whole = keras.Input((4,), dtype="int32")
    (site,) = ka.plan_replacement(keras.Model(whole, layers.ReLU()(whole)), "relu", "arelu")
    assert (site.replaced, site.why) == (False, "it is given int32, which an activation would make floating")
