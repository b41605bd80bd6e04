"""On JAX: kernels (`jax_primitive`), or rematerialization, on CPU in chunks that stay in the cache.

Without a kernel XLA fuses an elementwise gradient with the sums for the parameters, so what costs time is memory: on
CPU each temporary of a large tensor's size is paid for page by page. A loop over chunks has none. It needs a custom
gradient, through which forward-mode differentiation (`jax.jvp`) doesn't go; for all other sizes and devices
`jax.checkpoint` keeps every transformation.
"""

import functools
import math

import jax
import numpy as np
from jax import lax

from keras_adaptact.backends import cuda
from keras_adaptact.backends.common import canonical, optional, plain
from keras_adaptact.backends.native import is_pure

NATIVE = 0  # elements from which the kernels pay
CHUNK = 2**17  # elements; measured best of 2**16 to 2**19, by benchmarks/activations.py
LARGE = 2**20  # elements from which the loop pays


def run(form, z, variables, training):
    if not is_pure(form, variables):
        return form(z, *variables)
    known = all(isinstance(n, int) for n in z.shape)  # Keras traces with symbolic sizes, which compare with nothing
    traced = any(isinstance(x, jax.core.Tracer) for x in (z, *variables))
    # Inside `shard_map` the gradient by what all devices have alike is a sum over them, which JAX's own rules take.
    sharded = bool(getattr(jax.sharding.get_abstract_mesh(), "manual_axes", ()))
    on_cpu = known and not sharded and jax.default_backend() == "cpu"
    on_gpu = known and not sharded and jax.default_backend() == "gpu" and cuda.is_wanted()
    if (on_cpu or on_gpu) and traced and z.size >= NATIVE and _has_kernels(form, z, variables):
        return _primitives().run(form, z, tuple(variables), training)
    function = (_chunked if on_cpu and z.size >= LARGE else _checkpointed)(form.formula, form.dtype)
    return function(z, *form.parameters(*variables))


def _primitives():
    """The kernels as JAX's primitives, which take private names of JAX's; None where this version has others."""
    return optional("jax_primitive")


def _has_kernels(form, z, variables) -> bool:
    if _primitives() is None or any(x.dtype != "float32" for x in variables) or jax.config.jax_disable_jit:
        return False
    shardings = (getattr(x.aval, "sharding", None) for x in (z, *variables))
    if any(getattr(getattr(sharding, "mesh", None), "explicit_axes", ()) for sharding in shardings):
        return False  # JAX's own rules say how each result is sharded
    module = _primitives() if jax.default_backend() == "cpu" else _primitives().jax_cuda
    return module.kernels(form, tuple(x.shape for x in variables), z.dtype.name) is not None


@functools.lru_cache(maxsize=256)
def _checkpointed(formula, dtype):
    if (jet := optional("jax_jet")) is not None:
        jet.teach_checkpoint()
    return jax.jit(jax.checkpoint(plain(formula, dtype)))


@functools.lru_cache(maxsize=256)
def _chunked(formula, dtype):
    function = plain(formula, dtype)

    @jax.custom_vjp
    def forward(z, *parameters):
        return function(z, *parameters)

    def keep(z, *parameters):
        return function(z, *parameters), (z, parameters)

    forward.defvjp(keep, jax.jit(functools.partial(_loop, function)))
    return jax.jit(forward)


def _loop(function, kept, gradient):
    """Gradients by z and the parameters, chunk by chunk along the leading axis, then the rows that are left."""
    z, parameters = lax.optimization_barrier(kept)  # or XLA computes the parameters anew for each element
    shape, parameter_shape = canonical(z.shape, parameters)
    flat = [x.reshape(shape) for x in (z, gradient)]
    arguments = [p.reshape(parameter_shape) if p.ndim else p for p in parameters]

    def pull(z, gradient):
        by_z, *by_parameters = jax.vjp(function, z, *arguments)[1](gradient)
        return by_z, by_parameters

    rows = flat[0].shape[0]
    size = _rows_of_a_chunk(rows, math.prod(flat[0].shape[1:]))
    whole = rows // size * size
    chunks = [x[:whole].reshape(-1, size, *x.shape[1:]) for x in flat]
    by_z, by_parameters = lax.map(lambda pair: pull(*pair), tuple(chunks))
    by_z = by_z.reshape(whole, *flat[0].shape[1:])
    sums = [x.sum(axis=0) for x in by_parameters]
    if whole < rows:
        rest, more = pull(*(x[whole:] for x in flat))
        by_z = jax.numpy.concatenate([by_z, rest])
        sums = [a + b for a, b in zip(sums, more, strict=True)]
    return by_z.reshape(z.shape), *(x.reshape(p.shape) for x, p in zip(sums, parameters, strict=True))


def _rows_of_a_chunk(rows: int, width: int) -> int:
    """A divisor of `rows` near `CHUNK` elements, which leaves no rest to be joined; or else just that many."""
    wanted = max(1, CHUNK // width)
    near = [size for size in range(wanted, max(0, wanted // 4), -1) if rows % size == 0]
    return near[0] if near else min(wanted, rows)


def slope(function, z):
    return jax.grad(lambda z: function(z).sum())(z)


def tell(take, z):
    """As `common.tell`; a recurrent layer calls its activations inside `lax.scan`, where z has no values yet."""
    if isinstance(z, jax.core.Tracer):
        jax.debug.callback(lambda values: take(np.asarray(values)), z)
    else:
        take(np.asarray(z))


def wait():
    jax.effects_barrier()
