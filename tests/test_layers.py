"""What a user relies on when an activation is part of a model."""

import keras
import numpy as np
import pytest
from cases import CASES, evaluate
from keras import layers, ops

import keras_adaptact as ka

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)


def fresh(case, **options):
    return ka.get(({"name": case.spec} if isinstance(case.spec, str) else case.spec) | options)


def trained(case, **options):
    """A layer whose parameters aren't those that it starts with."""
    layer = fresh(case, **options)
    layer.set_parameters(**case.trained)
    return layer


def image_model(activation, inner=None):
    inputs = keras.Input((None, None, 3))
    x = layers.Conv2D(4, 3, activation=inner)(inputs)
    return keras.Model(inputs, layers.GlobalAveragePooling2D()(activation(x)))


def outputs(model, shape=(2, 6, 7, 3)):
    return ops.convert_to_numpy(model(np.random.default_rng(0).normal(size=shape).astype("float32")))


def penalty(layer):
    return sum(float(ops.convert_to_numpy(loss)) for loss in layer.losses)


@every_case
def test_weights_exist_inside_another_layer_before_its_first_call(case, tmp_path):
    model = keras.Sequential([layers.Input((3,)), layers.Dense(4, activation=trained(case))])
    numbers = sum(np.size(v) for v in case.start.values())
    assert model.count_params() == 3 * 4 + 4 + numbers
    model.save_weights(tmp_path / "model.weights.h5")
    other = keras.Sequential([layers.Input((3,)), layers.Dense(4, activation=fresh(case))])
    other.load_weights(tmp_path / "model.weights.h5")
    x = np.ones((2, 3), "float32")
    np.testing.assert_array_equal(ops.convert_to_numpy(model(x)), ops.convert_to_numpy(other(x)))


@every_case
@pytest.mark.parametrize("granularity", ["layer", "channel"])
def test_round_trips(case, granularity, tmp_path):
    """A `.keras` file, a weights file in a fresh model, `clone_model` and `from_config` give the same outputs."""
    options = {"granularity": granularity, "channels": 4 if granularity == "channel" else None}
    fixed = fresh(case, granularity=granularity)
    model = image_model(fixed, inner=fresh(case, **options))
    inside = model.layers[1].activation
    for layer, factor in ((fixed, 1.0), (inside, 1.5)):
        shaped = case.by_channel(1 + 0.1 * np.arange(4)) if granularity == "channel" else case.trained
        layer.set_parameters(**{k: np.asarray(v) * factor for k, v in shaped.items()})
    expected = outputs(model)

    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(outputs(keras.models.load_model(tmp_path / "model.keras")), expected)

    model.save_weights(tmp_path / "model.weights.h5")
    other = image_model(fresh(case, granularity=granularity), inner=fresh(case, **options))
    assert not np.allclose(outputs(other), expected)
    other.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(outputs(other), expected)

    for copy in (keras.models.clone_model(model), keras.Model.from_config(model.get_config())):
        copy.set_weights(model.get_weights())
        np.testing.assert_array_equal(outputs(copy), expected)


@every_case
def test_empty_batch_unknown_sizes_and_integers(case):
    for granularity in ("layer", "channel"):
        inputs = keras.Input((None, None, 3))
        model = keras.Model(inputs, fresh(case, granularity=granularity)(inputs))
        assert model.output_shape == (None, None, None, 3)
        for shape in ((0, 6, 7, 3), (3, 9, 5, 3)):
            assert outputs(model, shape).shape == shape
    assert keras.backend.standardize_dtype(fresh(case)(np.array([[1, 2]])).dtype) == "float32"


def test_a_mask_passes():
    x = np.array([[[1.0], [2.0], [0.0]]], "float32")
    masked = layers.Masking()(x)
    y = ka.ATanh()(masked)
    np.testing.assert_array_equal(ops.convert_to_numpy(y._keras_mask), [[True, True, False]])


