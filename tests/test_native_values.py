"""The kernels for the CPU: their arithmetic, values and gradients against float64, whatever shape, dtype and memory."""

import ctypes
from importlib.resources import files

import keras
import numpy as np
import pytest
from autodiff import by_name, differentiate, flat, gradients
from cases import AFFINE, CASES, FUNCTIONS, Case, affine, evaluate, softplus
from keras import ops
from scipy.special import erf, expit

import keras_adaptact as ka
from keras_adaptact.backends import native
from keras_adaptact.registry import lookup

BACKEND = keras.backend.backend()
CHUNK = 16384  # of native.c
RNG = np.random.default_rng(0)
pytestmark = pytest.mark.usefixtures("by_kernels")


def squareplus_slope(x):
    below = 2 / (np.hypot(x, 2) * (np.hypot(x, 2) + np.abs(x)))
    return np.where(x < 0, below, 1 - below)


def erf_softplus_slope(x):
    return 2 / np.sqrt(np.pi) * np.exp(-(softplus(x) ** 2)) * expit(x)


@pytest.mark.parametrize(
    "name, function",
    [
        ("tanh_of", np.tanh),
        ("sigmoid_of", expit),
        ("exp_of", np.exp),
        ("expm1_of", np.expm1),
        ("log_of", np.log),
        ("log1p_of", np.log1p),
        ("softplus_of", softplus),
        ("erf_of", erf),
        ("erf_softplus_of", lambda x: erf(softplus(x))),
        ("erf_softplus_slope_of", erf_softplus_slope),
        ("arctan_of", np.arctan),
        ("squareplus_of", lambda x: np.where(x < 0, 2 / (np.hypot(x, 2) - x), (x + np.hypot(x, 2)) / 2)),
        ("squareplus_slope_of", squareplus_slope),
        ("near_sin", np.sin),
        ("near_cos", np.cos),
        ("far_sin", np.sin),
        ("far_cos", np.cos),
    ],
)
def test_the_arithmetic_is_exact(name, function, tmp_path):
    """To a relative 1e-6, or to 2e-38, against NumPy's and SciPy's in float64; far out, too. Waves, and a slope that
    falls to 0, to 5e-8 of 1."""
    way, _, kind = name.partition("_")
    options = f", {int(way == 'far')}" if way in ("near", "far") else ", 4.0f" if way == "squareplus" else ""
    call = f"{f'{kind}_of' if way in ('near', 'far') else name}(x[i]{options})"
    code = (files("keras_adaptact.backends") / "native_math.h").read_text()
    loop = f"void run(const float *x, float *y, int64_t n) {{ for (int64_t i = 0; i < n; i++) y[i] = {call}; }}"
    heads = "".join(f"#include <{name}.h>\n" for name in ("math", "stdint", "string"))
    run = native._compile(native._compiler(), heads + code + loop, (), ctypes.CDLL)[0].run
    x = np.concatenate([np.linspace(-100, 100, 400_001), RNG.normal(0, 2, 100_000), np.geomspace(1e-44, 80), [0.0]])
    x = np.concatenate([x, -x, [np.nan, np.inf, -np.inf, 1e30, -1e30, 3e38]]).astype("float32")
    if way == "near":
        x = np.concatenate([x, np.linspace(-8192, 8192, 100_001)]).astype("float32")
        x = x[~(np.abs(x) > 8192)]
    if way == "far":
        x = np.concatenate([x, np.geomspace(1, 3e38, 100_000)]).astype("float32")
    y = np.empty_like(x)
    run(x.ctypes.data_as(ctypes.c_void_p), y.ctypes.data_as(ctypes.c_void_p), ctypes.c_int64(len(x)))
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        exact = function(x.astype("float64")).astype("float32")
    of_one = np.full(x.shape, way == "near") | ((name == "erf_softplus_slope_of") & (x > 0))
    for atol, which in ((5e-8, of_one), (2e-38, ~of_one)):
        np.testing.assert_allclose(y[which], exact[which], rtol=1e-6, atol=atol)


HALF = {"float32": 0.0, "float16": 2.0**-11, "bfloat16": 2.0**-8}  # of the distance between two numbers near 1
POLICIES = {"float32": "float32", "float16": "mixed_float16", "bfloat16": "mixed_bfloat16"}
AXES = {"layer": None, "channels_last": -1, "channels_first": 1}


