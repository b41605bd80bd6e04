"""What a user sees of a model's activations: against numbers put there, and NumPy's arithmetic."""

import csv
import sys
import types

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_adaptact as ka
from keras_adaptact.inspection import KNOWN


class Block(layers.Layer):
    """A layer of a user's own, that keeps activations in attributes and in a list."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = ka.ATanh(name="any")
        self.more = [ka.AReLU(name="any"), ka.AReLU(name="any")]
        self.dense = layers.Dense(3, activation=ka.Swish())

    def build(self, shape):
        self.dense.build(shape)

    def call(self, x):
        for activation in (self.first, *self.more):
            x = activation(x)
        return self.dense(x)


def nested_model(twice=True):
    """Sites of all kinds; `shared` lies in the inner model, and `twice` in the outer one too."""
    shared = ka.AReLU(name="shared")
    inner = keras.Sequential([layers.Input((3,)), layers.Dense(3, ka.Method1(), name="dense"), shared], name="inner")
    inputs = keras.Input((3,))
    x = inner(inputs)
    x = Block(name="block")(shared(x) if twice else x)
    x = layers.TimeDistributed(layers.Dense(2, activation=ka.PELU()), name="each")(layers.Reshape((1, 3))(x))
    x = layers.GRU(2, activation=ka.ATanh(), recurrent_activation=ka.ASigmoid(), name="gru")(x)
    return keras.Model(inputs, ka.Method2(name="last")(x))


def dense_model(activation, units=3, weights=((1.0, 0.0, -2.0), (0.5, 1.0, 0.0)), **options):
    """(n, 2) -> (n, 3): the activation of `x @ weights`."""
    dense = layers.Dense(units, activation=activation, use_bias=False, name="dense", **options)
    model = keras.Sequential([layers.Input((len(weights),)), dense])
    dense.set_weights([np.array(weights), *dense.get_weights()[1:]])
    return model


POINTS = 1001  # of all that `nearest` is tested on: JAX compiles its functions anew for each shape
X = np.random.default_rng(0).normal(size=(500, 2)).astype("float32")
Z = X @ np.array([[1.0, 0.0, -2.0], [0.5, 1.0, 0.0]], "float32")


def values(rows, **wanted):
    return [row["value"] for row in rows if wanted.items() <= row.items()]


def test_sites_are_named_by_their_path():
    assert list(ka.trainable_activations(nested_model())) == [
        "inner/dense",
        "inner/shared",
        "block/first",
        "block/more/0",
        "block/more/1",
        "block/dense",
        "each/layer",
        "gru",
        "gru/recurrent_activation",
        "last",
    ]


def test_names_stay_when_a_model_is_saved(tmp_path):
    model = nested_model(twice=False)  # Keras can't load a layer of two places
    names = list(ka.trainable_activations(model))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", custom_objects={"Block": Block})
    assert list(ka.trainable_activations(loaded)) == names


def test_activation_table():
    model = nested_model()
    model.get_layer("block").more[1].set_parameters(a=1.25, b=-0.5)
    model.get_layer("last").set_parameters(weights=[0.5, 1.25, 2.25])
    table = ka.activation_table(model)
    assert [row["parameter"] for row in table if row["site"] == "block/more/1"] == ["a", "b", "c", "d"]
    assert values(table, site="block/more/1", activation="AReLU", channel=None) == [1.25, -0.5, 0, 0]
    assert values(table, site="last") == [0.125, 0.3125, 0.5625]  # as they enter the formula
    assert [row["parameter"] for row in table if row["site"] == "last"] == [
        "weight[tanh]",
        "weight[sigmoid]",
        "weight[relu]",
    ]
    assert len(table) == 15 + 4 * 4 + 1 + 2 + 2 * 4 + 3


def test_a_table_by_channel():
    layer = ka.ATanh(granularity="channel", channels=2, name="wide")
    layer.a = [1.5, -2.0]
    assert values(ka.activation_table(layer), parameter="a") == [1.5, -2.0]
    assert [row["channel"] for row in ka.activation_table(layer)] == [0, 1] * 4


def test_mixing_weights():
    learned = ka.Method2(name="learned")
    learned.set_parameters(weights=[0.5, 1.25, 2.25])
    by_channel = ka.Mixture(["tanh", "tanh"], granularity="channel", channels=2, name="wide")
    by_channel.set_parameters(weights=[[1.0, 3.0], [3.0, 1.0]])
    model = keras.Sequential([layers.Input((2,)), learned, by_channel, ka.Method2([0.25, 0.5, 1.0], name="held")])
    found = {(r["site"], r["member"], r["channel"]): r["weight"] for r in ka.mixing_weights(model)}
    assert found == {
        ("learned", "tanh", None): 0.125,
        ("learned", "sigmoid", None): 0.3125,
        ("learned", "relu", None): 0.5625,
        ("wide", "tanh", 0): 0.25,
        ("wide", "tanh", 1): 0.75,
        ("wide", "tanh_2", 0): 0.75,
        ("wide", "tanh_2", 1): 0.25,
        ("held", "tanh", None): 0.25,
        ("held", "sigmoid", None): 0.5,
        ("held", "relu", None): 1.0,
    }


def test_a_model_whose_channels_are_unknown():
    model = keras.Sequential([ka.Method1(granularity="channel", name="wide")])
    for function in (ka.mixing_weights, ka.activation_table, lambda model: ka.observe(model, X)):
        with pytest.raises(ValueError, match="wide has no parameters yet"):
            function(model)


def test_inputs_of_an_activation_argument():
    model = dense_model(ka.ATanh())
    before = ops.convert_to_numpy(model(X))
    found = ka.observe(model, X, batch_size=64)
    assert list(found) == ["dense"] and found["dense"].dtype == "float32"
    np.testing.assert_allclose(np.sort(found["dense"]), np.sort(Z.ravel()), atol=1e-6)
    np.testing.assert_array_equal(ops.convert_to_numpy(model(X)), before)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_inputs_by_channel(data_format):
    layer = ka.PELU(granularity="channel", channels=3, data_format=data_format, name="wide")
    images = np.arange(2 * 4 * 5 * 3, dtype="float32").reshape(2, 4, 5, 3)
    given = images if data_format == "channels_last" else np.moveaxis(images, -1, 1)
    model = keras.Sequential([layers.Input(given.shape[1:]), layer])
    np.testing.assert_array_equal(ka.observe(model, given)["wide"], images.reshape(-1, 3))


def test_inputs_in_a_recurrent_layer():
    """Whose loop is a compiled one on JAX."""
    rnn = layers.SimpleRNN(2, activation=ka.ATanh(), name="rnn")
    model = keras.Sequential([layers.Input((4, 3)), rnn])
    kernel = np.random.default_rng(1).normal(size=(3, 2)).astype("float32")
    rnn.set_weights([kernel, np.zeros((2, 2)), np.zeros(2), *rnn.get_weights()[3:]])
    x = np.random.default_rng(2).normal(size=(6, 4, 3)).astype("float32")
    found = np.unique(ka.observe(model, x)["rnn"].round(4))
    np.testing.assert_allclose(found, np.unique((x @ kernel).round(4)), atol=2e-4)


def test_inputs_from_batches_of_several_inputs():
    first, second = keras.Input((2,), name="first"), keras.Input((2,), name="second")
    model = keras.Model({"first": first, "second": second}, ka.AReLU(name="sum")(layers.Add()([first, second])))
    data = {"first": X, "second": 2 * X}
    expected = np.sort(3 * X.ravel())
    np.testing.assert_allclose(np.sort(ka.observe(model, data, batch_size=99)["sum"]), expected, rtol=1e-6)
    batches = ((({k: v[i : i + 250] for k, v in data.items()}), np.zeros(250)) for i in (0, 250))
    np.testing.assert_allclose(np.sort(ka.observe(model, batches)["sum"]), expected, rtol=1e-6)


def test_a_sample_is_bounded_and_fair():
    model = keras.Sequential([layers.Input((1,)), ka.AReLU(name="site")])
    x = np.arange(20_000, dtype="float32")[:, None]
    sample = ka.observe(model, x, samples=2000, batch_size=700)["site"]
    assert sample.shape == (2000,) == np.unique(sample).shape
    assert abs(sample.mean() - 10_000) < 4 * 20_000 / np.sqrt(12 * 2000)  # four standard errors
    wide = keras.Sequential([layers.Input((4,)), ka.AReLU(granularity="channel", name="site")])
    assert ka.observe(wide, np.ones((100, 4)), samples=40)["site"].shape == (10, 4)


def test_a_failed_observation_leaves_nothing():
    model = dense_model(ka.ATanh())
    with pytest.raises(Exception, match=r"."):
        ka.observe(model, np.ones((4, 7), "float32"))
    assert "call" not in vars(model.layers[0].activation)
    with pytest.raises(ValueError, match="`samples` must be an integer of 1 or more"):
        ka.observe(model, X, samples=0)


def test_what_starts_as_a_function_is_nearest_to_it():
    pairs = (
        (ka.AReLU(), "relu"),
        (ka.ATanh(), "tanh"),
        (ka.ASigmoid(), "sigmoid"),
        (ka.Swish(), "silu"),
        (ka.PELU(), "elu"),
    )
    for layer, name in pairs:
        first, second = ka.nearest(layer, np.linspace(-8, 8, POINTS))[:2]
        assert first["function"] == name and first["error"] < 1e-6 < 1e-3 < second["error"]


def test_distance_is_taken_over_the_inputs():
    z = np.resize([-3.0, -1.0, 0.5, 2.0], POINTS)
    (found,) = [row for row in ka.nearest(ka.ASigmoid(), z) if row["function"] == "tanh"]
    sigmoid = 1 / (1 + np.exp(-z))
    error = np.sqrt(np.mean((sigmoid - np.tanh(z)) ** 2))
    assert found["error"] == pytest.approx(error, rel=1e-5)
    assert found["relative_error"] == pytest.approx(error / sigmoid.std(), rel=1e-5)
    leaky = ka.AReLU(b_initializer=0.2)
    assert ka.nearest(leaky, np.resize([-1.0, 1.0, 2.0], POINTS))[0]["function"] == "leaky_relu"
    assert ka.nearest(leaky, np.resize([0.5, 1.0, 2.0], POINTS))[0]["function"] == "linear"


def test_up_to_scale_and_shift():
    layer = ka.ATanh(b_initializer=-2.0, d_initializer=0.5)
    assert ka.nearest(layer)[0]["relative_error"] > 0.5
    first = ka.nearest(layer, affine=True)[0]
    assert first["function"] == "tanh" and first["error"] < 1e-5
    assert (first["scale"], first["shift"]) == pytest.approx((-2.0, 0.5), abs=1e-5)
    z = np.linspace(-2, 1, POINTS)
    (found,) = [row for row in ka.nearest(layer, z, affine=True) if row["function"] == "softplus"]
    f = np.log1p(np.exp(z))
    solved, (residual,), *_ = np.linalg.lstsq(np.stack([f, np.ones(POINTS)], 1), 0.5 - 2 * np.tanh(z))
    assert (found["scale"], found["shift"]) == pytest.approx(tuple(solved), rel=1e-3)
    assert found["error"] == pytest.approx(np.sqrt(residual / POINTS), rel=1e-3)


def test_nearest_by_channel():
    layer = ka.AReLU(granularity="channel", channels=2)
    layer.b = [0.0, 0.2]
    rows = ka.nearest(layer)
    assert [(row["channel"], row["function"]) for row in (rows[0], rows[len(KNOWN)])] == [
        (0, "relu"),
        (1, "leaky_relu"),
    ]
    rows = ka.nearest(
        layer, np.resize([[-1.0, 1.0], [2.0, 3.0]], (POINTS, 2))
    )  # the second channel sees positive numbers alone
    assert rows[len(KNOWN)]["function"] == "linear"


@pytest.mark.parametrize("inputs", [[], [np.nan, 1.0], np.ones((4, 3))], ids=["none", "nan", "shape"])
def test_unusable_inputs(inputs):
    with pytest.raises(ValueError, match=r"must be finite and not empty.*Received: an array of shape"):
        ka.nearest(ka.AReLU(granularity="channel", channels=2), inputs)


def test_a_constant_shape():
    flat = ka.ATanh(b_initializer=0.0, d_initializer=0.0)
    assert {row["relative_error"] for row in ka.nearest(flat)} == {np.inf}


class Spy(keras.callbacks.Callback):
    """What the layer holds after each epoch, read by its own access."""

    def __init__(self, layer):
        super().__init__()
        self.layer, self.seen = layer, [layer.get_parameters()["a"]]

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append(self.layer.get_parameters()["a"])


def fit(model, history, epochs=2, more=(), **options):
    model.fit(X, Z, epochs=epochs, verbose=0, callbacks=[history, *more], **options)


def test_history(tmp_path):
    model = dense_model(ka.ATanh())
    model.compile("sgd", "mse")
    history, spy = ka.ActivationHistory(tmp_path / "a.csv"), Spy(model.layers[0].activation)
    fit(model, history, 3, [spy])
    assert [row["epoch"] for row in history.records] == [e for e in range(4) for _ in range(4)]
    assert values(history.records, parameter="a") == spy.seen and spy.seen[0] == 1.0 != spy.seen[1]
    with (tmp_path / "a.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert [float(row["value"]) for row in read] == [row["value"] for row in history.records]
    assert read[0] == {
        "epoch": "0", "site": "dense", "activation": "ATanh", "parameter": "a", "channel": "", "value": "1.0",
        "trained": "True",
    }  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


def test_history_goes_on_counting():
    model = dense_model(ka.Method2())
    model.compile("sgd", "mse")
    history = ka.ActivationHistory()
    fit(model, history, 7, initial_epoch=5)
    fit(model, history, 1)
    assert sorted(history.snapshots) == [5, 6, 7, 8]
    weights = values(history.records, epoch=8)
    assert sum(weights) == pytest.approx(1) and weights == [row["weight"] for row in ka.mixing_weights(model)]


def test_history_of_nothing():
    model = dense_model("relu")
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="needs a model with trainable activations"):
        fit(model, ka.ActivationHistory())


def test_history_for_tensorboard(monkeypatch, tmp_path):
    scalars = []
    writer = types.SimpleNamespace(add_scalar=lambda *row: scalars.append(row), flush=lambda: None)
    summary = types.SimpleNamespace(Writer=lambda folder: writer if folder == str(tmp_path) else None)
    monkeypatch.setitem(sys.modules, "tensorboard.summary", summary)
    monkeypatch.setitem(sys.modules, "tensorboard", types.SimpleNamespace(summary=summary))
    model = keras.Sequential([layers.Input((3,)), ka.Swish(granularity="channel", name="wide"), ka.FReLU(name="one")])
    model.layers[0].beta = [1.0, 2.0, 6.0]
    model.compile(keras.optimizers.SGD(0.0), "mse")
    model.fit(Z, Z, verbose=0, callbacks=[ka.ActivationHistory(log_dir=tmp_path)])
    at_start = {tag: float(value) for tag, value, epoch in scalars if epoch == 0}
    assert at_start == {"wide/beta/min": 1.0, "wide/beta/mean": 3.0, "wide/beta/max": 6.0, "one/b": 0.0}
    assert {epoch for *_, epoch in scalars} == {0, 1}


def test_tensorboard_is_missing(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.delitem(sys.modules, "tensorboard.summary", raising=False)
    with pytest.raises(ImportError, match="pip install tensorboard"):
        ka.ActivationHistory(log_dir=tmp_path)


def test_callbacks_after_it_see_the_numbers_in_their_logs(tmp_path):
    """As those of trackers do, and as `fit`'s own history does."""
    model = keras.Sequential([keras.Input((3,)), ka.AReLU(name="one"), ka.FReLU(granularity="channel", name="two")])
    model.compile("sgd", "mse")
    table = keras.callbacks.CSVLogger(tmp_path / "log.csv")
    history = ka.ActivationHistory(log=True)
    fitted = model.fit(np.ones((8, 3)), np.zeros((8, 3)), epochs=2, verbose=0, callbacks=[history, table])
    assert fitted.history["one/a"] == [history.snapshots[1]["one"]["a"], history.snapshots[2]["one"]["a"]]
    assert fitted.history["one/a"][1] == pytest.approx(model.layers[0].a) != 1.0
    assert fitted.history["two/b/mean"][1] == pytest.approx(np.mean(model.layers[1].b))
    assert "one/a" in (tmp_path / "log.csv").read_text().splitlines()[0].split(",")
