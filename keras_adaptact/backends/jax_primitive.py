"""A form as primitives of JAX: compiled kernels (`native`, and `jax_cuda`), elsewhere the formula as it stands.

Three of them, each with all of JAX's rules: the value, its tangent, which is linear, and the gradients, which are what
the tangent's transpose is. So z alone is kept, and every transformation works: those that no rule here is written for
(batches, derivatives of the gradients, Taylor series) use the formula.
"""

import functools

import jax

from keras_adaptact.backends import jax_cuda, jax_private, native
from keras_adaptact.backends.common import optional

Primitive, ad, batching, mlir = jax_private.primitives()


def _value(z, *variables, form, training):
    return [form(z, *variables)]


def _tangent(*primals_and_tangents, form, training):
    half = len(primals_and_tangents) // 2
    return [jax.jvp(form, primals_and_tangents[:half], primals_and_tangents[half:])[1]]


def _gradients(z, gradient, *variables, form, training):
    return jax.vjp(form, z, *variables)[1](gradient)


def _primitive(name, function):
    primitive = Primitive(f"keras_adaptact_{name}")
    primitive.multiple_results = True
    primitive.def_impl(jax.jit(primitive.bind, static_argnames=("form", "training")))

    def shapes(*inputs, **options):
        like = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in inputs]
        return [jax.core.ShapedArray(x.shape, x.dtype) for x in jax.eval_shape(_of(function, options), *like)]

    def batch(inputs, axes, **options):
        if function is _value and all(axis is None for axis in axes[1:]):
            z, *variables = inputs
            return primitive.bind(jax.numpy.moveaxis(z, axes[0], 0), *variables, **options), [0]
        found = jax.vmap(_of(function, options), axes)(*inputs)
        return found, [0] * len(found)

    def derive(primals, tangents, **options):
        return jax.jvp(_of(function, options), primals, tuple(map(ad.instantiate_zeros, tangents)))

    primitive.def_abstract_eval(shapes)
    batching.primitive_batchers[primitive] = batch
    ad.primitive_jvps[primitive] = derive
    if (jet := optional("jax_jet")) is not None:
        jet.teach(primitive, function)
    mlir.register_lowering(primitive, mlir.lower_fun(function, multiple_results=True))
    return primitive


def _of(function, options):
    return lambda *inputs: tuple(function(*inputs, **options))


def _lower(call, is_value, as_it_stands, context, *inputs, form, training):
    """The call of a kernel; the formula for a file that other machines read, or where devices share the work.

    Outside of training the value is the formula's, too: to the bit what JAX gives, and no slower.
    """
    module = context.module_context
    devices = getattr(module.axis_context, "num_devices", 1)
    by_formula = is_value and not training
    if not (by_formula or module.lowering_parameters.for_export or devices not in (None, 1)):
        results = call(form, context, inputs)
        if results is not None:
            return results
    return as_it_stands(context, *inputs, form=form, training=training)


def _call(kernel, form, context, inputs):
    z, *_ = context.avals_in
    shapes = tuple(x.shape for x in context.avals_in[1 if kernel == "forward" else 2 :])
    name = kernels(form, shapes, z.dtype.name)
    return name and jax.ffi.ffi_lowering(f"keras_adaptact_{kernel}_{name}")(context, *inputs)


@functools.lru_cache(maxsize=512)
def kernels(form, shapes, dtype) -> str | None:
    """The name under which XLA knows the kernels of a form, or None where there are none."""
    built = native.build(form, shapes, dtype, "inside" if form.rows.behind else "last", (f"-I{jax.ffi.include_dir()}",))
    if built is None:
        return None
    library, name = built
    if name not in _registered:
        for kernel in ("forward", "backward"):
            function = jax.ffi.pycapsule(getattr(library, kernel))
            jax.ffi.register_ffi_target(f"keras_adaptact_{kernel}_{name}", function, platform="cpu")
        _registered[name] = library
    return name


_registered: dict = {}  # by name; two forms may be written alike


value = _primitive("value", _value)
tangent = _primitive("tangent", _tangent)
gradients = _primitive("gradients", _gradients)


def call_kernels(call, platform):
    """Has kernels called on a platform, as `call` does."""
    for primitive, function, kernel in ((value, _value, "forward"), (gradients, _gradients, "backward")):
        as_it_stands = mlir.lower_fun(function, multiple_results=True)
        rule = functools.partial(_lower, functools.partial(call, kernel), kernel == "forward", as_it_stands)
        mlir.register_lowering(primitive, rule, platform=platform)


call_kernels(_call, "cpu")
call_kernels(jax_cuda.call, "cuda")


def _jvp_of_value(primals, tangents, **options):
    tangents = map(ad.instantiate_zeros, tangents)
    return value.bind(*primals, **options), tangent.bind(*primals, *tangents, **options)


def _transpose_of_tangent(cotangents, *inputs, **options):
    half = len(inputs) // 2
    z, *variables = inputs[:half]
    (cotangent,) = cotangents
    if isinstance(cotangent, ad.Zero):
        found = [ad.Zero(x.aval) for x in inputs[half:]]
    else:
        found = gradients.bind(z, cotangent, *variables, **options)
    linear = [x if ad.is_undefined_primal(into) else None for x, into in zip(found, inputs[half:], strict=True)]
    return [None] * half + linear


ad.primitive_jvps[value] = _jvp_of_value
ad.primitive_transposes[tangent] = _transpose_of_tangent


def run(form, z, variables, training):
    return value.bind(z, *variables, form=form, training=bool(training))[0]
