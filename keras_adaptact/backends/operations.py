"""The operations of kernels, once: each with its expression in C and CUDA, which is the same, and its derivative."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


def _none(gradient, y, *inputs) -> tuple:
    return (None,) * len(inputs)


@dataclass(frozen=True)
class Operation:
    """An operation of values.

    Attributes:
        code: the expression, of the names of its inputs; functions in it are those of native_math.h. `exact` says
            whether it is computed in its slow and exact form.
        slopes: from the gradient by the result, the result and the inputs to the gradient by each input; None for an
            input that has none, as all are by default.
        is_condition: whether the result is 0 or 1, an `int`.
        is_far: of the names of the inputs, when the expression needs its exact form; by default never.
    """

    code: str
    slopes: Callable[..., tuple[Any, ...]] = _none
    is_condition: bool = False
    is_far: str | None = None


def _condition(code: str) -> Operation:
    return Operation(code, is_condition=True)


def _select(condition, yes, no):
    return condition.apply("select", yes, no)


def _at_most(sign: float) -> Callable:
    """Of a maximum (1) or minimum (-1): the larger input has the gradient, and both have half of a tie's."""

    def slopes(gradient, y, a, b):
        tie = _select(a.apply("equal", b), gradient * 0.5, 0)
        larger, smaller = a.apply("greater", b), a.apply("less", b)
        if sign < 0:
            larger, smaller = smaller, larger
        return _select(larger, gradient, tie), _select(smaller, gradient, tie)

    return slopes


def _of_quotient(gradient, y, a, b):
    by_a = gradient * b.apply("reciprocal")
    return by_a, -(by_a * y)


OPERATIONS: dict[str, Operation] = {
    "add": Operation("{} + {}", lambda g, y, a, b: (g, g)),
    "subtract": Operation("{} - {}", lambda g, y, a, b: (g, -g)),
    "multiply": Operation("{} * {}", lambda g, y, a, b: (g * b, g * a)),
    "divide": Operation("{} / {}", _of_quotient),
    "reciprocal": Operation("1.0f / {}", lambda g, y, x: (-(g * y * y),)),
    "negative": Operation("-{}", lambda g, y, x: (-g,)),
    "select": Operation("{} ? {} : {}", lambda g, y, c, a, b: (None, _select(c, g, 0), _select(c, 0, g))),
    "stop_gradient": Operation("{}"),
    "absolute": Operation(
        "fabsf({})", lambda g, y, x: (_select(x.apply("equal", 0), 0, _select(x.apply("greater", 0), g, -g)),)
    ),
    "maximum": Operation("maximum_of({}, {})", _at_most(1)),
    "minimum": Operation("minimum_of({}, {})", _at_most(-1)),
    "sqrt": Operation("sqrtf({})", lambda g, y, x: (g * 0.5 / y,)),
    "exp": Operation("exp_of({})", lambda g, y, x: (g * y,)),
    "expm1": Operation("expm1_of({})", lambda g, y, x: (g * (y + 1),)),
    "log": Operation("log_of({})", lambda g, y, x: (g / x,)),
    "log1p": Operation("log1p_of({})", lambda g, y, x: (g / (x + 1),)),
    "softplus": Operation("softplus_of({})", lambda g, y, x: (g * x.apply("softplus_slope"),)),
    "softplus_slope": Operation("softplus_slope_of({})"),
    "sigmoid": Operation("sigmoid_of({})", lambda g, y, x: (g * (y * (1 - y)),)),
    "tanh": Operation("tanh_of({})", lambda g, y, x: (g * (1 - y * y),)),
    "erf": Operation("erf_of({})", lambda g, y, x: (g * ((-(x * x)).apply("exp") * (2 / math.sqrt(math.pi))),)),
    "erf_softplus": Operation("erf_softplus_of({})", lambda g, y, x: (g * x.apply("erf_softplus_slope"),)),
    "erf_softplus_slope": Operation("erf_softplus_slope_of({})"),
    "squareplus": Operation("squareplus_of({}, {})", lambda g, y, x, b: (g * x.apply("squareplus_slope", b), None)),
    "squareplus_slope": Operation("squareplus_slope_of({}, {})"),
    "arctan": Operation("arctan_of({})", lambda g, y, x: (g * x.apply("arctan_slope"),)),
    "arctan_slope": Operation("arctan_slope_of({})"),
    "sin": Operation("sin_of({}, {exact})", lambda g, y, x: (g * x.apply("cos"),), is_far="is_far({})"),
    "cos": Operation("cos_of({}, {exact})", lambda g, y, x: (-(g * x.apply("sin")),), is_far="is_far({})"),
    "greater": _condition("{} > {}"),
    "greater_equal": _condition("{} >= {}"),
    "less": _condition("{} < {}"),
    "less_equal": _condition("{} <= {}"),
    "equal": _condition("{} == {}"),
    "not_equal": _condition("{} != {}"),
    "or": _condition("{} | {}"),
    "and": _condition("{} & {}"),
    "not": _condition("!{}"),
}
