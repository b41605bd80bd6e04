"""What Keras's operations are made of in a graph; one that isn't here makes a formula run as the backends run it.

At a kink a gradient is that of the side towards 0 on the flat part, as torch and TensorFlow have it.
"""

import functools
import math
from collections.abc import Callable
from numbers import Real

import numpy as np

from keras_adaptact.backends.graph import Node, Unknown
from keras_adaptact.backends.operations import OPERATIONS

SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805
EXPONENTS = (1, 2, 3, 4, 5, 6, 7, 8)


def _operation(op: str, inputs: int = 1) -> Callable:
    """The function that makes a node, of nodes or arrays of them."""

    def make(*values):
        graph = next((x.graph for x in values if isinstance(x, Node)), None)
        if graph is None:
            raise Unknown(f"{op} of constants")
        return graph.node(op, *values)

    return np.frompyfunc(make, inputs, 1)


_add, _subtract = _operation("add", 2), _operation("subtract", 2)
_multiply, _divide = _operation("multiply", 2), _operation("divide", 2)
_exp, _expm1, _sigmoid = map(_operation, ("exp", "expm1", "sigmoid"))
_softplus, _sqrt, _absolute = map(_operation, ("softplus", "sqrt", "absolute"))
_reciprocal = _operation("reciprocal")
_sin, _cos, _hold = map(_operation, ("sin", "cos", "stop_gradient"))
_select = _operation("select", 3)
_greater, _at_least = _operation("greater", 2), _operation("greater_equal", 2)
_less, _at_most = _operation("less", 2), _operation("less_equal", 2)
_equal, _differ = _operation("equal", 2), _operation("not_equal", 2)


def _tanh_of(z):
    """tanh; of a softplus, ``tanh(log(1 + e)) = n / (n + 2)`` with ``n = e (e + 2)``, which is 1 from e**20 on"""
    if not (isinstance(z, Node) and z.op == "softplus"):
        return _operation("tanh")(z)
    (x,) = z.inputs
    e = _exp(_select(_greater(x, 20), 20, x))
    n = e * (e + 2)
    return n * _reciprocal(n + 2)


def _erf_of(z):
    """erf; of a softplus it is one function, which takes one exponential"""
    if isinstance(z, Node) and z.op == "softplus":
        return z.inputs[0].apply("erf_softplus")
    return _operation("erf")(z)


_tanh, _erf = np.frompyfunc(_tanh_of, 1, 1), np.frompyfunc(_erf_of, 1, 1)


def _relu(z, slope=0.0, largest=None):
    below = slope * z if slope else 0
    y = _select(_at_most(z, 0), below, z)
    return y if largest is None else _select(_at_least(y, largest), largest, y)


def _elu(z, alpha=1.0, scale=1.0):
    below = alpha * _expm1(_select(_greater(z, 0), 0, z) / scale)
    return _select(_greater(z, 0), z, below)


def _gelu(z, approximate):
    if approximate:
        return 0.5 * z * (1 + _tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * (z * z * z))))
    return 0.5 * z * (1 + _erf(z * math.sqrt(0.5)))


def _hard_sigmoid(z):
    return _relu(z + 3, largest=6) / 6


def _soft_shrink(z, threshold):
    return _select(_greater(z, threshold), z - threshold, _select(_less(z, -threshold), z + threshold, 0 * _hold(z)))


def _sparse_plus(z):
    return _select(_at_most(z, -1), 0, _select(_at_least(z, 1), z, 0.25 * (z + 1) * (z + 1)))


def _sparse_sigmoid(z):
    return _select(_at_most(z, -1), 0, _select(_at_least(z, 1), 1, 0.5 * (z + 1)))


def _sign(z):
    held = _hold(z)
    return _select(_greater(held, 0), 1, _select(_less(held, 0), -1, held))


def _power(z, exponent):
    if not isinstance(exponent, int | float) or exponent not in (*EXPONENTS, 0.5, -0.5, -1, -2):
        raise Unknown(f"the power {exponent}")
    if abs(exponent) == 0.5:
        return _sqrt(z) if exponent > 0 else _reciprocal(_sqrt(z))
    product = functools.reduce(lambda a, b: a * b, [z] * int(abs(exponent)))
    return product if exponent > 0 else _reciprocal(product)


