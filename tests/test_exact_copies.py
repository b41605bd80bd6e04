"""Models that break copies: each keeps its numbers and its state."""

import collections
import fractions
import functools
import re
import threading
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


def test_weights_that_an_operation_takes_too_are_not_folded_into():
    inputs = keras.Input((5,))
    dense = layers.Dense(5)
    plan = folds(keras.Model(inputs, ops.matmul(strong()(dense(inputs)), dense.kernel)), X[:, 0])
    assert "used elsewhere" in plan[0].why


@pytest.mark.parametrize("make", [layers.LSTM, layers.GRU])
def test_what_another_activation_of_the_layer_learned_is_copied(make):
    inputs = keras.Input((6, 5))
    model = keras.Model(inputs, make(3, activation="tanh", recurrent_activation=strong())(inputs))
    new = ka.replace_activations(model, "tanh", "atanh")
    np.testing.assert_array_equal(call(new), call(model))
    assert len(ka.trainable_activations(new)) == 2


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "float64"])
def test_what_an_operation_computes_in_is_what_its_activation_does(dtype):
    if (dtype, keras.config.backend()) == ("float64", "jax"):
        pytest.skip("JAX has no float64 unless it is told so")
    inputs = keras.Input((5,), dtype="float64" if dtype == "float64" else None)
    model = keras.Model(inputs, ops.relu(layers.Dense(4, dtype=dtype)(inputs)) * 1.01)
    x = ops.convert_to_tensor(X[:, 0], dtype=inputs.dtype)
    old, new = model(x), ka.replace_activations(model, "relu", "arelu")(x)
    assert old.dtype == new.dtype
    np.testing.assert_array_equal(*(ops.convert_to_numpy(y).astype("float64") for y in (old, new)))


def test_operations_on_whole_numbers_stay():
    inputs = keras.Input((5,), dtype="int32")
    assert ka.plan_replacement(keras.Model(inputs, ops.relu(inputs)), "relu", "arelu")[0].why == "it computes in int32"


@pytest.mark.parametrize("in_place", [False, True])
def test_what_has_an_activity_regularizer_stays(in_place):
    model = model_of((6, 5), layers.Activation("relu", activity_regularizer="l2"), layers.Activation("relu"))
    plan = ka.plan_replacement(model, "relu", "arelu", in_place=in_place)
    assert [site.replaced for site in plan] == [False, True]
    assert plan[0].why == "it has an activity regularizer"
    model = model_of((6, 5), layers.Dense(4, activation=ka.ATanh(activity_regularizer="l2")))
    assert ka.plan_replacement(model, "atanh", "tanh", in_place=in_place)[0].why == "it has an activity regularizer"
    normalized = model_of((6, 5), layers.LayerNormalization(activity_regularizer="l2"))
    assert ka.plan_normalization(normalized)[0].why == "it has an activity regularizer"


@pytest.mark.parametrize("change", ["int8", "lora", "lora and int8", "int4"])
def test_quantized_layers_and_lora(change):
    if change == "int4" and keras.config.backend() == "tensorflow":
        pytest.skip("slow")
    model = model_of((6, 4), layers.Dense(4, activation="relu"), layers.Dense(4, activation="relu"), layers.Dense(2))
    if "lora" in change:
        model.layers[0].enable_lora(2, lora_alpha=8)
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


@pytest.mark.parametrize("make", [ka.fold_activations, lambda m: ka.replace_activations(m, "relu", "arelu")])
def test_inputs_keep_their_names(make):
    first, second = keras.Input((5,)), keras.Input((5,), name="second")
    joined = keras.Model([first, second], layers.Dense(3, activation="relu")(layers.Add()([first, second])))
    by_name = {"x": keras.Input((5,), name="x"), "y": keras.Input((5,), name="y")}
    keyed = keras.Model(by_name, layers.Dense(3, activation="relu")(layers.Subtract()([by_name["x"], by_name["y"]])))
    stack = keras.Sequential([layers.Dense(3, activation="relu")])
    stack.build((None, 5))
    for model in (joined, keyed, stack, model_of((5,), layers.Dense(3, activation="relu"))):
        copied = make(model)
        assert [layer.name for layer in copied._layers] == [layer.name for layer in model._layers]
        assert [tensor.name for tensor in copied.inputs] == [tensor.name for tensor in model.inputs]
        assert [spec.name for spec in copied.input_spec or ()] == [spec.name for spec in model.input_spec or ()]
    given = {"y": X[:, 1], "x": X[:, 0]}  # by their names, in any order
    np.testing.assert_allclose(call(make(keyed), given), call(keyed, given), rtol=1e-6)


