"""Every formula of the library once: pure elementwise functions ``f(z, *parameters)`` of `keras.ops`.

`z` is the pre-activation, of any shape; a parameter is a scalar, or one value per channel in a shape that
broadcasts against `z`. A NaN in `z` comes out as NaN.
"""

import math

import keras
from keras import ops

from keras_adaptact.backends.common import is_portable


def affine(function, z, a, b, c, d):
    """``b f(a z + c) + d``"""
    return b * function(a * z + c) + d


def weighted_affine(function, z, w, a, b, c, d):
    """``w (b f(a z + c) + d)``, with w at the parameters: its own gradient needs no further sum over z."""
    return affine(function, z, a, w * b, c, w * d)


def arelu(z, a, b, c, d):
    """``max(a z + c, b z + d)``

    `ops.maximum` splits the gradient of a tie on some backends and not on others. Here a tie goes to the
    second branch everywhere, as the slope of ReLU at 0 is 0.
    """
    first, second = a * z + c, b * z + d
    return ops.where(_is_larger(first, second), first, second)


def weighted_arelu(z, w, a, b, c, d):
    """``w max(a z + c, b z + d)``, with w at the parameters, as in `weighted_affine`"""
    return ops.where(_is_larger(a * z + c, b * z + d), (w * a) * z + w * c, (w * b) * z + w * d)


def _is_larger(first, second):
    return ops.logical_or(first > second, first != first)  # isnan, which torch.compile has no vector instruction for


def swish(z, beta):
    """``z sigmoid(beta z)``"""
    return z * ops.sigmoid(beta * z)


def frelu(z, b):
    """``max(z, 0) + b``"""
    return ops.where(z <= 0, ops.zeros_like(z), z) + b


def pelu(z, a, b):
    """``(a/b) z`` for z >= 0, ``a (exp(z/b) - 1)`` below

    The exponential sees no positive z: an overflow in the branch not taken would make its gradient NaN.
    """
    positive = z >= 0
    below = ops.where(positive, ops.zeros_like(z), z)
    return ops.where(positive, (a / b) * z, a * _expm1(below / b))


def _expm1(z):
    """``exp(z) - 1`` to the last digits near 0, too, for z of 0 and less; ``tanh(z/2) (exp(z) + 1)`` where portable"""
    return ops.tanh(z / 2) * (ops.exp(z) + 1) if is_portable() else ops.expm1(z)


def _celu(z):
    """``max(z, 0) + exp(min(z, 0)) - 1``"""
    return ops.maximum(z, 0) + _expm1(ops.minimum(z, 0)) if is_portable() else keras.activations.celu(z)


def _gelu(z):
    """``z (1 + erf(z / sqrt(2))) / 2``"""
    return 0.5 * z * (1 + ops.erf(z * math.sqrt(0.5))) if is_portable() else keras.activations.gelu(z)


_PORTABLE = {keras.activations.celu: _celu, keras.activations.gelu: _gelu}


def portable(function):
    """A plain function, which other runtimes have all operations of where it is run for them.

    Converters have no operation for what TensorFlow makes of `celu` and `gelu`, and torch of `expm1`.
    """
    return _PORTABLE.get(function, function)


def normalize_sum(raw):
    """``w_i = raw_i / (raw_1 + ... + raw_k)``, along the first axis"""
    return raw / ops.sum(raw, axis=0, keepdims=True)


def normalize_softmax(raw):
    """``w_i = exp(raw_i) / (exp(raw_1) + ... + exp(raw_k))``, along the first axis"""
    return ops.softmax(raw, axis=0)