@every_case
def test_it_trains(case):
    """Every parameter moves, in a compiled `fit`."""
    keras.utils.set_random_seed(1)
    layer = fresh(case, granularity="channel")
    model = keras.Sequential([layers.Input((8,)), layers.Dense(8), layer, layers.Dense(1)])
    model.compile("adam", "mse")
    before = layer.get_parameters()
    rng = np.random.default_rng(0)
    model.fit(rng.normal(size=(64, 8)), rng.normal(size=(64, 1)), batch_size=32, epochs=1, verbose=0)
    for name, value in layer.get_parameters().items():
        assert np.all(value != before[name]), name


def test_fits_the_absolute_value():
    """Out of reach for a layer that stays a straight line; |x| on [-1, 1] has variance 1/12."""
    x = np.linspace(-1, 1, 256, dtype="float32")[:, None]
    model = keras.Sequential(
        [
            layers.Input((1,)),
            layers.Dense(16),
            ka.AReLU(),
            layers.Dense(16),
            ka.AReLU(),
            layers.Dense(1),
        ]
    )
    model.compile(keras.optimizers.Adam(1e-2), "mse")
    model.fit(x, np.abs(x), epochs=150, batch_size=64, verbose=0)
    assert model.evaluate(x, np.abs(x), verbose=0) < 1e-3


def test_arelu_never_stays_a_straight_line():
    """Even where a user sets a = b, c = d, the branches see different gradients and part."""
    layer = ka.AReLU()
    model = keras.Sequential([layers.Input((1,)), layer])
    layer.set_parameters(a=1, b=1, c=0, d=0)
    model.compile(keras.optimizers.SGD(0.1), "mse")
    x = np.linspace(-1, 1, 64, dtype="float32")[:, None]
    model.fit(x, np.abs(x), epochs=3, verbose=0)
    assert abs(layer.a - layer.b) > 1e-2


@pytest.mark.parametrize(
    "options",
    [
        {"b_initializer": 1.0},
        {"a_initializer": "zeros"},
        {
            "a_initializer": keras.initializers.RandomNormal(seed=1),
            "b_initializer": keras.initializers.RandomNormal(seed=1),
        },
        {"b_initializer": "ones", "granularity": "channel"},
    ],
)
def test_arelu_refuses_to_start_as_a_straight_line(options):
    with pytest.raises(ValueError, match="straight line"):
        ka.AReLU(**options)
    with pytest.raises(ValueError, match="straight line"):
        ka.Mixture(["tanh", {"name": "arelu"} | options], granularity=options.get("granularity", "layer"))


def test_parameters_by_name():
    layer = ka.ATanh(a_initializer=1.5, d_initializer="ones")
    assert (layer.a, layer.b, layer.c, layer.d) == (1.5, 1, 0, 1)
    layer.set_parameters(a=1.25, c=-0.5)
    layer.b = 3
    assert layer.get_parameters() == {"a": 1.25, "b": 3, "c": -0.5, "d": 1}
    with pytest.raises(ValueError, match=r"has the parameters .*Received: e"):
        layer.set_parameters(e=1)
    with pytest.raises(ValueError, match=r"`a` of .* shape"):
        layer.set_parameters(a=[1, 2])
    by_channel = ka.ATanh(granularity="channel", channels=3)
    by_channel.a = [1, 2, 3]
    by_channel.d = 0.5
    np.testing.assert_array_equal(by_channel.a, [1, 2, 3])
    np.testing.assert_array_equal(by_channel.d, [0.5, 0.5, 0.5])


def test_each_parameter_has_its_regularizer_and_constraint():
    layer = ka.ATanh(a_regularizer=keras.regularizers.L2(0.5), b_constraint="non_neg", c_initializer=2.0)
    model = keras.Sequential([layers.Input((2,)), layer])
    layer.set_parameters(a=3.0, b=0.01)
    assert penalty(model) == pytest.approx(0.5 * 3.0**2)
    model.compile(keras.optimizers.SGD(10.0), "mse")
    model.fit(np.ones((4, 2)), -np.ones((4, 2)), verbose=0)
    assert layer.b == 0  # one step goes far below it
    copy = ka.ATanh.from_config(layer.get_config())
    assert copy.c == 2.0 and penalty(copy) == pytest.approx(0.5)


