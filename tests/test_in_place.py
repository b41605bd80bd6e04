"""Activations replaced where Keras has no graph: outputs stay to the bit, and what is new trains, saves and loads."""

import keras
import networks
import numpy as np
import pytest
from keras import layers, ops

import keras_adaptact as ka

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.normal(size=(6, 8, 8, 3)).astype("float32")
WORDS = RANDOM.integers(0, 12, (6, 6))
ROWS = RANDOM.normal(size=(6, 4)).astype("float32")
SERIES = RANDOM.normal(size=(6, 5, 4)).astype("float32")


def call(model, x):
    return ops.convert_to_numpy(model(x, training=False))


def activations(model):
    return [layer for layer in model._flatten_layers() if isinstance(layer, ka.TrainableActivation)]


def shaken(model):
    """Other numbers in each activation, so that a lost one is seen."""
    for i, layer in enumerate(activations(model)):
        layer.set_parameters(a=1 + 0.1 * i, b=0.01 * (i + 1), c=0.02, d=-0.03)
    return model


def replaced(plan):
    return [site.name for site in plan if site.replaced]


def made(kind):
    """A model, its inputs, and how many ReLUs it has."""
    return {
        "transformer": lambda: (networks.transformer(), WORDS, 2),
        "resnet": lambda: (networks.ResNet(), IMAGES, 7),
    }[kind]()


@pytest.mark.parametrize("kind", ["transformer", "resnet"])
@pytest.mark.parametrize("is_built", [True, False])
def test_every_relu_of_a_network_is_replaced_in_place(kind, is_built, tmp_path):
    model, x, sites = made(kind)
    keras.utils.set_random_seed(1)
    if is_built or kind == "transformer":
        expected = call(model, x)
    else:
        keras.utils.set_random_seed(1)
        like_it, _, _ = made(kind)
        expected = call(like_it, x)
        keras.utils.set_random_seed(1)
        model, _, _ = made(kind)
    plan = ka.plan_replacement(model, "relu", "arelu", in_place=True)
    assert len(replaced(plan)) == sites and all(site.starts_equal for site in plan if site.replaced)
    assert not [site for site in plan if site.function in ("relu", "ReLU") and not site.replaced]
    assert ka.replace_activations(model, "relu", "arelu", in_place=True) is model
    np.testing.assert_array_equal(call(model, x), expected)
    assert len(activations(model)) == sites
    assert len({v.path for v in model.trainable_variables}) == len(model.trainable_variables)
    if keras.backend.backend() == "torch":
        assert len(list(model.parameters())) == len(model.variables)

    if not is_built:
        return
    before = [layer.get_parameters() for layer in activations(model)]
    model.compile(keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=kind == "resnet"))
    model.fit(x, np.arange(6) % 2, epochs=1, verbose=0)
    for layer, then in zip(activations(model), before, strict=True):
        assert any(np.any(value != then[name]) for name, value in layer.get_parameters().items())
    shaken(model)
    np.testing.assert_allclose(model.predict(x, verbose=0), call(model, x), atol=1e-5)

    model.save_weights(tmp_path / "model.weights.h5")
    again, _, _ = made(kind)
    call(again, x)
    ka.replace_activations(again, "relu", "arelu", in_place=True)
    again.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(call(again, x), call(model, x))


