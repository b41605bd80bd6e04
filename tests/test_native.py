"""The kernels for the CPU: their arithmetic, what becomes one, and where they must not go."""

import ctypes
import functools
import threading
from importlib import import_module
from importlib.resources import files

import keras
import numpy as np
import pytest
from autodiff import by_name, differentiate
from cases import CASES, evaluate
from keras import layers, ops
from scipy.special import erf, expit
from scipy.stats import norm

import keras_adaptact as ka
from keras_adaptact import backends, config
from keras_adaptact.backends import cache, graph, native, printer
from keras_adaptact.registry import lookup

BACKEND = keras.backend.backend()
backend = import_module(f"keras_adaptact.backends.{BACKEND}")
CHUNK = 16384  # of native.c
RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def by_kernels(monkeypatch):
    """For the value, too, which torch computes as it does itself outside of training where tensors are small."""
    monkeypatch.setattr(backend, "LARGE", 1)


@pytest.fixture
def forget():
    """Has each kernel built anew, and each warning given again; afterwards, too."""
    caches = [native._warn, native._compiler, native._build]
    caches += [getattr(backend, name) for name in ("_kernel_of", "_operation") if hasattr(backend, name)]
    if BACKEND == "jax":
        caches.append(import_module("keras_adaptact.backends.jax_primitive").kernels)
    for known in caches:
        known.cache_clear()
    yield
    for known in caches:
        known.cache_clear()


@pytest.fixture
def built(monkeypatch, forget):
    """Whether kernels were made, for each form that they were wanted for."""
    found = []
    build = native.build

    def counting(*arguments):
        kernels = build(*arguments)
        found.append(kernels is not None)
        return kernels

    monkeypatch.setattr(native, "build", counting)
    return found


def gradients(layer, z, upstream):
    """By z and the variables, as NumPy; in a graph on TensorFlow, where the kernels run."""
    return [ops.convert_to_numpy(x) for x in _flat(differentiate(layer, z, upstream))]


def _flat(found):
    y, by_z, by_variables = found
    return [y, by_z, *by_variables]


def _softplus(x):
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


@pytest.mark.parametrize(
    "name, function",
    [
        ("tanh_of", np.tanh),
        ("sigmoid_of", expit),
        ("exp_of", np.exp),
        ("expm1_of", np.expm1),
        ("log_of", np.log),
        ("log1p_of", np.log1p),
        ("softplus_of", _softplus),
        ("erf_of", erf),
        ("arctan_of", np.arctan),
        ("near_sin", np.sin),
        ("near_cos", np.cos),
        ("far_sin", np.sin),
        ("far_cos", np.cos),
    ],
)
def test_the_arithmetic_is_exact(name, function, tmp_path):
    """To a relative 1e-6, or the least normal number, against NumPy's and SciPy's in float64; far out, too."""
    way, _, kind = name.partition("_")
    call = f"{kind}_of(x[i], {int(way == 'far')})" if way in ("near", "far") else f"{name}(x[i])"
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
    np.testing.assert_allclose(y, exact, rtol=1e-6, atol=5e-8 if way == "near" else 2e-38)


