"""On TensorFlow: kernels as operations of a plain graph, or recomputation, on CPU in programs that XLA compiles.

Without one of ours a plain graph runs a kernel for each operation, each with a temporary of the tensor's size. A
function with `jit_compile=True` inside it is one program, whose backward goes over cache-sized chunks as on JAX. XLA's
sums over everything are slow on CPU, so that scalars are spread over lanes and summed along the leading axis.

Such a program is compiled for each shape (under a second), so that small tensors go without. What is called outside a
graph goes without either, and gives to the bit what TensorFlow's own operations give. So does a graph that no tape
records: it may be saved, or converted for a runtime that has no such operation. What a tape recorded holds our
operations where it is saved, too, in training or not.
"""

import functools
import math

import tensorflow as tf

from keras_adaptact.backends import native
from keras_adaptact.backends.common import canonical, plain, portably
from keras_adaptact.backends.tensorflow_private import has_tangent, is_for_xla, is_recorded

CHUNK = 2**17  # elements
LANES = 64
LARGE = 2**18  # elements from which a compiled program pays
NATIVE = 0  # elements from which the kernels pay
NAMES = tuple(f'-D{way.upper()}="KerasAdaptact>{way.capitalize()}@NAME@"' for way in ("forward", "backward"))
BATCH = 64  # what an unknown batch size counts as


def run(form, z, variables, training):
    variables = [tf.convert_to_tensor(variable) for variable in variables]
    inputs = [z, *variables]
    if has_tangent(inputs) or not native.is_pure(form, variables):
        return form(*inputs)
    recorded_on_cpu = not tf.executing_eagerly() and is_recorded(inputs) and not tf.config.list_physical_devices("GPU")
    size = 0 if z.shape.rank is None else math.prod(BATCH if n is None else n for n in z.shape)
    if recorded_on_cpu and size >= NATIVE and _may_have_kernels(variables):
        operation = _operation(form, tuple(tuple(x.shape) for x in variables), z.dtype.name)
        if operation is not None:
            return operation(*inputs)
    function = (_compiled if recorded_on_cpu and size >= LARGE else _recomputed)(form.formula, form.dtype)
    arguments = z, *form.parameters(*variables)
    if tf.executing_eagerly() or is_recorded(inputs):
        return function(*arguments)
    return portably(function, *arguments)


def slope(function, z):
    with tf.GradientTape() as tape:
        tape.watch(z)
        y = function(z)
    return tape.gradient(y, z)


def _may_have_kernels(variables) -> bool:
    return all(x.dtype == tf.float32 for x in variables) and not is_for_xla()


@functools.lru_cache(maxsize=256)
def _operation(form, shapes, dtype):
    """The kernels of a form as an operation with a gradient, or None where there are none."""
    flags = (*tf.sysconfig.get_compile_flags()[:1], *tf.sysconfig.get_link_flags(), "-pthread", *NAMES)
    built = native.build(form, shapes, dtype, "inside" if form.rows.behind else "last", flags, tf.load_op_library)
    if built is None:
        return None
    library, name = built
    run_forward, run_backward = (getattr(library, f"keras_adaptact_{way}{name}") for way in ("forward", "backward"))

    def first_order(operation, gradient):
        z, *variables = operation.inputs
        return run_backward(z, gradient, *variables)

    def second_order(operation, *cotangents):
        z, gradient, *variables = operation.inputs
        by_gradient, by_z, *by_variables = _second(form, gradient, (z, *variables), cotangents)
        return by_z, by_gradient, *by_variables

    with native.lock:  # or another thread takes the operation for one that has them
        if name not in _differentiable:
            tf.RegisterGradient(f"KerasAdaptact>Forward{name}")(first_order)
            tf.RegisterGradient(f"KerasAdaptact>Backward{name}")(second_order)
            _differentiable.add(name)
    return run_forward


_differentiable: set[str] = set()  # the operations with a gradient, which one is registered for once


def _second(function, gradient, inputs, cotangents):
    """Gradients of the gradients, by all that they are computed from."""
    return _differentiate(lambda gradient, *inputs: _pull(function, inputs, gradient), (gradient, *inputs), cotangents)


