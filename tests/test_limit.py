"""The limit on steps of activation parameters, against its equation; and a divergence that explains itself."""

import keras
import numpy as np
import pytest

import keras_adaptact as ka
from keras_adaptact.optimizers import limited
from keras_adaptact.parameters import Between

LIMIT = 0.01


def data():
    random = np.random.default_rng(0)
    return random.normal(size=(16, 8)).astype("float32"), random.normal(size=(16, 4)).astype("float32") * 30


def network(granularity="layer"):
    keras.utils.set_random_seed(0)
    site = ka.Method1(granularity=granularity, name="site")
    return keras.Sequential([keras.Input((8,)), keras.layers.Dense(6), site, keras.layers.Dense(4)])


def own(model):
    return [keras.ops.convert_to_numpy(v.value).astype("float64") for v in model.get_layer("site").trainable_variables]


def moved(optimizer, limit, granularity="layer", steps=1, **options):
    """What the activation's variables moved by in training."""
    model = network(granularity)
    before = own(model)
    model.compile(ka.optimizer_for(model, optimizer, step_limit=limit), "mse", **options)
    for _ in range(steps):
        model.train_on_batch(*data())
    return [after - start for after, start in zip(own(model), before, strict=True)]


@pytest.mark.parametrize("granularity", ["layer", "channel"])
def test_a_step_is_as_long_as_the_limit_and_points_as_before(granularity):
    """The plain step is -rate g; the limited one goes the same way, and is LIMIT long."""
    plain = moved(keras.optimizers.SGD(0.03), None, granularity)
    bounded = moved(keras.optimizers.SGD(0.03), LIMIT, granularity)
    for p, b in zip(plain, bounded, strict=True):
        length = np.linalg.norm(p)
        assert length > LIMIT
        np.testing.assert_allclose(b, p * (LIMIT / length), rtol=2e-3, atol=1e-6)


def test_a_shorter_step_is_left_alone():
    plain, bounded = (moved(keras.optimizers.SGD(1e-7), limit) for limit in (None, LIMIT))
    assert all(np.array_equal(p, b) for p, b in zip(plain, bounded, strict=True))


def test_momentum_sums_limited_steps():
    for total in moved(keras.optimizers.SGD(1e-2, momentum=0.9), LIMIT, steps=2):
        assert np.linalg.norm(total) <= LIMIT * (1 + 1.9) * 1.001


@pytest.mark.parametrize("granularity", ["layer", "channel"])
@pytest.mark.parametrize("kind", ["Adam", "AdamW", "RMSprop", "Lamb", "Muon", "Nadam"])
def test_a_step_that_does_not_scale_with_gradients_is_limited_itself(kind, granularity):
    """The first step of the same optimizer, cut to LIMIT where it is longer; 0.03 of a rate makes it so."""
    plain, bounded = (moved(getattr(keras.optimizers, kind)(0.03), limit, granularity) for limit in (None, LIMIT))
    for p, b in zip(plain, bounded, strict=True):
        length = np.linalg.norm(p)
        assert length > LIMIT
        np.testing.assert_allclose(b, p * (LIMIT / length), rtol=2e-3, atol=1e-6)


def test_a_short_step_of_adam_is_left_alone():
    plain, bounded = (moved(keras.optimizers.Adam(1e-5), limit, steps=3) for limit in (None, LIMIT))
    assert all(np.allclose(p, b, rtol=1e-3, atol=1e-7) for p, b in zip(plain, bounded, strict=True))


def test_accumulation_limits_the_mean_of_the_parts():
    """Four parts that are the same batch are that batch."""
    one = moved(keras.optimizers.SGD(1e-3), LIMIT)
    four = moved(keras.optimizers.SGD(1e-3, gradient_accumulation_steps=4), LIMIT, steps=4)
    for a, b in zip(one, four, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-7)


def test_accumulated_parts_of_opposite_sign_cancel_before_the_limit():
    model = keras.Sequential([keras.Input((1,)), ka.FReLU(name="site")])
    optimizer = keras.optimizers.SGD(1.0, gradient_accumulation_steps=2)
    model.compile(ka.optimizer_for(model, optimizer, step_limit=LIMIT), "mse")
    for target in (101.0, -98.998):  # gradients -200 and 199.996 of b at 1 + b: their mean is -0.002
        model.train_on_batch(np.ones((1, 1)), np.full((1, 1), target))
    assert model.get_layer("site").b == pytest.approx(0.002, rel=0.02)


def test_a_scaled_loss_is_unscaled_before_the_limit():
    plain = moved(keras.optimizers.SGD(1e-3), LIMIT)
    model = network()
    before = own(model)
    inner = ka.optimizer_for(model, keras.optimizers.SGD(1e-3), step_limit=LIMIT)
    model.compile(keras.optimizers.LossScaleOptimizer(inner, initial_scale=2.0**15), "mse")
    model.train_on_batch(*data())
    for p, after, start in zip(plain, own(model), before, strict=True):
        np.testing.assert_allclose(after - start, p, rtol=1e-3, atol=1e-7)


