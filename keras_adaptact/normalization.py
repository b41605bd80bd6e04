"""Layer normalization of a model that exists, replaced by elementwise layers that are trained in its place."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_adaptact.graphs import inside, is_graph, require_graph, walk
from keras_adaptact.inplace import bound, change, fixed
from keras_adaptact.owncode import WRAPPERS, is_own
from keras_adaptact.registry import Spec, get
from keras_adaptact.sites import Site, Sites, Survey
from keras_adaptact.smooth import Derf, DyT
from keras_adaptact.surgery import copy_with

_REPLACED = (keras.layers.LayerNormalization, keras.layers.RMSNormalization)
_OTHERS = {  # and what they do that no function of an element can stand for
    keras.layers.BatchNormalization: "it normalizes over the batch",
    keras.layers.GroupNormalization: "it normalizes over positions and groups of channels",
    keras.layers.UnitNormalization: "it scales to unit length, and has no parameters",
    keras.layers.SpectralNormalization: "it normalizes the weights of a layer",
    keras.layers.Normalization: "it normalizes data by statistics that stay as they are",
}


@dataclass(frozen=True, kw_only=True)
class Normalization(Site):
    """A normalization layer, and what a replacement does to it.

    Attributes:
        replaced: whether it is replaced.
        why: the reason, in a few words.
    """

    replaced: bool
    why: str


class Normalizations(Sites[Normalization]):
    """A list of normalization layers and what becomes of them, which prints as a table."""

    heads = ("layer", "kind", "axis", "replaced", "why")

    def row(self, site):
        axis = getattr(site.layer, "axis", "")
        return site.name, site.kind, str(axis), "yes" if site.replaced else "no", site.why

    def last(self):
        count = sum(site.replaced for site in self)
        return f"{count} of {len(self)} replaced" + (": outputs change, so train the model anew" if count else "")


def replace_normalization(
    model: keras.Model,
    new: Spec = "dyt",
    *,
    layers: str | Sequence[str] | None = None,
    in_place: bool = False,
    verbose: bool = False,
) -> keras.Model:
    """A copy of a model with `DyT` or `Derf` for layer normalization; or the model itself, changed in place.

    Its outputs are others: nothing is normalized any more, so that the model has to be trained, or trained further.
    Replaced are Keras's `LayerNormalization` and `RMSNormalization` over the last axis, also where a layer's own code
    calls them. What they have learned is kept: gamma and beta start as theirs. All else stays as it is.

    ```python
    print(ka.plan_normalization(model, "dyt"))
    model = ka.replace_normalization(model, "dyt")
    ka.replace_normalization(my_subclassed_model, "derf", in_place=True)
    ```

    Args:
        model: a functional or sequential model, with the models nested in it; with `in_place` any model or layer.
        new: what `get` makes a `DyT` or `Derf` of: a name, a dict, a class or a layer. With `granularity="channel"`,
            unless it says otherwise. Default: "dyt".
        layers: a pattern of layer names such as `"block_*"`, or several; all by default.
        in_place: whether to change the model itself and return it, the only way for a subclassed model. Compile it
            again afterwards. Layers that are steps of a functional model are kept. Default: False.
        verbose: whether to print what `plan_normalization` returns.

    Returns:
        A new model, not compiled. Layers keep their names, dtype policies, and whether they are trainable.

    Raises:
        ValueError: for a subclassed model without `in_place`, an unknown name, another layer than these two, or where
            no layer matches.
        TypeError: for something other than a model, or an argument of another type.

    References: Zhu et al., "Transformers without Normalization", 2025; Chen et al., "Stronger Normalization-Free
    Transformers", 2025.
    """
    plan = plan_normalization(model, new, layers=layers, in_place=in_place)
    if verbose:
        print(plan)
    chosen = [site for site in plan if site.replaced]
    if not chosen:
        raise ValueError(
            f"No normalization of {model.name} matches and can be replaced; `plan_normalization` says why, layer by "
            f"layer. Received: layers={layers!r}"
        )
    if not in_place:
        return copy_with(model, chosen, lambda site: _fresh(site.layer, new))
    change(model, [(site.layer, "", _fresh(site.layer, new)) for site in chosen])
    return model


def plan_normalization(
    model: keras.Model,
    new: Spec = "dyt",
    *,
    layers: str | Sequence[str] | None = None,
    in_place: bool = False,
) -> Normalizations:
    """Every normalization layer of a model, and what `replace_normalization` would do with it; nothing is changed.

    Arguments and errors are those of `replace_normalization`. Prints as a table.
    """
    _options(new)
    patterns = [layers] if isinstance(layers, str) else layers
    if not isinstance(patterns, Sequence | None) or not all(isinstance(p, str) for p in patterns or ()):
        raise TypeError(f"`layers` must be a pattern of layer names, or several. Received: {layers!r}")
    if not in_place:
        require_graph(model, "pass `in_place=True` to replace the normalization of the model itself")
    survey = Survey(model)

    def decided(name, layer, outer) -> Normalization:
        site = Site(name=name, kind=type(layer).__name__, function="", place="itself", layer=layer, outer=outer)
        why = _kept(layer, outer) or (fixed if in_place else bound)(site, survey)
        if patterns is not None and not any(fnmatchcase(n, p) for n in (name, layer.name) for p in patterns):
            why = why or "its name doesn't match"
        own = {field: getattr(site, field) for field in Site.__dataclass_fields__}
        return Normalization(**own, replaced=why is None, why=why or "matches")

    return Normalizations(decided(*found) for found in _found(model))


def _found(model) -> Iterator[tuple[str, Any, Any]]:
    """Each normalization layer once: its path, itself, and the layer whose own code calls it, if one does."""
    parts = [(name, layer) for name, layer, _ in walk(model)] if is_graph(model) else [("", model)]
    seen = {id(layer) for _, layer in parts}
    for name, part in parts:
        if _is_normalization(part):
            yield name, part, None
        for place, layer in inside(part, name) if isinstance(part, keras.layers.Layer) else ():
            if id(layer) not in seen and _is_normalization(layer):
                seen.add(id(layer))
                yield place, layer, part


def _is_normalization(layer) -> bool:
    return isinstance(layer, (*_REPLACED, *_OTHERS))


def _kept(layer, outer) -> str | None:
    """Why a normalization layer stays, if so."""
    for kind, why in _OTHERS.items():
        if isinstance(layer, kind):
            return why
    if type(layer) not in _REPLACED:
        return "a subclass, which may compute something else"
    if layer.activity_regularizer is not None:
        return "it has an activity regularizer"
    axes = [int(axis) for axis in np.ravel(layer.axis)]
    shape = _input_shape(layer)
    if axes != [-1] and (shape is None or axes != [len(shape) - 1]):
        return "it normalizes over other axes than the last"
    if outer is None:
        return None
    if not (is_own(outer) or isinstance(outer, WRAPPERS) or is_graph(outer)):
        return f"inside a {type(outer).__name__}"
    return None if layer.built else "in code of its own, and not built"


def _input_shape(layer) -> tuple[int | None, ...] | None:
    return (layer.get_build_config() or {}).get("input_shape") if layer.built else None


def _options(new: Spec) -> dict[str, Any]:
    """The configuration of what `new` stands for.

    Raises:
        ValueError: for another layer than those that replace normalization.
    """
    made = get(new)
    if not isinstance(made, DyT | Derf):
        raise ValueError(f"Normalization is replaced by `DyT` or `Derf`, of which this makes none. Received: {new!r}")
    says = isinstance(new, keras.layers.Layer) or (isinstance(new, dict) and "granularity" in new)
    return made.get_config() | ({} if says else {"granularity": "channel"})


def _fresh(layer, new: Spec) -> DyT | Derf:
    """What takes the place of a layer, with its gamma and beta where it has them for each channel."""
    kind: Any = type(get(new))
    options = _options(new) | {"name": layer.name, "dtype": layer.dtype_policy, "trainable": layer.trainable}
    found = {"gamma": getattr(layer, "gamma", getattr(layer, "scale", None)), "beta": getattr(layer, "beta", None)}
    learned: dict[str, Any] = {name: value for name, value in found.items() if isinstance(value, keras.Variable)}
    for name in (f"{parameter}_{setting}" for parameter in learned for setting in ("regularizer", "constraint")):
        if options.get(name) is None:
            options[name] = getattr(layer, name, None)
    by_channel = options["granularity"] == "channel"
    if by_channel:
        shape = _input_shape(layer)
        options |= {"data_format": "channels_last", "channels": None if shape is None else shape[-1]}
    made = kind.from_config(options)
    if by_channel and learned:
        made.set_parameters(**{name: ops.convert_to_numpy(value.value) for name, value in learned.items()})
    return made
