"""Who calls whom in a graph of layers, over all models nested in it; and on which axis channels are."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import keras

from keras_adaptact.base import TrainableActivation, channel_axis
from keras_adaptact.graphs import is_activation, is_graph, walk
from keras_adaptact.keras_private import graph_of, nodes_of

_AT_THE_END = ("Dense", "Embedding", "SimpleRNN", "LSTM", "GRU", "Bidirectional", "MultiHeadAttention")
_SAME_AXIS = (  # their output has its channels where their inputs have them
    *("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate", "Divide", "Identity"),
    *("Dropout", "AlphaDropout", "GaussianDropout", "GaussianNoise", "SpatialDropout1D", "ActivityRegularization"),
    *("LayerNormalization", "RMSNormalization", "UnitNormalization", "Rescaling", "Cast"),
)


_WHOLE = ("Add", "Subtract", "Multiply", "Divide", "Maximum", "Minimum", "Matmul", "Concatenate", "Convolution")


class Calls:
    """Every call of every layer and operation in a model: each is a node of Keras's, in one of the graphs, if any.

    Attributes:
        nodes: of all graphs, from the inputs to the outputs.
        graphs: the model and those nested in it.
    """

    def __init__(self, model: keras.layers.Layer):
        self.nodes: list[Any] = []
        self.graphs: list[keras.Model] = []
        self._calls: dict[int, list[Any]] = {}
        self._users: dict[int, list[Any]] = {}
        self._makers: dict[int, Any] = {}
        self._leaving: set[int] = set()
        if is_graph(model):
            self._add(model)
        self._owners: Counter[int] = Counter()
        for _, layer, _ in walk(model) if self.graphs else ():
            self._owners.update({id(v) for v in getattr(layer, "variables", ())})
        for node in self.nodes:  # of calls that take a variable itself, as tied weights are
            taken = keras.tree.flatten((node.arguments.args, node.arguments.kwargs))
            self._owners.update(id(value) for value in taken if isinstance(value, keras.Variable))

    def _add(self, model) -> None:
        if any(model is graph for graph in self.graphs):
            return
        self.graphs.append(model)
        if (graph := graph_of(model)) is None:
            return  # not built yet: it has layers, and no graph
        self._leaving |= {id(tensor) for tensor in graph.outputs}
        for node in nodes_of(graph):
            self.nodes.append(node)
            self._calls.setdefault(id(node.operation), []).append(node)
            for tensor in node.output_tensors:
                self._makers[id(tensor)] = node.operation
            for tensor in node.input_tensors:
                self._users.setdefault(id(tensor), []).append(node)
            if is_graph(node.operation):
                self._add(node.operation)

    def of(self, layer) -> list[Any]:
        """The calls of a layer or operation."""
        return self._calls.get(id(layer), [])

    def outputs(self, layer) -> list[Any]:
        """What its calls give."""
        return [tensor for node in self.of(layer) for tensor in node.output_tensors]

    def users(self, layer) -> list[Any]:
        """The calls that take what it gives, each once."""
        found = [node for tensor in self.outputs(layer) for node in self._users.get(id(tensor), [])]
        return list({id(node): node for node in found}.values())

    def leaves(self, layer) -> bool:
        """Whether what it gives is an output of its graph."""
        return any(id(tensor) in self._leaving for tensor in self.outputs(layer))

    def makers(self, layer) -> list[Any]:
        """The layers whose outputs its calls take, each once."""
        found = [self._makers.get(id(tensor)) for node in self.of(layer) for tensor in node.input_tensors]
        return list({id(maker): maker for maker in found if maker is not None}.values())

    def takes_whole(self, layer) -> bool:
        """Whether what it takes is known to be no part of another tensor: torch computes such by other instructions."""
        return all(self._gives_whole(maker) for maker in self.makers(layer))

    def _gives_whole(self, maker) -> bool:
        if isinstance(maker, keras.layers.InputLayer):
            return maker in graph_of(self.graphs[0]).operations  # inputs of nested models are given what may be a part
        kind: Any = type(maker)
        if not isinstance(maker, keras.layers.Layer):
            return kind.__name__ in _WHOLE or is_activation(maker)
        is_keras_own = kind.__module__.startswith(("keras.", "keras_adaptact.")) and not is_graph(maker)
        return is_keras_own and kind is not keras.layers.Lambda and not kind.__name__.startswith("Cropping")

    def is_shared(self, layer) -> bool:
        """Whether anything else uses its variables, or it is called more than once."""
        return len(self.of(layer)) != 1 or any(self._owners[id(v)] > 1 for v in layer.variables)


def takes_one_tensor(node) -> bool:
    """Whether a call has one tensor, and no argument beside it that changes what is computed in inference."""
    arguments, options = node.arguments.args, node.arguments.kwargs
    if len(arguments) != 1 or not isinstance(arguments[0], keras.KerasTensor):
        return False
    return all(value is None or (name == "training" and value is False) for name, value in options.items())


class Layout:
    """On which axis the channels of each tensor are, as far as layers say it: by `data_format`, `axis`, or rank."""

    def __init__(self, calls: Calls):
        self._axes: dict[int, int | None] = {}
        for _ in range(2):  # what only a later layer says goes forward the second time
            for node in calls.nodes:
                self._forward(node)
            for node in reversed(calls.nodes):
                self._backward(node)

    def axis(self, tensor) -> int | None:
        """Counted from the front; None where no layer says it."""
        known = self._axes.get(id(tensor))
        return 1 if known is None and len(tensor.shape) == 2 else known

    def _forward(self, node) -> None:
        if is_graph(node.operation):
            self._join(_given(node), node.operation.inputs)
            self._join(node.operation.outputs, node.output_tensors)
            return
        for tensor in node.output_tensors:
            said = _said(node.operation, len(tensor.shape))
            self._know(tensor, self._common(node, tensor, node.input_tensors) if said is None else said)

    def _backward(self, node) -> None:
        if is_graph(node.operation):
            self._join(node.operation.inputs, _given(node))
            self._join(node.output_tensors, node.operation.outputs)
            return
        for tensor in node.input_tensors:
            said = _said(node.operation, len(tensor.shape))
            self._know(tensor, self._common(node, tensor, node.output_tensors) if said is None else said)

    def _common(self, node, tensor, others) -> int | None:
        """The axis of the tensors on the other side of a call, where it doesn't change it and they agree."""
        if type(node.operation).__name__ not in _SAME_AXIS and not is_activation(node.operation):
            return None
        found = {self._axes.get(id(other)) for other in others if len(other.shape) == len(tensor.shape)} - {None}
        return found.pop() if len(found) == 1 else None

    def _join(self, sources, targets) -> None:
        for source, target in zip(sources, targets, strict=True):
            if source is not None and target is not None:
                self._know(target, self._axes.get(id(source)))

    def _know(self, tensor, axis: int | None) -> None:
        if self._axes.get(id(tensor)) is None:
            self._axes[id(tensor)] = axis


