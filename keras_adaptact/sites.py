"""The sites of a model: each place where an activation is computed, what is around it, and what can be done there."""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar

import keras

from keras_adaptact.calls import Calls, Layout, plain_calls
from keras_adaptact.graphs import function_at, inside, is_activation, is_graph, require_layer, walk
from keras_adaptact.keras_private import has_mask
from keras_adaptact.owncode import Hidden, hidden_in, is_own, own_attribute
from keras_adaptact.places import common

# Of keras.layers: in these alone `activation=` is the last step, applied to all of what they give.
_LAST_STEP = tuple(
    getattr(keras.layers, name)
    for name in (
        *("Dense", "EinsumDense", "Conv1D", "Conv2D", "Conv3D", "Conv1DTranspose", "Conv2DTranspose"),
        *("Conv3DTranspose", "DepthwiseConv1D", "DepthwiseConv2D", "SeparableConv1D", "SeparableConv2D"),
    )
)


@dataclass(frozen=True, kw_only=True)
class Site:
    """A place of a model where an activation is computed.

    Attributes:
        name: the path to the layer, `"backbone/conv1"`: names of layers in models, of attributes in other layers.
        kind: the class of the layer, or of the Keras operation.
        function: the name of the activation there.
        place: `"itself"`, where the layer is the activation; `"last step"`, where it is `activation=` of a layer that
            is known to apply it last; `"inside"`, where it is somewhere in a layer's own code.
        axis: on which axis of what the site gives its channels are, counted from the front; None where no layer of
            the model says it.
        shape: of what the site gives; None where that is unknown.
        before: the layer or layers whose output a layer that is the activation takes, by name.
        after: those that take what the site gives, by name.
        kept: why nothing can be done here, whatever is asked for; None where something can.
        layer: the layer or operation.
        attribute: which of its attributes the activation is; empty where the layer is the activation.
        outer: the layer whose own code has the site in it; None for a site in a graph of layers.
    """

    name: str
    kind: str
    function: str
    place: str
    axis: int | None = None
    shape: tuple[int | None, ...] | None = None
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    kept: str | None = None
    layer: Any = field(default=None, repr=False, compare=False)
    attribute: str = ""
    outer: Any = field(default=None, repr=False, compare=False)

    @property
    def nested(self) -> list[Any]:
        """The function or layer there; and what it calls where it is an `Activation` of a layer, and so on."""
        found = [getattr(self.layer, self.attribute) if self.attribute else self.layer]
        while type(found[-1]) is keras.layers.Activation and isinstance(found[-1].activation, keras.layers.Layer):
            found.append(found[-1].activation)
        return found

    @property
    def activation(self) -> Any:
        """The function or layer that is computed there."""
        return self.nested[-1]

    @property
    def channels(self) -> int | None:
        """How many channels it gives, where it is known."""
        return None if self.shape is None or self.axis is None else self.shape[self.axis]


S = TypeVar("S", bound=Site)