# By the name of Keras's operation: what it makes of nodes.
ELEMENTWISE: dict[str, Callable] = {
    "Add": _add,
    "Subtract": _subtract,
    "Multiply": _multiply,
    "TrueDivide": _divide,
    "Divide": _divide,
    "Negative": _operation("negative"),
    "Absolute": _absolute,
    "Abs": _absolute,
    "Sign": _sign,
    "Square": lambda z: z * z,
    "Power": _power,
    "Sqrt": _sqrt,
    "Rsqrt": lambda z: _reciprocal(_sqrt(z)),
    "Reciprocal": _reciprocal,
    "Maximum": _operation("maximum", 2),
    "Minimum": _operation("minimum", 2),
    "Exp": _exp,
    "Expm1": _expm1,
    "Log": _operation("log"),
    "Log1p": _operation("log1p"),
    "Sin": _sin,
    "Cos": _cos,
    "Tan": lambda z: _sin(z) / _cos(z),
    "Arctan": _operation("arctan"),
    "Erf": _erf,
    "Tanh": _tanh,
    "Sigmoid": _sigmoid,
    "Silu": lambda z: z * _sigmoid(z),
    "Relu": _relu,
    "Relu6": lambda z: _relu(z, largest=6),
    "Selu": lambda z: SELU_SCALE * _elu(z, SELU_ALPHA),
    "HardSigmoid": _hard_sigmoid,
    "HardSilu": lambda z: z * _hard_sigmoid(z),
    "HardTanh": lambda z: _select(_at_most(z, -1), -1, _select(_at_least(z, 1), 1, z)),
    "LogSigmoid": lambda z: -_softplus(-z),
    "Mish": lambda z: z * _tanh(_softplus(z)),
    "Softplus": _softplus,
    "Softsign": lambda z: z / (1 + _absolute(z)),
    "SparsePlus": _sparse_plus,
    "SparseSigmoid": _sparse_sigmoid,
    "TanhShrink": lambda z: z - _tanh(z),
    "Greater": _greater,
    "GreaterEqual": _at_least,
    "Less": _less,
    "LessEqual": _at_most,
    "Equal": _equal,
    "NotEqual": _differ,
    "Isnan": lambda z: _differ(z, z),
    "LogicalOr": _operation("or", 2),
    "LogicalAnd": _operation("and", 2),
    "LogicalNot": _operation("not"),
    "Where": _select,
    "StopGradient": _hold,
    "ZerosLike": lambda z: np.zeros(np.shape(z), object),
    "OnesLike": lambda z: np.ones(np.shape(z), object),
}

# Those that make a condition of values or of conditions; arithmetic on conditions has no place here.
CONDITIONS = {"Greater", "GreaterEqual", "Less", "LessEqual", "Equal", "NotEqual", "Isnan"}
OF_CONDITIONS = {"LogicalOr", "LogicalAnd", "LogicalNot"}


def _options(**known) -> Callable:
    """Refuses an operation whose options are other than numbers, or whose `known` ones have other values."""

    def check(operation, *names):
        for name, value in known.items():
            if getattr(operation, name) != value:
                raise Unknown(f"{type(operation).__name__} with {name}={getattr(operation, name)}")
        found = [getattr(operation, name) for name in names]
        if not all(isinstance(x, Real) for x in found):
            raise Unknown(f"{type(operation).__name__} with options that are no numbers")
        return found

    return check


_numbers = _options()


def _relu_with_options(operation, z):
    _options(threshold=0)(operation)
    (slope,) = _numbers(operation, "negative_slope")
    largest = None if operation.max_value is None else _numbers(operation, "max_value")[0]
    return _relu(z, slope, largest)


def _clip(operation, z):
    low, high = _numbers(operation, "x_min", "x_max")
    return _select(_less(z, low), low, _select(_greater(z, high), high, z))


def _celu(operation, z):
    (alpha,) = _numbers(operation, "alpha")
    return _elu(z, alpha, alpha)


def _hard_shrink(operation, z):
    (threshold,) = _numbers(operation, "threshold")
    return _select(_at_most(_absolute(z), threshold), 0, z)


def _threshold(operation, z):
    threshold, default = _numbers(operation, "threshold", "default_value")
    return _select(_at_most(z, threshold), default, z)


def _squareplus(operation, z):
    return _operation("squareplus", 2)(z, *_numbers(operation, "b"))


def _of_cast(x):
    return x.apply("select", 1, 0) if OPERATIONS[x.op].is_condition else x


# The same for operations with options.
WITH_OPTIONS: dict[str, Callable] = {
    "Cast": lambda operation, x: np.frompyfunc(_of_cast, 1, 1)(x),
    "ReLU": _relu_with_options,
    "LeakyRelu": lambda operation, z: _relu(z, *_numbers(operation, "negative_slope")),
    "Elu": lambda operation, z: _elu(z, *_numbers(operation, "alpha")),
    "Celu": _celu,
    "Gelu": lambda operation, z: _gelu(z, operation.approximate),
    "HardShrink": _hard_shrink,
    "SoftShrink": lambda operation, z: _soft_shrink(z, *_numbers(operation, "threshold")),
    "Squareplus": _squareplus,
    "Threshold": _threshold,
    "Clip": _clip,
}


def _sum(operation, x):
    axis = tuple(operation.axis) if isinstance(operation.axis, list) else operation.axis
    return x.sum(axis=axis, keepdims=operation.keepdims)


def _softmax(operation, x):
    """Of a few values, the largest subtracted as every library does."""
    largest = functools.reduce(lambda a, b: _select(_at_most(a, b), b, a), np.moveaxis(x, operation.axis, 0))
    powers = _exp(x - np.expand_dims(np.asarray(largest, object), operation.axis))
    return powers / powers.sum(axis=operation.axis, keepdims=True)


# Those that are not elementwise: of parameters alone, never of z.
OF_PARAMETERS: dict[str, Callable] = {
    "Sum": _sum,
    "Softmax": _softmax,
    "Unstack": lambda operation, x: tuple(np.moveaxis(x, operation.axis, 0)),
}
