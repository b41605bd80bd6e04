"""One name for a site everywhere, a table of what is there, and what may be wrong with it."""

import keras
import networks
import numpy as np
import pytest
from keras import layers

import keras_adaptact as ka

X = np.random.default_rng(0).normal(size=(32, 5, 4)).astype("float32")
TRIPLES = np.random.default_rng(0).normal(size=(64, 3)).astype("float32")


class Nested(keras.Model):
    """Subclassed, with activations in each kind of place, and equal names of layers in different ones."""

    def __init__(self):
        super().__init__()
        self.rnn = layers.GRU(3, activation=ka.ATanh(), recurrent_activation=ka.ASigmoid(), return_sequences=True)
        self.both = layers.Bidirectional(layers.LSTM(2, activation=ka.ATanh(), return_sequences=True))
        self.parts = [layers.Dense(3, activation=ka.AReLU(), name="dense"), {"act": ka.Swish(name="act")}]
        self.ffn = keras.Sequential([layers.Dense(4, activation=ka.Method1(), name="dense"), ka.PELU(name="act")])
        self.head = layers.Dense(1, activation="sigmoid")

    def call(self, x):
        x = self.parts[0](self.both(self.rnn(x)))
        return self.head(self.ffn(self.parts[1]["act"](x)))


NAMES = {
    *("rnn", "rnn/recurrent_activation", "both/forward_layer", "both/backward_layer", "parts/0", "parts/1/act"),
    *("ffn/dense", "ffn/act"),
}


def test_all_that_names_sites_names_them_alike():
    model = Nested()
    model(X)
    assert {row["site"] for row in ka.activation_table(model)} == NAMES
    assert set(ka.observe(model, X)) == NAMES
    assert {site.name for site in ka.summary(model) if site.granularity} == NAMES
    plan = ka.plan_replacement(model, choose=lambda layer: "swish", in_place=True)
    assert {site.name for site in plan} - {"head", "nested"} == NAMES
    for layer in model._flatten_layers():
        if isinstance(layer, ka.TrainableActivation):
            first = next(iter(layer.get_parameters()))
            layer.set_parameters(**{first: np.full_like(layer.get_parameters()[first], 1e3)})
    assert {finding.site for finding in ka.check(model)} == NAMES
    history = ka.ActivationHistory()
    model.compile("sgd", "mse")
    model.fit(X, np.ones((32, 5, 1)), epochs=1, verbose=0, callbacks=[history])
    assert {row["site"] for row in history.records} == NAMES


