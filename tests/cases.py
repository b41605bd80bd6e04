"""The table that drives the tests: every activation with its formula and derivatives in float64 NumPy.

A new activation adds a row to `CASES`, and is tested like all others. A row's `derive(z, **parameters)` returns
the value and the slope by z and by each parameter, elementwise; they are written out by hand, and
`test_the_table_itself` holds them against differences of the values.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import erf, expit
from scipy.stats import norm

Derived = tuple[np.ndarray, dict[str, np.ndarray]]


def affine(function, slope) -> Callable[..., Derived]:
    def derive(z, a, b, c, d):
        u = a * z + c
        f, df = function(u), slope(u)
        return b * f + d, {"z": b * df * a, "a": b * df * z, "b": f, "c": b * df, "d": np.ones_like(z)}

    return derive


def plain(function, slope) -> Callable[..., Derived]:
    return lambda z: (function(z), {"z": slope(z)})


def tanh_slope(u):
    return np.cosh(np.clip(u, -300, 300)) ** -2.0


def sigmoid_slope(u):
    return expit(u) * expit(-u)


def silu(u):
    return u * expit(u)


def silu_slope(u):
    return expit(u) + u * sigmoid_slope(u)


def gelu(u):
    return u * norm.cdf(u)


def gelu_slope(u):
    return norm.cdf(u) + u * norm.pdf(u)


def arelu(z, a, b, c, d) -> Derived:
    first = a * z + c > b * z + d
    y = np.maximum(a * z + c, b * z + d)
    return y, {
        "z": np.where(first, a, b),
        "a": first * z,
        "b": ~first * z,
        "c": first * 1.0,
        "d": ~first * 1.0,
    }


def swish(z, beta) -> Derived:
    s, ds = expit(beta * z), sigmoid_slope(beta * z)
    return z * s, {"z": s + beta * z * ds, "beta": z**2 * ds}


def frelu(z, b) -> Derived:
    return np.maximum(z, 0) + b, {"z": (z > 0) * 1.0, "b": np.ones_like(z)}


def pelu(z, a, b) -> Derived:
    positive = z >= 0
    grown = np.exp(np.minimum(z, 0) / b)
    y = np.where(positive, a / b * z, a * (grown - 1))
    return y, {
        "z": np.where(positive, a / b, a / b * grown),
        "a": np.where(positive, z / b, grown - 1),
        "b": np.where(positive, -a / b**2 * z, -a * z / b**2 * grown),
    }


def snake(z, a) -> Derived:
    y = z + np.sin(a * z) ** 2 / a
    return y, {"z": 1 + np.sin(2 * a * z), "a": z * np.sin(2 * a * z) / a - np.sin(a * z) ** 2 / a**2}


def xielu(z, alpha_p, alpha_n) -> Derived:
    beta, eps = 0.5, -1e-6
    p, n = np.log1p(np.exp(alpha_p)), beta + np.log1p(np.exp(alpha_n))
    positive, held = z > 0, np.minimum(z, eps)
    y = np.where(positive, p * z**2, n * (np.expm1(held) - z)) + beta * z
    return y, {
        "z": np.where(positive, 2 * p * z, n * (np.exp(held) * (z < eps) - 1)) + beta,
        "alpha_p": positive * z**2 * expit(alpha_p),
        "alpha_n": np.where(positive, 0, np.expm1(held) - z) * expit(alpha_n),
    }


def dynamic(function, slope) -> Callable[..., Derived]:
    def derive(z, alpha, gamma, beta, s=0.0):
        f, df = function(alpha * z + s), slope(alpha * z + s)
        inner = gamma * df
        slopes = {"z": inner * alpha, "alpha": inner * z, "s": inner, "gamma": f, "beta": np.ones_like(z)}
        return gamma * f + beta, slopes

    return derive


def dyt(z, alpha, gamma, beta) -> Derived:
    y, slopes = dynamic(np.tanh, tanh_slope)(z, alpha, gamma, beta)
    del slopes["s"]
    return y, slopes


def erf_slope(u):
    return 2 / np.sqrt(np.pi) * np.exp(-(u**2))


def mixture(**members) -> Callable[..., Derived]:
    """Members by name; parameters are `name_parameter` and `weights`, the normalized ones."""

    def derive(z, weights, **parameters) -> Derived:
        y, slopes = 0.0, {"z": 0.0}
        for i, (name, member) in enumerate(members.items()):
            own = {k.removeprefix(f"{name}_"): v for k, v in parameters.items() if k.startswith(f"{name}_")}
            value, found = member(z, **own)
            y = y + weights[i] * value
            slopes["z"] = slopes["z"] + weights[i] * found.pop("z")
            slopes |= {f"{name}_{k}": weights[i] * v for k, v in found.items()}
            slopes[f"weight{i}"] = value
        return y, slopes

    return derive


TANH, SIGMOID = affine(np.tanh, tanh_slope), affine(expit, sigmoid_slope)
RELU = plain(lambda z: np.maximum(z, 0), lambda z: (z > 0) * 1.0)
MEMBERS1 = {"atanh": TANH, "asigmoid": SIGMOID, "arelu": arelu}
MEMBERS2 = {"tanh": plain(np.tanh, tanh_slope), "sigmoid": plain(expit, sigmoid_slope), "relu": RELU}
MIXED = {"gelu": plain(gelu, gelu_slope), "atanh": TANH, "sin": plain(np.sin, np.cos)}

AFFINE_START = {"a": 1.0, "b": 1.0, "c": 0.0, "d": 0.0}
RELU_START = {"a": 1.0, "b": 0.0, "c": 0.0, "d": 0.0}
AFFINE = {"a": 1.25, "b": -0.75, "c": 0.5, "d": 0.125}
FOLDED = {"a": 1.0, "b": -0.5, "c": 0.25, "d": 3.25}  # ties at z = 2 exactly


def named(**groups) -> dict[str, float]:
    return {f"{name}_{k}": v for name, group in groups.items() for k, v in group.items()}


@dataclass(frozen=True)
class Case:
    spec: dict | str
    derive: Callable[..., Derived]
    start: dict  # parameters as the layer must start
    trained: dict  # others, exact in float32
    kinks: tuple[float, ...] = ()  # of `trained`
    normalization: str | None = None
    shared: tuple[str, ...] = ()  # parameters with one value for all channels

    def by_channel(self, factors) -> dict:
        """`trained` for channels, each times its factor; what all have alike once."""
        return {k: v if k in self.shared else np.multiply.outer(v, factors) for k, v in self.trained.items()}

    def of_channel(self, parameters: dict, channel: int) -> dict:
        return {k: v if k in self.shared else v[..., channel] for k, v in parameters.items()}

    @property
    def id(self) -> str:
        return self.spec if isinstance(self.spec, str) else "-".join(map(str, self.spec.values()))


METHOD1_START = named(atanh=AFFINE_START, asigmoid=AFFINE_START, arelu=RELU_START)
METHOD1 = named(atanh=AFFINE, asigmoid=AFFINE | {"b": 1.5}, arelu=FOLDED)
SUM_START, RAW = {"weights": [1.0, 1.0, 1.0]}, {"weights": [0.5, 1.25, 2.25]}

CASES = [
    Case("asigmoid", SIGMOID, AFFINE_START, AFFINE),
    Case("atanh", TANH, AFFINE_START, AFFINE),
    Case("arelu", arelu, RELU_START, FOLDED, kinks=(2.0,)),
    Case({"name": "adaptive", "function": "silu"}, affine(silu, silu_slope), AFFINE_START, AFFINE),
    Case({"name": "adaptive", "function": "sin"}, affine(np.sin, np.cos), AFFINE_START, AFFINE),
    Case("swish", swish, {"beta": 1.0}, {"beta": 1.5}),
    Case("frelu", frelu, {"b": 0.0}, {"b": -0.375}, kinks=(0.0,)),
    Case("pelu", pelu, {"a": 1.0, "b": 1.0}, {"a": 1.5, "b": 0.75}, kinks=(0.0,)),
    Case("method1", mixture(**MEMBERS1), METHOD1_START | SUM_START, METHOD1 | RAW, (2.0,), "sum"),
    Case("method2", mixture(**MEMBERS2), SUM_START, RAW, (0.0,), "sum"),
    Case(
        {"name": "method2", "normalization": "softmax"},
        mixture(**MEMBERS2),
        {"weights": [0.0, 0.0, 0.0]},
        RAW,
        (0.0,),
        "softmax",
    ),
    Case(
        {"name": "mixture", "members": ["gelu", "atanh", "sin"], "normalization": "none"},
        mixture(**MIXED),
        named(atanh=AFFINE_START) | {"weights": [1 / 3, 1 / 3, 1 / 3]},
        named(atanh=AFFINE) | {"weights": [0.5, -1.25, 2.25]},
        (),
        "none",
    ),
    Case("snake", snake, {"a": 1.0}, {"a": 1.5}),
    Case(
        "xielu",
        xielu,
        {"alpha_p": np.log(np.expm1(0.8)), "alpha_n": np.log(np.expm1(0.3))},
        {"alpha_p": 0.25, "alpha_n": -0.75},
        kinks=(0.0,),
    ),
    Case(
        "dyt",
        dyt,
        {"alpha": 0.5, "gamma": 1.0, "beta": 0.0},
        {"alpha": 1.25, "gamma": -0.75, "beta": 0.5},
        shared=("alpha",),
    ),
    Case(
        "derf",
        dynamic(erf, erf_slope),
        {"alpha": 0.5, "s": 0.0, "gamma": 1.0, "beta": 0.0},
        {"alpha": 1.25, "s": 0.25, "gamma": -0.75, "beta": 0.5},
        shared=("alpha", "s"),
    ),
]


def mixed(normalization: str, raw: np.ndarray) -> np.ndarray:
    """The mixing weights of raw ones, in float64."""
    if normalization == "sum":
        return raw / raw.sum()
    if normalization == "softmax":
        return np.exp(raw) / np.exp(raw).sum()
    return raw


def raw_slopes(normalization: str, raw: np.ndarray) -> np.ndarray:
    """d(mixing weight i) / d(raw weight j)."""
    identity, w = np.eye(len(raw)), mixed(normalization, raw)
    if normalization == "sum":
        return (identity - w[:, None]) / raw.sum()
    if normalization == "softmax":
        return w[:, None] * (identity - w[None, :])
    return identity


def evaluate(case: Case, z: np.ndarray, parameters: dict) -> Derived:
    """Value and slopes in float64, those by raw weights under `weights`, stacked along a new last axis."""
    z = np.asarray(z, "float64")
    parameters = {k: np.asarray(v, "float64") for k, v in parameters.items()}
    with np.errstate(over="ignore", invalid="ignore"):
        if case.normalization is None:
            return case.derive(z, **parameters)
        raw = parameters.pop("weights")
        y, slopes = case.derive(z, weights=mixed(case.normalization, raw), **parameters)
    by_weight = np.stack([slopes.pop(f"weight{i}") for i in range(len(raw))], axis=-1)
    return y, slopes | {"weights": by_weight @ raw_slopes(case.normalization, raw)}


def softplus(x):
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


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
    "elu": (_elu, _elu_slope),
    "erf": (erf, lambda u: 2 / np.sqrt(np.pi) * np.exp(-(u**2))),
    "exp": (np.exp, np.exp),
    "gelu": (lambda u: u * norm.cdf(u), lambda u: norm.cdf(u) + u * norm.pdf(u)),
    "hard_shrink": (lambda u: u * (np.abs(u) > 0.5), lambda u: np.abs(u) > 0.5),
    "hard_sigmoid": (_hard_sigmoid, lambda u: (np.abs(u) < 3) / 6),
    "hard_silu": (
        lambda u: u * _hard_sigmoid(u),
        lambda u: _hard_sigmoid(u) + u * (np.abs(u) < 3) / 6,
    ),
    "hard_tanh": (lambda u: np.clip(u, -1, 1), lambda u: np.abs(u) < 1),
    "log_sigmoid": (lambda u: -softplus(-u), lambda u: expit(-u)),
    "mish": (
        lambda u: u * np.tanh(softplus(u)),
        lambda u: np.tanh(softplus(u)) + u * expit(u) * np.cosh(softplus(u)) ** -2.0,
    ),
    "relu": (lambda u: np.maximum(u, 0), lambda u: u > 0),
    "relu6": (lambda u: np.clip(u, 0, 6), lambda u: (u > 0) & (u < 6)),
    "selu": (
        lambda u: 1.0507009873554805 * np.where(u > 0, u, 1.6732632423543772 * np.expm1(np.minimum(u, 0))),
        lambda u: 1.0507009873554805 * np.where(u > 0, 1, 1.6732632423543772 * np.exp(np.minimum(u, 0))),
    ),
    "serf": (
        lambda u: u * erf(softplus(u)),
        lambda u: erf(softplus(u)) + u * 2 / np.sqrt(np.pi) * np.exp(-(softplus(u) ** 2)) * expit(u),
    ),
    "sigmoid": (expit, lambda u: expit(u) * expit(-u)),
    "silu": (lambda u: u * expit(u), lambda u: expit(u) + u * expit(u) * expit(-u)),
    "sin": (np.sin, np.cos),
    "soft_shrink": (lambda u: np.sign(u) * np.maximum(np.abs(u) - 0.5, 0), lambda u: np.abs(u) > 0.5),
    "softplus": (softplus, expit),
    "softsign": (lambda u: u / (1 + np.abs(u)), lambda u: (1 + np.abs(u)) ** -2.0),
    "sparse_plus": (
        lambda u: np.where(u >= 1, u, 0.25 * np.maximum(u + 1, 0) ** 2),
        lambda u: np.where(u >= 1, 1, 0.5 * np.maximum(u + 1, 0)),
    ),
    "sparse_sigmoid": (lambda u: np.clip(0.5 * (u + 1), 0, 1), lambda u: 0.5 * (np.abs(u) < 1)),
    "square": (np.square, lambda u: 2 * u),
    "squareplus": (
        lambda u: np.where(u < 0, 2 / (np.sqrt(u**2 + 4) - u), (u + np.sqrt(u**2 + 4)) / 2),
        lambda u: (1 + u / np.sqrt(u**2 + 4)) / 2,
    ),
    "tanh": (np.tanh, lambda u: np.cosh(u) ** -2.0),
    "tanh_shrink": (lambda u: u - np.tanh(u), lambda u: np.tanh(u) ** 2),
}
