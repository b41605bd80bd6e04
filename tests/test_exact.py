"""Models that break copies and folds: each keeps its numbers, or the site is left alone with its reason."""

import functools
from importlib.util import find_spec

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_adaptact as ka

RNG = np.random.default_rng(0)
X = RNG.normal(size=(4, 6, 5)).astype("float32")
IMAGES = RNG.normal(size=(4, 8, 8, 3)).astype("float32")
CPU_RUNS_CHANNELS_FIRST = keras.config.backend() != "tensorflow"  # whose convolutions on a CPU don't


def call(model, x=X):
    return keras.tree.map_structure(ops.convert_to_numpy, model(x, training=False))


def strong(**settings) -> ka.ATanh:
    """An activation that is far from tanh."""
    return ka.ATanh(a_initializer=0.7, b_initializer=2.0, c_initializer=0.3, d_initializer=0.5, **settings)


def model_of(shape, *stack) -> keras.Model:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([layers.Input(shape), *stack])
    for variable in model.trainable_variables:
        if variable.name in ("bias", "beta", "gamma"):
            variable.assign(np.random.default_rng(1).normal(size=variable.shape))
    return model


def folds(model, x=X):
    """The plan of a fold that was made and compared with the model."""
    folded = ka.fold_activations(model)
    for expected, found in zip(*(keras.tree.flatten(call(m, x)) for m in (model, folded)), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    return ka.plan_folding(model)


@keras.saving.register_keras_serializable("tests")
class Gated(layers.Dense):
    """Multiplies after its activation."""

    def call(self, inputs, training=None):
        return super().call(inputs) * inputs[..., : self.units]


@keras.saving.register_keras_serializable("tests")
class Standardized(layers.Conv2D):
    """Normalizes its kernel before it uses it."""

    @property
    def kernel(self):
        centred = self._kernel - ops.mean(self._kernel, axis=(0, 1, 2), keepdims=True)
        return centred / ops.std(centred, axis=(0, 1, 2), keepdims=True)

    def call(self, inputs):
        z = ops.conv(inputs, self.kernel, padding=self.padding) + self.bias
        return self.activation(z)


# Folding


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
        ("", "a Standardized takes no scale; standardized_1 after it is no layer that they go through"),
        ("", "where a Standardized computes it isn't known"),
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
        "lstm   LSTM   ATanh     ATanh                                        where a LSTM computes it isn't known",
        "dense  Dense  ATanh     tanh     a, c into dense; b, d into dense_1",
        "1 of 2 folded into other layers",
    ]


def test_regularized_and_constrained_kernels_are_folded():
    kernel = {"kernel_regularizer": "l2", "kernel_constraint": keras.constraints.NonNeg(), "activity_regularizer": "l1"}
    model = model_of((5,), layers.Dense(4, **kernel), strong(), layers.Dense(2, **kernel))
    assert folds(model, X[:, 0])[0].becomes == "tanh"


# Copies


def replaced(model, x=X):
    """A model with other activations, which computes the same to the bit."""
    new = ka.replace_activations(model, "relu", "arelu")
    for expected, found in zip(*(keras.tree.flatten(call(m, x)) for m in (model, new)), strict=True):
        np.testing.assert_array_equal(found, expected)
    return new


@pytest.mark.skipif(find_spec("tensorflow") is None, reason="Keras adapts a Discretization by TensorFlow")
def test_what_a_discretization_adapted_is_copied():
    values = np.linspace(0.0, 1.0, 101)[:, None].astype("float32") ** 2
    layer = layers.Discretization(num_bins=4, output_mode="one_hot")
    layer.adapt(values)
    model = model_of((1,), layer, layers.Dense(3, activation="relu"))
    replaced(model, values)
    folds(ka.replace_activations(model, "relu", "pelu"), values)


def test_what_a_normalization_adapted_is_copied():
    layer = layers.Normalization()
    layer.adapt(3 + 2 * X[:, 0])
    seen = 3 + 2 * X[:, 0].astype("float64")
    expected = (X[:, 1] - seen.mean(axis=0)) / seen.std(axis=0)
    new = replaced(model_of((5,), layer, layers.Dense(3, activation="relu")), X[:, 1])
    np.testing.assert_allclose(ops.convert_to_numpy(new.layers[0](X[:, 1])), expected, rtol=1e-4)


