"""Layer normalization replaced by DyT and Derf in models that exist."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from scipy.special import erf

import keras_adaptact as ka

RNG = np.random.default_rng(0)
X = RNG.normal(size=(4, 6, 8)).astype("float32")


def attending(x, normalization, name):
    """A block of a transformer: attention and two dense layers, each with a normalization before it."""
    h = normalization(name=f"{name}_norm1")(x)
    x = x + layers.MultiHeadAttention(2, 4, name=f"{name}_attention")(h, h)
    h = normalization(name=f"{name}_norm2")(x)
    return x + layers.Dense(8, name=f"{name}_out")(layers.Dense(16, activation="gelu", name=f"{name}_in")(h))


def transformer(normalization=layers.LayerNormalization):
    inputs = keras.Input((6,), dtype="int32")
    x = layers.Embedding(12, 8)(inputs)
    for name in ("one", "two"):
        x = attending(x, normalization, name)
    return keras.Model(inputs, layers.Dense(12)(normalization(name="norm")(x)))


@keras.saving.register_keras_serializable("test_normalization")
class Block(layers.Layer):
    """With code of its own around a normalization."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.norm = layers.LayerNormalization()
        self.dense = layers.Dense(8)

    def build(self, shape):
        self.norm.build(shape)
        self.dense.build(shape)

    def call(self, x):
        return x + self.dense(self.norm(x))


def values(tensor):
    return ops.convert_to_numpy(tensor).astype("float64")


def learned(model):
    """A model whose normalization layers have learned something."""
    for layer in model._flatten_layers():
        for variable in layer.trainable_variables if "norm" in layer.name else ():
            variable.assign(RNG.normal(1, 0.5, variable.shape))
    return model


FUNCTIONS = {"dyt": np.tanh, "derf": erf}


@pytest.mark.parametrize("new", FUNCTIONS)
@pytest.mark.parametrize("old", [layers.LayerNormalization, layers.RMSNormalization])
def test_what_takes_its_place_computes_by_the_formula(old, new):
    """gamma and beta are those of the layer; and the model that was given stays as it is."""
    model = learned(keras.Sequential([layers.Input((6, 8)), old(name="norm"), layers.Dense(3)]))
    before = values(model(X))
    copied = ka.replace_normalization(model, new)
    np.testing.assert_array_equal(values(model(X)), before)
    kernel, bias = (values(v) for v in model.layers[1].get_weights())
    gamma, beta = (getattr(model.layers[0], name, None) for name in ("gamma", "beta"))
    gamma = values(model.layers[0].scale if old is layers.RMSNormalization else gamma)
    expected = gamma * FUNCTIONS[new](0.5 * X.astype("float64")) + (0 if beta is None else values(beta))
    np.testing.assert_allclose(values(copied(X)), expected @ kernel + bias, rtol=1e-4, atol=1e-5)
    assert copied.layers[0].name == "norm" and np.shape(copied.layers[0].alpha) == ()
    assert copied.layers[0].count_params() == 16 + (1 if new == "dyt" else 2)