@pytest.mark.skipif(keras.config.backend() != "tensorflow", reason="a SavedModel is TensorFlow's")
def test_the_signature_of_an_export_keeps_its_names(tmp_path):
    import tensorflow

    model = model_of((5,), layers.Dense(3, activation="relu"))
    names = []
    for i, exported in enumerate((model, ka.fold_activations(model))):
        exported.export(tmp_path / str(i), verbose=False)
        serve = tensorflow.saved_model.load(tmp_path / str(i)).signatures["serving_default"]
        names.append(sorted(serve.structured_input_signature[1]))
    assert names[0] == names[1]


@keras.saving.register_keras_serializable("tests")
class Beside(layers.Layer):
    """Multiplies by what neither Keras's state nor its configuration holds: `factors`, made by `kinds[kind]`."""

    def __init__(self, kind="equal", **options):
        super().__init__(**options)
        self.kind, self.calls, self.activation = kind, 0, layers.ReLU()
        self.names, self.traced = {"a", "b", kind}, None
        self.factors = KINDS[kind]()

    def call(self, inputs):
        self.seen = ops.shape(inputs)  # as caches are
        if not ops.is_tensor(inputs) or keras.config.backend() == "jax":
            self.traced = inputs
        return self.activation(multiplied(inputs, self.factors))

    def get_config(self):
        return super().get_config() | {"kind": self.kind}


class Holder:
    def __init__(self):
        self.values = RNG.normal(size=5)


def multiplied(inputs, factors):
    if isinstance(factors, list | dict):
        (factors,) = factors.values() if isinstance(factors, dict) else factors
    if isinstance(factors, Holder):
        factors = factors.values
    return factors(inputs) if callable(factors) else inputs * ops.cast(factors, "float32")


def of_torch(inside):
    def make():
        import torch

        return inside(torch)

    return make


KINDS = {
    "equal": lambda: np.arange(5.0),
    "array": lambda: RNG.normal(size=5),
    "list": lambda: [RNG.normal(size=5)],
    "number": lambda: float(RNG.normal()),
    "tensor": lambda: ops.convert_to_tensor(RNG.normal(size=5)),
    "object": Holder,
}
if keras.config.backend() == "torch":
    KINDS |= {
        "modules": of_torch(lambda torch: [torch.nn.Linear(5, 5)]),
        "modules by name": of_torch(lambda torch: {"a": torch.nn.Linear(5, 5)}),
        "a parameter": of_torch(lambda torch: torch.nn.Parameter(torch.randn(5))),
    }


@pytest.mark.parametrize("kind", KINDS)
def test_values_beside_the_state_are_never_lost(kind):
    """A copy has them, or there is none; changing in place keeps them."""
    model = keras.Sequential([layers.Input((6, 5)), Beside(kind), layers.ReLU()])
    expected = call(model)
    for copy in (lambda m: ka.replace_activations(m, "relu", "arelu"), ka.fold_activations):
        if kind == "equal":
            np.testing.assert_array_equal(call(copy(model)), expected)
            continue
        with pytest.raises(ValueError, match=r"can't be copied: its `factors` has another value.*`in_place=True`"):
            copy(model)
    ka.replace_activations(model, "relu", "arelu", in_place=True)
    np.testing.assert_array_equal(call(model), expected)


@pytest.mark.parametrize("name, value", [("calls", 3), ("kind", "array"), ("factors", np.zeros(5))])
def test_what_was_set_after_the_constructor_is_not_lost(name, value):
    """`kind` is in the configuration, which makes another layer then."""
    model = keras.Sequential([layers.Input((6, 5)), Beside(), layers.ReLU()])
    setattr(model.layers[0], name, value)
    with pytest.raises(ValueError, match=r"can't be copied: its `.*` has another value"):
        ka.replace_activations(model, "relu", "arelu")


@keras.saving.register_keras_serializable("tests")
class Scaled(layers.Layer):
    """Has defaults of its class, and a function that isn't in its configuration."""

    scale = 1.0

    def __init__(self, function=ops.tanh, **options):
        super().__init__(**options)
        self.function, self.activation_gain = function, 1.0
        self.own = lambda x: x + 1.0
        self.bound, self.partial = self.inner, functools.partial(ops.clip, x_min=-1.0, x_max=1.0)

    def inner(self, x):
        return self.activation_gain * x

    def call(self, inputs):
        return self.partial(self.bound(self.own(self.function(inputs)))) * self.scale

    def get_config(self):
        config = super().get_config()
        config.pop("function", None)
        return config