class Sites(list[S], Generic[S]):
    """A list of sites that prints as a table."""

    heads: ClassVar[tuple[str, ...]] = ("site", "kind", "function", "place", "axis", "kept")

    def row(self, site: S) -> tuple[str, ...]:
        """What stands under the heads."""
        axis = "" if site.axis is None else str(site.axis)
        return site.name, site.kind, site.function, site.place, axis, site.kept or ""

    def last(self) -> str:
        """The line below the table."""
        return f"{len(self)} sites"

    def __str__(self):
        rows = [self.heads, *map(self.row, self)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join([*("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows), self.last()])


class Survey:
    """What is known of a model or layer before anything is changed.

    Attributes:
        sites: every site of the model, of the models nested in it, and in the layers of both.
        calls: who calls whom; empty for what is no graph of layers.
        parents: the graph that each layer or operation is in, by its id.
        names: the paths of those, likewise.
        called_in: the names of layers whose own code has a layer of the graph, too, by the id of that.

    Raises:
        TypeError: for what is no model or layer.
    """

    def __init__(self, model: keras.layers.Layer):
        require_layer(model)
        self.calls = Calls(model)
        self.layout = Layout(self.calls)
        self.sites: Sites[Site] = Sites()
        self.called_in: dict[int, str] = {}
        self._kinds: set[type] = set()
        parts = list(walk(model)) if is_graph(model) else []
        self.parents = {id(layer): parent for _, layer, parent in parts}
        self.names = {id(layer): name for name, layer, _ in parts}
        for name, layer, _ in parts:
            self._add_own_code(name, layer)
            self._add_graph_site(name, layer)
        if not is_graph(model):
            self._add_own_code("", model)
            self._add_attribute(model.name, model)

    def _add_graph_site(self, name, layer) -> None:
        if is_own(layer) and not is_activation(layer):  # its constructor may hand `activation` on, too
            self._add_attribute(name, layer)
        elif (own := function_at(layer, "activation")) is not None:
            self.sites.append(_seen(name, layer, own, self))
        function = function_at(layer, "recurrent_activation")
        if function is not None and not isinstance(function, keras.layers.Layer):  # which is found in the layer
            gate = f"{name}/recurrent_activation"
            self.sites.append(_kept(gate, layer, function, "a gate of a recurrent layer", "recurrent_activation"))

    def _add_attribute(self, name, layer) -> None:
        """The site of `self.activation` in code of one's own."""
        found = own_attribute(layer, name, next(iter(self.calls.of(layer)), None))
        if found is not None:
            self.sites.append(_hidden(found, layer))

    def _add_own_code(self, name: str, outer) -> None:
        """Sites in layers that only another one's code calls, and such code itself, once for a class."""
        if not isinstance(outer, keras.layers.Layer) or is_activation(outer):
            return
        node = next(iter(self.calls.of(outer)), None)
        known = self.names.keys() - {id(outer)} | {id(site.layer) for site in self.sites}
        self.sites += [_hidden(found, outer) for found in hidden_in(outer, name, node) if id(found.layer) not in known]
        for path, layer in [(name, outer), *inside(outer, name)]:
            if layer is not outer and id(layer) in self.names:
                self.called_in[id(layer)] = name
            if is_own(layer) and type(layer) not in self._kinds and function_at(layer, "activation") is None:
                self._kinds.add(type(layer))
                why = "what its own code calls can't be inspected"
                self.sites.append(_kept(path or layer.name, layer, "?", why))


def _seen(name, layer, function, survey: Survey) -> Site:
    """The site of a layer or operation whose calls are known."""
    calls, names = survey.calls, survey.names
    place = "itself" if is_activation(layer) else "last step" if type(layer) in _LAST_STEP else "inside"
    made = [] if place == "inside" else calls.outputs(layer)
    axes = {survey.layout.axis(tensor) for tensor in made}
    axis = axes.pop() if len(axes) == 1 else None
    kept = None
    if place == "itself" and not all(plain_calls(calls, layer)):
        kept = "it is called with other arguments"
    elif not isinstance(layer, keras.layers.Layer) and any(_has_mask(node) for node in calls.of(layer)):
        kept = "a function, which drops the mask that a layer would pass on"
    elif place == "itself" and isinstance(layer, keras.layers.Layer) and (dtype := _given_no_floats(calls, layer)):
        kept = f"it is given {dtype}, which an activation would make floating"
    elif place != "itself" and not _takes_activation(layer):
        kept = "its configuration has no `activation`"
    return Site(
        name=name,
        kind=type(layer).__name__,
        function=name_of(function),
        place=place,
        axis=axis,
        shape=common([tuple(tensor.shape) for tensor in made]),
        before=tuple(names.get(id(maker), maker.name) for maker in calls.makers(layer)),
        after=tuple(names.get(id(user.operation), user.operation.name) for user in calls.users(layer)),
        kept=kept,
        layer=layer,
        attribute="" if place == "itself" else "activation",
    )


def _hidden(found: Hidden, outer) -> Site:
    """The site of a layer that another one's code calls."""
    place = "itself" if not found.attribute else "last step" if type(found.layer) in _LAST_STEP else "inside"
    return Site(
        name=found.path,
        kind=type(found.layer).__name__,
        function=name_of(found.function),
        place=place,
        shape=found.shape,
        kept=found.kept,
        layer=found.layer,
        attribute=found.attribute,
        outer=outer,
    )


def _kept(name, layer, function, why: str, attribute: str = "") -> Site:
    return Site(
        name=name,
        kind=type(layer).__name__,
        function=function if isinstance(function, str) else name_of(function),
        place="inside",
        kept=why,
        layer=layer,
        attribute=attribute,
    )


def _given_no_floats(calls: Calls, layer) -> str | None:
    """The dtype of what calls of a layer are given, where it isn't floating."""
    given = (keras.backend.standardize_dtype(tensor.dtype) for node in calls.of(layer) for tensor in node.input_tensors)
    return next((dtype for dtype in given if not keras.backend.is_float_dtype(dtype)), None)


def _has_mask(node) -> bool:
    return any(map(has_mask, node.input_tensors))


def _takes_activation(layer) -> bool:
    try:
        return type(layer) in _LAST_STEP or "activation" in layer.get_config()
    except Exception:  # of a layer without a configuration
        return False


def name_of(function) -> str:
    """The name by which a person knows an activation."""
    function = getattr(function, "activation", function)
    return getattr(function, "__name__", type(function).__name__)
