"""Training of a model's activations: frozen, alone, or with their own learning rate."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Real

import keras

from keras_adaptact.graphs import activations_of, every_layer
from keras_adaptact.keras_private import set_own_trainable
from keras_adaptact.optimizers import Chosen, around


def freeze_activations(model: keras.Model) -> keras.Model:
    """Freezes the parameters of every trainable activation of a model, and returns the model.

    Includes those in nested models and in `activation=`. Compile the model again before training.

    Raises:
        ValueError: for a model without trainable activations.
    """
    for layer in _activations(model):
        layer.trainable = False
    return model


def unfreeze_activations(model: keras.Model) -> keras.Model:
    """Trains the parameters of every trainable activation, and returns the model.

    Undoes `freeze_activations`. In a model that is frozen itself (`model.trainable = False`) they are trained alone;
    a parameter with a setting of its own, such as `a_trainable=False`, stays frozen.

    Raises:
        ValueError: for a model without trainable activations.
    """
    activations = _activations(model)
    if not model.trainable:
        _hold_others(model)
        set_own_trainable(model, True)
    for layer in activations:
        layer.trainable = True
    return model


@contextmanager
def only_activations(model: keras.Model) -> Iterator[keras.Model]:
    """Trains nothing but the activations inside a `with`, to warm them up; afterwards what was trained before.

    They are trained whether or not they, or the model, were frozen before, as in transfer learning; a parameter with a
    setting of its own, such as `a_trainable=False`, stays frozen. Keras decides what is trained when a model is
    compiled, so compile it inside and again after:

    ```python
    with ka.only_activations(model):
        model.compile("adam", "mse")
        model.fit(x, y, epochs=2)
    model.compile("adam", "mse")
    model.fit(x, y, epochs=20)
    ```

    Layers such as `BatchNormalization` and `Dropout` behave as in any training, or as frozen layers where they are
    frozen; only weights are held.

    Raises:
        ValueError: for a model that isn't built, one without trainable activations, and one whose activations hold
            all of their parameters.
    """
    activation_variables(model)
    layers = [(layer, layer.trainable) for layer in (model, *every_layer(model))]
    variables = [(v, v.trainable) for v in model.variables]
    try:
        _hold_others(model)
        unfreeze_activations(model)
        if not model.trainable_variables:
            raise ValueError(f"All parameters of the model's activations are held. Received: {model!r}")
        yield model
    finally:
        for layer, trainable in layers:
            set_own_trainable(layer, trainable)
        for variable, trainable in variables:
            variable.trainable = trainable


def optimizer_for(
    model: keras.Model,
    optimizer: str | keras.optimizers.Optimizer = "adam",
    learning_rate_factor: float = 1.0,
    step_limit: float | None = None,
) -> keras.optimizers.Optimizer:
    """An optimizer that treats activation parameters separately: own rate, no weight decay, limited steps.

    With a `step_limit` the gradient g of a layer's activation parameters becomes, for SGD,

        g * min(1, step_limit / (rate * ||g||))

    after unscaling, accumulation and clipping, so that no step of plain SGD is longer, and with a momentum m none
    longer than step_limit / (1 - m). The step s of any other optimizer, which doesn't scale with g, becomes

        s * min(1, step_limit / ||s||)

    The gradient sums over every position and channel, and feeds back into itself by `a z`: without a limit activations
    diverge at rates at which the network itself trains. `benchmarks/stability.py` has the evidence for 0.01, and
    for 0.1 with SGD that has no momentum.

    ```python
    model.compile(ka.optimizer_for(model, keras.optimizers.AdamW(1e-3), learning_rate_factor=10.0), "mse")
    model.compile(ka.optimizer_for(model, keras.optimizers.SGD(0.1, 0.9), step_limit=0.01), "mse")
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
        ValueError: for a model without trainable activations, an optimizer in use, or a negative factor or limit; and
            in the first step, for a custom optimizer whose `apply` never calls `update_step`.
    """
    check_factor("learning_rate_factor", learning_rate_factor)
    if step_limit is not None and not (isinstance(step_limit, Real) and 0 < step_limit < math.inf):
        raise ValueError(f"`step_limit` must be a number above 0, or None. Received: {step_limit!r}")
    optimizer = keras.optimizers.get(optimizer)
    if optimizer.built:
        raise ValueError(f"The optimizer must not have been used yet. Received: {optimizer!r}")
    chosen = Chosen.of(activation_variables(model), model.trainable_variables)
    return around(optimizer, float(learning_rate_factor), chosen, step_limit)


def activation_variables(model: keras.Model) -> list:
    """The variables of a model's trainable activations.

    Raises:
        ValueError: for a model without any, or one that isn't built: variables that come later would be missed.
    """
    activations = _activations(model)
    unbuilt = [layer.name for layer in (model, *every_layer(model)) if not layer.built]
    if unbuilt:
        raise ValueError(
            f"The model must be built: call it once before. Received: {model!r}, in which {', '.join(unbuilt)} has no "
            "variables yet"
        )
    return [v for layer in activations for v in layer.variables]


def _hold_others(model) -> None:
    own = {id(v) for layer in activations_of(model) for v in layer.variables}
    for variable in model.variables:
        if id(variable) not in own:
            variable.trainable = False


def check_factor(argument: str, value: float) -> None:
    if not isinstance(value, Real) or not 0 <= value < math.inf:
        raise ValueError(f"`{argument}` must be a number of 0 or more. Received: {value!r}")


def _activations(model) -> list[keras.layers.Layer]:
    found = activations_of(model)
    if not found:
        raise ValueError(f"The model has no trainable activations, or is not built yet. Received: {model!r}")
    return found