def made(case, where, channels, dtype):
    """A layer whose parameters are `case.trained`, and others for each channel."""
    by_channel = {"granularity": "channel", "channels": channels, "data_format": where}
    spec = {"name": case.spec} if isinstance(case.spec, str) else case.spec
    layer = ka.get(spec | {"dtype": POLICIES[dtype]} | (by_channel if AXES[where] else {}))
    scale = np.linspace(0.75, 1.25, channels).round(2)
    layer.set_parameters(**case.by_channel(scale) if AXES[where] else case.trained)
    return layer


def normal(shape, dtype):
    return ops.cast(ops.convert_to_tensor(RNG.normal(0, 2, shape).clip(-5, 5).astype("float32")), dtype)


def exactly(x):
    return ops.convert_to_numpy(ops.cast(x, "float32")).astype("float64")


def assert_rounded_once(found, expected, dtype, tolerance):
    assert keras.backend.standardize_dtype(found.dtype) == dtype
    relative = tolerance + 1.001 * HALF[dtype]
    np.testing.assert_allclose(exactly(found), expected, rtol=relative, atol=tolerance)


def check(case, where, shape, dtype):
    """Values and all gradients against float64, and a tie; gradients of parameters aren't rounded to 16 bits."""
    axis = AXES[where]
    channels = 1 if axis is None else shape[axis]
    layer = made(case, where, channels, dtype)
    z, upstream = normal(shape, dtype), normal(shape, dtype)
    if case.kinks:  # by channel a tie is one of rounded parameters
        (kink,) = case.kinks
        z = ops.where(ops.abs(z - kink) < 0.02, ops.cast(kink if axis is None else kink + 0.5, dtype), z)
    y, by_z, by_variables = differentiate(layer, z, upstream)
    sums = by_name(layer, by_variables)
    values, slopes, terms = np.zeros(shape), np.zeros(shape), {}
    for i in range(channels):
        part = np.s_[...] if axis is None else (np.s_[:],) * (axis % len(shape)) + (i,)
        parameters = layer.get_parameters()
        found = evaluate(case, exactly(z)[part], parameters if axis is None else case.of_channel(parameters, i))
        values[part], by_parameter = found
        given = exactly(upstream)[part]
        slopes[part] = given * by_parameter.pop("z")
        for name, slope in by_parameter.items():  # by raw weights they lie along the last axis
            each = (given[..., None] if slope.ndim > given.ndim else given) * slope
            terms.setdefault(name, []).append(each.reshape(given.size, *each.shape[given.ndim :]))
    for name, of_channels in terms.items():
        one = axis is None or name in case.shared
        each = np.concatenate(of_channels) if one else np.stack(of_channels, axis=-1)
        tolerance = 1e-5 + 2e-5 * np.abs(each.sum(axis=0)) + 1e-6 * np.abs(each).sum(axis=0)
        assert np.all(np.abs(sums[name] - each.sum(axis=0)) <= tolerance), name
    assert_rounded_once(y, values, dtype, 2e-6)
    assert_rounded_once(by_z, slopes, dtype, 1e-5)


