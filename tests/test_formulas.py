"""Values and gradients of every activation against the table's float64 formulas."""

import keras
import numpy as np
import pytest
from autodiff import by_name, differentiate
from cases import CASES, evaluate, gelu, gelu_slope
from keras import ops

import keras_adaptact as ka
from keras_adaptact import config
from keras_adaptact.backends import common

POINTS = {
    "generic": np.random.default_rng(1).normal(0, 2, (6, 5)),
    "zero": np.zeros((3, 5)),
    "tiny": np.tile([1e-8, -1e-8], (3, 2)),
    "huge": np.tile([1e4, -1e4], (3, 2)),
}
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)


def check(case, z, parameters):
    """Values within 1e-5, gradients by parameters within 1e-4 of the sum of their terms' sizes."""
    layer = ka.get(case.spec)
    layer.set_parameters(**parameters)
    z = z.astype("float32")
    upstream = np.random.default_rng(2).normal(size=z.shape).astype("float32")
    y, by_z, by_variables = differentiate(layer, z, upstream)

    expected, slopes = evaluate(case, z, parameters)
    np.testing.assert_allclose(ops.convert_to_numpy(y), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(ops.convert_to_numpy(by_z), upstream * slopes.pop("z"), rtol=1e-5, atol=1e-5)
    found = by_name(layer, by_variables)
    assert found.keys() == slopes.keys()
    for name, slope in slopes.items():
        terms = upstream[..., None] * slope if name == "weights" else upstream * slope
        size = np.abs(terms).sum(axis=(0, 1))
        assert np.all(np.abs(found[name] - terms.sum(axis=(0, 1))) <= 1e-4 * size + 1e-6), name


@every_case
@pytest.mark.parametrize("where", POINTS)
def test_values_and_gradients(case, where):
    check(case, POINTS[where], case.trained)
    check(case, POINTS[where], case.start)


@pytest.mark.parametrize("case", [case for case in CASES if case.kinks], ids=lambda case: case.id)
def test_values_and_gradients_at_kinks(case):
    for kink in case.kinks:
        check(case, np.array([[kink, kink - 1, kink + 1]]), case.trained)


@every_case
def test_starts_as_it_should(case):
    layer = ka.get(case.spec)
    parameters = layer.get_parameters()
    assert parameters.keys() == case.start.keys()
    for name, value in case.start.items():
        np.testing.assert_allclose(parameters[name], value, rtol=1e-6, err_msg=name)


@every_case
def test_the_table_itself(case):
    """The slopes written by hand are those of the values, by central differences in float64."""
    z, step = POINTS["generic"], 1e-6
    _, slopes = evaluate(case, z, case.trained)
    higher, lower = evaluate(case, z + step, case.trained)[0], evaluate(case, z - step, case.trained)[0]
    np.testing.assert_allclose(slopes["z"], (higher - lower) / (2 * step), rtol=1e-6, atol=1e-6)
    for name, value in case.trained.items():
        for i in range(np.size(value)):
            offset = step * np.eye(np.size(value))[i].reshape(np.shape(value))
            higher = evaluate(case, z, case.trained | {name: value + offset})[0]
            lower = evaluate(case, z, case.trained | {name: value - offset})[0]
            slope = slopes[name][..., i] if np.ndim(value) else slopes[name]
            np.testing.assert_allclose(slope, (higher - lower) / (2 * step), rtol=1e-6, atol=1e-6)


@every_case
def test_nan_passes_through(case):
    layer = ka.get(case.spec)
    y = ops.convert_to_numpy(layer(np.array([[np.nan, 1.0]], "float32")))
    assert np.isnan(y[0, 0]) and np.isfinite(y[0, 1])


@every_case
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_each_channel_has_parameters_of_its_own(case, data_format):
    """Against the layer-wide formula, channel by channel; the spatial sizes are unlike the channels."""
    spec = {"name": case.spec} if isinstance(case.spec, str) else case.spec
    layer = ka.get(spec | {"granularity": "channel", "channels": 3, "data_format": data_format})
    layer.set_parameters(**case.by_channel(1 + 0.25 * np.arange(3)))
    axis = 3 if data_format == "channels_last" else 1
    shape = (2, 4, 5, 3) if axis == 3 else (2, 3, 4, 5)
    z = np.random.default_rng(3).normal(size=shape).astype("float32")
    upstream = np.random.default_rng(4).normal(size=shape).astype("float32")
    y, by_z, by_variables = differentiate(layer, z, upstream)
    found = by_name(layer, by_variables)
    shared = dict.fromkeys(case.shared, 0.0)
    for channel in range(3):
        part = np.take(z, channel, axis), np.take(upstream, channel, axis)
        expected, slopes = evaluate(case, part[0], case.of_channel(layer.get_parameters(), channel))
        np.testing.assert_allclose(np.take(ops.convert_to_numpy(y), channel, axis), expected, 1e-5, 1e-5)
        np.testing.assert_allclose(
            np.take(ops.convert_to_numpy(by_z), channel, axis), part[1] * slopes.pop("z"), 1e-5, 1e-5
        )
        for name, slope in slopes.items():
            weight = part[1][..., None] if name == "weights" else part[1]
            expected = (weight * slope).sum(axis=(0, 1, 2))
            if name in shared:
                shared[name] += expected
            else:
                np.testing.assert_allclose(found[name][..., channel], expected, 1e-4, 1e-4, err_msg=name)
    for name, expected in shared.items():
        np.testing.assert_allclose(found[name], expected, 1e-4, 1e-4, err_msg=name)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@every_case
def test_low_precision_keeps_parameters_and_gradients_in_float32(case, policy):
    layer = ka.get(
        {"name": case.spec} | {"dtype": policy} if isinstance(case.spec, str) else case.spec | {"dtype": policy}
    )
    layer.set_parameters(**case.trained)
    z = np.random.default_rng(5).normal(size=(64, 96))
    z = ops.cast(ops.convert_to_tensor(z.astype("float32")), layer.compute_dtype)
    upstream = np.ones(z.shape)
    y, by_z, by_variables = differentiate(layer, z, upstream)
    assert keras.backend.standardize_dtype(y.dtype) == layer.compute_dtype
    assert keras.backend.standardize_dtype(by_z.dtype) == layer.compute_dtype
    for variable, gradient in zip(layer.trainable_variables, by_variables, strict=True):
        assert variable.dtype == keras.backend.standardize_dtype(gradient.dtype) == "float32"
    expected, slopes = evaluate(case, ops.convert_to_numpy(ops.cast(z, "float32")), case.trained)
    rounding = 1e-3 if policy == "mixed_float16" else 8e-3
    np.testing.assert_allclose(ops.convert_to_numpy(ops.cast(y, "float32")), expected, rtol=rounding, atol=rounding)
    found = by_name(layer, by_variables)
    for name, slope in slopes.items():
        if name != "z":  # 6,144 terms: a sum in low precision would be off by percents
            size = np.abs(slope).sum(axis=(0, 1))
            assert np.all(np.abs(found[name] - slope.sum(axis=(0, 1))) <= 1e-4 * size), name


def pelu(z):
    below = np.minimum(z, 0) / 0.75
    return np.where(z > 0, 2 * z, 1.5 * np.expm1(below)), np.where(z > 0, 2.0, 2 * np.exp(below))


def celu(z):
    return np.where(z > 0, z, np.expm1(np.minimum(z, 0))), np.exp(np.minimum(z, 0))


@pytest.mark.parametrize(
    "spec, exact, lost",
    [
        ({"name": "pelu", "a_initializer": 1.5, "b_initializer": 0.75}, pelu, 0),
        ({"name": "adaptive", "function": "celu"}, celu, 0),
        ({"name": "adaptive", "function": "gelu"}, lambda z: (gelu(z), gelu_slope(z)), 3e-7),  # of 1 + erf(z)
    ],
)
def test_what_other_runtimes_get_is_as_exact(spec, exact, lost, monkeypatch):
    """To the last digits of float32 near 0, too, where `exp(z) - 1` would leave none; and so are its slopes."""
    z = np.concatenate([np.geomspace(1e-30, 80, 400), [0.0]]).astype("float32")
    z = np.concatenate([z, -z])
    monkeypatch.setattr(config, "_implementation", "plain")
    y, by_z, _ = common.portably(differentiate, ka.get(spec), z, np.ones_like(z))
    value, slope = exact(z.astype("float64"))
    np.testing.assert_array_less(np.abs(ops.convert_to_numpy(y) - value), (lost + 1e-6 * np.abs(value)) + 1e-37)
    inside = z != 0  # the backends differ on the slope of a maximum of equals
    np.testing.assert_allclose(ops.convert_to_numpy(by_z)[inside], slope[inside], rtol=1e-5, atol=1e-6)
