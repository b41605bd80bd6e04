"""Keras's PReLU with the axes that alpha is shared over chosen right."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_adaptact.base import DataFormat, Granularity, channel_axis
from keras_adaptact.keras_private import make_path_unique
from keras_adaptact.parameters import Slot
from keras_adaptact.registry import register
from keras_adaptact.signatures import Constraint, Initializer, Regularizer


@register("prelu")
@keras.saving.register_keras_serializable(package="keras_adaptact")
class PReLU(keras.layers.PReLU):
    """Keras's PReLU, ``max(z, 0) + alpha min(z, 0)``, with the axes that alpha is shared over chosen right.

    Keras's own has an alpha for each *element* by default. This is Keras's layer with its variable `alpha`, so that
    whatever knows Keras's knows it; it has no `get_parameters` or `alpha_trainable`, keeps what the backend keeps
    for the backward pass, and is in no table or history of the library's own layers.

    ```python
    x = ka.PReLU(granularity="channel")(x)
    ```

    Args:
        granularity: `"layer"` for one alpha, `"channel"` for one for each channel.
        data_format: `"channels_last"` or `"channels_first"`; Keras's `image_data_format` by default.
        alpha_initializer: 0.25 by default, as in the reference.
        **kwargs: `alpha_regularizer`, `alpha_constraint`, and what every Keras layer takes.

    Reference: He et al., "Delving Deep into Rectifiers", 2015.
    """

    def __init__(
        self,
        granularity: Granularity = "layer",
        data_format: DataFormat | None = None,
        alpha_initializer: Initializer = None,
        alpha_regularizer: Regularizer = None,
        alpha_constraint: Constraint = None,
        **kwargs: Any,
    ):
        if granularity not in ("layer", "channel"):
            raise ValueError(f'`granularity` must be "layer" or "channel". Received: {granularity!r}')
        if data_format not in (None, "channels_last", "channels_first"):
            raise ValueError(f'`data_format` must be "channels_last" or "channels_first". Received: {data_format!r}')
        alpha = Slot.make("alpha", 0.25, alpha_initializer, alpha_regularizer, alpha_constraint)
        storage = kwargs.pop("storage", "flat")
        super().__init__(alpha.initializer, alpha.regularizer, alpha.constraint, **kwargs)
        self._storage = storage  # "rows", a matrix for series, in models of 0.1.0, as their optimizers' states are
        self.granularity = granularity
        self._follows_owner = data_format is None
        self.data_format = keras.config.image_data_format() if data_format is None else data_format

    def build(self, input_shape: Sequence[int | None]) -> None:
        rank = len(input_shape)
        own = {channel_axis(self.data_format, rank)} if self.granularity == "channel" else set()
        further = int(rank == 3 and self._storage == "flat")  # an axis of size 1, so that no optimizer sees a matrix
        self.shared_axes = [axis for axis in range(1, rank + further) if axis - further not in own]
        super().build((None, *further * (1,), *input_shape[1:]))
        self.input_spec = keras.layers.InputSpec(ndim=rank, axes={axis: input_shape[axis] for axis in own})
        make_path_unique(self.alpha)

    def build_for(self, owner: keras.layers.Layer, shape: tuple[int | None, ...]) -> None:
        if self._follows_owner:
            self.data_format = getattr(owner, "data_format", "channels_last")
        self.build(shape)

    def load_own_variables(self, store: Any) -> None:
        alpha, shape = np.asarray(store["0"]), tuple(self.alpha.shape)
        fits = alpha.size == np.prod(shape)  # a file of 0.1.0 may have another number of axes
        super().load_own_variables({"0": alpha.reshape(shape) if fits else alpha})

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "PReLU":
        return super().from_config({"storage": "rows"} | config)  # as it was in 0.1.0, which said nothing of it

    def get_config(self) -> dict[str, Any]:
        config = super().get_config() | {"granularity": self.granularity, "data_format": self.data_format}
        del config["shared_axes"]
        return config | {"storage": self._storage}
