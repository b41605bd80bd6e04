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


def optimizer_for(
    model: keras.Model, optimizer="adam", learning_rate_factor: float = 1.0, step_limit: float | None = None
):
    """An optimizer that treats a model's activation parameters apart: own rate, no weight decay, limited steps.

    With a `step_limit` the gradient g of a layer's activation parameters becomes, for SGD,

        g * min(1, step_limit / (rate * ||g||))

    after unscaling, accumulation and clipping, so that no step of plain SGD is longer, and with a momentum m none
    longer than step_limit / (1 - m). The step s of any other optimizer, which doesn't scale with g, becomes

        s * min(1, step_limit / ||s||)

    The gradient sums over every position and channel, and feeds back into itself by `a z`: without a limit activations
    diverge at rates that the network itself stands. `benchmarks/stability.py` has the evidence for 0.003.

    ```python
    model.compile(ka.optimizer_for(model, keras.optimizers.AdamW(1e-3), learning_rate_factor=10.0), "mse")
    model.compile(ka.optimizer_for(model, keras.optimizers.SGD(0.1, 0.9), step_limit=0.003), "mse")
    ```

    It is an optimizer around the one given, whose settings and learning rate it shows, and which scales, accumulates,
    clips and averages gradients as before. Around a `LossScaleOptimizer` that stays outermost; a `MultiOptimizer` keeps
    its parts.

    Args:
        model: a model that has its variables, with trainable activations.
        optimizer: a Keras optimizer that has not been used yet, or its name; it is changed in place.
        learning_rate_factor: what the learning rate is multiplied with for activation parameters.
        step_limit: the length, above 0, that a step of one variable of an activation has at most, of SGD's before
            momentum: of its parameters, and of its mixing weights. None leaves steps as they are.

    Returns:
        The optimizer, which is saved and loaded with the model.

    Raises:
        ValueError: for a model without trainable activations, an optimizer in use, a negative factor or limit; and in
            the first step, for an optimizer of one's own whose `apply` never calls `update_step`.
    """
    if not isinstance(learning_rate_factor, Real) or not 0 <= learning_rate_factor < math.inf:
        raise ValueError(f"`learning_rate_factor` must be a number of 0 or more. Received: {learning_rate_factor!r}")
    if step_limit is not None and not (isinstance(step_limit, Real) and 0 < step_limit < math.inf):
        raise ValueError(f"`step_limit` must be a number above 0, or None. Received: {step_limit!r}")
    optimizer = keras.optimizers.get(optimizer)
    if optimizer.built:
        raise ValueError(f"The optimizer must not have been used yet. Received: {optimizer!r}")
    _require_activations(model)
    own = [v for layer in activations_of(model) for v in layer.variables]
    chosen = Chosen.of(own, model.trainable_variables)
    return around(optimizer, float(learning_rate_factor), chosen, step_limit)


def _require_activations(model):
    if not any(layer.variables for layer in activations_of(model)):
        raise ValueError(f"The model has no trainable activations, or is not built yet. Received: {model!r}")
