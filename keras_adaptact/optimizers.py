"""An optimizer around another, which treats the parameters of activations apart."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from keras_adaptact.keras_private import part_for, takes_decay


@dataclass(frozen=True)
class Chosen:
    """Some variables of a model, which are found again by their places when the model is loaded.

    Files of version 0.1.0 have their names alone.
    """

    activation_names: Sequence[str]  # of the chosen
    variable_names: Sequence[str] = ()  # of all that are trained, in order
    positions: Sequence[int] = ()  # of the chosen among them
    variables: Sequence[Any] = ()  # the chosen themselves, as far as they are known

    @classmethod
    def of(cls, chosen: Sequence, trained: Sequence, key: Callable = id) -> "Chosen":
        keys = {key(v) for v in chosen}
        positions = [i for i, v in enumerate(trained) if key(v) in keys]
        names = [v.name for v in trained]
        return cls(sorted({v.name for v in chosen}), names, positions, tuple(chosen))

    def among(self, trained: Sequence, key: Callable) -> "Chosen":
        """The same for the variables that are really trained."""
        return Chosen.of(self.variables or self._found(trained), trained, key)

    def _found(self, trained: Sequence) -> list:
        if [v.name for v in trained] == list(self.variable_names):
            return [trained[i] for i in self.positions]
        others = {name for i, name in enumerate(self.variable_names) if i not in self.positions}
        if unclear := others & set(self.activation_names):
            raise ValueError(
                "The optimizer was saved for other variables, and can't tell which are activations'. Load the model "
                f"with `compile=False` and compile it with `optimizer_for`. Received: several named {min(unclear)}"
            )
        return [v for v in trained if v.name in self.activation_names]

    def config(self) -> dict[str, list]:
        names = ("activation_names", "variable_names", "positions")
        return {name: list(getattr(self, name)) for name in names}


class _Inner:
    """An attribute of the optimizer inside, read and written there."""

    def __set_name__(self, owner, name):
        self.name = name

    def __get__(self, outer, owner=None):
        return self if outer is None else getattr(outer.inner_optimizer, self.name)

    def __set__(self, outer, value):
        if "inner_optimizer" in vars(outer):  # not yet in Keras's constructor, which sets what an optimizer has alone
            setattr(outer.inner_optimizer, self.name, value)


@keras.saving.register_keras_serializable(package="keras_adaptact")
class ActivationRates(keras.optimizers.Optimizer):
    """An optimizer around another, with a learning rate of their own and no weight decay for some variables.

    `optimizer_for` makes one. All state and all settings are those of the optimizer inside, which scales, accumulates,
    clips and averages as it would alone; only the steps of the chosen variables are changed.

    Args:
        optimizer: a Keras optimizer that has not been used yet; it is changed in place.
        learning_rate_factor: what the learning rate is multiplied with for the chosen variables.
        chosen: those variables.
        step_limit: the length of a step of each of them at most, of SGD's before momentum; None for any.
    """

    built, variables, iterations, learning_rate = _Inner(), _Inner(), _Inner(), _Inner()
    weight_decay, clipnorm, clipvalue, global_clipnorm = _Inner(), _Inner(), _Inner(), _Inner()
    use_ema, ema_momentum, ema_overwrite_frequency = _Inner(), _Inner(), _Inner()
    loss_scale_factor, gradient_accumulation_steps = _Inner(), _Inner()
    _iterations, _trainable_variables, _trainable_variables_indices = _Inner(), _Inner(), _Inner()

    def __init__(
        self,
        optimizer: keras.optimizers.Optimizer,
        learning_rate_factor: float,
        chosen: Chosen,
        step_limit: float | None = None,
    ):
        super().__init__(learning_rate=0.0, name=optimizer.name)
        self.inner_optimizer = optimizer
        self.learning_rate_factor, self.step_limit = learning_rate_factor, step_limit
        self._choose(chosen)
        self._updated = False  # whether an update came by what is changed here

    def __getattr__(self, name):
        own = "inner_optimizer", "_lock", "_tracker"  # from the constructor on; and what TensorFlow tracks by
        if name in own or name.startswith("_self_"):
            raise AttributeError(f"{type(self).__name__} has no attribute {name}")
        return getattr(self.inner_optimizer, name)

    def __dir__(self):
        """Without the optimizer inside: Keras saves all that it finds here, and that one's variables are this one's."""
        return [name for name in super().__dir__() if name != "inner_optimizer"]

    # What is changed

    def _choose(self, chosen: Chosen) -> None:
        self.chosen = chosen
        self._keys = frozenset(self._var_key(v) for v in chosen.variables)

    def _is_chosen(self, variable) -> bool:
        return self._var_key(variable) in self._keys

    def build(self, variables):
        if self.built:  # its steps are changed already
            return
        self._choose(self.chosen.among(variables, self._var_key))
        self.inner_optimizer.build(variables)
        for leaf in leaves(self.inner_optimizer):
            self._change(leaf)

    def _change(self, leaf) -> None:
        """Replaces the methods that take a step; their gradients are unscaled, averaged over batches and clipped."""
        leaf._apply_weight_decay = self._decay_of_others(leaf, leaf._apply_weight_decay)
        if self._changes_steps:
            leaf.update_step = self._at_own_rate(leaf, leaf.update_step)
            if hasattr(leaf, "_parallel_update_step"):  # torch updates all variables in one go
                leaf._parallel_update_step = self._in_two_parts(leaf, leaf._parallel_update_step)

    @property
    def _changes_steps(self) -> bool:
        return self.learning_rate_factor != 1.0 or self.step_limit is not None

    def _decay_of_others(self, leaf, decay: Callable) -> Callable:
        def decay_of_others(variables):
            others = [v for v in variables if not self._is_chosen(v) and takes_decay(leaf, v)]
            if others:  # torch refuses an empty list
                decay(others)

        return decay_of_others

    def _at_own_rate(self, leaf, step: Callable) -> Callable:
        def update_step(gradient, variable, learning_rate):
            self._updated = True
            chosen = self._is_chosen(variable)
            rate = self._rate(learning_rate, chosen)
            with self._within_limit(leaf, [variable] if chosen else []):
                step(self._limited(leaf, gradient, rate, chosen), variable, rate)

        return update_step

    def _in_two_parts(self, leaf, step: Callable) -> Callable:
        def parallel_update_step(grads, variables, learning_rate):
            self._updated = True
            product = getattr(leaf, "_u_product", None)  # of Nadam, which multiplies it at each call
            before = None if product is None else ops.copy(product.value)
            for chosen in (False, True):
                rate = self._rate(learning_rate, chosen)
                pairs = zip(grads, variables, strict=True)
                part = [(self._limited(leaf, g, rate, chosen), v) for g, v in pairs if self._is_chosen(v) == chosen]
                if part:
                    if product is not None:
                        product.assign(before)
                    gradients, own = map(list, zip(*part, strict=True))
                    with self._within_limit(leaf, own if chosen else []):
                        step(gradients, own, rate)

        return parallel_update_step

    def _rate(self, learning_rate, chosen: bool):
        return learning_rate * self.learning_rate_factor if chosen else learning_rate

    def _limited(self, leaf, gradient, rate, chosen: bool):
        """The gradient, of SGD limited: what its momentum sums are steps that are no longer than they may be."""
        if not chosen or self.step_limit is None or not isinstance(leaf, keras.optimizers.SGD):
            return gradient
        return limited(gradient, rate, self.step_limit)

    @contextmanager
    def _within_limit(self, leaf, variables: Sequence) -> Iterator[None]:
        """Limits the steps that an optimizer takes inside, if it isn't SGD and its steps don't scale with gradients."""
        if self.step_limit is None or isinstance(leaf, keras.optimizers.SGD):
            yield
            return
        before = [ops.copy(ops.convert_to_tensor(v)) for v in variables]
        yield
        for variable, start in zip(variables, before, strict=True):
            step = ops.subtract(variable, start)
            variable.assign(ops.add(start, limited(step, 1.0, self.step_limit)))

    # What is the inner optimizer's

    def apply(self, grads, trainable_variables=None):
        if not self.built and trainable_variables is not None:
            trainable_variables = list(trainable_variables)
            self.build(trainable_variables)
        with self._seen_to_update():
            self.inner_optimizer.apply(grads, trainable_variables)

    def stateless_apply(self, optimizer_variables, grads, trainable_variables):
        with self._seen_to_update():
            return self.inner_optimizer.stateless_apply(optimizer_variables, grads, trainable_variables)

    @contextmanager
    def _seen_to_update(self) -> Iterator[None]:
        """Refuses an optimizer that doesn't come by what is changed here."""
        waits = any(leaf.gradient_accumulation_steps for leaf in leaves(self.inner_optimizer))
        self._updated = waits or not self._changes_steps
        yield
        if not self._updated:
            raise ValueError(
                "A learning rate of its own for activations needs an optimizer whose `apply` calls `update_step` for "
                f"each variable, as Keras's do. Received: {self.inner_optimizer!r}"
            )

    def scale_loss(self, loss):
        return self.inner_optimizer.scale_loss(loss)

    def finalize_variable_values(self, var_list):
        self.inner_optimizer.finalize_variable_values(var_list)

    def exclude_from_weight_decay(self, var_list=None, var_names=None):
        self.inner_optimizer.exclude_from_weight_decay(var_list, var_names)

    def set_weights(self, weights):
        self.inner_optimizer.set_weights(weights)

    def save_own_variables(self, store):
        self.inner_optimizer.save_own_variables(store)

    def load_own_variables(self, store):
        self.inner_optimizer.load_own_variables(store)

    def get_config(self):
        optimizer = keras.saving.serialize_keras_object(self.inner_optimizer)
        own = {"learning_rate_factor": self.learning_rate_factor, "step_limit": self.step_limit}
        return {"optimizer": optimizer, **own, **self.chosen.config()}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        optimizer = keras.saving.deserialize_keras_object(config["optimizer"], custom_objects)
        own = ("optimizer", "learning_rate_factor", "step_limit")
        known = {name: value for name, value in config.items() if name not in own}
        return around(optimizer, config["learning_rate_factor"], Chosen(**known), config.get("step_limit"))


