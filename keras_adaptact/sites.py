"""The sites of a model: each place where an activation is computed, what is around it, and what can be done there."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar

import keras

from keras_adaptact.calls import Calls, Layout, plain_calls
from keras_adaptact.graphs import function_at, inside, is_activation, walk

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

    @property
    def activation(self) -> Any:
        """The function or layer that is computed there."""
        return getattr(self.layer, self.attribute) if self.attribute else self.layer

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
    """What is known of a functional or sequential model before anything is changed.

    Attributes:
        sites: every site of the model, of the models nested in it, and in the layers of both.
        calls: who calls whom.
        parents: the graph that each layer or operation is in, by its id.

    Raises:
        ValueError: for a subclassed model.
        TypeError: for what is no model.
    """

    def __init__(self, model: keras.Model):
        parts = list(walk(model))
        self.calls = Calls(model)
        self.layout = Layout(self.calls)
        self.parents = {id(layer): parent for _, layer, parent in parts}
        self.names = {id(layer): name for name, layer, _ in parts}
        self.sites: Sites[Site] = Sites()
        for name, layer, _ in parts:
            self.sites += _unseen(name, layer, self.names)
            if (function := function_at(layer, "activation")) is not None:
                self.sites.append(_seen(name, layer, function, self))
            if (function := function_at(layer, "recurrent_activation")) is not None:
                gate = f"{name}.recurrent_activation"
                self.sites.append(_inside(gate, layer, function, "a gate of a recurrent layer", "recurrent_activation"))


def _seen(name, layer, function, survey: Survey) -> Site:
    """The site of a layer or operation whose calls are known."""
    calls, names = survey.calls, survey.names
    place = "itself" if is_activation(layer) else "last step" if type(layer) in _LAST_STEP else "inside"
    made = [] if place == "inside" else calls.outputs(layer)
    axes = {survey.layout.axis(tensor) for tensor in made}
    axis = axes.pop() if len(axes) == 1 else None
    shapes = {tuple(tensor.shape) for tensor in made}
    kept = None
    if place == "itself" and not all(plain_calls(calls, layer)):
        kept = "its call has other arguments"
    elif not isinstance(layer, keras.layers.Layer) and any(_has_mask(node) for node in calls.of(layer)):
        kept = "a function, which drops the mask that a layer would hand on"
    elif place != "itself" and not _takes_activation(layer):
        kept = "its configuration has no `activation`"
    return Site(
        name=name,
        kind=type(layer).__name__,
        function=name_of(function),
        place=place,
        axis=axis,
        shape=shapes.pop() if len(shapes) == 1 else None,
        before=tuple(names.get(id(maker), maker.name) for maker in calls.makers(layer)),
        after=tuple(names.get(id(user.operation), user.operation.name) for user in calls.users(layer)),
        kept=kept,
        layer=layer,
        attribute="" if place == "itself" else "activation",
    )


def _inside(name, layer, function, kept: str, attribute: str = "") -> Site:
    function_name = function if isinstance(function, str) else name_of(function)
    return Site(
        name=name,
        kind=type(layer).__name__,
        function=function_name,
        place="inside",
        kept=kept,
        layer=layer,
        attribute=attribute,
    )


def _has_mask(node) -> bool:
    return any(getattr(tensor, "_keras_mask", None) is not None for tensor in node.input_tensors)


def _takes_activation(layer) -> bool:
    try:
        return type(layer) in _LAST_STEP or "activation" in layer.get_config()
    except Exception:  # of a layer without a configuration
        return False


def _unseen(name: str, layer, names: dict[int, str]) -> Iterator[Site]:
    """Sites in what can't be taken apart: layers that only another one's code calls, and such code itself."""
    if not isinstance(layer, keras.layers.Layer):
        return
    kind = type(layer).__name__
    parts = list(inside(layer, name))
    owners = [part for part in (layer, *(part for _, part in parts)) if hasattr(part, "activation")]
    told = {id(getattr(part, attribute, None)) for part in owners for attribute in ("activation", "cell")}
    for path, hidden in parts:
        if id(hidden) not in told and id(hidden) not in names and function_at(hidden, "activation") is not None:
            attribute = "" if is_activation(hidden) else "activation"
            yield _inside(path, hidden, hidden, f"inside a {kind}", attribute)
    is_own = isinstance(layer, keras.layers.Lambda) or not type(layer).__module__.startswith("keras.")
    if is_own and function_at(layer, "activation") is None:
        yield _inside(name, layer, "?", "what its own code calls can't be seen")


def name_of(function) -> str:
    """The name by which a person knows an activation."""
    function = getattr(function, "activation", function)
    return getattr(function, "__name__", type(function).__name__)