@pytest.mark.parametrize("shape", [(3, 7, 5), (40, 3, 5), (2, 3, 300), (6, 1, 1)], ids=str)
@pytest.mark.parametrize("where", ["layer", "channels_last", "channels_first"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_the_kernels_of_the_library_are_exact(case, where, shape, built):
    """Values and all gradients, against float64; NaN, infinities and ties among the values."""
    axis = {"layer": None, "channels_last": -1, "channels_first": 1}[where]
    z, upstream = RNG.normal(0, 2, (2, *shape)).astype("float32")
    z.flat[:2] = case.kinks[0] if case.kinks else 0.5, -1.0
    options = {} if axis is None else {"granularity": "channel", "channels": shape[axis], "data_format": where}
    layer = ka.get(({"name": case.spec} if isinstance(case.spec, str) else case.spec) | options)
    scale = 1.0 if axis is None else np.linspace(0.75, 1.25, shape[axis]).round(2)
    trained = {name: np.multiply.outer(value, scale) for name, value in case.trained.items()}
    layer.set_parameters(**trained)
    y, by_z, by_variables = differentiate(layer, z, upstream)
    assert built == [True]

    parts = [np.s_[...]] if axis is None else [(np.s_[:],) * (axis % z.ndim) + (i,) for i in range(shape[axis])]
    sums = by_name(layer, by_variables)
    for i, part in enumerate(parts):
        of_part = {k: v if axis is None else v[..., i] for k, v in layer.get_parameters().items()}
        value, slopes = evaluate(case, z[part], of_part)
        np.testing.assert_allclose(ops.convert_to_numpy(y)[part], value, rtol=2e-6, atol=2e-6)
        np.testing.assert_allclose(ops.convert_to_numpy(by_z)[part], upstream[part] * slopes.pop("z"), 1e-5, 1e-5)
        for name, slope in slopes.items():
            is_raw = slope.ndim > value.ndim  # slopes by raw weights lie along the last axis
            expected = np.tensordot(upstream[part], slope, value.ndim) if is_raw else np.sum(upstream[part] * slope)
            found = sums[name] if axis is None else sums[name][..., i]
            size = np.sum(np.abs(upstream[part][..., None] * slope if is_raw else upstream[part] * slope))
            np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-5 + 1e-6 * size, err_msg=name)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("granularity", ["layer", "channel"])
@pytest.mark.parametrize("name", ["method1", "pelu"])
def test_16_bits_are_float32_rounded_once(name, granularity, dtype, built):
    """Values and gradients by z are off by a half of the last bit at most, and gradients of parameters not rounded."""
    z, upstream = (ops.cast(ops.convert_to_tensor(x), dtype) for x in RNG.normal(0, 2, (2, 7, 300)).astype("float32"))
    wide = [ops.convert_to_numpy(ops.cast(x, "float32")) for x in (z, upstream)]
    spec = {"name": name, "granularity": granularity}
    made = [ka.get(spec | {"dtype": policy}) for policy in (f"mixed_{dtype}", None)]
    for layer in made:
        layer.build(z.shape)
    low, exact = (differentiate(layer, *x) for layer, x in zip(made, [(z, upstream), wide], strict=True))
    assert built == [True, True]
    half = {"float16": 2.0**-11, "bfloat16": 2.0**-8}[dtype]  # of the distance between two numbers near 1
    for found, expected in zip(low[:2], exact[:2], strict=True):
        assert keras.backend.standardize_dtype(found.dtype) == dtype
        found, expected = (ops.convert_to_numpy(ops.cast(x, "float32")) for x in (found, expected))
        np.testing.assert_allclose(found, expected, rtol=half * 1.001, atol=1e-7)
    for found, expected in zip(low[2], exact[2], strict=True):
        np.testing.assert_allclose(*map(ops.convert_to_numpy, (found, expected)), rtol=1e-5, atol=1e-5)


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


def _elu(u):
    return np.where(u > 0, u, np.expm1(np.minimum(u, 0)))


def _elu_slope(u):
    return np.where(u > 0, 1, np.exp(np.minimum(u, 0)))


def _hard_sigmoid(u):
    return np.clip(u / 6 + 0.5, 0, 1)


FUNCTIONS = {  # each with its slope, in float64
    "abs": (np.abs, np.sign),
    "arctan": (np.arctan, lambda u: 1 / (1 + u**2)),
    "celu": (_elu, _elu_slope),
    "cos": (np.cos, lambda u: -np.sin(u)),
    "elu": (
        lambda u: np.where(u > 0, u, np.expm1(np.minimum(u, 0))),
        lambda u: np.where(u > 0, 1, np.exp(np.minimum(u, 0))),
    ),
    "erf": (erf, lambda u: 2 / np.sqrt(np.pi) * np.exp(-(u**2))),
    "exp": (np.exp, np.exp),
    "gelu": (lambda u: u * norm.cdf(u), lambda u: norm.cdf(u) + u * norm.pdf(u)),
    "hard_shrink": (lambda u: u * (np.abs(u) > 0.5), lambda u: np.abs(u) > 0.5),
    "hard_sigmoid": (_hard_sigmoid, lambda u: (np.abs(u) < 3) / 6),
    "hard_silu": (
        lambda u: u * np.clip(u / 6 + 0.5, 0, 1),
        lambda u: np.clip(u / 6 + 0.5, 0, 1) + u * (np.abs(u) < 3) / 6,
    ),
    "hard_tanh": (lambda u: np.clip(u, -1, 1), lambda u: np.abs(u) < 1),
    "log_sigmoid": (lambda u: -_softplus(-u), lambda u: expit(-u)),
    "mish": (
        lambda u: u * np.tanh(_softplus(u)),
        lambda u: np.tanh(_softplus(u)) + u * expit(u) * np.cosh(_softplus(u)) ** -2.0,
    ),
    "relu": (lambda u: np.maximum(u, 0), lambda u: u > 0),
    "relu6": (lambda u: np.clip(u, 0, 6), lambda u: (u > 0) & (u < 6)),
    "selu": (
        lambda u: 1.0507009873554805 * np.where(u > 0, u, 1.6732632423543772 * np.expm1(np.minimum(u, 0))),
        lambda u: 1.0507009873554805 * np.where(u > 0, 1, 1.6732632423543772 * np.exp(np.minimum(u, 0))),
    ),
    "sigmoid": (expit, lambda u: expit(u) * expit(-u)),
    "silu": (lambda u: u * expit(u), lambda u: expit(u) + u * expit(u) * expit(-u)),
    "sin": (np.sin, np.cos),
    "soft_shrink": (lambda u: np.sign(u) * np.maximum(np.abs(u) - 0.5, 0), lambda u: np.abs(u) > 0.5),
    "softplus": (_softplus, expit),
    "softsign": (lambda u: u / (1 + np.abs(u)), lambda u: (1 + np.abs(u)) ** -2.0),
    "sparse_plus": (
        lambda u: np.where(u >= 1, u, 0.25 * np.maximum(u + 1, 0) ** 2),
        lambda u: np.where(u >= 1, 1, 0.5 * np.maximum(u + 1, 0)),
    ),
    "sparse_sigmoid": (lambda u: np.clip(0.5 * (u + 1), 0, 1), lambda u: 0.5 * (np.abs(u) < 1)),
    "square": (np.square, lambda u: 2 * u),
    "squareplus": (lambda u: (u + np.sqrt(u**2 + 4)) / 2, lambda u: (1 + u / np.sqrt(u**2 + 4)) / 2),
    "tanh": (np.tanh, lambda u: np.cosh(u) ** -2.0),
    "tanh_shrink": (lambda u: u - np.tanh(u), lambda u: np.tanh(u) ** 2),
}


def test_every_elementwise_function_of_keras_is_known():
    """But for those that no kernel is needed for."""
    plain = {name for name in ka.names() if callable(lookup(name)) and not isinstance(lookup(name), type)}
    alike = {"linear", "exponential", "hard_swish", "swish"}  # the identity, and other names
    not_elementwise = {"softmax", "log_softmax", "sparsemax", "threshold"}
    assert plain - alike - not_elementwise == FUNCTIONS.keys()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_keras_have_exact_kernels(name, built):
    """`b f(a z + c) + d`, with all gradients, against float64; far out, too."""
    z = np.concatenate([RNG.normal(0, 2, 400), np.linspace(-15, 15, 60)]).astype("float32")
    upstream = RNG.normal(size=z.shape).astype("float32")
    layer = ka.AdaptiveActivation(name)
    a, b, c, d = (np.float32(x) for x in (1.25, -0.75, 0.30001, 0.125))
    layer.set_parameters(a=a, b=b, c=c, d=d)
    y, by_z, by_variables = differentiate(layer, z, upstream)
    assert built == [True]
    function, slope = FUNCTIONS[name]
    u = z.astype("float64") * a + float(c)
    value, slopes = function(u), slope(u)
    np.testing.assert_allclose(ops.convert_to_numpy(y), b * value + d, rtol=2e-6, atol=2e-6)
    np.testing.assert_allclose(ops.convert_to_numpy(by_z), upstream * b * slopes * a, rtol=1e-5, atol=3e-6)
    expected = {"a": b * slopes * z, "b": value, "c": b * slopes, "d": np.ones_like(u)}
    for parameter, found in by_name(layer, by_variables).items():
        sums = upstream * expected[parameter]
        np.testing.assert_allclose(found, sums.sum(), rtol=1e-5, atol=1e-6 * np.abs(sums).sum(), err_msg=parameter)


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


def test_equal_calls_are_equal_to_the_bit():
    """Sums don't depend on which thread comes first."""
    z, upstream = RNG.normal(size=(2, 40 * CHUNK + 7)).astype("float32")
    layer = ka.Method1()
    first = gradients(layer, z, upstream)
    for _ in range(10):
        for one, other in zip(first, gradients(layer, z, upstream), strict=True):
            np.testing.assert_array_equal(one, other)


def test_sums_of_many_elements_are_exact():
    """Float32 alone would be wrong in the third digit here."""
    z = np.full(2**24, 0.1, "float32")
    *_, by_b = gradients(ka.FReLU(), z, np.full_like(z, 0.1))
    np.testing.assert_allclose(by_b[0], 2**24 * float(np.float32(0.1)), rtol=2e-5)


def test_eleven_sums_serve_the_fifteen_numbers_of_method_1():
    layer = ka.Method1()
    form = backends.Form(layer.formula, backends.Rows(layer._normalize), "float32")
    assert "#define SUMS 11\n" in printer.source(form, printer.Kind((12, 3)))


class WithSinh(ka.TrainableActivation):
    """A formula with what no kernel is made of."""

    a = ka.Parameter(1.0)

    def formula(self, z, a):
        return a * ops.sinh(z)


def test_other_operations_run_as_the_backend_runs_them(built):
    z = RNG.normal(size=(3, 4)).astype("float32")
    y, *_ = gradients(WithSinh(), z, np.ones_like(z))
    assert built == [False]
    np.testing.assert_allclose(y, np.sinh(z), rtol=1e-5, atol=1e-6)
    form = backends.Form(WithSinh().formula, backends.Rows(), "float32")
    with pytest.raises(graph.Unknown, match="Sinh"):
        printer.source(form, printer.Kind((1,)))


@pytest.mark.parametrize("name", ["tanh", "sigmoid", "silu"])
def test_a_direct_call_equals_the_backends_own(name, monkeypatch):
    monkeypatch.setattr(backend, "LARGE", 2**18)
    z = ops.convert_to_tensor(RNG.normal(0, 3, (50, 60)).astype("float32"))
    direct = ka.AdaptiveActivation(name)(z)
    np.testing.assert_array_equal(ops.convert_to_numpy(direct), ops.convert_to_numpy(getattr(ops, name)(z)))


def test_tracing_leaves_no_trace():
    """Automatic names count on from where they were, whatever was traced between."""
    keras.utils.clear_session()
    layer = ka.AdaptiveActivation("silu")
    gradients(layer, np.ones((2, 3), "float32"), np.ones((2, 3), "float32"))
    printer.source(backends.Form(layer.formula, backends.Rows(), "float32"), printer.Kind((4,)))
    assert layers.Add().name == "add"
    assert layers.Multiply().name == "multiply"


def test_without_a_compiler_it_says_so_once_and_works(monkeypatch, built):
    monkeypatch.setattr(native.shutil, "which", lambda name: None)
    z = RNG.normal(size=(3, 4)).astype("float32")
    with pytest.warns(UserWarning, match="finds no C compiler. Install gcc or clang, or name one in .* CC"):
        y, *_ = gradients(ka.Swish(), z, np.ones_like(z))
    np.testing.assert_allclose(y, z * expit(z), rtol=1e-5, atol=1e-6)
    gradients(ka.FReLU(), z, np.ones_like(z))  # a second warning would be an error
    assert built == [False, False]


def test_with_a_compiler_that_fails_it_says_so_once_and_works(monkeypatch, built, tmp_path):
    broken = tmp_path / "broken-cc"
    broken.write_text("#!/bin/sh\necho no license >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CC", str(broken))
    z = RNG.normal(size=(3, 4)).astype("float32")
    with pytest.warns(UserWarning, match=r"broken-cc compiles \(no license\)"):
        y, *_ = gradients(ka.Swish(), z, np.ones_like(z))
    np.testing.assert_allclose(y, z * expit(z), rtol=1e-5, atol=1e-6)
    assert built == [False]


@pytest.mark.parametrize("command", ["'", '"gcc', "no-such-compiler -m64", "/dev/null", "/"])
def test_whatever_stands_in_cc_is_no_crash(command, monkeypatch, built):
    monkeypatch.setenv("CC", command)
    z = RNG.normal(size=(3, 4)).astype("float32")
    with pytest.warns(UserWarning, match="slower than they need be"):
        y, *_ = gradients(ka.Swish(), z, np.ones_like(z))
    np.testing.assert_allclose(y, z * expit(z), rtol=1e-5, atol=1e-6)
    assert built == [False]


class OfItsObject(ka.TrainableActivation):
    a = ka.Parameter(1.0)
    slope = 2.0

    def formula(self, z, a):
        return a * self.slope * z


class OfItsObjectIfThere(ka.TrainableActivation):
    """Swallows what tracing raises."""

    a = ka.Parameter(1.0)
    slope = 2.0

    def formula(self, z, a):
        try:
            slope = self.slope
        except Exception:
            slope = 1.0
        return a * slope * z


class OfItsParent(OfItsObject):
    def formula(self, z, a):
        return super().formula(z, a)


class OfAVariable(ka.TrainableActivation):
    a = ka.Parameter(1.0)
    other = keras.Variable(2.0)

    def formula(self, z, a):
        return a * z * OfAVariable.other


class NotElementwise(ka.TrainableActivation):
    a = ka.Parameter(1.0)

    def formula(self, z, a):
        return a * z * ops.sum(z)


class OfAnotherLayer(ka.TrainableActivation):
    a = ka.Parameter(1.0)
    other = ka.Swish()

    def formula(self, z, a):
        return a * OfAnotherLayer.other(z)


# TensorFlow's custom gradients take no formula that reads variables beside its arguments.
WITH_VARIABLES = [OfAVariable, OfAnotherLayer] if BACKEND != "tensorflow" else []


@pytest.mark.parametrize("kind", [OfItsObject, OfItsObjectIfThere, OfItsParent, NotElementwise, *WITH_VARIABLES])
def test_what_a_kernel_would_get_wrong_has_none(kind, built, monkeypatch):
    monkeypatch.setattr(backend, "LARGE", 2**40)
    z = RNG.normal(size=(3, 4)).astype("float32")
    layer = kind()
    y, *_ = gradients(layer, z, np.ones_like(z))
    assert built[0] is False
    expected = {
        OfItsObject: 2 * z,
        OfItsObjectIfThere: 2 * z,
        OfItsParent: 2 * z,
        OfAVariable: 2 * z,
        NotElementwise: z * z.sum(),
        OfAnotherLayer: z * expit(z),
    }
    np.testing.assert_allclose(y, expected[kind], rtol=1e-5, atol=1e-6)


def test_tracing_a_formula_leaves_the_names_of_later_layers():
    """What a thread of its own is for: Keras counts the operations of each by thread."""
    form = backends.Form(lambda z, a: a * z + z, backends.Rows(), "float32")
    before = layers.Add().name, ops.add(keras.KerasTensor((1,)), 1.0).name
    keras.utils.clear_session()
    printer.source(form, printer.Kind((1,)))
    assert (layers.Add().name, ops.add(keras.KerasTensor((1,)), 1.0).name) == before


class Bounded(ka.TrainableActivation):
    """With constants that C writes otherwise than Python."""

    a = ka.Parameter(2.0)

    def formula(self, z, a):
        finite = ops.where(z < float("inf"), ops.where(z > -float("inf"), a * z, -1e-30), 3.0)
        return ops.where(z != z, float("nan"), finite)


OPTIONS = {
    "the threshold of a ReLU": (lambda z, a: a * keras.activations.relu(z, threshold=2.0), 0.0),
    "a layer named like an operation": (lambda z, a: a * layers.ReLU(negative_slope=0.2)(z), 0.2),
    "an equality that Python decides": (lambda z, a: a * z * ops.where(z == 1, 10.0, 1.0), 1.0),
}
if BACKEND != "tensorflow":  # which adds no conditions
    OPTIONS["arithmetic on conditions"] = (lambda z, a: a * z * ((z > -5) + (z < 3)), 1.0)


@pytest.mark.parametrize("what", OPTIONS)
def test_what_the_graph_would_leave_out_has_no_kernel(what, built):
    formula, slope = OPTIONS[what]
    layer = type("Its", (ka.TrainableActivation,), {"a": ka.Parameter(1.0), "formula": staticmethod(formula)})()
    z = np.array([[-1.0, -3.0]], "float32")
    y, by_z, by_a = gradients(layer, z, np.ones_like(z))
    assert built[0] is False
    np.testing.assert_allclose(y, slope * z, rtol=1e-6)
    np.testing.assert_allclose(by_z, np.full_like(z, slope), rtol=1e-6)
    np.testing.assert_allclose(by_a[0], slope * z.sum(), rtol=1e-6)


def test_hundreds_of_operations():
    """Deep enough to end a recursion."""
    formula = staticmethod(lambda z, a: functools.reduce(lambda y, _: y + 0.0, range(600), a * z))
    layer = type("Deep", (ka.TrainableActivation,), {"a": ka.Parameter(1.5), "formula": formula})()
    y, by_z, _ = gradients(layer, np.ones((2, 3), "float32"), np.ones((2, 3), "float32"))
    np.testing.assert_array_equal([y, by_z], np.full((2, 2, 3), 1.5))


def test_a_compiler_with_options(monkeypatch, built):
    monkeypatch.setenv("CC", "gcc -m64")
    gradients(ka.Swish(), np.ones((2, 3), "float32"), np.ones((2, 3), "float32"))
    assert built == [True]


def test_no_room_for_a_compiler(monkeypatch, built):
    def none(dir=None):
        raise OSError("No space left on device")

    monkeypatch.setattr(cache.tempfile, "TemporaryDirectory", none)
    monkeypatch.setenv(cache.VARIABLE, "")
    monkeypatch.setenv("CC", "gcc -m64 -DNO_ROOM")  # compiled before by no other test
    z = np.ones((2, 3), "float32")
    with pytest.warns(UserWarning, match="No space left on device"):
        y, *_ = gradients(ka.FReLU(), z, z)
    np.testing.assert_array_equal(y, z)
    assert built == [False]


def test_constants_of_every_kind(built):
    z = np.array([1.5, -2.0, np.inf, -np.inf, np.nan], "float32")
    y, by_z, _ = gradients(Bounded(), z, np.ones_like(z))
    assert built == [True]
    np.testing.assert_allclose(y, [3, -4, 3, -1e-30, np.nan], rtol=1e-6)
    np.testing.assert_array_equal(by_z, [2, 2, 0, 0, 0])


def test_many_threads_at_once(forget):
    z = RNG.normal(size=(5, CHUNK)).astype("float32")
    layer, found = ka.Swish(), []
    work = [threading.Thread(target=lambda: found.append(gradients(layer, z, z))) for _ in range(6)]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert len(found) == 6
    for other in found[1:]:
        for one, another in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(one, another)


if BACKEND == "jax":
    import jax

    def of_a_layer(layer):
        trained = [v.value for v in layer.trainable_variables]
        return trained, lambda trained, z: layer.stateless_call(trained, [], z)[0]

    def calls(function, *inputs):
        return jax.jit(function).lower(*inputs).as_text().count("custom_call @keras_adaptact_")

    def test_the_kernels_are_what_runs():
        layer = ka.Method1()
        trained, run = of_a_layer(layer)
        z = jax.numpy.ones((4, 5))

        def loss(training, trained, z):
            return (layer.stateless_call(trained, [], z, training=training)[0] ** 2).sum()

        assert calls(run, trained, z) == 0
        assert calls(functools.partial(loss, True), trained, z) == 1
        assert calls(jax.grad(functools.partial(loss, True)), trained, z) == 2
        assert calls(jax.grad(functools.partial(loss, False)), trained, z) == 1

    def test_every_mode_of_differentiation():
        """Forward over reverse and the other three, and in batches, against the plain formula."""
        trained, run = of_a_layer(ka.Method1())
        z = jax.numpy.asarray(RNG.normal(size=(3, 4)).astype("float32"))

        def every():
            def of_numbers(numbers):
                return (run([numbers, *trained[1:]], z) ** 2).sum()

            modes = (jax.jacfwd, jax.jacrev)
            yield from (one(other(of_numbers))(trained[0]) for one in modes for other in modes)
            yield jax.vmap(jax.grad(lambda z: (run(trained, z) ** 3).sum()))(z)
            yield jax.vmap(jax.jacfwd(jax.jacfwd(lambda z: run(trained, z))))(z)
            yield jax.jvp(lambda z: run(trained, z), (z,), (2 * z,))[1]
            yield jax.grad(jax.checkpoint(lambda t: run([t, *trained[1:]], z).sum()))(trained[0])
            yield jax.linearize(lambda z: run(trained, z), z)[1](z)

        found = list(every())
        config.set_implementation("plain")
        try:
            expected = list(every())
        finally:
            config.set_implementation("fast")
        for value, reference in zip(found, expected, strict=True):
            np.testing.assert_allclose(value, reference, rtol=1e-4, atol=1e-4 * np.abs(reference).max())

    def test_inside_shard_map_the_formula_runs():
        """There the gradient by what all devices have alike is a sum over them, which JAX's own rules take."""
        trained, run = of_a_layer(ka.Method1())
        automatic = (jax.sharding.AxisType.Auto,)
        mesh, part = jax.make_mesh((1,), ("batch",), axis_types=automatic), jax.sharding.PartitionSpec("batch")
        z = jax.device_put(np.ones((4, 5), "float32"), jax.sharding.NamedSharding(mesh, part))

        def loss(trained, z):
            return jax.lax.psum(run(trained, z).sum(), "batch")

        shared = jax.sharding.PartitionSpec()
        sharded = jax.shard_map(jax.grad(loss), mesh=mesh, in_specs=(shared, part), out_specs=shared)
        assert "keras_adaptact_" in str(jax.make_jaxpr(run)(trained, z))
        assert "keras_adaptact_" not in str(jax.make_jaxpr(sharded)(trained, z))

    def test_without_jit_and_with_explicit_sharding_the_formula_runs():
        trained, run = of_a_layer(ka.Method1())
        z = jax.numpy.ones((4, 5))
        gradient = jax.grad(lambda trained: run(trained, z).sum())
        with jax.disable_jit():
            found = gradient(trained)
        for one, other in zip(found, gradient(trained), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5)
        mesh = jax.make_mesh((1,), ("batch",), axis_types=(jax.sharding.AxisType.Explicit,))
        spread = jax.device_put(z, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("batch")))
        assert "keras_adaptact_" not in str(jax.make_jaxpr(run)(trained, spread))

    def test_a_batch_keeps_its_input_alone():
        trained, run = of_a_layer(ka.Method1())
        z = jax.numpy.ones((64, 50))
        _, pull = jax.vjp(lambda z: jax.vmap(lambda z: run(trained, z))(z), z)
        assert sum(leaf.nbytes for leaf in jax.tree.leaves(pull) if leaf.nbytes >= 1000) == z.nbytes

    def test_a_file_for_other_machines_has_no_kernels():
        trained, run = of_a_layer(ka.Method1())
        z = jax.ShapeDtypeStruct((4, 5), "float32")
        exported = jax.export.export(jax.jit(lambda z: run(trained, z)), platforms=["cpu", "cuda"])(z)
        assert "keras_adaptact_forward" not in exported.mlir_module()
        value = np.ones((4, 5), "float32")
        np.testing.assert_allclose(exported.call(value), run(trained, value), rtol=1e-5)


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
            _flat(differentiate(ka.Method1(), z.clone(memory_format=torch.contiguous_format), upstream)),
            strict=True,
        ):
            torch.testing.assert_close(found, expected)

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

    def test_a_traced_graph_has_the_formula():
        from torch.fx.experimental.proxy_tensor import make_fx

        layer, z = ka.Method1(), torch.randn(3, 4)
        training = functools.partial(layer, training=True)
        graph = make_fx(training)(z)
        torch.testing.assert_close(graph(2 * z), training(2 * z))

    @pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
    def test_forward_mode():
        layer, z = ka.Method1(), torch.randn(3, 4)
        with torch.no_grad(), torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(z, torch.ones_like(z))
            slope = torch.autograd.forward_ad.unpack_dual(layer(dual, training=True)).tangent
        torch.testing.assert_close(slope, differentiate(layer, z, torch.ones_like(z))[1])

    def test_a_gradient_penalty_beside_what_is_fixed():
        layer = ka.Method2(weights=[0.2, 0.3, 0.5])
        z = torch.randn(3, 4, requires_grad=True)
        (slope,) = torch.autograd.grad(layer(z, training=True).sum(), z, create_graph=True)
        (found,) = torch.autograd.grad(slope.square().sum(), z)
        tanh, sigmoid = torch.tanh(z), torch.sigmoid(z)
        first = 0.2 * (1 - tanh**2) + 0.3 * sigmoid * (1 - sigmoid) + 0.5 * (z > 0)
        second = -0.4 * tanh * (1 - tanh**2) + 0.3 * sigmoid * (1 - sigmoid) * (1 - 2 * sigmoid)
        torch.testing.assert_close(found, 2 * first * second)

    def test_a_batch_of_gradients():
        layer, z = ka.Method1(), torch.randn(3, 4, requires_grad=True)
        y = layer(z, training=True)
        batch = torch.randn(5, 3, 4)
        (found,) = torch.autograd.grad(y, z, batch, is_grads_batched=True, retain_graph=True)
        expected = [torch.autograd.grad(y, z, one, retain_graph=True)[0] for one in batch]
        torch.testing.assert_close(found, torch.stack(expected))

    def test_tensors_without_memory_of_their_own():
        from torch._subclasses.fake_tensor import FakeTensorMode

        layer = ka.Method1()
        with FakeTensorMode(allow_non_fake_inputs=True):
            assert layer(torch.empty(3, 4)).shape == (3, 4)
        assert torch.empty(3, 4, device="meta").shape == layer(torch.empty(3, 4, device="meta")).shape