def _given(node) -> list[Any]:
    """What a call gives a model for each of its inputs, None for one left out; without masks, which Keras adds."""
    arguments = node.arguments
    tensors = keras.tree.flatten(arguments.args[0] if arguments.args else arguments.kwargs.get("inputs"))
    return tensors if len(tensors) == len(node.operation.inputs) else [None] * len(node.operation.inputs)


def _said(layer, rank: int) -> int | None:
    """What a layer says of the channels of a tensor that goes into it or comes out of it."""
    data_format: Any = getattr(layer, "data_format", None)
    if rank < 2:
        return None
    if isinstance(layer, TrainableActivation) or hasattr(layer, "granularity"):
        return channel_axis(data_format, rank) if layer.granularity == "channel" else None
    if isinstance(layer, keras.layers.BatchNormalization | keras.layers.GroupNormalization):
        return layer.axis % rank
    if rank == 2:
        return 1
    if isinstance(data_format, str):
        steps = rank == getattr(getattr(layer, "cell", None), "rank", 0) + 3  # of a recurrent convolution
        return 1 + steps if data_format == "channels_first" else rank - 1
    return rank - 1 if type(layer).__name__ in _AT_THE_END else None


def plain_calls(calls: Calls, layer) -> Iterator[bool]:
    """For each call of a layer, whether it takes one tensor alone."""
    return map(takes_one_tensor, calls.of(layer))
