"""For training loops other than Keras's: constraints, and which parameters belong to activations."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras

from keras_adaptact.graphs import require_layer
from keras_adaptact.parameters import constrained
from keras_adaptact.training import activation_variables, check_factor


def apply_constraints(model: keras.Model, values: Sequence[Any] | None = None) -> Sequence[Any] | None:
    """Applies the constraints of trained variables, as only Keras's optimizers do by themselves.

    The raw weights of a mixture lie between 1e-3 and 1e4 with `normalization="sum"`, a and b of PELU between 0.1 and
    1e4; beyond, their formulas divide by 0 or grow without limit. Kernels with a `kernel_constraint` count, too.

    ```python
    optimizer.step()
    ka.apply_constraints(model)
    ```

    With `values` it is a pure function that can be compiled, for loops that hold a model's state themselves:

    ```python
    values = ka.apply_constraints(model, optax.apply_updates(values, updates))
    ```

    Args:
        model: a model or layer that has its variables.
        values: a tensor for each of `model.trainable_variables`, in their order. By default what the variables hold,
            which are then changed in place.

    Returns:
        The values within their bounds, a list or a tuple as they were; None where the variables are changed.

    Raises:
        ValueError: for a model without variables, or another number of values.
    """
    require_layer(model)
    if not model.variables:
        raise ValueError(f"The model has no variables yet: call it once. Received: {model!r}")
    variables = model.trainable_variables
    if values is not None:
        if len(values) != len(variables):
            raise ValueError(f"`values` must be one for each of {len(variables)} variables. Received: {len(values)}")
        bounded = [constrained(variable, value) for variable, value in zip(variables, values, strict=True)]
        return tuple(bounded) if isinstance(values, tuple) else bounded
    for variable in variables:
        if variable.constraint is not None:
            variable.assign(constrained(variable))
    return None


def parameter_labels(model: keras.Model, activation: Any = "activation", other: Any = "other") -> list[Any]:
    """A label for each of `model.trainable_variables`, in their order: whether it is a trainable activation's.

    ```python
    labels = ka.parameter_labels(model)
    optax.multi_transform({"activation": optax.adam(1e-2), "other": optax.adamw(1e-3)}, labels)
    optax.add_decayed_weights(1e-4, mask=ka.parameter_labels(model, activation=False, other=True))
    ```

    Args:
        model: a model that has its variables, with trainable activations.
        activation: the label of their parameters.
        other: that of all other variables.

    Raises:
        ValueError: for a model without trainable activations, or one that is not built.
    """
    own = {id(v) for v in activation_variables(model)}
    return [activation if id(v) in own else other for v in model.trainable_variables]


def parameter_groups(
    model: keras.Model, learning_rate_factor: float = 1.0, weight_decay: float = 0.0
) -> list[dict[str, Any]]:
    """Two groups of parameters for any optimizer of `torch.optim` that takes groups: activations', and all others.

    ```python
    optimizer = torch.optim.AdamW(ka.parameter_groups(model, learning_rate_factor=10.0), lr=1e-3, weight_decay=0.01)
    ```

    Each parameter that is trained is in one of them, once. The optimizer's settings are those of the others. Freeze
    and unfreeze before: what isn't trained is in neither, and a group of nothing is left out.

    Args:
        model: a model that has its variables, with trainable activations, on torch.
        learning_rate_factor: what the optimizer's `lr` is multiplied with for activation parameters.
        weight_decay: of activation parameters, in an optimizer that has it.

    Raises:
        ValueError: for a model without trainable activations, or one that is not built; a negative number; and on
            other backends.
    """
    if keras.config.backend() != "torch":
        raise ValueError(f"`parameter_groups` is for torch's optimizers. Received: a model on {keras.config.backend()}")
    check_factor("learning_rate_factor", learning_rate_factor)
    check_factor("weight_decay", weight_decay)
    labels = parameter_labels(model)
    parameters: dict[str, list] = {label: [] for label in ("other", "activation")}
    for variable, label in zip(model.trainable_variables, labels, strict=True):
        parameters[label].append(variable.value)
    own = _Group(params=parameters["activation"], lr=_Multiple(learning_rate_factor), weight_decay=weight_decay)
    return [group for group in ({"params": parameters["other"]}, own) if group["params"]]


@dataclass(frozen=True)
class _Multiple:
    """A multiple of a learning rate that isn't known yet; no optimizer can take it for a number."""

    factor: float


class _Group(dict):
    """A group that learns its optimizer's rate when the optimizer fills in its defaults."""

    def setdefault(self, key, default=None):
        if key == "lr" and isinstance(self[key], _Multiple):
            self[key] = default * self[key].factor
        return super().setdefault(key, default)
