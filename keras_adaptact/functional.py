"""Every formula of the library once: pure elementwise functions ``f(z, *parameters)`` of `keras.ops`.

`z` is the pre-activation, of any shape; a parameter is a scalar, or one value per channel in a shape that
broadcasts against `z`. A NaN in `z` comes out as NaN.
"""

import math
from collections.abc import Callable, Hashable
from typing import Any

import keras
from keras import ops

from keras_adaptact.backends.common import is_portable

Tensor = Any  # of the backend, of Keras, or what `keras.ops` makes one of
Function = Callable[[Tensor], Tensor]


def affine(function: Function, z: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """``b f(a z + c) + d``, the formula of `ASigmoid`, `ATanh` and `AdaptiveActivation`.

    Args:
        function: f, an elementwise function in `keras.ops`.
        z: pre-activation, of any shape and a floating dtype.
        a, b, c, d: scalars, or values for each channel in a shape that broadcasts against z.

    Returns: a tensor of z's shape.

    Differentiable in z and all parameters where f is at ``a z + c``.
    Reference: Hu et al., "Adaptively Customizing Activation Functions for Various Layers", 2021.
    """
    return b * function(a * z + c) + d


def weighted_affine(function: Function, z: Tensor, w: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """``w (b f(a z + c) + d)``: `affine` as a member of a mixture.

    Args:
        function, z, a, b, c, d: as in `affine`.
        w: the mixing weight, of the parameters' shape. It multiplies b and d, so that its gradient needs no further
            sum over z.

    Returns: a tensor of z's shape, differentiable where `affine` is, and in w.
    """
    return affine(function, z, a, w * b, c, w * d)


def arelu(z: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """``max(a z + c, b z + d)``, the formula of `AReLU`.

    Args:
        z: pre-activation, of any shape and a floating dtype.
        a, b, c, d: scalars, or values for each channel in a shape that broadcasts against z.

    Returns: a tensor of z's shape.

    Differentiable except where both branches are equal. There the gradient is that of the second branch on every
    backend, as the slope of ReLU at 0 is 0; `ops.maximum` splits it on some.
    Reference: Hu et al., "Adaptively Customizing Activation Functions for Various Layers", 2021.
    """
    first, second = a * z + c, b * z + d
    return ops.where(_is_larger(first, second), first, second)


def weighted_arelu(z: Tensor, w: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """``w max(a z + c, b z + d)``: `arelu` as a member of a mixture.

    Args:
        z, a, b, c, d: as in `arelu`.
        w: the mixing weight, of the parameters' shape, which multiplies them as in `weighted_affine`.

    Returns: a tensor of z's shape, differentiable where `arelu` is, and in w.
    """
    return ops.where(_is_larger(a * z + c, b * z + d), (w * a) * z + w * c, (w * b) * z + w * d)


def _is_larger(first, second):
    return ops.logical_or(first > second, first != first)  # isnan, which torch.compile has no vector instruction for


def swish(z: Tensor, beta: Tensor) -> Tensor:
    """``z sigmoid(beta z)``, the formula of `Swish`.

    Args:
        z: pre-activation, of any shape and a floating dtype.
        beta: a scalar, or values for each channel in a shape that broadcasts against z.

    Returns: a tensor of z's shape, differentiable everywhere, any number of times.

    Reference: Ramachandran et al., "Searching for Activation Functions", 2017.
    """
    return z * ops.sigmoid(beta * z)


def frelu(z: Tensor, b: Tensor) -> Tensor:
    """``max(z, 0) + b``, the formula of `FReLU`.

    Args:
        z: pre-activation, of any shape and a floating dtype.
        b: a scalar, or values for each channel in a shape that broadcasts against z.

    Returns: a tensor of z's shape.

    Differentiable except at z = 0, where the slope is 0.
    Reference: Qiu et al., "FReLU: Flexible Rectified Linear Units for Improving CNNs", 2018.
    """
    return ops.where(z <= 0, ops.zeros_like(z), z) + b


def pelu(z: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """``(a/b) z`` for z >= 0 and ``a (exp(z/b) - 1)`` below, the formula of `PELU`.

    Args:
        z: pre-activation, of any shape and a floating dtype.
        a, b: positive scalars, or values for each channel in a shape that broadcasts against z.

    Returns: a tensor of z's shape.

    Differentiable everywhere; the second derivative jumps at z = 0, where it is 0.
    Reference: Trottier et al., "Parametric Exponential Linear Unit for Deep CNNs", 2017.
    """
    positive = z >= 0
    below = ops.where(positive, ops.zeros_like(z), z)  # or exp would overflow, and make the gradient NaN
    return ops.where(positive, (a / b) * z, a * _expm1(below / b))


def snake(z: Tensor, a: Tensor) -> Tensor:
    """``z + sin(a z)^2 / a``, the formula of `Snake`.

    Args:
        z: pre-activation, of any shape and a floating dtype.
        a: a positive scalar, or values for each channel in a shape that broadcasts against z.

    Returns: a tensor of z's shape, differentiable everywhere, any number of times.

    Reference: Ziyin et al., "Neural Networks Fail to Learn Periodic Functions and How to Fix It", 2020.
    """
    sine = ops.sin(a * z)
    return z + sine * sine / a


def serf(z: Tensor) -> Tensor:
    """``z erf(log(1 + exp(z)))``, the plain function `"serf"`.

    Args:
        z: pre-activation, of any shape and a floating dtype.

    Returns: a tensor of z's shape, differentiable everywhere, any number of times.

    Reference: Nag et al., "SERF: Towards Better Training of Deep Neural Networks Using Log-Softplus ERror Activation
    Function", 2021.
    """
    return z * ops.erf(ops.softplus(z))


def xielu(z: Tensor, alpha_p: Tensor, alpha_n: Tensor, beta: float = 0.5, eps: float = -1e-6) -> Tensor:
    """``p z^2 + beta z`` for z > 0 and ``n (exp(min(z, eps)) - 1) - n z + beta z`` below, the formula of `XIELU`.

    ``p = softplus(alpha_p)`` and ``n = beta + softplus(alpha_n)``.

    Args:
        z: pre-activation, of any shape and a floating dtype.
        alpha_p, alpha_n: scalars, or values for each channel in a shape that broadcasts against z.
        beta: the slope at 0.
        eps: what z is held at below 0, so that 16 bits see a slope there.

    Returns: a tensor of z's shape.

    Differentiable except where z is 0, where the slope is that of below, and `eps`.
    Reference: Huang and Schlag, "Deriving Activation Functions Using Integration", 2024.
    """
    p, n = ops.softplus(alpha_p), beta + ops.softplus(alpha_n)
    positive = z > 0
    above = ops.where(positive, z, ops.zeros_like(z))
    below = n * (_expm1(ops.where(z < eps, z, eps)) - z)
    return ops.where(positive, p * above * above, below) + beta * z


def dyt(z: Tensor, alpha: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    """``gamma tanh(alpha z) + beta``, the formula of `DyT`.

    Args:
        z: what would be normalized, of any shape and a floating dtype.
        alpha, gamma, beta: scalars, or values for each channel in a shape that broadcasts against z.

    Returns: a tensor of z's shape, differentiable everywhere, any number of times.

    Reference: Zhu et al., "Transformers without Normalization", 2025.
    """
    return gamma * ops.tanh(alpha * z) + beta


def derf(z: Tensor, alpha: Tensor, s: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    """``gamma erf(alpha z + s) + beta``, the formula of `Derf`.

    Args:
        z: what would be normalized, of any shape and a floating dtype.
        alpha, s, gamma, beta: scalars, or values for each channel in a shape that broadcasts against z.

    Returns: a tensor of z's shape, differentiable everywhere, any number of times.

    Reference: Chen et al., "Stronger Normalization-Free Transformers", 2025.
    """
    return gamma * ops.erf(alpha * z + s) + beta


def _expm1(z):
    """``exp(z) - 1`` to the last digits near 0, too, for z of 0 and less; ``tanh(z/2) (exp(z) + 1)`` where portable"""
    return ops.tanh(z / 2) * (ops.exp(z) + 1) if is_portable() else ops.expm1(z)


def _celu(z):
    """``max(z, 0) + exp(min(z, 0)) - 1``"""
    return ops.maximum(z, 0) + _expm1(ops.minimum(z, 0)) if is_portable() else keras.activations.celu(z)


def _gelu(z):
    """``z (1 + erf(z / sqrt(2))) / 2``"""
    return 0.5 * z * (1 + ops.erf(z * math.sqrt(0.5))) if is_portable() else keras.activations.gelu(z)


def _mish(z):
    """``z tanh(log(1 + exp(z)))``"""
    return z * ops.tanh(ops.softplus(z))


_PORTABLE = {
    keras.activations.celu: _celu,
    keras.activations.gelu: _gelu,
    keras.activations.hard_silu: ops.hard_silu,
    keras.activations.mish: _mish,
}


def portable(function: Function) -> Function:
    """The same function in operations of Keras, and while a model is exported in those that converters know.

    Converters have no operation for what TensorFlow makes of `celu` and `gelu`, and torch of `expm1`. Keras's own
    `mish` and `hard_silu` call the backend past its operations, so that no kernel can be made of them.

    Args:
        function: a plain elementwise function.

    Returns: the function, or one of the same values.
    """
    return _PORTABLE.get(function, function) if isinstance(function, Hashable) else function


def normalize_sum(raw: Tensor) -> Tensor:
    """``w_i = raw_i / (raw_1 + ... + raw_k)``: raw weights of a mixture as mixing weights.

    Args:
        raw: of shape (members,) or (members, channels), with a sum over members that isn't 0.

    Returns: weights of the same shape, which sum to 1 over members. Differentiable everywhere.
    """
    return raw / ops.sum(raw, axis=0, keepdims=True)


def normalize_softmax(raw: Tensor) -> Tensor:
    """``w_i = exp(raw_i) / (exp(raw_1) + ... + exp(raw_k))``: raw weights of a mixture as mixing weights.

    Args:
        raw: of shape (members,) or (members, channels).

    Returns: positive weights of the same shape, which sum to 1 over members. Differentiable everywhere.
    """
    return ops.softmax(raw, axis=0)
