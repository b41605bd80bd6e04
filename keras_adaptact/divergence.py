"""Which parameter grew without bound when a loss became NaN or infinite."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_adaptact.graphs import activations_of
from keras_adaptact.inspection import trainable_activations


class Divergence(NamedTuple):
    """Which parameter went first in a divergence; as text, two lines.

    Of all parameters it is the one that had grown most, against its start, when all were last finite; or, where only
    some became NaN or infinite, the one of those that had. `value` and `start` are its largest value by magnitude,
    `start` when training began.
    """

    step: int  # of the training, from 1: its loss or a parameter after it was not finite
    site: str  # the layer, by the name in `activation_table`
    parameter: str
    is_activation: bool
    value: float
    value_step: int  # after which it had that value
    start: float
    learning_rate: float

    @property
    def what(self) -> str:
        """What happened, in one line."""
        return (
            f"diverged at step {self.step}, learning rate {self.learning_rate:.3g}: {self.site} went first, its "
            f"{self.parameter} was {self.value:.4g} after step {self.value_step}, from {self.start:.4g}"
        )

    @property
    def advice(self) -> str:
        """What to try, in one line."""
        advice = f"try a learning rate of {self.learning_rate / 4:.2g} or a warm-up"
        if self.is_activation:
            return f"{advice}, `optimizer_for(model, ..., step_limit=0.01)`, or `freeze_activations`"
        return f"{advice}, `clipnorm=1` in the optimizer, or batch normalization"

    def __str__(self):
        return f"{self.what}\n{self.advice}"


class Where(NamedTuple):
    site: str
    parameter: str
    is_activation: bool


Magnitudes = dict[Where, float]
Logs = dict[str, Any] | None


class StopOnDivergence(keras.callbacks.Callback):
    """Stops training at the first NaN or infinite loss, and says which layer's parameter went first.

    ```python
    watch = ka.StopOnDivergence()
    model.fit(x, y, epochs=20, callbacks=[watch])
    print(watch.divergence)  # None, if all went well
    ```

    A check reads the loss and the largest magnitude of each trainable parameter, which costs a few reductions and a
    synchronization with the device.

    Args:
        every: how many steps lie between two checks; the end of an epoch is always checked. Larger values cost less
            and locate the step less exactly.
        verbose: 1 prints the two lines of the `divergence`, 0 doesn't.

    Raises:
        ValueError: for an `every` below 1.
    """

    def __init__(self, every: int = 1, verbose: int = 1):
        super().__init__()
        if not isinstance(every, int) or every < 1:
            raise ValueError(f"`every` must be an integer of 1 or more. Received: {every!r}")
        self.every, self.verbose = every, verbose
        self.divergence: Divergence | None = None

    def on_train_begin(self, logs: Logs = None) -> None:
        self.divergence = None
        self._start = self._last = self._magnitudes()
        self._last_step = self._step = self._before = 0  # looked at, ended, and ended before this epoch

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        self._before = self._step

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        before, self._step = self._step, self._before + batch + 1
        if before // self.every < self._step // self.every:
            self._look(logs)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        if self._last_step < self._step:
            self._look(logs)

    def _look(self, logs):
        if self.divergence is not None:
            return
        values, loss = self._magnitudes(), float(ops.convert_to_numpy((logs or {}).get("loss", 0.0)))
        if np.isfinite(loss) and all(map(np.isfinite, values.values())):
            self._last, self._last_step = values, self._step
            return
        self.divergence = self._explained(values)
        self.model.stop_training = True
        if self.verbose:
            print(self.divergence, flush=True)

    def _magnitudes(self) -> Magnitudes:
        if hasattr(self.model, "jax_state_sync"):
            self.model.jax_state_sync()
        return dict(_magnitudes(self.model))

    def _explained(self, values: Magnitudes) -> Divergence:
        lost = [where for where, value in values.items() if not np.isfinite(value)]

        def growth(where: Where) -> float:
            return abs(self._last[where]) / max(abs(self._start[where]), 1.0 if where.is_activation else 0.1)

        worst = max(lost or values, key=growth)
        rate = float(ops.convert_to_numpy(self.model.optimizer.learning_rate))
        return Divergence(self._step, *worst, self._last[worst], self._last_step, self._start[worst], rate)


def _magnitudes(model: keras.Model) -> Iterator[tuple[Where, float]]:
    """The number of largest magnitude of each trained parameter; of weights that are no activation's without sign."""
    read: set[int] = set()
    for site, layer in trainable_activations(model).items():
        if layer.trainable_variables:
            read |= {id(v) for v in layer.trainable_variables}
            for name, value in layer.formula_parameters().items():
                flat = np.ravel(value)
                yield Where(site, name, True), float(flat[np.argmax(np.abs(flat))])  # the first NaN, if there is one
    slopes = {id(v) for layer in activations_of(model) for v in layer.trainable_variables}
    for v in model.trainable_variables:
        if id(v) not in read:
            site, _, name = v.path.rpartition("/")
            largest = ops.max(ops.where(ops.isfinite(v.value), ops.abs(v.value), np.inf))
            yield Where(site, name, id(v) in slopes), float(ops.convert_to_numpy(largest))
