"""A divergence explains itself: in a user's own `fit`, and in a run of the zoo."""

import keras
import numpy as np
import pytest

import keras_adaptact as ka
from keras_adaptact.parameters import Between


def data(n=64):
    x = np.random.default_rng(0).normal(size=(n, 8)).astype("float32")
    return x, np.stack([x.sum(1), x.prod(1)], 1)


def network(activation, **layer):
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
    model.fit(*data(), 8, epochs, verbose=0, callbacks=[watch])
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
    model = network(keras.layers.Activation("linear"))
    found = watched(model, keras.optimizers.SGD(50.0)).divergence
    assert found.parameter in ("kernel", "bias") and not found.is_activation
    assert found.site.split("/")[-1] in ("hidden", "out")


def test_says_nothing_of_a_training_that_goes_well():
    watch = watched(network(ka.AReLU()), keras.optimizers.SGD(1e-3))
    assert watch.divergence is None and len(watch.model.history.epoch) == 3


def test_stops_at_the_step(capsys):
    model = network(ka.Method1(name="site"))
    watch = watched(model, keras.optimizers.SGD(50.0), verbose=0)
    assert len(model.history.epoch) == 1 and 1 < watch.divergence.step <= 8
    assert watch.divergence.value_step == watch.divergence.step - 1
    assert capsys.readouterr().out == ""


def test_looks_every_so_many_steps_and_at_the_end_of_an_epoch():
    exact = watched(network(ka.Method1()), keras.optimizers.SGD(50.0), verbose=0).divergence
    rough = watched(network(ka.Method1()), keras.optimizers.SGD(50.0), every=5, verbose=0).divergence
    late = watched(network(ka.Method1()), keras.optimizers.SGD(50.0), every=100, verbose=0).divergence
    assert rough.step == -(-exact.step // 5) * 5 and late.step == 8 and late.value_step == 0


def test_refuses_an_interval_below_one():
    with pytest.raises(ValueError, match=r"`every` must be an integer of 1 or more\. Received: 0"):
        ka.StopOnDivergence(every=0)


def test_a_bound_does_not_hide_a_divergence():
    """Between left 0.1 of a NaN once, and the loss came back finite."""
    low, nan, high = keras.ops.convert_to_numpy(Between(0.1, 2.0)(keras.ops.array([-np.inf, np.nan, np.inf])))
    assert (low, high) == (np.float32(0.1), 2.0) and np.isnan(nan)
