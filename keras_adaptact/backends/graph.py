"""A formula as a graph of values, and the graph of its gradient: what `native` writes kernels from."""

from collections.abc import Callable, Sequence

import numpy as np

from keras_adaptact.backends.operations import OPERATIONS


class Unknown(Exception):
    """An operation without a place in a graph; says which."""


class Node:
    """One value of a graph. `wide`: one for each element of z; else one for each set of parameters."""

    def __init__(self, graph: "Graph", op: str, inputs: tuple["Node", ...], value, wide: bool):
        self.graph, self.op, self.inputs, self.value, self.wide = graph, op, inputs, value, wide

    def __add__(self, other):
        return self._of("add", self, other)

    def __radd__(self, other):
        return self._of("add", other, self)

    def __sub__(self, other):
        return self._of("subtract", self, other)

    def __rsub__(self, other):
        return self._of("subtract", other, self)

    def __mul__(self, other):
        return self._of("multiply", self, other)

    def __rmul__(self, other):
        return self._of("multiply", other, self)

    def __truediv__(self, other):
        return self._of("divide", self, other)

    def __rtruediv__(self, other):
        return self._of("divide", other, self)

    def __neg__(self):
        return self.graph.node("negative", self)

    def _of(self, op: str, *inputs):
        if any(isinstance(x, np.ndarray) for x in inputs):
            return NotImplemented  # NumPy goes over arrays of nodes
        return self.graph.node(op, *inputs)

    def apply(self, op: str, *others) -> "Node":
        """``op(self, *others)``"""
        return self.graph.node(op, self, *others)


class Graph:
    """Nodes, of which there are no two alike."""

    def __init__(self):
        self._nodes: dict[tuple, Node] = {}

    def node(self, op: str, *inputs, value=None, wide=False) -> Node:
        nodes = tuple(x if isinstance(x, Node) else self.node("constant", value=float(x)) for x in inputs)
        key = op, tuple(map(id, nodes)), repr(value)
        if key not in self._nodes:
            wide = wide or (op != "sum" and any(node.wide for node in nodes))
            self._nodes[key] = Node(self, op, nodes, value, wide)
        return self._nodes[key]


def gradients(y: Node, z: Node, variables: list[list[Node]]) -> tuple[Node, Node, list[list[Node]]]:
    """The graphs of the gradients: of y's loss by y, which is given; by z; and by each parameter of the variables.

    The part of z is gone through first. What it leaves at a value of the parameters alone is summed over z there, so
    that only sums of different terms are taken, and what remains is arithmetic of a few values.
    """
    graph, order = y.graph, inputs_first([y])
    given = graph.node("gradient", wide=True)
    found = {id(y): given}
    for wide in (True, False):
        for node in reversed(order):
            if node.wide != wide or id(node) not in found or not node.inputs:
                continue
            slopes = OPERATIONS[node.op].slopes(found[id(node)], node, *node.inputs)
            for source, slope in zip(node.inputs, slopes, strict=True):
                if slope is not None and source.op != "constant":
                    found[id(source)] = found[id(source)] + slope if id(source) in found else slope
        if wide:
            found |= {
                id(node): graph.node("sum", found[id(node)]) for node in order if not node.wide and id(node) in found
            }
    zero = graph.node("constant", value=0.0)
    return given, found.get(id(z), zero), [[found.get(id(x), zero) for x in row] for row in variables]


def inputs_first(roots: Sequence[Node], stop: Callable[[Node], bool] = lambda node: False) -> list[Node]:
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
