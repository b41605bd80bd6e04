"""How a formula is run: the one seam between the formulas and the backends.

A formula is an elementwise function ``f(z, *parameters)`` in `keras.ops`. Run as it stands, automatic
differentiation keeps each intermediate value of it for the backward pass, up to eight tensors of z's size. Here z is
the only tensor that is kept: the backward pass evaluates the formula again, and no gradient is written by hand.

On the CPU a formula that is computed in float32, of tensors of float32 or 16 bits, becomes a pair of kernels in C
(`native`, which `printer` writes from the graph that `tracing` makes), which each backend calls in its own way; on an
NVIDIA GPU, for those who ask, in CUDA (`cuda`). All else (float64, operations that no kernel has, other devices, no C
compiler) goes by the backend's own differentiation; in large tensors time goes into memory there, not into arithmetic,
and each backend has its own way to go over them once (see `jax`, `torch` and `tensorflow` beside this).

A backend of Keras's that has no module here, or whose module can't be imported, runs the formula as it stands.

All of them take `run(form, z, variables, training)`:

* `form`, a `Form`: the formula, how a layer's variables become its parameters, and the dtype that is computed in, in
  which gradients of parameters are summed, too;
* `z`: any shape and floating dtype; the output has both;
* `variables`: tensors of shape (parameters,) or (parameters, channels).
"""

from types import ModuleType

import keras

from keras_adaptact import config
from keras_adaptact.backends import common
from keras_adaptact.backends.common import Form, Rows, optional

__all__ = ["Form", "Rows", "run", "slope", "tell", "wait"]

MODULES = ("jax", "tensorflow", "torch")  # those beside this one that run formulas


def run(form, z, variables, training: bool = False):
    """``form(z, *variables)`` with a gradient that keeps z alone.

    Outside of training what is called directly, not in a compiled or traced function, is to the bit what the
    backend's own operations give (but for tensors of 2**18 elements and more on torch), so that an activation can
    take the place of another one and leave a model's outputs as they are.
    """
    if config.implementation() == "plain":
        return form(z, *variables)
    return _of_backend("run")(form, z, variables, training)


def slope(function, z):
    """The derivative of an elementwise function at each element of a tensor.

    Raises:
        NotImplementedError: on a backend that has no module here.
    """
    return _of_backend("slope")(function, z)


def tell(take, z) -> None:
    """Hands the values of a tensor to `take`, as NumPy; inside a loop of JAX's by the end of `wait`."""
    _of_backend("tell")(take, z)


def wait() -> None:
    """Waits until every tensor given to `tell` has been taken."""
    _of_backend("wait")()


def _of_backend(name: str):
    """A function of the backend's module, or the one for every backend."""
    return getattr(_module(keras.config.backend()), name, None) or getattr(common, name)


def _module(backend: str) -> ModuleType:
    return (optional(backend) if backend in MODULES else None) or common


_module(keras.backend.backend())  # now, as it can't be imported inside a function that is compiled