def around(optimizer, learning_rate_factor: float, chosen: Chosen, step_limit: float | None = None):
    """The optimizer with an `ActivationRates` around it, but inside of one that scales the loss."""
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        optimizer.inner_optimizer = around(optimizer.inner_optimizer, learning_rate_factor, chosen, step_limit)
        return optimizer
    return ActivationRates(optimizer, learning_rate_factor, chosen, step_limit)


def limited(gradient, rate, limit: float):
    """``g min(1, limit / (rate ||g||))``: a step of SGD, before momentum, no longer than the limit. NaN stays NaN."""
    length = rate * ops.norm(ops.reshape(gradient, (-1,)))
    return gradient * (limit / ops.maximum(length, limit))


def _is_multiple(optimizer) -> bool:
    kind = getattr(keras.optimizers, "MultiOptimizer", None)  # from Keras 3.15 on
    return kind is not None and isinstance(optimizer, kind)


def leaves(optimizer) -> list:
    """The optimizers that take steps: those inside of optimizers around others."""
    if inner := getattr(optimizer, "inner_optimizer", None):
        return leaves(inner)
    if _is_multiple(optimizer):
        return [leaf for each in optimizer.optimizers for leaf in leaves(each)]
    return [optimizer]


def has_step_limit(optimizer) -> bool:
    """Whether an optimizer limits the steps of activation parameters."""
    if isinstance(optimizer, ActivationRates):
        return optimizer.step_limit is not None
    inner = getattr(optimizer, "inner_optimizer", None)
    return inner is not None and has_step_limit(inner)


def decays(optimizer, variable) -> bool:
    """Whether an optimizer's weight decay pulls on a variable."""
    if isinstance(optimizer, ActivationRates) and optimizer._is_chosen(variable):
        return False
    if inner := getattr(optimizer, "inner_optimizer", None):
        return decays(inner, variable)
    if _is_multiple(optimizer):
        return decays(part_for(optimizer, variable), variable)
    decay = optimizer.weight_decay or getattr(optimizer, "adam_weight_decay", None)
    return bool(decay) and takes_decay(optimizer, variable)