def test_a_parameter_per_channel_must_know_how_many():
    with pytest.raises(ValueError, match="no parameters yet"):
        ka.ATanh(granularity="channel").get_parameters()
    built = ka.ATanh(granularity="channel")
    built(np.ones((2, 3)))
    for layer in (ka.ATanh(granularity="channel", channels=3), built):
        for wrong in (np.ones((2, 4)), np.ones((2, 1)), keras.Input((4,))):
            with pytest.raises(ValueError, match=r"parameters for 3 channels, and its input has [41]"):
                layer(wrong)
    with pytest.raises(ValueError, match="channels=n"):
        ka.ATanh(granularity="channel")(keras.Input((3, None)))
    with pytest.raises(ValueError, match="rank 2 or more"):
        ka.ATanh(granularity="channel")(np.ones(3))


def test_a_layer_of_a_users_own_may_hold_one_as_its_activation():
    class Block(layers.Layer):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(4)
            self.activation = ka.ATanh(granularity="channel")

        def call(self, x):
            return self.activation(self.dense(x))

    model = keras.Sequential([layers.Input((3,)), Block(), layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(np.random.default_rng(0).normal(size=(8, 3)), np.ones((8, 1)), verbose=0)
    assert np.any(model.layers[0].activation.a != 1)


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method")
@pytest.mark.parametrize("options", [{}, {"granularity": "channel", "channels": 4}])
def test_a_layer_around_one_can_be_quantized(options):
    activation = ka.ATanh(a_initializer=1.5, **options)
    model = keras.Sequential([layers.Input((3,)), layers.Dense(4, activation=activation)])
    x = np.random.default_rng(0).normal(size=(5, 3)).astype("float32")
    expected = ops.convert_to_numpy(model(x))
    model.quantize("int8")
    np.testing.assert_allclose(ops.convert_to_numpy(model(x)), expected, atol=0.05)
    assert activation.get_parameters()["a"].flat[0] == 1.5


def test_bounds_hold_from_the_start():
    for options in ({"a_initializer": -5}, {"b_initializer": 0.0}):
        with pytest.raises(ValueError, match=r"lies between 0\.1"):
            ka.PELU(**options)
    layer = ka.PELU()
    with pytest.raises(ValueError, match=r"lies between 0\.1"):
        layer.a = -5
    model = keras.Sequential([layers.Input((4,)), layer])
    model.compile(keras.optimizers.SGD(1e3), "mse")
    model.fit(np.ones((4, 4)), -np.ones((4, 4)), verbose=0)
    assert layer.a == np.float32(0.1) and layer.b >= np.float32(0.1)


@pytest.mark.parametrize("policy", ["float16", "bfloat16", "mixed_bfloat16"])
def test_parameters_are_float32_under_every_policy(policy):
    """1.003 has no half-precision form: 1.003 * 1024 - 1024 is 3.07, and 0 or 8 if it is cast to one."""
    layer = ka.AReLU(dtype=policy, a_initializer=1.003, c_initializer=-1024.0)
    assert {w.dtype for w in layer.weights} == {"float32"}
    y = ops.convert_to_numpy(ops.cast(layer(np.array([[1024.0]])), "float32"))
    np.testing.assert_allclose(y, [[1024 * np.float32(1.003) - 1024]], rtol=1e-2)


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="JAX has no float64 unless its own switch is set")
@every_case
def test_float64_is_computed_in_float64(case):
    z = np.random.default_rng(0).normal(size=(4, 3))
    y = ops.convert_to_numpy(fresh(case, dtype="float64")(z))
    assert y.dtype == "float64"
    np.testing.assert_allclose(y, evaluate(case, z, case.start)[0], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(
    "options", [{"a_initializer": [1.0, 2.0]}, {"granularity": "channel", "channels": 3, "a_initializer": [1.0, 2.0]}]
)
def test_an_initial_value_of_another_shape(options):
    with pytest.raises(ValueError, match=r"`a_initializer` must be one number, or of shape"):
        ka.ATanh(**options)


def test_a_constraint_along_an_axis():
    layer = ka.ATanh(a_constraint="unit_norm", granularity="channel", channels=2)
    layer.set_parameters(a=[3.0, -4.0])
    layer._packed.assign(layer._packed.constraint(layer._packed))
    np.testing.assert_allclose(layer.a, [1.0, -1.0], rtol=1e-5)


class Doubled(layers.Layer):
    """Says what it puts out, so that Keras needs no call to know, and has nothing built by one."""

    def __init__(self, activation=None):
        super().__init__()
        self.dense, self.activation = layers.Dense(4), activation

    def build(self, input_shape):
        self.dense.build(input_shape)

    def call(self, x):
        return ops.concatenate([self.activation(self.dense(x))] * 2, axis=-1)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], 8)