LATER = {
    "a default of its class": lambda layer: setattr(layer, "scale", 3.0),
    "a number named after an activation": lambda layer: setattr(layer, "activation_gain", 3.0),
    "a function": lambda layer: setattr(layer, "function", ops.exp),
    "a method": lambda layer: setattr(layer, "inner", lambda x: 3.0 * x),
    "a partial": lambda layer: setattr(layer, "partial", functools.partial(ops.clip, x_min=-2.0, x_max=2.0)),
    "a lambda": lambda layer: setattr(layer, "own", lambda x: x + 2.0),
}


@pytest.mark.parametrize("change", [None, *LATER])
def test_what_is_not_in_the_configuration_is_not_lost(change):
    model = keras.Sequential([layers.Input((6, 5)), Scaled(), layers.ReLU()])
    if change is None:
        np.testing.assert_array_equal(call(ka.replace_activations(model, "relu", "arelu")), call(model))
        return
    LATER[change](model.layers[0])
    for copy in (lambda m: ka.replace_activations(m, "relu", "arelu"), ka.fold_activations):
        with pytest.raises(ValueError, match=r"can't be copied: its `.*` has another value"):
            copy(model)


class Slots:
    __slots__ = ("others", "value")

    def __init__(self, value):
        self.value, self.others = value, self

    def plus(self, x):
        return x + self.value


def who_know_each_other(value):
    """Forty objects, which have far too many paths to go along each."""
    found = [Slots(i) for i in range(40)]
    for each in found:
        each.others = found
    return found[value]


class LooksUp:
    def __init__(self, value):
        vars(self)["all"] = {"value": value}

    def __getattr__(self, name):
        return vars(self)["all"][name]


def decorated(value):
    @functools.wraps(max)
    def function(x):
        return value * x

    return function


MAKERS = {
    "an object with slots": Slots,
    "objects that know each other": who_know_each_other,
    "an object that looks its attributes up": LooksUp,
    "objects in an array": lambda value: np.array([Slots(value)]),
    "a queue": lambda value: collections.deque([value]),
    "bytes": lambda value: bytearray([value]),
    "a range": range,
    "a set": lambda value: {0, value},
    "a fraction": lambda value: fractions.Fraction(1, value),
    "a pattern": lambda value: re.compile("a" * value),
    "a regularizer": lambda value: keras.regularizers.L2(value),
    "a dtype": lambda value: np.dtype(f"float{32 * value}"),
    "a function in the name of another": decorated,
    "a function with a cache": lambda value: functools.lru_cache(lambda x: value * x),
    "a function of another object": lambda value: ("a" * value).join,
    "a module": lambda value: (np, keras)[value - 1],
}


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("value", [1, 2])
def test_objects_of_any_kind_are_compared_by_what_they_hold(kind, value):
    """What the constructor makes is in the copy, too; what was set later is not."""

    class Holding(layers.Layer):
        def __init__(self, **options):
            super().__init__(**options)
            self.thing, self.lock = MAKERS[kind](1), threading.Lock()

        def call(self, inputs):
            return 1.0 * inputs

    model = keras.Sequential([layers.Input((6, 5)), Holding(), layers.ReLU()])
    model.layers[0].thing = MAKERS[kind](value)
    if value == 1:
        np.testing.assert_array_equal(call(ka.replace_activations(model, "relu", "arelu")), call(model))
        return
    with pytest.raises(ValueError, match="can't be copied: its `thing` has another value"):
        ka.replace_activations(model, "relu", "arelu")


@keras.saving.register_keras_serializable("tests")
class SoftReLU(ka.TrainableActivation):
    sharpness = ka.Parameter(4.0)
    factor = 1.0

    def formula(self, z, sharpness):
        return self.factor * ops.softplus(sharpness * z) / sharpness


class OwnLoss(keras.losses.Loss):
    """Keras counts its name."""

    def call(self, y_true, y_pred):
        return ops.mean(y_pred, axis=-1)


