"""A formula as a graph of numbers, and the graph of its gradient: what `native` writes kernels from.

A formula is called once with Keras's symbolic tensors, which write down the operations. Each of them that is known
here becomes nodes; a formula with any other has no graph, and runs as the backends run it.
"""

import functools
import threading
from collections.abc import Callable

import keras
import numpy as np

from keras_adaptact.keras_private import call_of


class Unknown(Exception):
    """An operation without a place in a graph; says which."""


class Node:
    """One number of a graph. `wide`: one for each element of z; else one for the whole tensor."""

    def __init__(self, graph: "Graph", op: str, inputs: tuple["Node", ...], value, wide: bool):
        self.graph, self.op, self.inputs, self.value, self.wide = graph, op, inputs, value, wide

    def __add__(self, other):
        return self.graph.node("add", self, other)

    def __radd__(self, other):
        return self.graph.node("add", other, self)

    def __sub__(self, other):
        return self.graph.node("subtract", self, other)

    def __rsub__(self, other):
        return self.graph.node("subtract", other, self)

    def __mul__(self, other):
        return self.graph.node("multiply", self, other)

    def __rmul__(self, other):
        return self.graph.node("multiply", other, self)

    def __truediv__(self, other):
        return self.graph.node("divide", self, other)

    def __neg__(self):
        return self.graph.node("negative", self)


class Graph:
    """Nodes, of which there are no two alike."""

    def __init__(self):
        self._nodes: dict[tuple, Node] = {}

    def node(self, op: str, *inputs, value=None, wide=False) -> Node:
        nodes = tuple(x if isinstance(x, Node) else self.node("constant", value=float(x)) for x in inputs)
        key = op, tuple(map(id, nodes)), value
        if key not in self._nodes:
            wide = wide or (op != "sum" and any(node.wide for node in nodes))
            self._nodes[key] = Node(self, op, nodes, value, wide)
        return self._nodes[key]


def _elementwise(op: str, inputs: int) -> Callable:
    """The function that makes a node, on arrays of nodes."""

    def make(*values):
        graph = next((x.graph for x in values if isinstance(x, Node)), None)
        if graph is None:
            raise Unknown(f"{op} of constants")
        return graph.node(op, *values)

    return np.frompyfunc(make, inputs, 1)


_exp, _sigmoid = _elementwise("exp", 1), _elementwise("sigmoid", 1)
_select, _is_at_most = _elementwise("select", 3), _elementwise("less_equal", 2)


def _relu(z):
    return _select(_is_at_most(z, 0), 0, z)


# By the name of Keras's operation: what it makes of arrays of nodes.
ELEMENTWISE = {
    "Add": _elementwise("add", 2),
    "Subtract": _elementwise("subtract", 2),
    "Multiply": _elementwise("multiply", 2),
    "TrueDivide": _elementwise("divide", 2),
    "Divide": _elementwise("divide", 2),
    "Negative": _elementwise("negative", 1),
    "Greater": _elementwise("greater", 2),
    "GreaterEqual": _elementwise("greater_equal", 2),
    "Less": _elementwise("less", 2),
    "LessEqual": _is_at_most,
    "Equal": _elementwise("equal", 2),
    "NotEqual": _elementwise("not_equal", 2),
    "LogicalOr": _elementwise("or", 2),
    "LogicalAnd": _elementwise("and", 2),
    "Where": _select,
    "Exp": _exp,
    "Expm1": _elementwise("expm1", 1),
    "Tanh": _elementwise("tanh", 1),
    "Sigmoid": _sigmoid,
    "Silu": lambda z: z * _sigmoid(z),
    "Relu": _relu,
    "ReLU": _relu,
    "ZerosLike": lambda z: np.zeros(np.shape(z), object),
}


# Those that make a condition of numbers or of conditions; arithmetic on conditions has no place here.
CONDITIONS = {"Greater", "GreaterEqual", "Less", "LessEqual", "Equal", "NotEqual", "LogicalOr", "LogicalAnd"}


def _sum(operation, x):
    axis = tuple(operation.axis) if isinstance(operation.axis, list) else operation.axis
    return x.sum(axis=axis, keepdims=operation.keepdims)


def _softmax(operation, x):
    """Of a few numbers, the largest subtracted as every library does."""
    largest = functools.reduce(lambda a, b: _select(_is_at_most(a, b), b, a), np.moveaxis(x, operation.axis, 0))
    powers = _exp(x - np.expand_dims(np.asarray(largest, object), operation.axis))
    return powers / powers.sum(axis=operation.axis, keepdims=True)


WITH_OPTIONS: dict[str, Callable] = {
    "Sum": _sum,
    "Softmax": _softmax,
    "Unstack": lambda operation, x: tuple(np.moveaxis(x, operation.axis, 0)),
}


_thread = threading.local()


def is_tracing() -> bool:
    """Whether this thread traces a formula, which may call other activations."""
    return getattr(_thread, "is_tracing", False)


