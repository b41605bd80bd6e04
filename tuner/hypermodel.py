"""Any Keras model-building function, with its activations searched by KerasTuner."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import keras_tuner

import keras_adaptact as ka
from tuner.entry import simplex, under


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

    It searches `activation`, a name; and for a mixture `mixing`, "learned" or "fixed", with `normalization` of learned
    weights, and for fixed ones any point of the simplex. Further hyperparameters are the function's own.

    Args:
        build: takes KerasTuner's hyperparameters and a function without arguments, which gives a new activation layer
            on each call, one for each site; returns a compiled model.
        activations: names or specs, as `keras_adaptact.get` takes them; by default ReLU, the adaptive three and both
            methods.
        normalizations: of learned mixing weights.
    """

    def __init__(
        self,
        build: Callable[[keras_tuner.HyperParameters, Callable[[], keras.layers.Layer]], keras.Model],
        activations: Sequence[str | dict[str, Any]] = ("relu", "asigmoid", "atanh", "arelu", "method1", "method2"),
        normalizations: Sequence[str] = ("sum", "softmax"),
    ):
        super().__init__()
        self.build_model = build
        self.specs = {spec if isinstance(spec, str) else str(spec): spec for spec in activations}
        self.normalizations = list(normalizations)
        layers = {label: ka.get(spec) for label, spec in self.specs.items()}
        self.members = {
            label: len(layer.member_names) for label, layer in layers.items() if isinstance(layer, ka.Mixture)
        }

    def build(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        spec = self.spec(hp)
        return self.build_model(hp, lambda: ka.get(spec))

    def spec(self, hp: keras_tuner.HyperParameters) -> dict[str, Any]:
        """The activation that hyperparameters stand for, as `keras_adaptact.get` takes it."""
        chosen = hp.Choice("activation", list(self.specs))
        spec = self.specs[chosen]
        found: dict[str, Any] = {"name": spec} if isinstance(spec, str) else dict(spec)
        if not self.members:
            return found
        mixtures = list(self.members)
        with under(hp, {"activation": mixtures}):
            mixing = hp.Choice("mixing", ["learned", "fixed"])
        with under(hp, {"activation": mixtures, "mixing": ["learned"]}):
            normalization = hp.Choice("normalization", self.normalizations)
        for label, count in self.members.items():  # each under a name of its own, as KerasTuner wants it
            with under(hp, {"activation": [label], "mixing": ["fixed"]}):
                numbers = [hp.Float(f"weights of {label}/{i}", 0.0, 1.0) for i in range(count - 1)]
            if label == chosen and mixing == "fixed":
                found["weights"] = simplex(numbers)
        if normalization is not None:
            found["normalization"] = normalization
        return found
