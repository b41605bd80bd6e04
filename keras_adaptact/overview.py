"""The sites of any model by name, and a table of its activations."""

import difflib
import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import keras

from keras_adaptact.base import TrainableActivation
from keras_adaptact.inspection import nearest, observe
from keras_adaptact.sites import Site, Sites, Survey


@dataclass(frozen=True, kw_only=True)
class Described(Site):
    """A site, and the activation there.

    Attributes:
        granularity: `"layer"` or `"channel"`; None for a plain function, and so are those below.
        parameters: how many scalar parameters it has.
        trained: the names of the parameters that are trained; of a mixture's weights too.
        held: those of the others.
        nearest: the known function that it lies nearest to; of channels, that of most of them.
        error: how far, relative to the standard deviation of its output: the mean over those channels.
        channels_near: how many of how many channels that is; None where there is one set of parameters.
    """

    granularity: str | None = None
    parameters: int = 0
    trained: tuple[str, ...] = ()
    held: tuple[str, ...] = ()
    nearest: str | None = None
    error: float | None = None
    channels_near: tuple[int, int] | None = None


class Summary(Sites[Described]):
    """A list of sites and of what is there, which prints as a table."""

    heads = ("site", "kind", "activation", "granularity", "parameters", "trained", "nearest to")

    def row(self, site):
        if site.granularity is None:
            return site.name, site.kind, site.function, "", "", "", ""
        which = "no" if not site.trained else ", ".join(site.trained) if site.held else "yes"
        near = ""
        if site.nearest is not None:
            where = "" if site.channels_near is None else " in {} of {} channels".format(*site.channels_near)
            near = f"{site.nearest} ({site.error:.2g}){where}"
        return site.name, site.kind, site.function, site.granularity, str(site.parameters), which, near

    def last(self):
        trainable = [site for site in self if site.granularity is not None]
        numbers = sum(site.parameters for site in trainable)
        return f"{len(trainable)} of {len(self)} sites have trainable activations, with {numbers} parameters"


def summary(model: keras.layers.Layer, data: Any = None) -> Summary:
    """Every site of a model: the activation there, its parameters, which of them are trained, what it lies nearest to.

    ```python
    print(ka.summary(model, x_test[:256]))
    ```

    A site is a place where a model computes an activation, and has the same name everywhere: here, in
    `activation_table`, `observe`, `check`, `plan_replacement` and in histories. The nearest known function is that of
    `nearest`, with its relative error: 1 is no better than a constant.

    Args:
        model: any model or layer; activations in code that calls no layer for them can't be seen.
        data: inputs, as for `observe`; distances are measured over what each site is given. From -5 to 5 by default.

    Returns:
        A list, with an element for each site, that prints as a table.

    Raises:
        TypeError: for something other than a model or layer.
    """
    sites = _known(model)
    inputs = {} if data is None else observe(model, data)
    return Summary(_described(site, inputs.get(site.name)) for site in sites)


def site(model: keras.layers.Layer, name: str) -> Site:
    """The site of a name: its `layer`, and the `activation` that is computed there.

    ```python
    ka.site(model, "block/ffn/dense").activation.get_parameters()
    ```

    Args:
        model: any model or layer.
        name: as in `summary`, `activation_table`, `observe`, `check`, `plan_replacement` and histories.

    Raises:
        ValueError: for an unknown name; the nearest one is suggested.
        TypeError: for something other than a model or layer.
    """
    known = {site.name: site for site in _known(model)}
    if name not in known:
        close = difflib.get_close_matches(str(name), known, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"`name` must be that of a site of {model.name}.{hint} Received: {name!r}")
    return known[name]


def _known(model) -> list[Site]:
    return [site for site in Survey(model).sites if site.function != "?"]


def _described(site: Site, inputs) -> Described:
    found = {name: getattr(site, name) for name in Site.__dataclass_fields__}
    activation = site.activation
    if isinstance(activation, TrainableActivation):
        names = activation.trained_parameters()
        found |= _near(activation, inputs) | {"granularity": activation.granularity}
        found |= {"trained": tuple(name for name, yes in names.items() if yes)}
        found |= {"held": tuple(name for name, yes in names.items() if not yes)}
    elif isinstance(activation, keras.layers.PReLU):
        alpha = ("alpha",) if activation.built else ()
        found |= {"granularity": "channel", "trained" if activation.trainable_variables else "held": alpha}
    if "granularity" in found:
        found["parameters"] = sum(math.prod(variable.shape) for variable in activation.variables)
    return Described(**found)


def _near(activation, inputs) -> dict[str, Any]:
    if not activation.variables:
        return {}  # its channels aren't known yet
    rows = nearest(activation, inputs)
    best: dict[Any, Any] = {}
    for row in rows:
        best.setdefault(row["channel"], row)
    function, count = Counter(row["function"] for row in best.values()).most_common(1)[0]
    errors = [row["relative_error"] for row in best.values() if row["function"] == function]
    near = None if None in best else (count, len(best))
    return {"nearest": function, "error": sum(errors) / len(errors), "channels_near": near}