if BACKEND == "tensorflow":
    import tensorflow as tf

    def operations(layer, recorded=True, **options):
        """The kernels in a trace of a layer."""

        @tf.function(**options)
        def traced(z):
            if not recorded:
                return layer(z)
            with tf.GradientTape() as tape:
                y = layer(z)
            return tape.gradient(y, [v.value for v in layer.func.trainable_variables])

        graph = traced.get_concrete_function(tf.TensorSpec((4, 5))).graph
        return sorted(x.type.split(">")[1][:7] for x in graph.get_operations() if x.type.startswith("KerasAdaptact"))

    def test_the_kernels_are_what_runs():
        training = functools.partial(ka.Method1(), training=True)
        assert operations(training) == ["Backwar", "Forward"]
        assert not operations(training, jit_compile=True)
        assert not operations(functools.partial(training, training=False))

    def test_what_no_tape_records_has_no_kernels():
        """It may be frozen, saved or converted for another runtime afterwards."""
        assert not operations(functools.partial(ka.Method1(), training=True), recorded=False)

    def test_forward_over_reverse():
        """A Hessian times a vector, against the plain formula's."""
        layer, z = ka.Method1(), tf.constant(RNG.normal(size=(4, 5)).astype("float32"))

        @tf.function
        def product(z, vector):
            with tf.autodiff.ForwardAccumulator(z, vector) as forward:
                with tf.GradientTape() as tape:
                    tape.watch(z)
                    y = tf.reduce_sum(layer(z, training=True) ** 2)
                slope = tape.gradient(y, z)
            return forward.jvp(slope)

        found = product(z, tf.ones_like(z))
        config.set_implementation("plain")
        try:
            expected = tf.function(product.python_function)(z, tf.ones_like(z))
        finally:
            config.set_implementation("fast")
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)

    def test_compiled_by_xla_and_saved(tmp_path):
        layer, z = ka.Method1(), RNG.normal(size=(4, 5)).astype("float32")
        expected = layer(z)
        training = functools.partial(layer, training=True)
        np.testing.assert_allclose(tf.function(training, jit_compile=True)(z), expected, rtol=1e-5, atol=1e-6)

        @tf.function(jit_compile=True)
        def around(z):
            return tf.function(training)(z)

        np.testing.assert_allclose(around(z), expected, rtol=1e-5, atol=1e-6)
        model = keras.Sequential([layers.Input((5,)), layer])
        tf.saved_model.save(model, tmp_path / "saved")
        assert b"KerasAdaptact" not in (tmp_path / "saved" / "saved_model.pb").read_bytes()
