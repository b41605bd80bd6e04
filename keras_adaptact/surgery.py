"""The activations of an existing model: found, listed, and replaced in a copy that keeps its weights."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

import keras

from keras_adaptact.base import TrainableActivation, channel_axis
from keras_adaptact.copies import copy_model, rebuilt
from keras_adaptact.graphs import require_graph, walk
from keras_adaptact.inplace import bound, change, fixed
from keras_adaptact.keras_private import is_default, track_again
from keras_adaptact.matching import compared, matcher, same
from keras_adaptact.places import at, everywhere
from keras_adaptact.registry import Spec, get
from keras_adaptact.sites import S, Site, Sites, Survey

_GATES = ("sigmoid", "hard_sigmoid", "softmax")  # what gates and heads are made of
_MULTIPLY = ("Multiply", "Dot", "Matmul", "Einsum")
_MOVE = (  # what a gate goes through on its way
    *("Reshape", "Flatten", "Permute", "Transpose", "ExpandDims", "Squeeze", "RepeatVector", "BroadcastTo"),
    *("UpSampling1D", "UpSampling2D", "Cast", "Dropout", "Identity"),
)


@dataclass(frozen=True, kw_only=True)
class Replacement(Site):
    """A site, and what a replacement does to it.

    Attributes:
        replaced: whether it is replaced.
        why: the reason, in a few words.
        starts_equal: whether the new activation starts as the old one, to the bit in float32; None where none is new.
        starts_close: whether it does to 1e-5, as it is where a compiler orders operations anew; None as above.
        spec: what the new activation is made of.
    """

    replaced: bool
    why: str
    starts_equal: bool | None = None
    starts_close: bool | None = None
    spec: Spec = field(default=None, repr=False, compare=False)


class Replacements(Sites[Replacement]):
    """A list of sites and what becomes of them, which prints as a table."""

    heads = ("site", "kind", "function", "replaced", "starts as the old one", "why")

    def row(self, site):
        starts = ""
        if site.starts_equal is not None:
            starts = "yes" if site.starts_equal else "to 1e-5" if site.starts_close else "no"
        return site.name, site.kind, site.function, "yes" if site.replaced else "no", starts, site.why

    def last(self):
        return f"{sum(site.replaced for site in self)} of {len(self)} replaced"


def replace_activations(
    model: keras.Model,
    source: Spec = None,
    new: Spec = None,
    *,
    layers: str | Sequence[str] | None = None,
    choose: Callable[[keras.layers.Layer], Spec] | None = None,
    in_place: bool = False,
    verbose: bool = False,
) -> keras.Model:
    """A copy of a model with other activations and the same weights; or the model itself, changed in place.

    Each site gets a new layer of its own; a layer that the model calls several times gets one. Layers keep their
    names. Where the new activation starts as the old one, the copy's outputs are equal to the bit. Two cases are equal
    to rounding only: tensors so large that a backend compiles for them (2**18 elements on CPU), and slices of tensors
    on torch, which computes them with other instructions.

    ```python
    model = ka.replace_activations(keras.applications.ResNet50(), "relu", "arelu")
    model = ka.replace_activations(model, "sigmoid", "asigmoid", layers="gate_*")
    model = ka.replace_activations(model, choose=lambda layer: "arelu" if layer.name.startswith("conv5") else None)
    ka.replace_activations(my_subclassed_model, "relu", "arelu", in_place=True)
    ```

    In layers whose code calls others (blocks of one's own, wrappers, subclassed models) the sites are those of
    their sublayers: each `activation`, and each layer that is an activation. Functions that such code calls itself
    (`keras.ops.relu`) can't be replaced, and are listed by `plan_replacement`.

    Args:
        model: a functional or sequential model, with the models nested in it; with `in_place` any model or layer,
            built or not. Pass the whole model that will be saved, since its file records what was replaced in it.
        source: what is replaced: the name of an activation, a function, or a layer (`ReLU(6.0)` is not "relu"). A
            site matches that computes the same, wherever it is: in `activation=`, in a layer such as `Activation`
            or `ReLU`, or in a function called on a Keras tensor. A class of trainable activations, or its name,
            matches its instances; the name of a function of the model's own, its sites. None matches every site but
            linear ones, and needs `layers`.
        new: a spec for `get`: a name, a dict, a class, or a layer whose configuration is taken.
        layers: a pattern of layer names such as `"conv5_*"`, or several; all by default. Gates and heads of
            sigmoid, hard sigmoid and softmax, whose output is multiplied or the model's own, must be named so; and so
            must those in code that can't be inspected.
        choose: a function of a layer that returns a spec, or None to keep it; instead of the three above.
        in_place: whether to change the model itself and return it, the only way for a subclassed model. Compile it
            again afterwards. Activations that are steps of a functional model are kept. Default: False.
        verbose: whether to print what `plan_replacement` returns.

    Returns:
        A new model, not compiled. Its layers have the dtype policy, and are trainable, as they were. The copy of a
        subclass of a functional model is of that class, if it has no constructor of its own; else a plain functional
        model, without the subclass's methods, with a warning.

    Raises:
        ValueError: for a subclassed model without `in_place`, a layer that can't be rebuilt from its configuration, an
            unknown name, or where no site matches.
        TypeError: for something other than a model, or an argument of another type.
    """
    sites = plan_replacement(model, source, new, layers=layers, choose=choose, in_place=in_place)
    if verbose:
        print(sites)
    if not any(site.replaced for site in sites):
        raise ValueError(
            f"No activation of {model.name} matches and can be replaced; `plan_replacement` says why, site by site. "
            f"Received: source={source!r}, layers={layers!r}"
        )
    replaced = [site for site in sites if site.replaced]
    if in_place:
        change(model, [(site.layer, site.attribute, _fresh(site, site.spec)) for site in replaced])
        return model
    return copy_with(model, replaced, lambda site: _fresh(site, site.spec))


def copy_with(model: keras.Model, replaced: Sequence[S], fresh: Callable[[S], keras.layers.Layer]) -> keras.Model:
    """A copy of a graph of layers in which sites have new layers, which `fresh` makes."""
    chosen = {id(site.layer): site for site in replaced if site.outer is None}

    def make(layer):
        site = chosen.get(id(layer))
        if site is None:
            return None
        made = fresh(site)
        return rebuilt(layer, activation=made) if site.attribute else made

    def change_own_code(copies):
        parts = [layer for _, layer, _ in walk(model) if isinstance(layer, keras.layers.Layer)]
        for site in replaced:
            if site.outer is None:
                continue
            made = fresh(site)
            for part in parts:  # of which several may have it
                for steps, layer in [((), part), *everywhere(part)]:
                    if layer is site.layer:
                        change(copies[id(part)], [(at(copies[id(part)], steps), site.attribute, made)])

    copied = copy_model(model, make, change=change_own_code)
    track_again(copied)
    return copied


def plan_replacement(
    model: keras.Model,
    source: Spec = None,
    new: Spec = None,
    *,
    layers: str | Sequence[str] | None = None,
    choose: Callable[[keras.layers.Layer], Spec] | None = None,
    in_place: bool = False,
) -> Replacements:
    """Every activation site of a model, and what `replace_activations` would do with it; nothing is changed.

    Arguments and errors are those of `replace_activations`. Prints as a table: `print(ka.plan_replacement(...))`.
    """
    rule = _Rule(source, new, layers, choose)
    if not in_place:
        require_graph(model, "pass `in_place=True` to replace the activations of the model itself")
    survey = Survey(model)
    why = fixed if in_place else bound
    survey.sites = Sites(replace(site, kept=why(site, survey)) for site in survey.sites)
    rule.learn({site.function for site in survey.sites})
    return Replacements(_decided(site, rule, survey) for site in survey.sites)


def _decided(site: Site, rule: "_Rule", survey: Survey) -> Replacement:
    spec, why = rule.decide(site, survey)
    equal, close = None, None
    if spec is not None:
        try:
            fresh = _fresh(site, spec, dtype="float32")
        except _Unknown as error:
            spec, why = None, str(error)
        else:
            equal, close = compared(site.activation, fresh, _channels(site), gaps=not _takes_whole(site, survey))
    return Replacement(
        **{name: getattr(site, name) for name in Site.__dataclass_fields__},
        replaced=spec is not None,
        why=why,
        starts_equal=equal,
        starts_close=close,
        spec=spec,
    )


def _takes_whole(site: Site, survey: Survey) -> bool:
    """Whether what the activation of a site takes is known to be no part of another tensor."""
    is_seen = site.place == "itself" and site.outer is None
    return site.place == "last step" or (is_seen and survey.calls.takes_whole(site.layer))


class _Rule:
    """What the arguments of a replacement say of a site."""

    def __init__(self, source, new, layers, choose):
        said = f"source={source!r}, new={new!r}, layers={layers!r}"
        if choose is None and (new is None or (source is None and layers is None)):
            raise ValueError(
                f"A replacement needs `source` or `layers`, and `new`; or `choose`. Received: {said}, choose=None"
            )
        if choose is not None and not (source is new is layers is None):
            raise ValueError(f"`choose` stands alone. Received: {said}, choose={choose!r}")
        if choose is not None and not callable(choose):
            raise TypeError(f"`choose` must be a function of a layer. Received: {choose!r}")
        self.patterns = [layers] if isinstance(layers, str) else layers
        if not isinstance(self.patterns, Sequence | None) or not all(isinstance(p, str) for p in self.patterns or ()):
            raise TypeError(f"`layers` must be a pattern of layer names, or several. Received: {layers!r}")
        if choose is None:
            get(new)  # an unknown name is an error even where nothing matches
        self.source, self.new, self.choose = source, new, choose

    def learn(self, present: set[str]) -> None:
        """Takes the names of the activations in the model, which `source` may be one of."""
        self.matches = matcher(self.source, present)

    def decide(self, site: Site, survey: Survey) -> tuple[Spec, str]:
        """What the new activation is, or None, and why."""
        is_reached = site.outer is None or not site.kept
        if site.attribute == "recurrent_activation" or site.function == "?" or not is_reached:
            return None, site.kept or ""  # no pattern and no choice reaches it
        spec, why = self._wish(site, survey)
        return (None, site.kept) if spec is not None and site.kept else (spec, why)

    def _wish(self, site: Site, survey: Survey) -> tuple[Spec, str]:
        layer = site.layer
        if self.choose is not None:
            spec = self.choose(layer)
            return spec, "not chosen" if spec is None else "chosen"
        names = (site.name, layer.name)
        if self.patterns is not None and not any(fnmatchcase(n, p) for n in names for p in self.patterns):
            return None, "its name doesn't match"
        if not self.matches(site.activation):
            return None, "another function"
        if self.patterns is None and (gate := _gate(site, survey)):
            return None, gate
        return self.new, "matches"


def _gate(site: Site, survey: Survey) -> str | None:
    """Why a sigmoid or softmax is no activation between layers, if so."""
    if not any(same(site.activation, keras.activations.get(name)) for name in _GATES):
        return None
    if site.outer is not None:
        return "it may be a gate: its code can't be inspected"
    calls, parent = survey.calls, survey.parents[id(site.layer)]
    carriers = [site.layer]  # of its output
    for carrier in carriers:
        users = [node.operation for node in calls.users(carrier)]
        if any(type(user).__name__ in _MULTIPLY for user in users):
            return "a gate: its output is multiplied"
        carriers += [user for user in users if type(user).__name__ in _MOVE and user not in carriers]
    is_last = isinstance(parent, keras.Sequential) and parent.layers[-1] in carriers  # it may have no graph yet
    return f"an output of {parent.name}" if is_last or any(map(calls.leaves, carriers)) else None


class _Unknown(Exception):
    """Why a site can't have the activation that it should."""


def _fresh(site: Site, spec: Spec, **changes) -> keras.layers.Layer:
    """A new activation for a site: named and typed after its layer, with as many channels where it asks."""
    layer = site.layer
    if any(getattr(part, "activity_regularizer", None) is not None for part in site.nested):
        raise _Unknown("it has an activity regularizer")
    made = get(spec, name=f"{layer.name}_activation" if site.attribute else layer.name)
    if isinstance(layer, keras.layers.Layer):
        there = site.activation  # which may have a policy of its own
        policy = there.dtype_policy if isinstance(there, keras.layers.Layer) else layer.dtype_policy
        if policy.quantization_mode is not None:
            policy = policy.get_config()["source_name"]  # an activation has nothing to quantize
        changes = {"dtype": policy, "trainable": layer.trainable} | changes
    else:  # an operation, which computes in the dtype of what it is given
        dtype = layer.output.dtype
        if not keras.backend.is_float_dtype(dtype):
            raise _Unknown(f"it computes in {dtype}")
        changes = {"dtype": f"mixed_{dtype}" if dtype in ("bfloat16", "float16") else dtype} | changes
    shape = _shape(site)
    if getattr(made, "granularity", None) == "channel":
        data_format = _data_format(site, made, spec)
        changes = {"data_format": data_format} | changes
        width = None if shape is None else _width(shape, data_format, getattr(made, "channels", None))
        if site.attribute and isinstance(made, TrainableActivation):
            changes = {"channels": width} | changes
    made = type(made).from_config(made.get_config() | changes)
    is_alone = not site.attribute and not (site.outer is not None and site.outer.built)  # and built when it is called
    if not is_alone and not made.built and not is_default(type(made).build):
        if shape is None:
            raise _Unknown("the shape of what its code passes to an activation isn't known, and this one needs it")
        made.build(shape)  # the layer that it will be in won't
    return made


def _shape(site: Site) -> tuple[int | None, ...] | None:
    """Of what the activation of a site is given, where it is known."""
    if site.shape is not None:
        return site.shape
    layer = site.layer
    width = getattr(layer, "units", None) or getattr(layer, "filters", None)
    is_recurrent = isinstance(layer, keras.layers.RNN) and type(layer).__module__.startswith("keras.")
    if width is None or (site.place == "inside" and not is_recurrent):
        return None
    rank = getattr(getattr(layer, "cell", layer), "rank", 0)  # of convolutions, recurrent ones too
    if getattr(layer, "data_format", None) == "channels_first":
        return (None, width) + (None,) * rank
    return (None,) * (1 + rank) + (width,)


def _width(shape: tuple[int | None, ...], data_format: str, given: int | None) -> int | None:
    """How many channels a site of a shape has, where an activation may be given a number of them."""
    width = shape[channel_axis(data_format, len(shape))] if len(shape) > 1 else None
    if len(shape) < 2 or (width is None and given is None):
        raise _Unknown("how many channels it has isn't known")
    if None not in (width, given) and width != given:
        raise _Unknown(f"it has {width} channels, and not {given}")
    return width or given


def _data_format(site: Site, made, spec: Spec) -> str:
    """Where the channels of a site are: as the spec says, or else as the model does."""
    default = keras.config.image_data_format()
    if made.data_format != default or (isinstance(spec, Mapping) and "data_format" in spec):
        return made.data_format
    shape, axis = _shape(site), site.axis
    if site.place == "inside" or (axis is None and shape is not None and site.attribute):
        return getattr(site.layer, "data_format", None) or "channels_last"
    if axis is None or shape is None:
        return default
    if axis not in (1, len(shape) - 1):
        raise _Unknown(f"its channels are on axis {axis} of {len(shape)}")
    return "channels_last" if axis == len(shape) - 1 else "channels_first"


def _channels(site: Site) -> int:
    """How many channels a site has, where it is known."""
    shape = _shape(site)
    if shape is None:
        return 1
    return shape[-1 if site.axis is None else site.axis] or 1