@functools.lru_cache(maxsize=256)
def _recomputed(formula, dtype):
    function = plain(formula, dtype)

    @tf.custom_gradient
    def forward(*inputs):
        # What runs under `stop_gradient` no tape writes down, and so nothing of it is kept.
        return function(*map(tf.stop_gradient, inputs)), lambda gradient: _pull(function, inputs, gradient)

    return forward


def _compiled(formula, dtype):
    def with_flat_inputs(z, *parameters):
        shape, parameter_shape = canonical(z.shape if None not in z.shape else tf.unstack(tf.shape(z)), parameters)
        if parameter_shape:
            parameters = tuple(tf.reshape(p, parameter_shape) for p in parameters)
        program = _programs(formula, dtype, len(shape), parameter_shape)
        return tf.reshape(program(tf.reshape(z, shape), *parameters), tf.shape(z))

    return with_flat_inputs


@functools.lru_cache(maxsize=256)
def _programs(formula, dtype, rank, parameter_shape):
    """The compiled formula with its compiled gradient, for inputs of these shapes."""
    function = plain(formula, dtype)
    run_forward = tf.function(function, jit_compile=True, reduce_retracing=True)
    run_backward = tf.function(functools.partial(_loop, function), jit_compile=True, reduce_retracing=True)

    @tf.custom_gradient
    def backward(gradient, *inputs):
        found = run_backward(*map(tf.stop_gradient, (gradient, *inputs)))

        def second(*cotangents):  # a loop inside a compiled program has no gradient outside it
            return _second(function, gradient, inputs, cotangents)

        return found, second

    @tf.custom_gradient
    def forward(*inputs):
        return run_forward(*map(tf.stop_gradient, inputs)), lambda gradient: backward(gradient, *inputs)

    return forward


def _pull(function, inputs, gradient):
    """Gradients by z and the parameters."""
    return _differentiate(function, inputs, gradient)


def _differentiate(function, inputs, gradients):
    """By all inputs, by TensorFlow's own differentiation."""
    if tf.executing_eagerly():
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            y = function(*inputs)
        return tape.gradient(y, inputs, gradients, unconnected_gradients="zero")
    at = [tf.identity(x) for x in inputs]  # of this graph, and not of one around it
    # No tape, which records nothing while TensorFlow differentiates a function forward.
    return tf.gradients(function(*at), at, gradients, unconnected_gradients="zero")


def _loop(function, gradient, z, *parameters):
    """The same, chunk by chunk along the leading axis, and what is left over at once."""
    scalars = not parameters or not parameters[0].shape.rank
    row = [LANES] if scalars else z.shape[1:].as_list()
    spread = [tf.fill(row, p) for p in parameters] if scalars else parameters
    width = math.prod(row) if None not in row else tf.reduce_prod(tf.shape(z)[1:])
    rows = tf.size(z) // width
    chunks = tf.maximum(1, rows * width // CHUNK)
    size = rows // chunks
    whole = chunks * size * width
    row = row if None not in row else tf.unstack(tf.shape(z)[1:])

    flat = [tf.reshape(x, [-1]) for x in (z, gradient)]
    parts = tuple(tf.reshape(x[:whole], [chunks, size, *row]) for x in flat)

    def pull(pair):
        by_z, *by_parameters = _pull(function, (pair[0], *spread), pair[1])
        return by_z, tuple(by_parameters)

    of_chunk = tf.TensorSpec(None, z.dtype), tuple(tf.TensorSpec(p.shape, p.dtype) for p in spread)
    by_z, by_parameters = tf.map_fn(pull, parts, fn_output_signature=of_chunk)
    sums = [tf.reduce_sum(x) if scalars else tf.reduce_sum(x, axis=0) for x in by_parameters]

    left = [x[whole:] if scalars else tf.reshape(x[whole:], [-1, *row]) for x in flat]
    rest, *more = _pull(function, (left[0], *parameters), left[1])
    by_z = tf.concat([tf.reshape(by_z, [-1]), tf.reshape(rest, [-1])], 0)
    return tf.reshape(by_z, tf.shape(z)), *(a + b for a, b in zip(sums, more, strict=True))