class Hidden(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._first, self._second = (layers.Dense(4, activation=make(), name="dense") for make in (ka.AReLU, ka.ATanh))

    def call(self, x):
        return self._second(self._first(x))


@pytest.mark.parametrize("in_place", [False, True])
def test_equal_paths_are_numbered(in_place):
    names = ["block/dense", "block/dense_2"]
    model = keras.Sequential([layers.Input((4,)), Hidden(name="block")])
    new = ka.replace_activations(model, choose=lambda layer: "pelu", in_place=in_place)
    assert [site.name for site in ka.summary(new)] == names == list(ka.trainable_activations(new))
    assert [ka.site(new, name).function for name in names] == ["PELU", "PELU"]
    for layer in ka.trainable_activations(new).values():
        layer.set_parameters(a=1e3)
    assert sorted(finding.site for finding in ka.check(new)) == names == list(ka.observe(new, X[:, 0]))
    renamed = keras.Sequential([layers.Input((4,)), ka.AReLU(name="a"), ka.ATanh(name="b")])
    renamed.layers[1].name = "a"
    assert [site.name for site in ka.summary(renamed)] == ["a", "a_2"] == list(ka.trainable_activations(renamed))


def test_dead_sites_of_a_subclassed_model_are_named_by_their_path():
    model = Nested()
    model(X)
    ka.site(model, "parts/0").activation.set_parameters(a=0.0, b=0.0, c=0.0, d=-1.0)
    assert "parts/0" in {finding.site for finding in ka.check(model, X) if "dead" in finding.what}


def test_a_name_leads_to_its_layer():
    model = Nested()
    assert {name: ka.site(model, name).activation for name in NAMES} == {
        "rnn": model.rnn.cell.activation,
        "rnn/recurrent_activation": model.rnn.cell.recurrent_activation,
        "both/forward_layer": model.both.forward_layer.cell.activation,
        "both/backward_layer": model.both.backward_layer.cell.activation,
        "parts/0": model.parts[0].activation,
        "parts/1/act": model.parts[1]["act"],
        "ffn/dense": model.ffn.layers[0].activation,
        "ffn/act": model.ffn.layers[1],
    }
    found = ka.site(model, "head")
    assert found.layer is model.head and found.activation is keras.activations.sigmoid
    with pytest.raises(ValueError, match=r"Did you mean 'ffn/dense'\? Received: 'fnn/dense'"):
        ka.site(model, "fnn/dense")
    with pytest.raises(TypeError, match="Received: 3"):
        ka.site(3, "head")


def test_summary():
    leaky = ka.AReLU(b_initializer=0.2, c_trainable=False, name="leaky")
    curve = ka.Method2(granularity="channel", weights=[1.0, 0.0, 0.0], name="curve")  # tanh, in every channel
    stack = [layers.Input((4,)), layers.Dense(3), leaky, layers.Dense(6), curve, layers.Dense(2, "softmax", name="out")]
    model = keras.Sequential(stack)
    curve.trainable = False
    first, second, last = ka.summary(model)
    assert (first.name, first.function, first.granularity, first.parameters) == ("leaky", "AReLU", "layer", 4)
    assert (first.trained, first.held, first.nearest) == (("a", "b", "d"), ("c",), "leaky_relu")
    assert abs(first.error) < 1e-6 and first.channels_near is None
    assert second.trained == () and second.parameters == 3 * 6
    assert (second.nearest, second.channels_near) == ("tanh", (6, 6)) and second.error < 1e-6
    assert (last.granularity, last.parameters, last.nearest, last.function) == (None, 0, None, "softmax")
    lines = str(ka.summary(model)).splitlines()
    assert lines[0].split("  ")[0] == "site" and lines[1].split()[-4:] == ["b,", "d", "leaky_relu", "(0)"]
    assert lines[2].endswith("no       tanh (0) in 6 of 6 channels") and lines[-1].startswith("2 of 3 sites")
    tables = {(r["site"], r["parameter"]): r["trained"] for r in ka.activation_table(model)}
    assert tables["leaky", "a"] and not tables["leaky", "c"] and not tables["curve", "weight[tanh]"]


def test_what_an_activation_layer_calls_is_seen():
    around = [layers.Activation(ka.AReLU(b_initializer=0.2), name="act"), layers.Dense(2, name="dense")]
    around[1].activation = layers.Activation(ka.ATanh())
    model = keras.Sequential([layers.Input((4,)), *around])
    found = {site.name: (site.function, site.granularity, site.nearest) for site in ka.summary(model)}
    assert found == {"act": ("AReLU", "layer", "leaky_relu"), "dense": ("ATanh", "layer", "tanh")}
    assert list(ka.trainable_activations(model)) == ["act", "dense"] and ka.site(model, "act").activation.b == 0.2
    assert [(site.name, site.why) for site in ka.plan_folding(model)] == [(n, "inside an Activation") for n in found]
    folded = ka.fold_activations(model)
    np.testing.assert_array_equal(*(m.predict(X[:, 0], verbose=0) for m in (model, folded)))
    assert [site.replaced for site in ka.plan_replacement(model, "arelu", "relu")] == [True, False]
    plain = ka.replace_activations(model, choose=lambda layer: "relu")
    assert not ka.trainable_activations(plain) and [layer.name for layer in plain.layers] == ["act", "dense"]
    around[0].activity_regularizer = "l2"
    assert "regularizer" in ka.plan_replacement(model, "arelu", "relu")[0].why


def test_summary_over_what_is_seen():
    model = keras.Sequential([layers.Input((2,)), ka.AReLU(b_initializer=0.0, name="act")])
    positive = np.random.default_rng(0).uniform(1, 2, (50, 2)).astype("float32")
    assert ka.summary(model)[0].nearest == "relu"
    assert ka.summary(model, positive)[0].nearest == "linear"


def test_summary_of_networks():
    model = ka.replace_activations(networks.transformer(), "relu", "arelu")
    found = ka.summary(model)
    assert [site.function for site in found].count("AReLU") == 2
    assert {site.nearest for site in found if site.granularity} == {"relu"}


def two_sites(**more) -> keras.Model:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((3,))
    x = layers.Dense(4, activation=ka.AReLU(), name="first")(inputs)
    x = ka.Method2(name="second", **more)(layers.Dense(4)(x))
    return keras.Model(inputs, layers.Dense(2, name="last")(x))


def findings(model, data=None) -> list[tuple[str, str]]:
    return [(finding.site, finding.what) for finding in ka.check(model, data)]


def test_a_sound_model_has_no_findings():
    model = two_sites()
    model.compile(ka.optimizer_for(model, "adam", step_limit=0.01), "mse")
    assert ka.check(model, TRIPLES) == []


def test_an_optimizer_without_a_limit_on_steps():
    model = two_sites()
    what = "its optimizer doesn't limit the steps of its 2 trainable activations"
    for optimizer in ("adam", ka.optimizer_for(model, "adam")):
        model.compile(optimizer, "mse")
        assert findings(model) == [(model.name, what)]
    model.compile(keras.optimizers.LossScaleOptimizer(ka.optimizer_for(model, "sgd", step_limit=0.01)), "mse")
    assert findings(model) == []
    ka.freeze_activations(model)
    model.compile("adam", "mse")
    assert findings(model) == []


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"a": np.nan}, "a is not finite"),
        ({"c": 1e4}, "c has grown to 1e+04"),
        ({"a": 0.5, "b": 0.5}, "AReLU is a straight line: a = b"),
    ],
)
def test_numbers_that_went_astray(values, what):
    model = two_sites()
    model.get_layer("first").activation.set_parameters(**values)
    assert ("first", what) in findings(model)


