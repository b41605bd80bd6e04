"""The names of JAX's that this library needs and JAX may change: how a primitive gets its rules is said nowhere else.

Each is imported by what needs it: without the first kernels are left out, without the second Taylor series.
"""


def primitives():
    """What a primitive is made of, and where its rules are kept: of derivatives, of batches, of what is compiled."""
    from jax.extend.core import Primitive
    from jax.interpreters import ad, batching, mlir

    return Primitive, ad, batching, mlir


def series():
    """Where the rules of Taylor series are kept, and what makes a function of a traced one."""
    from jax.experimental import jet
    from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

    return jet, lambda jaxpr: jaxpr_as_fun(ClosedJaxpr(jaxpr, ()))