def test_parameters_in_code_of_ones_own_are_there_before_the_optimizer():
    model = keras.Sequential([layers.Input((3,)), Doubled(ka.ATanh(granularity="channel"))])
    activation = model.layers[0].activation
    model.compile(keras.optimizers.SGD(0.1), "mse")
    model.optimizer.build(model.trainable_variables)
    model.fit(np.ones((4, 3)), np.ones((4, 8)), verbose=0)
    assert activation.a.shape == (4,) and np.all(activation.a != 1.0)


class OfTwoWidths(Doubled):
    """Gives its activation other channels the second time."""

    def call(self, x):
        return ops.concatenate([super().call(x), self.activation(x)], axis=-1)


def test_parameters_that_would_come_after_the_optimizer_are_refused():
    layer = OfTwoWidths(ka.ATanh(granularity="channel"))
    with pytest.raises(ValueError, match=r"channels=4.*`activation=` of of_two_widths"):
        layer(np.ones((4, 3)))


CHANNELS_FIRST = pytest.mark.skipif(
    keras.backend.backend() == "tensorflow", reason="TensorFlow on CPU convolves channels_last only"
)

RECURRENT = pytest.mark.xfail(
    keras.config.is_nnx_enabled(),
    strict=True,
    reason="Keras's recurrent layers set attributes of their cells in a scan",
)


@pytest.mark.parametrize(
    "make, shape, channels",
    [
        (lambda **on: layers.Dense(5, **on), (3,), 5),
        (lambda **on: layers.Dense(5, **on), (6, 3), 5),
        (lambda **on: layers.Conv2D(5, 2, **on), (6, 6, 3), 5),
        (lambda **on: layers.Conv2D(5, 2, padding="same", **on), (None, None, 3), 5),
        (lambda **on: layers.Conv1DTranspose(5, 2, **on), (6, 3), 5),
        pytest.param(
            lambda **on: layers.Conv2D(5, 2, data_format="channels_first", **on), (3, 6, 7), 5, marks=CHANNELS_FIRST
        ),
        pytest.param(
            lambda **on: layers.Conv2D(5, 2, data_format="channels_first", **on),
            (3, None, None),
            5,
            marks=CHANNELS_FIRST,
        ),
        (lambda **on: layers.DepthwiseConv2D(2, depth_multiplier=2, **on), (6, 6, 3), 6),
        (lambda **on: layers.SeparableConv1D(5, 2, **on), (6, 3), 5),
        (lambda **on: layers.EinsumDense("abc,cd->abd", (6, 5), **on), (6, 3), 5),
        pytest.param(lambda **on: layers.SimpleRNN(5, **on), (6, 3), 5, marks=RECURRENT),
        pytest.param(lambda **on: layers.Bidirectional(layers.LSTM(5, **on)), (6, 3), 5, marks=RECURRENT),
        pytest.param(lambda **on: layers.GRU(5, **on), (6, 3), 5, marks=RECURRENT),
        pytest.param(lambda **on: layers.ConvLSTM2D(5, 2, **on), (4, 6, 6, 3), 5, marks=RECURRENT),
        (lambda **on: layers.TimeDistributed(layers.Dense(5, **on)), (6, 3), 5),
    ],
)
def test_one_config_serves_layers_of_any_width(make, shape, channels, tmp_path):
    """As `activation=`, without `channels=`: the variables are there before an optimizer asks, and train."""
    config = {"name": "atanh", "granularity": "channel"}
    inputs = keras.Input(shape)
    outputs = make(activation=ka.get(config))(inputs)
    model = keras.Model(inputs, layers.Dense(1)(layers.Flatten()(outputs)) if None not in shape else outputs)
    found = ka.activation_table(model)
    assert {row["channel"] for row in found} == set(range(channels))
    model.compile(keras.optimizers.SGD(0.1), "mse")
    model.optimizer.build(model.trainable_variables)
    x = np.random.default_rng(0).normal(size=(8, *(n or 6 for n in shape))).astype("float32")
    model.fit(x, np.ones(model(x).shape), epochs=2, verbose=0)
    assert all(row["value"] != (row["parameter"] in "ab") for row in ka.activation_table(model))
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        keras.models.load_model(tmp_path / "model.keras").predict(x, verbose=0), model.predict(x, verbose=0)
    )
    assert [v.shape for v in keras.models.clone_model(model).variables] == [v.shape for v in model.variables]


