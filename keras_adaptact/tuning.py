"""Any Keras model-building function, with its activations searched by KerasTuner: imported by this name only."""

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import keras

try:
    import keras_tuner
except ImportError as error:
    raise ImportError("keras_adaptact.tuning needs KerasTuner: pip install 'keras-adaptact[tuning]'") from error

from keras_adaptact.base import TrainableActivation
from keras_adaptact.graphs import is_activation
from keras_adaptact.members import numbered
from keras_adaptact.mixtures import NORMALIZATIONS, Mixture
from keras_adaptact.prelu import PReLU
from keras_adaptact.registry import get, lookup


class ActivationHyperModel(keras_tuner.HyperModel):
    """A model-building function whose activations a KerasTuner tuner chooses.

    ```python
    def build(hp, activation):
        model = keras.Sequential([keras.layers.Dense(hp.Int("units", 16, 64), activation=activation()),
                                  keras.layers.Dense(10)])
        model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
        return model

    tuner = keras_tuner.RandomSearch(ActivationHyperModel(build), objective="val_accuracy", max_trials=20)
    ```

    It searches `activation`, and below the chosen one, such as `method2`, what its spec leaves open:

    * `method2/granularity`, where `granularities` has several;
    * `method2/mixing` of a mixture, "learned" or "fixed";
    * `method2/normalization` of learned weights;
    * `method2/weight[tanh]` of fixed ones, for each member: the weight itself, from 0 to 1, used as given.

    `activation()` makes the same choice wherever it is called; `activation("conv1")` one for that site alone, whose
    hyperparameters are `conv1/activation` and so on. Further hyperparameters are the function's own.

    Args:
        build: takes KerasTuner's hyperparameters and a function, which gives a new activation on each call, one for
            each site; returns a compiled model.
        activations: what `keras_adaptact.get` takes: names, dicts, classes, layers, functions. What a dict says is
            not searched, and of a layer nothing is. By default ReLU, the adaptive three and both methods.
        normalizations: of learned mixing weights.
        granularities: of trainable activations, `"layer"` and `"channel"`.

    Raises:
        ImportError: without KerasTuner.
        TypeError, ValueError: for what is no activation, or a setting that there isn't.
    """

    def __init__(
        self,
        build: Callable[[keras_tuner.HyperParameters, Callable[..., Any]], keras.Model],
        activations: Sequence[Any] = ("relu", "asigmoid", "atanh", "arelu", "method1", "method2"),
        normalizations: Sequence[str] = ("sum", "softmax"),
        granularities: Sequence[str] = ("layer",),
    ):
        super().__init__()
        self.build_model = build
        self.normalizations = _known("normalizations", normalizations, NORMALIZATIONS)
        self.granularities = _known("granularities", granularities, ("layer", "channel"))
        if isinstance(activations, str) or not activations:
            raise ValueError(f"`activations` must be a list of one or more. Received: {activations!r}")
        choices = [_Choice(spec) for spec in activations]
        self.choices = dict(zip(numbered([choice.label for choice in choices]), choices, strict=True))
        for choice in choices:
            choice.try_out(self.granularities)

    def build(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        return self.build_model(hp, lambda site=None: self.activation(hp, site))

    def activation(self, hp: keras_tuner.HyperParameters, site: str | None = None) -> Any:
        """A new activation as hyperparameters say: the one for all sites, or that of one."""
        if site is None:
            return self._chosen(hp)
        with hp.name_scope(site):
            return self._chosen(hp)

    def _chosen(self, hp) -> Any:
        chosen = hp.Choice("activation", list(self.choices), ordered=False)
        found = {}
        for label, choice in self.choices.items():
            with hp.conditional_scope("activation", [label]), hp.name_scope(label):
                found[label] = self._settings(hp, choice)
        return self.choices[chosen].make(found[chosen])

    def _settings(self, hp, choice: "_Choice") -> dict[str, Any]:
        """What hyperparameters say of all that an activation leaves open, chosen or not, as KerasTuner wants it."""
        settings: dict[str, Any] = {}
        if choice.leaves_open("granularity") and self.granularities != ["layer"]:
            settings["granularity"] = hp.Choice("granularity", self.granularities, ordered=False)
        if not choice.members:
            return settings
        mixing = "learned" if choice.learns else "fixed"
        if choice.leaves_open("weights"):
            mixing = hp.Choice("mixing", ["learned", "fixed"], ordered=False)
            with hp.conditional_scope("mixing", ["fixed"]):
                weights = [
                    hp.Float(f"weight[{name}]", 0.0, 1.0, default=1 / len(choice.members)) for name in choice.members
                ]
            settings |= {"weights": weights} if mixing == "fixed" else {}
        if choice.learns and choice.leaves_open("normalization"):
            with contextlib.ExitStack() as scopes:
                if choice.leaves_open("weights"):
                    scopes.enter_context(hp.conditional_scope("mixing", ["learned"]))
                normalization = hp.Choice("normalization", self.normalizations, ordered=False)
            settings |= {"normalization": normalization} if mixing == "learned" else {}
        return settings


class _Choice:
    """One of the activations of a search: how it is made, and what is left open of it.

    A layer, a function, and a name of one are as they are: they have no `kind`, and leave nothing open.
    """

    def __init__(self, spec: Any):
        self.spec, (self.kind, self.said) = spec, _taken_apart(spec)
        layer = get(spec)
        if not is_activation(layer):
            raise ValueError(f"`activations` must be activations. Received: {spec!r}")
        is_open = self.kind is not None and isinstance(layer, Mixture)
        self.members: list[str] = layer.member_names if is_open else []
        self.learns = self.said.get("weights", "learned") == "learned"
        self.label = _label(spec)

    def leaves_open(self, setting: str) -> bool:
        """Whether a setting may be searched: one that there is, and of which nothing is said."""
        closed = setting == "weights" and "weights_initializer" in self.said  # which learned ones have alone
        return self.kind is not None and setting not in self.said and not closed

    def make(self, settings: dict[str, Any]) -> Any:
        return get(self.spec) if self.kind is None else self.kind(**self.said | settings)

    def try_out(self, granularities: Sequence[str]) -> None:
        """Raises what a trial would."""
        for granularity in granularities if self.leaves_open("granularity") else ():
            self.make({"granularity": granularity})


def _taken_apart(spec: Any) -> tuple[Any, dict[str, Any]]:
    """The class of the library's layers that a spec means, and the arguments that it gives; None for other specs."""
    if isinstance(spec, str):
        return _taken_apart(lookup(spec))
    if isinstance(spec, Mapping) and "class_name" not in spec and isinstance(spec.get("name"), str):
        kind, said = _taken_apart(spec["name"])
        return kind, said | {key: value for key, value in spec.items() if key != "name"}
    is_ours = isinstance(spec, type) and issubclass(spec, TrainableActivation | PReLU)
    return (spec if is_ours else None), {}


def _label(spec: Any) -> str:
    """What an activation is called in a search: `method2`, `method2(normalization='none')`."""
    if isinstance(spec, str):
        return spec
    if isinstance(spec, Mapping):
        name = spec.get("name") or spec["class_name"]
        said = ", ".join(f"{key}={value!r}" for key, value in spec.items() if key not in ("name", "class_name"))
        return f"{name}({said})" if said else name
    name = spec.__name__ if hasattr(spec, "__name__") else type(spec).__name__
    return name.strip("<>").lower()


def _known(argument: str, given: Sequence[str], known: Iterable[str]) -> list[str]:
    if isinstance(given, str) or not given or not set(given) <= set(known):
        raise ValueError(f"`{argument}` must be a list of {', '.join(map(repr, known))}. Received: {given!r}")
    return list(given)