def test_a_subclassed_model_is_saved_with_what_was_replaced(tmp_path):
    model = networks.ResNet(name="net")
    call(model, IMAGES)
    ka.replace_activations(model, "relu", {"name": "arelu", "granularity": "channel"}, in_place=True)
    model.compile(keras.optimizers.Adam(0.01), "mse")
    model.fit(IMAGES, np.ones((6, 3)), epochs=1, verbose=0)
    shaken(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert isinstance(loaded, networks.ResNet) and loaded.name == "net"
    np.testing.assert_array_equal(call(loaded, IMAGES), call(model, IMAGES))
    losses = [m.fit(IMAGES, np.ones((6, 3)), epochs=2, shuffle=False, verbose=0) for m in (model, loaded)]
    assert losses[0].history == losses[1].history  # the optimizer's state is that of the same variables

    ka.replace_activations(loaded, "arelu", "method1", layers="blocks/0/*", in_place=True)
    loaded.save(tmp_path / "again.keras")
    twice = keras.saving.load_model(tmp_path / "again.keras")
    np.testing.assert_array_equal(call(twice, IMAGES), call(loaded, IMAGES))
    assert [type(layer) for layer in activations(twice)] == [type(layer) for layer in activations(loaded)]


def test_a_copy_reaches_into_layers_of_ones_own(tmp_path):
    model = networks.transformer()
    expected = call(model, WORDS)
    plan = ka.plan_replacement(model, "relu", "arelu")
    new = ka.replace_activations(model, "relu", "arelu")
    assert [s.name for s in plan if s.function == "relu"] == replaced(plan) and len(replaced(plan)) == 2
    assert sorted({row["site"] for row in ka.activation_table(new)}) == sorted(replaced(plan))
    np.testing.assert_array_equal(call(new, WORDS), expected)
    assert not activations(model)
    if keras.backend.backend() == "torch":
        assert len(list(new.parameters())) == len(new.variables)
    assert not {id(v) for v in model.variables} & {id(v) for v in new.variables}
    shaken(new)
    assert np.any(call(new, WORDS) != expected)
    np.testing.assert_array_equal(call(model, WORDS), expected)

    there = call(new, WORDS)
    np.testing.assert_allclose(call(ka.fold_activations(new), WORDS), there, atol=1e-5)
    np.testing.assert_array_equal(call(ka.replace_activations(model, "relu", "arelu"), WORDS), expected)
    back = ka.replace_activations(new, "arelu", "relu")
    assert not activations(back)
    np.testing.assert_array_equal(call(back, WORDS), expected)


@keras.saving.register_keras_serializable("tests")
class Everywhere(layers.Layer):
    """Activations in all the places where Python keeps things, and some that nothing can reach."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.activation = keras.activations.relu
        self.shared = layers.ReLU()
        self.again = {"one": self.shared, "deep": (layers.Dense(4), [layers.ReLU()])}
        self._private = layers.Dense(4, activation="relu")
        self.plain = keras.activations.relu
        self.maybe = layers.Softmax()

    def call(self, x):
        dense, (deep,) = self.again["deep"]
        x = deep(dense(self.shared(self.activation(x))))
        x = self.again["one"](self._private(x) - 0.1)
        return self.maybe(ops.relu(self.plain(x) - 0.1), x > 0.2)


@pytest.mark.parametrize("is_built", [True, False])
def test_what_can_be_reached_and_what_cannot(is_built):
    model = keras.Sequential([layers.Input((4,)), Everywhere(name="all")])
    part = model.layers[0]
    expected = call(model, ROWS)
    if not is_built:
        part = Everywhere(name="all")
    plan = ka.plan_replacement(model if is_built else part, "relu", "arelu", in_place=True)
    prefix = "all/" if is_built else ""
    assert sorted(replaced(plan)) == sorted(
        ["all", f"{prefix}shared", f"{prefix}again/deep/1/0", f"{prefix}{part._private.name}"]
    )
    kept = {site.name: site.why for site in plan if not site.replaced}
    assert "plain function" in kept[f"{prefix}plain"] and "another function" not in kept[f"{prefix}plain"]
    softmax = {s.name: s.why for s in ka.plan_replacement(part, "softmax", "arelu", layers="*maybe", in_place=True)}
    assert ("with other arguments" if is_built else "called with a mask") in softmax["maybe"]
    if is_built:
        ka.replace_activations(model, "relu", "arelu", in_place=True)
        np.testing.assert_array_equal(call(model, ROWS), expected)
        assert part.again["one"] is part.shared and isinstance(part.shared, ka.AReLU)


class Unused(layers.Layer):
    """Hands its activation on, as layers of KerasHub do, and doesn't call it."""

    def __init__(self, activation="relu"):
        super().__init__()
        self.activation = keras.activations.get(activation)

    def build(self, shape):
        self.dense = layers.Dense(3, activation=self.activation)
        self.dense.build(shape)

    def call(self, x):
        return self.dense(x)


def test_an_activation_that_is_not_called_stays():
    layer = Unused()
    expected = call(layer, ROWS)
    plan = ka.plan_replacement(layer, "relu", "arelu", in_place=True)
    assert replaced(plan) == ["dense"] and "doesn't call it" in plan[-1].why
    np.testing.assert_array_equal(call(ka.replace_activations(layer, "relu", "arelu", in_place=True), ROWS), expected)


@keras.saving.register_keras_serializable("in_place")
class HandsOn(Unused):
    """Has it in its configuration too, and may call it."""

    def __init__(self, activation="relu", calls=True, name=None):
        super().__init__(activation)
        self.calls, self.name = calls, name

    def call(self, x):
        return self.activation(self.dense(x) - 0.3) if self.calls else self.dense(x)

    def get_config(self):
        return {"activation": keras.activations.serialize(self.activation), "calls": self.calls, "name": self.name}


@pytest.mark.parametrize("in_place", [True, False])
def test_what_a_constructor_hands_on_stays(in_place, tmp_path):
    model = keras.Sequential([layers.Input((4,)), HandsOn(name="own")])
    expected = call(model, ROWS)
    new = ka.replace_activations(model, None, "arelu", layers="own", in_place=in_place)
    np.testing.assert_array_equal(call(new, ROWS), expected)
    shaken(new).save(tmp_path / "model.keras")
    assert np.any(call(new, ROWS) != expected)
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(call(loaded, ROWS), call(new, ROWS))
    for part in (new.layers[0], loaded.layers[0], ka.fold_activations(new).layers[0]):
        assert isinstance(part.activation, ka.AReLU) and part.dense.activation is keras.activations.relu
    silent = keras.Sequential([layers.Input((4,)), HandsOn(calls=False, name="own")])
    assert "doesn't call it" in ka.plan_replacement(silent, None, "arelu", layers="own", in_place=in_place)[-1].why
    unbuilt = keras.Sequential([HandsOn(name="own")])
    assert "isn't built" in ka.plan_replacement(unbuilt, None, "arelu", layers="own", in_place=in_place)[-1].why


@keras.saving.register_keras_serializable("in_place")
class OwnLSTM(layers.LSTM):
    pass


@pytest.mark.parametrize(
    "in_place, make, names",
    [
        (False, lambda: OwnLSTM(3, name="w"), ["w"]),
        (False, lambda: layers.TimeDistributed(layers.Dense(3, activation="tanh"), name="w"), ["w/layer"]),
        (True, lambda: layers.TimeDistributed(layers.Activation("tanh"), name="w"), ["w/layer"]),
        (False, lambda: layers.Bidirectional(layers.SimpleRNN(3), name="w"), ["w/forward_layer", "w/backward_layer"]),
        (True, lambda: layers.Bidirectional(layers.SimpleRNN(3), name="w"), ["w/forward_layer", "w/backward_layer"]),
        (True, lambda: layers.RNN([layers.GRUCell(3), layers.SimpleRNNCell(2)], name="w"), ["w/cells/0", "w/cells/1"]),
        (False, lambda: layers.RNN(layers.SimpleRNNCell(3), name="w"), ["w"]),
        (True, lambda: layers.LSTM(3, name="w"), ["w"]),
    ],
)
def test_wrappers(in_place, make, names, tmp_path):
    model = keras.Sequential([layers.Input((5, 4)), make(), layers.Flatten(), layers.Dense(2)])
    expected = call(model, SERIES)
    plan = ka.plan_replacement(model, "tanh", "atanh", in_place=in_place)
    assert replaced(plan) == names
    new = ka.replace_activations(model, "tanh", "atanh", in_place=in_place)
    np.testing.assert_array_equal(call(new, SERIES), expected)
    assert {row["site"] for row in ka.activation_table(new)} == set(names)
    for i, layer in enumerate(activations(new)):
        layer.set_parameters(a=1.1 + i)
    assert np.any(call(new, SERIES) != expected)
    new.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(call(keras.saving.load_model(tmp_path / "model.keras"), SERIES), call(new, SERIES))


def test_gates_in_code_that_cannot_be_seen_must_be_named():
    model = networks.ResNet()
    call(model, IMAGES)
    plan = ka.plan_replacement(model, "sigmoid", "asigmoid", in_place=True)
    assert not replaced(plan) and sum("a gate" in site.why for site in plan) == 2
    assert len(replaced(ka.plan_replacement(model, "sigmoid", "asigmoid", layers="*gate*", in_place=True))) == 2


def test_a_functional_model_in_place():
    inputs = keras.Input((4,))
    x = layers.ReLU(name="step")(layers.Dense(4, activation="relu", name="dense")(inputs))
    model = keras.Model(inputs, x)
    plan = {s.name: s for s in ka.plan_replacement(model, "relu", "arelu", in_place=True)}
    assert plan["dense"].replaced and "only a copy can change" in plan["step"].why
    around = Around(keras.Model(inputs, ops.relu(x), name="graph"))
    plan = {s.name: s for s in ka.plan_replacement(around, "relu", "arelu", in_place=True)}
    (called,) = [name for name in plan if name.startswith("inner/relu")]
    assert plan["inner/dense"].replaced
    assert "a step of the functional model graph" in plan["inner/step"].why == plan[called].why
    stack = keras.Sequential([layers.Input((4,)), layers.Dense(4), layers.ReLU(), layers.Dense(4), layers.ReLU()])
    expected, names = call(stack, ROWS), [layer.name for layer in stack.layers]
    ka.replace_activations(stack, "relu", "arelu", in_place=True)
    np.testing.assert_array_equal(call(stack, ROWS), expected)
    assert [layer.name for layer in stack.layers] == names and len(activations(stack)) == 2


def test_a_model_that_was_compiled_forgets_what_it_computed():
    model = networks.ResNet()
    model.compile("sgd", "mse")
    model.predict(IMAGES, verbose=0)
    shaken(ka.replace_activations(model, "relu", "arelu", in_place=True))
    np.testing.assert_allclose(model.predict(IMAGES, verbose=0), call(model, IMAGES), atol=1e-5)


def test_a_subclassed_model_needs_in_place():
    with pytest.raises(ValueError, match=r"subclassed.*`in_place=True`.*Received"):
        ka.replace_activations(networks.ResNet(), "relu", "arelu")


@keras.saving.register_keras_serializable("tests")
class Around(layers.Layer):
    """Calls a layer that it is given."""

    def __init__(self, inner, **kwargs):
        super().__init__(**kwargs)
        self.inner = inner

    def call(self, x):
        return self.inner(x) + x

    def get_config(self):
        return super().get_config() | {"inner": keras.saving.serialize_keras_object(self.inner)}

    @classmethod
    def from_config(cls, config):
        return cls(**config | {"inner": keras.saving.deserialize_keras_object(config["inner"])})


@pytest.mark.parametrize("in_place", [True, False])
def test_a_layer_of_two_parents_is_one_site(in_place):
    shared = layers.Dense(4, activation="relu", name="shared")
    inputs = keras.Input((4,))
    model = keras.Model(inputs, Around(shared, name="one")(Around(shared, name="two")(inputs)))
    expected = call(model, ROWS)
    assert replaced(ka.plan_replacement(model, "relu", "arelu", in_place=in_place)) == ["two/inner"]
    new = ka.replace_activations(model, "relu", "arelu", in_place=in_place)
    np.testing.assert_array_equal(call(new, ROWS), expected)
    first, second = new.get_layer("one").inner.activation, new.get_layer("two").inner.activation
    assert first is second and isinstance(first, ka.AReLU)


def test_a_layer_of_the_graph_and_of_code_is_changed_in_both_or_not_at_all():
    shared = layers.Dense(4, activation="relu", name="shared")
    inputs = keras.Input((4,))
    model = keras.Model(inputs, Around(shared, name="around")(shared(inputs)))
    expected = call(model, ROWS)
    (site,) = [s for s in ka.plan_replacement(model, "relu", "arelu") if s.function == "relu"]
    assert not site.replaced and "also called in the code of around" in site.why
    ka.replace_activations(model, "relu", "arelu", in_place=True)
    np.testing.assert_array_equal(call(model, ROWS), expected)
    assert isinstance(model.get_layer("around").inner.activation, ka.AReLU)


@keras.saving.register_keras_serializable("in_place")
class Gated(layers.Dense):
    """Its activation sees half of the units."""

    def call(self, x):
        x, gate = ops.split(ops.matmul(x, self.kernel) + self.bias, 2, -1)
        return x * self.activation(gate)

    def compute_output_shape(self, shape):
        return (*shape[:-1], self.units // 2)


@pytest.mark.parametrize("in_place", [True, False])
def test_channels_are_those_that_the_code_gives(in_place, tmp_path):
    model = keras.Sequential([layers.Input((4,)), Gated(6, activation="relu"), layers.Dense(2)])
    expected = call(model, ROWS)
    new = ka.replace_activations(model, "relu", {"name": "arelu", "granularity": "channel"}, in_place=in_place)
    np.testing.assert_array_equal(call(new, ROWS), expected)
    assert new.layers[0].activation.a.shape == (3,)
    shaken(new).save(tmp_path / "model.keras")
    np.testing.assert_array_equal(call(keras.saving.load_model(tmp_path / "model.keras"), ROWS), call(new, ROWS))
