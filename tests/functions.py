"""Keras's elementwise functions in float64 NumPy, each with its slope; at a kink that of the flat part."""

import numpy as np
from scipy.special import erf, expit
from scipy.stats import norm


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