@pytest.mark.skipif(keras.config.backend() != "tensorflow", reason="strings are TensorFlow's alone")
@pytest.mark.parametrize(
    "make", [layers.StringLookup, lambda: layers.TextVectorization(output_sequence_length=1)], ids=["lookup", "text"]
)
def test_vocabularies_are_copied(make):
    import tensorflow

    lookup = make()
    lookup.adapt(np.array(["a", "b", "b", "c"]))
    inputs = keras.Input((1,), dtype="string")
    x = layers.Dense(3, activation="relu")(layers.Flatten()(layers.Embedding(8, 4)(lookup(inputs))))
    x = replaced(keras.Model(inputs, x), tensorflow.constant([["b"], ["c"], ["z"]]))


@keras.saving.register_keras_serializable("tests")
class Counting(layers.Layer):
    """Keeps something that is no variable, and saves it in a way of its own."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.offset = np.zeros(())

    def call(self, x):
        return x + float(self.offset)

    def save_own_variables(self, store):
        store["offset"] = self.offset

    def load_own_variables(self, store):
        self.offset = np.asarray(store["offset"])


def test_state_that_is_no_variable_is_copied():
    layer = Counting()
    layer.offset = np.float32(0.7)
    assert replaced(model_of((6, 5), layer, layers.Dense(3, activation="relu"))).layers[0].offset == np.float32(0.7)


@keras.saving.register_keras_serializable("tests")
class Tied(layers.Layer):
    """Uses the kernel of another layer."""

    def __init__(self, source, **kwargs):
        super().__init__(**kwargs)
        self.source = source

    def build(self, input_shape):
        self.kernel = self.source.kernel

    def call(self, x):
        return ops.matmul(x, ops.transpose(self.kernel))

    def get_config(self):
        return super().get_config() | {"source": keras.saving.serialize_keras_object(self.source)}

    @classmethod
    def from_config(cls, config):
        return cls(keras.saving.deserialize_keras_object(config.pop("source")), **config)


def count(model) -> int:
    return len({id(v) for layer in model._flatten_layers() for v in layer.variables if "kernel" in v.name})


def test_tied_weights_stay_tied():
    source = layers.Dense(4, activation="relu", name="source")
    model = model_of((6, 5), source, layers.Dense(4, activation="relu"), Tied(source))
    new = replaced(model)
    first, tied = new.layers[0], new.layers[2]
    assert tied.kernel is first.kernel and count(new) == count(model) == 2
    new.compile("sgd", "mse")
    new.fit(X, X, verbose=0)
    assert tied.kernel is first.kernel
    if keras.config.backend() == "torch":
        assert len(list(new.parameters())) == len({id(v) for v in new.variables})
    plan = folds(model_of((6, 5), strong(), source, strong(), layers.Dense(4), Tied(source)))
    assert "used elsewhere" in plan[0].why and "used elsewhere" not in plan[1].why


def test_a_variable_in_a_call_is_that_of_the_copy():
    inputs = keras.Input((5,))
    dense = layers.Dense(4, activation="relu")
    model = keras.Model(inputs, dense(inputs) * dense.bias)
    new = replaced(model, X[:, 0])
    (copied,) = [layer for layer in new.layers if isinstance(layer, layers.Dense)]
    copied.bias.assign(np.full(4, 2.0))
    kernel = ops.convert_to_numpy(dense.kernel)
    np.testing.assert_allclose(call(new, X[:, 0]), 2 * np.maximum(X[:, 0] @ kernel + 2, 0), rtol=1e-5)
    np.testing.assert_array_equal(call(model, X[:, 0]), 0)


@pytest.mark.parametrize("change", ["int8", "lora", "lora and int8", "int4"])
def test_quantized_layers_and_lora(change):
    if change == "int4" and keras.config.backend() == "tensorflow":
        pytest.skip("slow")
    model = model_of((6, 4), layers.Dense(4, activation="relu"), layers.Dense(4, activation="relu"), layers.Dense(2))
    if "lora" in change:
        model.layers[0].enable_lora(2)
        model.layers[0].lora_kernel_b.assign(RNG.normal(size=(2, 4)))
    for layer in model.layers if "int" in change else ():
        layer.quantize(change.split()[-1])
    x = X[..., :4]
    new = replaced(model, x)
    assert [len(layer.variables) for layer in new.layers] == [
        len(layer.variables) + n for layer, n in zip(model.layers, (1, 1, 0), strict=True)
    ]
    for layer in new.layers[:2]:
        layer.activation.set_parameters(a=1.3, b=0.2, c=0.1, d=-0.3)
    folds(new, x)


def test_stateful_layers_keep_their_state():
    model = keras.Sequential(
        [layers.Input(batch_shape=(4, 6, 5)), layers.LSTM(3, stateful=True), layers.Dense(2, "relu")]
    )
    model(X)
    state = [ops.convert_to_numpy(v) for v in model.layers[0].states]
    new = ka.replace_activations(model, "relu", "arelu")
    for variable, value in zip(new.layers[0].states, state, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(variable), value)
    np.testing.assert_array_equal(call(new), call(model))


def test_seeds_are_copied():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5,))
    model = keras.Model(inputs, layers.Dense(4, "relu")(layers.Dropout(0.5, seed=1)(inputs, training=True)))
    model(X[:, 0])
    new = ka.replace_activations(model, "relu", "arelu")
    np.testing.assert_array_equal(call(new, X[:, 0]), call(model, X[:, 0]))


@keras.saving.register_keras_serializable("tests")
class Functions(layers.Layer):
    """Takes a function, and says it in its configuration as Keras does."""

    def __init__(self, function, **kwargs):
        super().__init__(**kwargs)
        self.function = function

    def call(self, x):
        return self.function(x)

    def get_config(self):
        return super().get_config() | {"function": keras.saving.serialize_keras_object(self.function)}

    @classmethod
    def from_config(cls, config):
        return cls(keras.saving.deserialize_keras_object(config.pop("function")), **config)


def test_functions_without_a_name_are_kept():
    def local(z):
        return ops.sin(z)

    some = functools.partial(keras.activations.relu, max_value=0.5)
    model = model_of(
        (6, 5),
        layers.Dense(4, activation=lambda z: ops.tanh(0.5 * z)),
        layers.Dense(4, activation=local),
        layers.Dense(4, activation=some),
        layers.Lambda(lambda z: 2.0 * z),
        Functions(lambda z: ops.cos(z)),
        layers.TimeDistributed(layers.Dense(4, activation=lambda z: ops.sigmoid(z))),
        layers.TimeDistributed(layers.Lambda(local)),
        layers.Dense(4, activation="relu"),
    )
    before = [model.layers[0].activation, model.layers[4].function]
    new = replaced(model)
    assert [model.layers[0].activation, model.layers[4].function] == before
    assert [new.layers[0].activation, new.layers[4].function] == before
    folds(new)


def test_masks_reach_what_they_reached():
    inputs = keras.Input((6, 5))
    x = layers.Masking(0.0)(inputs)
    a = layers.GlobalAveragePooling1D()(ops.relu(x))
    b = layers.GlobalAveragePooling1D()(layers.ReLU()(x))
    masked = X.copy()
    masked[:, 3:] = 0
    model = keras.Model(inputs, [a, b])
    plan = ka.plan_replacement(model, "relu", "arelu")
    assert [site.replaced for site in plan] == [False, True] or [site.replaced for site in plan] == [True, False]
    replaced(model, masked)


def test_a_layer_of_two_models_is_copied_from_each():
    shared = layers.Dense(4, activation="relu")
    inputs = keras.Input((5,))
    first, second = keras.Model(inputs, shared(inputs)), keras.Model(inputs, layers.Dense(2)(shared(inputs)))
    before = call(second, X[:, 0])
    replaced(first, X[:, 0])
    folds(ka.replace_activations(second, "relu", "swish"), X[:, 0])
    np.testing.assert_array_equal(call(second, X[:, 0]), before)


# Channels


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
        assert [site.starts_close for site in plan] == [True] * len(plan)
        for name in (site.name for site in plan):
            (site,) = [s for s in ka.plan_replacement(model, function, new, layers=name) if s.replaced]
            pairs = zip(call(model, z), call(ka.replace_activations(model, function, new, layers=name), z), strict=True)
            if site.starts_equal:
                assert all(np.array_equal(before, after) for before, after in pairs)
            elif keras.config.backend() != "torch":
                assert function == "elu"
    if keras.config.backend() == "torch":
        assert [s.starts_equal for s in ka.plan_replacement(model, "elu", "pelu") if s.replaced] == [False]
        assert sorted(site.starts_equal for site in plan) == [False, False, True]
