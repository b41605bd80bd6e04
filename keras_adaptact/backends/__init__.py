"""How a formula is run: the one seam between the formulas and the backends.

A formula is an elementwise function ``f(z, *parameters)`` in `keras.ops`. Run as it stands, automatic
differentiation keeps each intermediate value of it for the backward pass, up to eight tensors of z's size. Here z is
the only tensor that is kept: the backward pass evaluates the formula again and takes its derivatives from the
backend's own differentiation, so that no gradient is written by hand. In large tensors time goes into memory, not
into arithmetic; each backend has its own way to go over them once (see `jax`, `torch` and `tensorflow` beside this).

All of them take `run(formula, z, parameters, dtype)`:

* `formula` compares equal for layers of one formula, which then share what is compiled for it;
* `z`: any shape and floating dtype; the output has both;
* `parameters`: tensors of `dtype`, each a scalar or one value per channel, of shape (c,) or (c, 1, ...), as it
  broadcasts against z;
* `dtype` is what is computed in; gradients of parameters are summed in it.
"""

import keras

from keras_adaptact import config
from keras_adaptact.backends.common import plain

match keras.backend.backend():
    case "jax":
        from keras_adaptact.backends.jax import run as _fast
    case "tensorflow":
        from keras_adaptact.backends.tensorflow import run as _fast
    case "torch":
        from keras_adaptact.backends.torch import run as _fast


def run(formula, z, parameters, dtype):
    """``formula(z, *parameters)`` with a gradient that keeps z alone."""
    if config.implementation() == "plain":
        return plain(formula, dtype)(z, *parameters)
    return _fast(formula, z, parameters, dtype)