def test_a_global_clipnorm_comes_first():
    clipped = moved(keras.optimizers.SGD(1e-3, global_clipnorm=0.01), LIMIT)
    alone = moved(keras.optimizers.SGD(1e-3, global_clipnorm=0.01), None)
    for c, a in zip(clipped, alone, strict=True):  # at most 1e-5, which is below the limit
        np.testing.assert_allclose(c, a, atol=2e-7)


def test_nan_stays_nan():
    found = keras.ops.convert_to_numpy(limited(keras.ops.array([1.0, np.nan]), 0.1, LIMIT))
    assert np.all(np.isnan(found))


def test_the_limit_is_saved_with_the_model(tmp_path):
    model = network()
    model.compile(ka.optimizer_for(model, keras.optimizers.SGD(1e-3), step_limit=LIMIT), "mse")
    model.train_on_batch(*data())
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for each in (model, loaded):
        each.train_on_batch(*data())
    assert all(np.allclose(a, b, rtol=1e-6) for a, b in zip(own(model), own(loaded), strict=True))
    assert loaded.optimizer.step_limit == LIMIT


@pytest.mark.parametrize("limit", [0, -1.0, float("nan"), float("inf"), "0.1"])
def test_refuses_what_is_no_limit(limit):
    with pytest.raises(ValueError, match=r"`step_limit` must be a number above 0, or None\. Received"):
        ka.optimizer_for(network(), "sgd", step_limit=limit)


def sums_and_products(n=64):
    x = np.random.default_rng(0).normal(size=(n, 8)).astype("float32")
    return x, np.stack([x.sum(1), x.prod(1)], 1)


def with_hidden(activation, **layer):
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(16, name="hidden"),
            activation,
            keras.layers.Dense(2, name="out", **layer),
        ]
    )


def watched(model, optimizer, epochs=3, loss="mse", **options):
    watch = ka.StopOnDivergence(**options)
    jit = {} if keras.backend.backend() == "torch" else {"jit_compile": True}
    model.compile(optimizer, loss, **jit)
    model.fit(*sums_and_products(), 8, epochs, verbose=0, callbacks=[watch])
    return watch


def test_names_the_activation_parameter_that_went_first(capsys):
    """By hand: of 1 + b with the target 0, b is -2e10, then 4e20, whose square is beyond float32 in the third step."""
    model = keras.Sequential([keras.Input((1,)), ka.FReLU(name="site")])
    model.compile(keras.optimizers.SGD(1e10), "mse")
    watch = ka.StopOnDivergence()
    model.fit(np.ones((4, 1), "float32"), np.zeros((4, 1)), 4, epochs=20, verbose=0, callbacks=[watch])
    found = watch.divergence
    assert (found.step, found.site, found.parameter, found.value_step, found.start) == (3, "site", "b", 2, 0.0)
    assert found.is_activation and found.value == pytest.approx(4e20, rel=1e-5)
    assert found.learning_rate == pytest.approx(1e10)
    said = capsys.readouterr().out.strip().splitlines()
    assert len(said) == 2 and "site went first, its b was 4e+20 after step 2" in said[0] and "try" in said[1]


def test_names_a_kernel_where_no_activation_is_at_fault():
    model = with_hidden(keras.layers.Activation("linear"))
    found = watched(model, keras.optimizers.SGD(50.0)).divergence
    assert found.parameter in ("kernel", "bias") and not found.is_activation
    assert found.site.split("/")[-1] in ("hidden", "out")


def test_says_nothing_of_a_training_that_goes_well():
    watch = watched(with_hidden(ka.AReLU()), keras.optimizers.SGD(1e-3))
    assert watch.divergence is None and len(watch.model.history.epoch) == 3


def test_stops_at_the_step(capsys):
    model = with_hidden(ka.Method1(name="site"))
    watch = watched(model, keras.optimizers.SGD(50.0), verbose=0)
    assert len(model.history.epoch) == 1 and 1 < watch.divergence.step <= 8
    assert watch.divergence.value_step == watch.divergence.step - 1
    assert capsys.readouterr().out == ""


def test_looks_every_so_many_steps_and_at_the_end_of_an_epoch():
    exact = watched(with_hidden(ka.Method1()), keras.optimizers.SGD(50.0), verbose=0).divergence
    rough = watched(with_hidden(ka.Method1()), keras.optimizers.SGD(50.0), every=5, verbose=0).divergence
    late = watched(with_hidden(ka.Method1()), keras.optimizers.SGD(50.0), every=100, verbose=0).divergence
    assert rough.step == -(-exact.step // 5) * 5 and late.step == 8 and late.value_step == 0


def test_refuses_an_interval_below_one():
    with pytest.raises(ValueError, match=r"`every` must be an integer of 1 or more\. Received: 0"):
        ka.StopOnDivergence(every=0)


def test_a_bound_does_not_hide_a_divergence():
    """Between left 0.1 of a NaN once, and the loss came back finite."""
    low, nan, high = keras.ops.convert_to_numpy(Between(0.1, 2.0)(keras.ops.array([-np.inf, np.nan, np.inf])))
    assert (low, high) == (np.float32(0.1), 2.0) and np.isnan(nan)
