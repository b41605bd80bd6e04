"""Training a model's activations: frozen, alone, or with a learning rate of their own."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import keras
from keras import ops

from keras_adaptact.surgery import activations_of


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
        ValueError: for a model without trainable activations, an optimizer in use, or a negative factor.
    """
    optimizer = keras.optimizers.get(optimizer)
    if optimizer.built:
        raise ValueError(f"The optimizer must not have been used yet. Received: {optimizer!r}")
    if learning_rate_factor < 0:
        raise ValueError(f"`learning_rate_factor` must be 0 or more. Received: {learning_rate_factor!r}")
    _require_activations(model)
    paths = sorted({v.path for layer in activations_of(model) for v in layer.variables})
    return _with_rates(optimizer, float(learning_rate_factor), paths)


def _require_activations(model):
    if not any(layer.variables for layer in activations_of(model)):
        raise ValueError(f"The model has no trainable activations, or is not built yet. Received: {model!r}")


@keras.saving.register_keras_serializable(package="keras_adaptact")
class ActivationRates:
    """What `optimizer_for` mixes into the class of an optimizer.

    It finds the activation parameters by their variables' paths, which are the same in a model that is loaded.
    """

    learning_rate_factor: float
    activation_paths: list[str]

    def build(self, variables):
        paths = set(self.activation_paths)
        self._activation_keys = {self._var_key(v) for v in variables if v.path in paths}
        super().build(variables)

    def _use_weight_decay(self, variable):
        return self._var_key(variable) not in self._activation_keys and super()._use_weight_decay(variable)

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        """Stretches the steps of activation parameters afterwards, as torch updates all variables in one go."""
        own = [v for v in trainable_variables if self._var_key(v) in self._activation_keys]
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
            "activation_paths": self.activation_paths,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        optimizer = keras.optimizers.deserialize(config["optimizer"], custom_objects)
        return _with_rates(optimizer, config["learning_rate_factor"], config["activation_paths"])


@cache
def _mixed(kind: type) -> type:
    mixed = type(kind.__name__, (ActivationRates, kind), {"_plain_class": kind})
    return keras.saving.register_keras_serializable("keras_adaptact", "ActivationRates")(mixed)


def _with_rates(optimizer, factor: float, paths: list[str]):
    optimizer.__class__ = _mixed(type(optimizer))
    optimizer.learning_rate_factor, optimizer.activation_paths = factor, list(paths)
    return optimizer