@pytest.mark.parametrize("old", [layers.LayerNormalization, layers.RMSNormalization])
def test_a_small_transformer_trains_after_it(old, tmp_path):
    """It learns to name its tokens, and all that took a layer's place with it; and its file opens again."""
    keras.utils.set_random_seed(0)
    model = ka.replace_normalization(transformer(old), "dyt")
    assert not any(isinstance(layer, old) for layer in model._flatten_layers())
    tokens = RNG.integers(0, 12, (256, 6))
    model.compile(keras.optimizers.Adam(1e-2), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    first = model.evaluate(tokens, tokens, verbose=0)
    before = model.get_layer("one_norm1").get_parameters()
    model.fit(tokens, tokens, batch_size=64, epochs=6, verbose=0)
    assert model.evaluate(tokens, tokens, verbose=0) < 0.6 * first
    for name, value in model.get_layer("one_norm1").get_parameters().items():
        assert np.all(value != before[name]), name
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(values(loaded(tokens[:4])), values(model(tokens[:4])), rtol=1e-5, atol=1e-5)


def test_others_stay_and_the_plan_says_why():
    inputs = keras.Input((6, 8))
    x = layers.LayerNormalization(name="last")(inputs)
    x = layers.LayerNormalization(axis=1, name="first")(x)
    x = layers.LayerNormalization(axis=(1, 2), name="both")(x)
    x = layers.LayerNormalization(axis=2, name="also_last")(x)
    x = layers.BatchNormalization(name="batch")(x)
    x = layers.GroupNormalization(2, name="group")(x)
    x = layers.UnitNormalization(name="unit")(x)
    x = type("Own", (layers.LayerNormalization,), {})(name="own")(x)
    model = keras.Model(inputs, x)
    plan = ka.plan_normalization(model)
    assert {site.name: site.replaced for site in plan} == {
        "last": True,
        "first": False,
        "both": False,
        "also_last": True,
        "batch": False,
        "group": False,
        "unit": False,
        "own": False,
    }
    text = str(plan)
    assert "over the batch" in text and "other axes than the last" in text and "a subclass" in text
    assert text.endswith("2 of 8 replaced: outputs change, so train the model anew")
    copied = ka.replace_normalization(model)
    assert [type(layer).__name__ for layer in copied.layers if "last" in layer.name] == ["DyT", "DyT"]
    assert [site.replaced for site in ka.plan_normalization(model, layers="also_*")].count(True) == 1


@pytest.mark.parametrize("in_place", [False, True])
def test_in_code_of_ones_own(in_place, tmp_path):
    model = keras.Sequential([layers.Input((6, 8)), Block(), Block(), layers.Dense(1)])
    new = ka.replace_normalization(model, "derf", in_place=in_place)
    assert (new is model) is in_place
    assert isinstance(new.layers[0].norm, ka.Derf) and isinstance(new.layers[1].norm, ka.Derf)
    assert isinstance(model.layers[0].norm, ka.Derf) is in_place
    kernel, bias = (values(v) for v in new.layers[0].dense.get_weights())
    expected = X + erf(0.5 * X.astype("float64")) @ kernel + bias
    np.testing.assert_allclose(values(new.layers[0](X)), expected, rtol=1e-5, atol=1e-5)
    new.compile("sgd", "mse")
    new.fit(X, X[..., :1], verbose=0)
    assert np.all(new.layers[0].norm.gamma != 1)
    new.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(values(loaded(X)), values(new(X)), rtol=1e-5, atol=1e-6)


def test_a_subclassed_model_is_changed_in_place():
    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.norm = layers.LayerNormalization()
            self.dense = layers.Dense(2)

        def call(self, x):
            return self.dense(self.norm(x))

    model = Model()
    with pytest.raises(ValueError, match="in_place=True"):
        ka.replace_normalization(model)
    assert "not built" in str(ka.plan_normalization(model, in_place=True))
    model(X)
    assert ka.replace_normalization(model, in_place=True) is model
    assert isinstance(model.norm, ka.DyT) and model(X).shape == (4, 6, 2)


def test_settings_stay():
    norm = layers.LayerNormalization(name="norm", dtype="mixed_bfloat16", trainable=False)
    model = keras.Sequential([layers.Input((8,)), norm])
    new = ka.replace_normalization(model, {"name": "dyt", "alpha_initializer": 0.8}).layers[0]
    assert new.dtype_policy.name == "mixed_bfloat16" and not new.trainable and new.alpha == np.float32(0.8)
    by_layer = ka.replace_normalization(model, {"name": "dyt", "granularity": "layer"}).layers[0]
    assert by_layer.count_params() == 3


@pytest.mark.parametrize(
    "new, match", [("tanh", "`DyT` or `Derf`"), ("method1", "`DyT` or `Derf`"), ("dty", "Did you")]
)
def test_other_layers_are_refused(new, match):
    with pytest.raises(ValueError, match=match):
        ka.replace_normalization(keras.Sequential([layers.Input((8,)), layers.LayerNormalization()]), new)


def test_nothing_to_replace_is_an_error():
    model = keras.Sequential([layers.Input((8,)), layers.BatchNormalization()])
    with pytest.raises(ValueError, match="plan_normalization"):
        ka.replace_normalization(model)
    with pytest.raises(TypeError, match="pattern of layer names"):
        ka.replace_normalization(model, layers=3)


def test_regularizers_and_constraints_stay():
    settings = {"gamma_regularizer": keras.regularizers.L2(0.1), "beta_constraint": keras.constraints.NonNeg()}
    model = keras.Sequential([layers.Input((6, 8)), layers.LayerNormalization(**settings)])
    changed = ka.replace_normalization(model, "dyt")
    found = changed.layers[-1].get_config()
    assert found["gamma_regularizer"]["config"]["l2"] == pytest.approx(0.1) and found["beta_constraint"]
    assert found["beta_regularizer"] is None and len(changed.losses) == 1
