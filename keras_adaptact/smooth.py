"""Further trainable activations, as data: a periodic one, one of transformers, and two in place of normalization."""

import functools
import math
from dataclasses import dataclass
from typing import Any, Unpack

import keras

from keras_adaptact import functional
from keras_adaptact.base import DataFormat, Granularity, TrainableActivation
from keras_adaptact.functional import Tensor
from keras_adaptact.parameters import Between, Parameter
from keras_adaptact.registry import register_newer
from keras_adaptact.signatures import OfA, OfAlphaGammaBeta, OfAlphaPN, OfAlphaSGammaBeta

_serializable = keras.saving.register_keras_serializable(package="keras_adaptact")


def _named(name: str):
    return functools.partial(register_newer, name)


register_newer("serf", functional.serf)


@_named("snake")
@_serializable
class Snake(TrainableActivation):
    """Snake, ``z + sin(a z)^2 / a``: the identity and a wave, for signals that repeat; starts with a = 1.

    A constraint holds a at 0.01 or more, as it must be positive; with optimizers other than Keras's
    `apply_constraints` does. Start with a larger a where frequencies are higher.

    ```python
    x = keras.layers.Conv1D(64, 7, padding="same", activation=ka.Snake(granularity="channel"))(x)
    ```

    Arguments, shapes, dtypes and errors are those of `TrainableActivation`; the parameter is a.
    Reference: Ziyin et al., "Neural Networks Fail to Learn Periodic Functions and How to Fix It", 2020.
    """

    a = Parameter(1.0, Between(0.01))

    def __init__(
        self,
        granularity: Granularity = "layer",
        channels: int | None = None,
        data_format: DataFormat | None = None,
        **kwargs: Unpack[OfA],
    ):
        super().__init__(granularity, channels, data_format, **kwargs)

    @staticmethod
    def formula(z: Tensor, a: Tensor) -> Tensor:
        return functional.snake(z, a)


@dataclass(frozen=True)
class _XIELU:
    """The formula of XIELU; equal for equal constants."""

    beta: float
    eps: float

    def __call__(self, z, alpha_p, alpha_n):
        return functional.xielu(z, alpha_p, alpha_n, self.beta, self.eps)


def _before_softplus(value: float) -> float:
    return math.log(math.expm1(value))


@_named("xielu")
@_serializable
class XIELU(TrainableActivation):
    """xIELU: ``p z^2 + beta z`` above 0 and ``n (exp(min(z, eps)) - 1) - n z + beta z`` below; starts with p = n = 0.8.

    The activation of the Apertus language models. What is trained is behind a softplus:
    ``p = softplus(alpha_p)`` and ``n = beta + softplus(alpha_n)``.

    ```python
    x = keras.layers.Dense(256, activation=ka.XIELU())(x)
    ```

    Args:
        beta: the slope at 0, a number. Default: 0.5.
        eps: what z is held at below 0, a number below 0, so that 16 bits see a slope there. Default: -1e-6.

    The other arguments, shapes, dtypes and errors are those of `TrainableActivation`; the parameters are alpha_p and
    alpha_n. Reference: Huang and Schlag, "Deriving Activation Functions Using Integration", 2024.

    Raises:
        ValueError: also for a beta that isn't finite, and an eps that isn't below 0.
    """

    alpha_p = Parameter(_before_softplus(0.8))
    alpha_n = Parameter(_before_softplus(0.8 - 0.5))

    def __init__(
        self,
        granularity: Granularity = "layer",
        channels: int | None = None,
        data_format: DataFormat | None = None,
        beta: float = 0.5,
        eps: float = -1e-6,
        **kwargs: Unpack[OfAlphaPN],
    ):
        if not _is_number(beta) or not _is_number(eps) or eps >= 0:
            raise ValueError(f"`beta` must be a number, and `eps` one below 0. Received: beta={beta!r}, eps={eps!r}")
        super().__init__(granularity, channels, data_format, **kwargs)
        self.beta, self.eps = float(beta), float(eps)

    @property
    def formula(self) -> _XIELU:
        return _XIELU(self.beta, self.eps)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"beta": self.beta, "eps": self.eps}


def _is_number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


@_named("dyt")
@_serializable
class DyT(TrainableActivation):
    """Dynamic tanh, ``gamma tanh(alpha z) + beta``, for layer normalization; starts with 0.5, 1 and 0.

    With `granularity="channel"` gamma and beta have a value for each channel, and alpha one for all of them, as in the
    reference. `replace_normalization` puts it in the place of layers that a model has.

    ```python
    x = ka.DyT(granularity="channel")(x)
    ```

    Arguments, shapes, dtypes and errors are those of `TrainableActivation`; the parameters are alpha, gamma and beta.
    Reference: Zhu et al., "Transformers without Normalization", 2025.
    """

    alpha = Parameter(0.5, shared=True)
    gamma = Parameter(1.0)
    beta = Parameter(0.0)

    def __init__(
        self,
        granularity: Granularity = "layer",
        channels: int | None = None,
        data_format: DataFormat | None = None,
        **kwargs: Unpack[OfAlphaGammaBeta],
    ):
        super().__init__(granularity, channels, data_format, **kwargs)

    @staticmethod
    def formula(z: Tensor, alpha: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        return functional.dyt(z, alpha, gamma, beta)


@_named("derf")
@_serializable
class Derf(TrainableActivation):
    """Dynamic erf, ``gamma erf(alpha z + s) + beta``, for layer normalization; starts with 0.5, 0, 1, 0.

    With `granularity="channel"` gamma and beta have a value for each channel, and alpha and s one for all of them, as
    in the reference. `replace_normalization` puts it in the place of layers that a model has.

    ```python
    x = ka.Derf(granularity="channel")(x)
    ```

    Arguments, shapes, dtypes and errors are those of `TrainableActivation`; the parameters are alpha, s, gamma, beta.
    Reference: Chen et al., "Stronger Normalization-Free Transformers", 2025.
    """

    alpha = Parameter(0.5, shared=True)
    s = Parameter(0.0, shared=True)
    gamma = Parameter(1.0)
    beta = Parameter(0.0)

    def __init__(
        self,
        granularity: Granularity = "layer",
        channels: int | None = None,
        data_format: DataFormat | None = None,
        **kwargs: Unpack[OfAlphaSGammaBeta],
    ):
        super().__init__(granularity, channels, data_format, **kwargs)

    @staticmethod
    def formula(z: Tensor, alpha: Tensor, s: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        return functional.derf(z, alpha, s, gamma, beta)