@keras.saving.register_keras_serializable("tests")
class Remembers(layers.Layer):
    """Keeps what it computed, as the layers of tutorials do."""

    def __init__(self, **options):
        super().__init__(**options)
        self.scores, self.rate, self.loss = None, np.float32(0.3), OwnLoss()
        self.activation_range, self.step = (0.0, 1.0), Slots(1).plus

    def call(self, inputs):
        self.scores = ops.softmax(inputs)
        return inputs + self.rate * self.scores


@pytest.mark.parametrize("make", [SoftReLU, Remembers, lambda: layers.Dense(4, activation=SoftReLU())])
def test_own_layers_that_lose_nothing_are_copied(make):
    model = keras.Sequential([layers.Input((6, 5)), make(), layers.ReLU()])
    expected = call(model)
    np.testing.assert_array_equal(call(ka.replace_activations(model, "relu", "arelu")), expected)
    np.testing.assert_array_equal(call(ka.fold_activations(model)), expected)


@pytest.mark.parametrize("name, value", [("activation_range", (0.0, 2.0)), ("step", Slots(2).plus), ("rate", 0.4)])
def test_what_such_a_layer_was_given_later_is_not_lost(name, value):
    model = keras.Sequential([layers.Input((6, 5)), Remembers(), layers.ReLU()])
    setattr(model.layers[0], name, value)
    with pytest.raises(ValueError, match=f"can't be copied: its `{name}` has another value"):
        ka.replace_activations(model, "relu", "arelu")


def test_what_a_member_of_a_mixture_was_given_later_is_not_lost():
    member = SoftReLU()
    member.factor = 3.0
    model = keras.Sequential([layers.Input((6, 5)), ka.Mixture([member, "tanh"]), layers.ReLU()])
    with pytest.raises(ValueError, match="can't be copied: its `factor` has another value"):
        ka.replace_activations(model, "relu", "arelu")


@keras.saving.register_keras_serializable("tests")
class Weighted(keras.Model):
    weight = 1.0

    def compute_loss(self, *args, **options):
        return self.weight * super().compute_loss(*args, **options)


def test_what_was_set_on_a_functional_model_is_not_lost():
    """An attribute of its class, a layer outside of the graph, and a method; what only says something of it is."""

    def made(kind):
        inputs = keras.Input((5,))
        return kind(inputs, layers.Dense(1, "relu")(inputs))

    for kind, name, value in (
        (Weighted, "weight", 0.1),
        (keras.Model, "extra", layers.Dense(2, name="extra")),
        (keras.Model, "compute_loss", lambda *_, **__: 7.0),
    ):
        model = made(kind)
        setattr(model, name, value)
        with pytest.raises(ValueError, match=f"can't be copied: its `{name}` is no part of its graph"):
            ka.replace_activations(model, "relu", "arelu")
    model = made(Weighted)
    model.classes, model.weight = ["a"], 1.0
    model.compile("sgd", "mse")
    model.fit(np.ones((4, 5)), np.ones((4, 1)), verbose=0)
    assert type(ka.replace_activations(model, "relu", "arelu")) is Weighted


def test_constraints_set_later_and_seeds_in_lists_are_copied():
    class Noisy(layers.Layer):
        def __init__(self, **options):
            super().__init__(**options)
            self.seeds = [keras.random.SeedGenerator(1), keras.random.SeedGenerator(2)]

        def call(self, inputs):
            return inputs + keras.random.normal(ops.shape(inputs), seed=self.seeds[1])

    model = keras.Sequential([layers.Input((5,)), layers.Dense(3), Noisy(), layers.ReLU()])
    model.layers[0].kernel.constraint = keras.constraints.NonNeg()
    call(model, X[:, 0])
    copied = ka.replace_activations(model, "relu", "arelu")
    assert copied.layers[0].kernel.constraint is model.layers[0].kernel.constraint
    np.testing.assert_array_equal(call(copied, X[:, 0]), call(model, X[:, 0]))


@pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask")
def test_a_nested_model_is_called_with_a_mask():
    inner = keras.Sequential([layers.Input((5, 8)), layers.Dense(8, activation="relu"), layers.LSTM(3)])
    inputs = keras.Input((5,))
    model = keras.Model(inputs, inner(layers.Embedding(10, 8, mask_zero=True)(inputs)))
    x = np.array([[1, 2, 3, 0, 0], [4, 0, 0, 0, 0]])
    assert "dense" in str(ka.plan_replacement(model, "relu", "arelu"))
    np.testing.assert_array_equal(call(ka.replace_activations(model, "relu", "arelu"), x), call(model, x))