@pytest.mark.parametrize(
    "options",
    [
        {"granularity": "pixel"},
        {"channels": 3},
        {"channels": 0, "granularity": "channel"},
        {"data_format": "NHWC"},
        {"e_initializer": 1.0},
    ],
)
def test_bad_arguments_are_errors(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        ka.ATanh(**options)


@pytest.mark.parametrize("data_format, shape", [("channels_last", (1, 1, 3)), ("channels_first", (3, 1, 1))])
def test_prelu_shares_the_right_axes(data_format, shape):
    image = (None, None, 3) if data_format == "channels_last" else (3, None, None)
    by_channel = ka.PReLU(granularity="channel", data_format=data_format)
    assert by_channel(keras.Input(image)).shape == (None, *image)
    assert tuple(by_channel.alpha.shape) == shape
    for layer, size in ((ka.PReLU(), 1), (ka.PReLU(granularity="channel"), 5)):
        y = layer(np.array([[-2.0, 0.0, 1.0, -4.0, 2.0]], "float32"))
        assert layer.count_params() == size
        np.testing.assert_allclose(ops.convert_to_numpy(y), [[-0.5, 0.0, 1.0, -1.0, 2.0]])
    with pytest.raises(ValueError, match="granularity"):
        ka.PReLU(granularity="element")


def test_a_layer_shows_what_it_learned():
    layer = ka.AReLU(b_initializer=0.25, name="act")
    assert repr(layer) == "<AReLU name=act, a=1, b=0.25, c=0, d=0>"
    by_channel = ka.FReLU(granularity="channel", channels=3, name="act")
    by_channel.set_parameters(b=[0.5, -1.0, 2.0])
    assert repr(by_channel) == "<FReLU name=act, b=-1..2>"
    mixture = ka.Method2(weights=[0.5, 0.25, 0.25], name="mix")
    assert repr(mixture) == "<Method2 name=mix, tanh=0.5, sigmoid=0.25, relu=0.25>"
    assert repr(ka.AReLU(granularity="channel", name="act")).startswith("<AReLU name=act, built=False")


def test_keras_takes_them_as_activations():
    layer = ka.AReLU()
    assert keras.activations.get(layer) is layer
    again = keras.activations.deserialize(keras.activations.serialize(ka.AReLU(b_initializer=0.25)))
    assert again.b == 0.25


@pytest.mark.parametrize("data_format, shape, expected", [("channels_first", (3, 6, 6), (5, 1, 1)), (None, (6, 3), 4)])
def test_prelu_shares_over_the_axes_of_its_owner(data_format, shape, expected, monkeypatch):
    activation = ka.PReLU(granularity="channel")
    if data_format and keras.config.backend() == "tensorflow":
        pytest.skip("TensorFlow's convolutions on a CPU take no channels first")
    owner = layers.Conv2D(5, 3, data_format=data_format, activation=activation) if data_format else layers.Dense(4)
    if not data_format:
        monkeypatch.setattr(keras.config, "image_data_format", lambda: "channels_first")
        activation = owner.activation = ka.PReLU(granularity="channel")
    keras.Sequential([layers.Input(shape), owner])
    assert np.prod(activation.alpha.shape) == np.prod(expected)
    if data_format:
        assert tuple(activation.alpha.shape) == expected