def test_a_dead_site():
    model = two_sites()
    model.get_layer("first").activation.set_parameters(a=0.0, b=0.0, c=0.0, d=-1.0)
    sites = [site for site, what in findings(model, TRIPLES) if "is dead: its output is 0" in what]
    assert "first" in sites
    assert not [what for _, what in findings(two_sites(), TRIPLES) if "dead" in what]


def test_decay_and_regularizers_that_pull():
    model = two_sites(weights_regularizer=keras.regularizers.L2(1e-3))
    model.compile(keras.optimizers.AdamW(1e-3, weight_decay=1e-2), "mse")
    what = findings(model)
    assert ("first", "weight decay pulls its parameters to 0") in what
    assert ("second", "a regularizer pulls on its parameters") in what
    model.compile(ka.optimizer_for(model, keras.optimizers.AdamW(1e-3, weight_decay=1e-2)), "mse")
    assert not [text for _, text in findings(model) if "decay" in text]


def test_one_layer_at_two_places():
    shared = ka.ATanh()
    model = keras.Sequential(
        [layers.Input((3,)), layers.Dense(3, activation=shared, name="a"), layers.Dense(3, activation=shared, name="b")]
    )
    assert findings(model) == [("a", "is one layer with b")]
    assert "make a layer for each place" in str(ka.check(model)[0])


def test_recurrent_layers():
    stack = [layers.Input((6, 3)), layers.LSTM(4, activation=ka.ATanh(), name="lstm"), layers.Dense(2)]
    model = keras.Sequential(stack)
    x = np.random.default_rng(0).normal(size=(16, 6, 3)).astype("float32")
    assert findings(model, x) == []
    model.layers[0].cell.activation.set_parameters(b=0.0)
    assert findings(model, x) == [("lstm", "is dead: its output is 0 for all of the data")]
    assert model(x).shape == (16, 2)


def test_sites_of_one_name_in_models_in_models():
    inner = keras.Sequential([layers.Input((3,)), layers.Dense(5, activation=ka.AReLU(), name="d")], name="inner")
    inputs = keras.Input((3,))
    model = keras.Model(inputs, inner(layers.Dense(3, activation=ka.ATanh(), name="d")(inputs)))
    assert not [what for _, what in findings(model, TRIPLES) if "dead" in what]