@pytest.mark.parametrize("where", AXES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_the_kernels_of_the_library_are_exact(case, where, built):
    check(case, where, (3, 7, 45), "float32")
    assert built == [True]


@pytest.mark.parametrize("shape", [(40, 3, 5), (2, 3, 300), (6, 1, 1), (5, 130)], ids=str)
@pytest.mark.parametrize("where", AXES)
def test_kernels_of_any_shape_are_exact(where, shape):
    """More channels than lie side by side, a few, and one; and fewer elements than a vector has."""
    check(CASES[2], where, shape, "float32")


@pytest.mark.parametrize(
    "where, dtype", [("layer", "bfloat16"), ("channels_last", "float16"), ("channels_first", "bfloat16")]
)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_16_bits_are_rounded_once(case, where, dtype, built):
    check(case, where, (3, 7, 45), dtype)
    assert built == [True]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_16_bits_of_every_kind(dtype, monkeypatch):
    """Subnormal numbers, overflow, ties to even and what is no number: read and written as the backend does."""
    bits = np.arange(2**16, dtype="uint16")
    wide = (
        bits.view("float16").astype("float32") if dtype == "float16" else (bits.astype("uint32") << 16).view("float32")
    )
    layer = ka.FReLU(dtype=f"mixed_{dtype}", b_initializer=0.0)
    with np.errstate(all="ignore"):
        middle = wide[:-1] / 2 + wide[1:] / 2
        between = np.concatenate([np.nextafter(middle, s * np.inf, dtype="float32") for s in (-1, 1)])
        z = ops.cast(ops.convert_to_tensor(np.concatenate([wide, between])), dtype)
    y, *_ = differentiate(layer, z, ops.ones_like(z))
    values = ops.convert_to_numpy(ops.cast(z, "float32"))
    expected = np.where(values <= 0, 0, values)
    found = ops.convert_to_numpy(ops.cast(y, "float32"))
    flushed = np.abs(expected) < np.finfo("float32").tiny  # to 0, in threads of XLA and TensorFlow
    np.testing.assert_array_equal(found[~flushed], expected[~flushed])
    np.testing.assert_array_equal(found[flushed] == 0, (found != expected)[flushed] | (expected == 0)[flushed])


def test_every_elementwise_function_of_keras_is_known():
    """But for those that no kernel is needed for."""
    plain = {name for name in ka.names() if callable(lookup(name)) and not isinstance(lookup(name), type)}
    alike = {"linear", "exponential", "hard_swish", "swish"}  # the identity, and other names
    not_elementwise = {"softmax", "log_softmax", "sparsemax", "threshold"}
    assert plain - alike - not_elementwise == FUNCTIONS.keys()


def of_keras(name):
    """`b f(a z + c) + d` for a function of Keras's, as a case."""
    return Case({"name": "adaptive", "function": name}, affine(*FUNCTIONS[name]), {}, AFFINE | {"c": 0.30001})


@pytest.mark.parametrize(
    "where, dtype", [("layer", "float32"), ("channels_first", "float16"), ("channels_last", "bfloat16")]
)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_keras_have_exact_kernels(name, where, dtype, built):
    check(of_keras(name), where, (12, 3, 13), dtype)
    assert built == [True]


def check_kinks_and_far_out(name):
    """Infinite or no numbers come out as in the formula, and a kink has the slope of its flat part."""
    far = np.array([np.nan, np.inf, -np.inf, 15, -15, 1e4, -1e4], "float32")
    kinks = np.array([0, 1, -1, 0.5, -0.5, 3, -3, 6], "float32")
    layer, (function, slope) = ka.AdaptiveActivation(name), FUNCTIONS[name]
    with np.errstate(all="ignore"):
        y, *_ = gradients(layer, far, np.ones_like(far))
        np.testing.assert_allclose(y, function(far.astype("float64")).astype("float32"), rtol=2e-6, atol=2e-6)
    _, by_z, by_variables = differentiate(layer, kinks, np.ones_like(kinks))
    np.testing.assert_allclose(ops.convert_to_numpy(by_z), slope(kinks.astype("float64")), rtol=1e-5, atol=1e-6)
    assert by_name(layer, by_variables)["a"] == pytest.approx((slope(kinks) * kinks).sum(), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_keras_at_kinks_and_far_out(name, built):
    check_kinks_and_far_out(name)
    assert built == [True]


def test_a_sine_far_out(built):
    """Where one element is far out, its chunk is computed in the exact way."""
    z = np.array([0.5, 1e5, -3e37, 2.0**30], "float32")
    y, by_z, _ = gradients(ka.AdaptiveActivation("sin"), z, np.ones_like(z))
    assert built == [True]
    np.testing.assert_allclose(y, np.sin(z.astype("float64")), rtol=1e-6)
    np.testing.assert_allclose(by_z, np.cos(z.astype("float64")), rtol=1e-6)


WRITTEN = {  # what users write, with its derivative by z and by a
    "clip": (
        lambda z, a: ops.clip(a * z, -1, 1),
        lambda z, a: (np.abs(a * z) <= 1) * a,
        lambda z, a: (np.abs(a * z) <= 1) * z,
    ),
    "maximum": (lambda z, a: ops.maximum(a * z, 0.5), lambda z, a: (a * z > 0.5) * a, lambda z, a: (a * z > 0.5) * z),
    "minimum": (
        lambda z, a: ops.minimum(a * z, z),
        lambda z, a: np.where(a * z < z, a, 1),
        lambda z, a: (a * z < z) * z,
    ),
    "power": (lambda z, a: (a * z) ** 3, lambda z, a: 3 * a**3 * z**2, lambda z, a: 3 * a**2 * z**3),
    "sqrt": (
        lambda z, a: ops.sqrt(z * z + a),
        lambda z, a: z / np.sqrt(z * z + a),
        lambda z, a: 0.5 / np.sqrt(z * z + a),
    ),
    "log1p": (
        lambda z, a: ops.log1p(a * ops.abs(z)),
        lambda z, a: a * np.sign(z) / (1 + a * np.abs(z)),
        lambda z, a: np.abs(z) / (1 + a * np.abs(z)),
    ),
    "snake": (
        lambda z, a: z + ops.sin(a * z) ** 2 / a,
        lambda z, a: 1 + np.sin(2 * a * z),
        lambda z, a: np.sin(2 * a * z) * z / a - np.sin(a * z) ** 2 / a**2,
    ),
    "a sine of a parameter": (lambda z, a: z * ops.sin(a), lambda z, a: np.sin(a) + 0 * z, lambda z, a: z * np.cos(a)),
    "leaky": (
        lambda z, a: a * keras.activations.relu(z, negative_slope=0.2, max_value=1.0),
        lambda z, a: a * np.where(z > 0, z < 1, 0.2),
        lambda z, a: np.minimum(np.where(z > 0, z, 0.2 * z), 1),
    ),
    "a condition as a number": (
        lambda z, a: a * z * ops.cast(z > 0, "float32"),
        lambda z, a: a * (z > 0),
        lambda z, a: z * (z > 0),
    ),
    "held": (lambda z, a: a * z * ops.stop_gradient(z), lambda z, a: a * z, lambda z, a: z * z),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_formulas_of_users_have_exact_kernels(name, built):
    formula, by_z, by_a = WRITTEN[name]
    layer = type("Its", (ka.TrainableActivation,), {"a": ka.Parameter(1.5), "formula": staticmethod(formula)})()
    z, upstream = RNG.normal(0, 1, (2, 500)).astype("float32")
    _, found_z, found_a = gradients(layer, z, upstream)
    assert built == [True]
    exact = z.astype("float64")
    np.testing.assert_allclose(found_z, upstream * by_z(exact, 1.5), rtol=1e-5, atol=2e-6)
    np.testing.assert_allclose(found_a[0], (upstream * by_a(exact, 1.5)).sum(), rtol=2e-5, atol=1e-4)


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, 3 * CHUNK + 5])
def test_any_number_of_chunks(size):
    z, upstream = RNG.normal(size=(2, size)).astype("float32")
    layer = ka.Swish(beta_initializer=1.5)
    y, by_z, by_beta = gradients(layer, z, upstream)
    s = expit(1.5 * z.astype("float64"))
    slope = z.astype("float64") ** 2 * s * (1 - s)
    np.testing.assert_allclose(y, z * s, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(by_z, upstream * (s + 1.5 * z * s * (1 - s)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(by_beta[0], np.sum(upstream * slope), rtol=1e-4, atol=1e-4)


EMPTY = {"channels_last": [(0, 3), (0, 4, 3), (2, 0, 3)], "channels_first": [(0, 3), (2, 3, 0), (0, 3, 4)]}


@pytest.mark.parametrize("where, shape", [(where, shape) for where in EMPTY for shape in EMPTY[where]])
def test_tensors_without_elements(where, shape, built):
    layer = made(CASES[8], where, 3, "float32")
    y, by_z, *by_variables = gradients(layer, np.ones(shape, "float32"), np.ones(shape, "float32"))
    assert built == [True] and y.shape == by_z.shape == shape
    for found in by_variables:
        np.testing.assert_array_equal(found, 0)


@pytest.mark.parametrize(
    "where, shape", [("layer", (40 * CHUNK + 7,)), ("channels_last", (9001, 67)), ("channels_first", (91, 5, 1201))]
)
def test_equal_calls_are_equal_to_the_bit(where, shape):
    """Sums don't depend on which thread comes first."""
    z, upstream = RNG.normal(size=(2, *shape)).astype("float32")
    layer = made(CASES[8], where, shape[AXES[where] or 0], "float32")
    first = gradients(layer, z, upstream)
    for _ in range(10):
        for one, other in zip(first, gradients(layer, z, upstream), strict=True):
            np.testing.assert_array_equal(one, other)


def test_sums_of_many_elements_are_exact():
    """Float32 alone would be wrong in the third digit here."""
    z = np.full(2**24, 0.1, "float32")
    *_, by_b = gradients(ka.FReLU(), z, np.full_like(z, 0.1))
    np.testing.assert_allclose(by_b[0], 2**24 * float(np.float32(0.1)), rtol=2e-5)


@pytest.mark.parametrize("where, shape", [("channels_last", (2**22, 3)), ("channels_first", (2, 3, 2**21))])
def test_sums_of_many_elements_by_channel_are_exact(where, shape):
    z = np.full(shape, 0.1, "float32")
    layer = ka.FReLU(granularity="channel", channels=3, data_format=where)
    *_, by_b = gradients(layer, z, np.full_like(z, 0.1))
    np.testing.assert_allclose(by_b, 2**22 * float(np.float32(0.1)), rtol=2e-5)


if BACKEND == "torch":
    import torch

    @pytest.mark.parametrize(
        "view",
        [
            lambda x: x.permute(0, 2, 3, 1),
            lambda x: x.to(memory_format=torch.channels_last),
            lambda x: x[:, ::2],
            lambda x: x[:, :1].expand(-1, 4, -1, -1),
            lambda x: x.flip(0),
            lambda x: torch.view_as_complex(x.reshape(-1, 2)).conj().imag,
        ],
    )
    def test_memory_in_any_order(view):
        z = view(torch.randn(4, 4, 6, 2))
        upstream = torch.randn(z.shape)
        y, by_z, by_variables = differentiate(ka.Method1(), z, upstream)
        for found, expected in zip(
            (y, by_z, *by_variables),
            flat(differentiate(ka.Method1(), z.clone(memory_format=torch.contiguous_format), upstream)),
            strict=True,
        ):
            torch.testing.assert_close(found, expected)

    VIEWS = [
        lambda x: x[1:, 1:, 1:, 1:],
        lambda x: x.permute(2, 3, 0, 1)[1:, 1:, 1:, 1:],
        lambda x: x.to(memory_format=torch.channels_last)[:4, :4, :4, :4],
        lambda x: x.flatten()[1:257].view(4, 4, 4, 4),
        lambda x: x[:1, :4, :4, :4].expand(4, -1, -1, -1),
    ]

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    @pytest.mark.parametrize("where", ["channels_last", "channels_first"])
    @pytest.mark.parametrize("view", VIEWS)
    def test_memory_in_any_order_by_channel(view, where, dtype, built):
        """Also where it begins at no multiple of a vector's size."""
        z = view(torch.randn(5, 5, 5, 5).to(getattr(torch, dtype)))
        upstream = view(torch.randn(5, 5, 5, 5).to(getattr(torch, dtype)))
        found = flat(differentiate(made(CASES[8], where, 4, dtype), z, upstream))
        z, upstream = (x.clone(memory_format=torch.contiguous_format) for x in (z, upstream))
        expected = flat(differentiate(made(CASES[8], where, 4, dtype), z, upstream))
        assert all(built)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other)

    def test_parameters_that_lie_apart_in_memory():
        """As columns of a matrix, in `stateless_call`."""
        layer, z = ka.Method1(), torch.randn(30, 10)
        parameters, weights = torch.randn(12, 4), torch.rand(3, 4) + 0.5
        for i in (0, 3):
            apart = [parameters[:, i].requires_grad_(), weights[:, i].requires_grad_()]
            together = [x.detach().clone().requires_grad_() for x in apart]
            found, expected = (layer.stateless_call(x, [], z, training=True)[0] for x in (apart, together))
            torch.testing.assert_close(found, expected)
            upstream = torch.ones_like(z)
            torch.testing.assert_close(
                torch.autograd.grad(found, apart, upstream), torch.autograd.grad(expected, together, upstream)
            )
