"""Training a model's activations: frozen, alone, or with a learning rate of their own."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Real

import keras

from keras_adaptact.graphs import activations_of
from keras_adaptact.optimizers import Chosen, around


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

    It is an optimizer around the one given, whose settings and learning rate it shows, and which scales, accumulates,
    clips and averages gradients as before. Around a `LossScaleOptimizer` that stays outermost; a `MultiOptimizer` keeps
    its parts.

    Args:
        model: a model that has its variables, with trainable activations.
        optimizer: a Keras optimizer that has not been used yet, or its name; it is changed in place.
        learning_rate_factor: what the learning rate is multiplied with for activation parameters.

    Returns:
        The optimizer, which is saved and loaded with the model.

    Raises:
        ValueError: for a model without trainable activations, an optimizer in use, or a negative factor; and in the
            first step, for an optimizer of one's own whose `apply` never calls `update_step`.
    """
    if not isinstance(learning_rate_factor, Real) or not 0 <= learning_rate_factor < math.inf:
        raise ValueError(f"`learning_rate_factor` must be a number of 0 or more. Received: {learning_rate_factor!r}")
    optimizer = keras.optimizers.get(optimizer)
    if optimizer.built:
        raise ValueError(f"The optimizer must not have been used yet. Received: {optimizer!r}")
    _require_activations(model)
    own = [v for layer in activations_of(model) for v in layer.variables]
    return around(optimizer, float(learning_rate_factor), Chosen.of(own, model.trainable_variables))


def _require_activations(model):
    if not any(layer.variables for layer in activations_of(model)):
        raise ValueError(f"The model has no trainable activations, or is not built yet. Received: {model!r}")
