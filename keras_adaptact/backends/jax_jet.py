"""Taylor series (`jax.experimental.jet`) of what formulas are run by, where JAX itself knows none."""

import inspect

import jax

from keras_adaptact.backends import jax_private

jet, function_of = jax_private.series()

# Rules are given coefficients as they are; what users call takes derivatives, in newer versions of JAX.
_AS_GIVEN = {"factorial_scaled": False} if "factorial_scaled" in inspect.signature(jet.jet).parameters else {}


def teach(primitive, function) -> None:
    """Has a primitive expanded as a function is: `function(*inputs, **options)`, which gives a list or tuple."""

    def expand(primals, series, **options):
        return jet.jet(lambda *inputs: tuple(function(*inputs, **options)), primals, series, **_AS_GIVEN)

    jet.jet_rules.setdefault(primitive, expand)


def teach_checkpoint() -> None:
    (traced,) = jax.make_jaxpr(jax.checkpoint(lambda x: x + 1))(1.0).eqns
    teach(traced.primitive, lambda *inputs, jaxpr, **_: function_of(jaxpr)(*inputs))
