"""Training a model's activations: frozen, alone, or with a learning rate of their own."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from numbers import Real
from typing import Any

import keras
from keras import ops

from keras_adaptact.graphs import activations_of


def freeze_activations(model: keras.Model) -> keras.Model:
    """Holds the parameters of every trainable activation of a model as they are, and returns the model.

    Reaches those in nested models and in `activation=` too. Compile the model again before it is trained.
    """
    return _set_trainable(model, False)


def unfreeze_activations(model: keras.Model) -> keras.Model:
    """Undoes `freeze_activations`: trains the parameters of every trainable activation, and returns the model."""
    return _set_trainable(model, True)


def _set_trainable(model, value: bool) -> keras.Model:
    for layer in activations_of(model):
        layer.trainable = value
    return model


@contextmanager
def only_activations(model: keras.Model) -> Iterator[keras.Model]:
    """Trains nothing but the activations inside a `with`, to warm them up; afterwards what was trained before.

    Keras decides what is trained when a model is compiled, so compile it inside and again after:

    ```python
    with ka.only_activations(model):
        model.compile("adam", "mse")
        model.fit(x, y, epochs=2)
    model.compile("adam", "mse")
    model.fit(x, y, epochs=20)
    ```

    Layers such as `BatchNormalization` and `Dropout` go on as in any training; only weights are held.
    """
    _require_activations(model)
    own = {id(v) for layer in activations_of(model) for v in layer.variables}
    before = [(v, v.trainable) for v in model.variables]
    try:
        for variable, _ in before:
            if id(variable) not in own:
                variable.trainable = False
        yield model
    finally:
        for variable, trainable in before:
            variable.trainable = trainable


def optimizer_for(model: keras.Model, optimizer="adam", learning_rate_factor: float = 1.0):
    """An optimizer that treats a model's activation parameters apart: their own learning rate, no weight decay.

    ```python
    model.compile(ka.optimizer_for(model, keras.optimizers.AdamW(1e-3), learning_rate_factor=10.0), "mse")
    ```

    Args:
        model: a model that has its variables, with trainable activations.
        optimizer: a Keras optimizer that has not been used yet, or its name; it is changed in place.
        learning_rate_factor: what the learning rate is multiplied with for activation parameters.

    Returns:
        The optimizer, an instance of its class still; it is saved and loaded with the model.

    Raises:
        ValueError: for a model without trainable activations, an optimizer in use, or a negative factor; or where a
            variable of another layer has the name of an activation's (`parameters`, `mixing_weights`, `alpha`).
    """
    if not isinstance(learning_rate_factor, Real) or not learning_rate_factor >= 0:
        raise ValueError(f"`learning_rate_factor` must be a number of 0 or more. Received: {learning_rate_factor!r}")
    optimizer = keras.optimizers.get(optimizer)
    if optimizer.built:
        raise ValueError(f"The optimizer must not have been used yet. Received: {optimizer!r}")
    _require_activations(model)
    own = {id(v) for layer in activations_of(model) for v in layer.variables}
    names = sorted({v.name for v in model.variables if id(v) in own})
    for variable in model.trainable_variables:
        if variable.name in names and id(variable) not in own:
            raise ValueError(f"A variable that is no activation's has the name of one. Received: {variable.path}")
    return _with_rates(optimizer, float(learning_rate_factor), names)


def _require_activations(model):
    if not any(layer.variables for layer in activations_of(model)):
        raise ValueError(f"The model has no trainable activations, or is not built yet. Received: {model!r}")


@keras.saving.register_keras_serializable(package="keras_adaptact")
class ActivationRates(keras.optimizers.Optimizer):
    """What `optimizer_for` mixes into the class of an optimizer.

    It knows activation parameters by their variables' names: their paths differ in a model that is loaded.
    """

    learning_rate_factor: float
    activation_names: list[str]
    _plain_class: type[keras.optimizers.Optimizer]  # what it was mixed into

    def _apply_weight_decay(self, variables):
        others = [v for v in variables if v.name not in self.activation_names]
        if others:  # torch refuses an empty list
            super()._apply_weight_decay(others)

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        """Stretches the steps of activation parameters afterwards, as torch updates all variables in one go."""
        own = [v for v in trainable_variables if v.name in self.activation_names]
        before = [ops.copy(v.value) for v in own]
        super()._backend_update_step(grads, trainable_variables, learning_rate)
        if self.learning_rate_factor != 1.0:
            for variable, old in zip(own, before, strict=True):
                variable.assign(old + self.learning_rate_factor * (variable.value - old))

    def get_config(self):
        plain = self._plain_class.from_config(super().get_config())
        return {
            "optimizer": keras.optimizers.serialize(plain),
            "learning_rate_factor": self.learning_rate_factor,
            "activation_names": self.activation_names,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        optimizer = keras.optimizers.deserialize(config["optimizer"], custom_objects)
        return _with_rates(optimizer, config["learning_rate_factor"], config["activation_names"])


@cache
def _mixed(kind: type) -> type:
    mixed = type(kind.__name__, (ActivationRates, kind), {"_plain_class": kind})
    return keras.saving.register_keras_serializable("keras_adaptact", "ActivationRates")(mixed)


def _with_rates(optimizer, factor: float, names: list[str]):
    kind: Any = type(optimizer)
    optimizer.__class__ = _mixed(kind)
    optimizer.learning_rate_factor, optimizer.activation_names = factor, list(names)
    return optimizer