def trace(function: Callable, sizes: tuple[int, ...]) -> tuple[Node, Node, list[list[Node]]]:
    """The graph of ``y = function(z, *variables)``, with a scalar z and variables of shape (size,): y, z, variables.

    Raises:
        Unknown: for an operation that has no place in a graph.
    """
    traced: list = []

    def call():
        _thread.is_tracing = True
        try:
            z = keras.KerasTensor((), "float32")
            variables = [keras.KerasTensor((size,), "float32") for size in sizes]
            traced.append((z, variables, function(z, *variables)))
        except Exception as error:  # whatever a formula of a user's does with a tensor that has no values
            traced.append(error)

    # Keras counts operations for their names, and has scopes that change them and what they do, all by thread and with
    # no public way to put them back: traced here, a formula would give the user's next layers other names.
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    if isinstance(traced[0], Exception):
        raise Unknown(str(traced[0])) from traced[0]
    z, variables, y = traced[0]

    graph = Graph()
    start = graph.node("z", wide=True)
    numbers = [[graph.node("variable", value=(i, j)) for j in range(size)] for i, size in enumerate(sizes)]
    known = {id(z): np.array(start, object)}
    known |= {id(variable): np.array(row, object) for variable, row in zip(variables, numbers, strict=True)}
    found = _value(y, known).item()
    if not isinstance(found, Node) or not found.wide:
        raise Unknown("a value without z")
    return found, start, numbers


def _value(x, known: dict[int, np.ndarray]):
    """What an argument of an operation is in nodes."""
    if isinstance(x, int | float) and not isinstance(x, bool):  # `z == 1` of a symbolic tensor is False
        return x
    if not isinstance(x, keras.KerasTensor):
        raise Unknown(f"a value of its own, {type(x).__name__}")  # which may change, or want a gradient
    if id(x) not in known:
        try:
            operation, call = call_of(x)
        except LookupError as error:
            raise Unknown(str(error)) from error
        name = type(operation).__name__
        if any(value is not None for value in call.arguments.kwargs.values()):
            raise Unknown(f"{name} with options")
        if isinstance(operation, keras.layers.Layer):
            raise Unknown(f"the layer {name}")
        if name == "ReLU" and (operation.negative_slope, operation.max_value, operation.threshold) != (0, None, 0):
            raise Unknown("ReLU with options")
        of_numbers = any(keras.backend.standardize_dtype(t.dtype) != "bool" for t in call.input_tensors)
        if name in ("LogicalOr", "LogicalAnd") and of_numbers:
            raise Unknown(f"{name} of numbers")
        dtypes = {keras.backend.standardize_dtype(t.dtype) for t in call.output_tensors}
        if dtypes != {"bool" if name in CONDITIONS else "float32"}:
            raise Unknown(f"{name} of {', '.join(sorted(dtypes))}")
        inputs = [_value(argument, known) for argument in call.arguments.args]
        if name in ELEMENTWISE:
            result = ELEMENTWISE[name](*inputs)
        elif name in WITH_OPTIONS and not any(node.wide for x in inputs for node in np.ravel(x)):
            result = WITH_OPTIONS[name](operation, *inputs)
        else:
            raise Unknown(name)  # or one that is not elementwise, of z
        results = result if isinstance(result, tuple) else (result,)
        known |= {id(t): np.asarray(r, object) for t, r in zip(call.output_tensors, results, strict=True)}
    return known[id(x)]


def _slopes(node: Node, gradient: Node) -> tuple:
    """The gradient by each input of a node, from the one by the node; None for none."""
    inputs, select = node.inputs, functools.partial(node.graph.node, "select")
    match node.op:
        case "add":
            return gradient, gradient
        case "subtract":
            return gradient, -gradient
        case "multiply":
            return gradient * inputs[1], gradient * inputs[0]
        case "divide":
            return gradient / inputs[1], -(gradient * node) / inputs[1]
        case "negative":
            return (-gradient,)
        case "exp":
            return (gradient * node,)
        case "expm1":
            return (gradient * (node + 1),)
        case "tanh":
            return (gradient * (1 - node * node),)
        case "sigmoid":
            return (gradient * (node * (1 - node)),)
        case "select":
            return None, select(inputs[0], gradient, 0), select(inputs[0], 0, gradient)
    return (None,) * len(inputs)


def gradients(y: Node, z: Node, variables: list[list[Node]]) -> tuple[Node, Node, list[list[Node]]]:
    """The graphs of the gradients: of y's loss by y, which is given; by z; and by each number of the variables.

    The part of z is gone through first. What it leaves at a number of the whole tensor is summed over z there, so that
    only sums of different terms are taken, and what remains is arithmetic of a few numbers.
    """
    graph, order = y.graph, inputs_first([y])
    given = graph.node("gradient", wide=True)
    found = {id(y): given}
    for wide in (True, False):
        for node in reversed(order):
            if node.wide != wide or id(node) not in found:
                continue
            for source, slope in zip(node.inputs, _slopes(node, found[id(node)]), strict=True):
                if slope is not None and source.op != "constant":
                    found[id(source)] = found[id(source)] + slope if id(source) in found else slope
        if wide:
            found |= {
                id(node): graph.node("sum", found[id(node)]) for node in order if not node.wide and id(node) in found
            }
    zero = graph.node("constant", value=0.0)
    return given, found.get(id(z), zero), [[found.get(id(x), zero) for x in row] for row in variables]


def inputs_first(roots: list[Node], stop: Callable[[Node], bool] = lambda node: False) -> list[Node]:
    """The nodes that `roots` are made of, each after its inputs; those of a node that `stop` takes are left out."""
    order: list[Node] = []
    seen = set()

    def visit(node):
        if id(node) not in seen:
            seen.add(id(node))
            for source in () if stop(node) else node.inputs:
                visit(source)
            order.append(node)

    for root in roots:
        visit(root)
    return order
