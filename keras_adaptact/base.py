"""The machinery of a trainable activation, once: variables, granularity, dtype, configuration."""

import inspect
from collections.abc import Callable, Sequence
from typing import ClassVar

import keras
import numpy as np
from keras import ops

from keras_adaptact import backends
from keras_adaptact.parameters import SETTINGS, Parameter, Slot, constrain_rows, initialize_rows, regularize_rows


class TrainableActivation(keras.layers.Layer):
    """Base of the library's layers: an elementwise formula with a few trainable numbers.

    A subclass declares its numbers and its formula, and is complete:

    ```python
    @keras.saving.register_keras_serializable(package="my_package")
    class Snake(ka.TrainableActivation):
        a = ka.Parameter(1.0)

        def formula(self, z, a):
            return z + ops.sin(a * z) ** 2 / a
    ```

    The numbers of a layer lie together in one variable, `parameters`, of shape (numbers,) or
    (numbers, channels). They are stored and computed with in float32 at least: under a policy of float16 or
    bfloat16, mixed or not, the layer's input and output have the low precision, its parameters and their gradients
    do not.

    Args:
        granularity: `"layer"`, one set of numbers for the layer, which then exist from the start; or
            `"channel"`, one set for each channel, which exist once the number of channels is known.
        channels: number of channels, for `granularity="channel"`. Needed where the layer is passed as
            `activation=` to another one, which can't tell it; elsewhere it is taken from the first input.
        data_format: `"channels_last"` or `"channels_first"`, where the channels are in an input of rank 3 or
            more; Keras's `image_data_format` by default. In an input of rank 2 they are last.
        {name}_initializer: for each number (`a_initializer`, ...): a Keras initializer, or a value.
        {name}_regularizer: a Keras regularizer. None by default.
        {name}_constraint: a Keras constraint. None by default, unless the class says otherwise.
        **kwargs: `name`, `dtype`, `trainable` of a Keras layer.

    Input: a tensor of any shape. Output: the same shape, in the layer's compute dtype.

    Raises:
        ValueError: for a setting that is not one of the above, or an input of another number of channels.
    """

    declared: ClassVar[dict[str, Parameter]] = {}

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        own = {name: value for name, value in vars(cls).items() if isinstance(value, Parameter)}
        cls.declared = cls.declared | own

    def __init__(self, granularity="layer", channels=None, data_format=None, **kwargs):
        self._setup(self._declared_slots(kwargs), granularity, channels, data_format, kwargs)
        self._create_if_known()

    def _setup(self, slots: Sequence[Slot], granularity, channels, data_format, kwargs):
        if granularity not in ("layer", "channel"):
            raise ValueError(f'`granularity` must be "layer" or "channel". Received: {granularity!r}')
        if channels is not None and granularity == "layer":
            raise ValueError(f'`channels` belongs to granularity="channel" only. Received: {channels!r}')
        if channels is not None and (not isinstance(channels, int | np.integer) or channels < 1):
            raise ValueError(f"`channels` must be a positive integer. Received: {channels!r}")
        for setting in kwargs:
            if setting.endswith(SETTINGS):
                known = ", ".join(slot.name for slot in slots) or "none"
                raise ValueError(f"{type(self).__name__} has the parameters {known}. Received: {setting}")
        if kwargs.get("name") is None:
            kwargs["name"] = _automatic_name(type(self).__name__.lower())
        super().__init__(**kwargs)
        self.supports_masking = True
        self.granularity = granularity
        self.channels = channels
        self.data_format = keras.config.image_data_format() if data_format is None else data_format
        if self.data_format not in ("channels_last", "channels_first"):
            raise ValueError(f'`data_format` must be "channels_last" or "channels_first". Received: {data_format!r}')
        self._slots = tuple(slots)
        self._packed = None
        self._shape: tuple[int, ...] | None = None  # of one parameter; None until it is known

    @classmethod
    def settings(cls) -> list[str]:
        """The constructor's arguments that belong to single parameters: `a_initializer` and so on."""
        return [f"{name}_{setting}" for name in cls.declared for setting in SETTINGS]

    @classmethod
    def _declared_slots(cls, kwargs: dict) -> tuple[Slot, ...]:
        """Takes the settings of the declared parameters out of `kwargs`."""
        slots = []
        for name, parameter in cls.declared.items():
            chosen = {s: kwargs.pop(f"{name}_{s}") for s in SETTINGS if f"{name}_{s}" in kwargs}
            slots.append(Slot.make(name, parameter.initial, **{"constraint": parameter.constraint} | chosen))
        return tuple(slots)

    def formula(self, z, *parameters):
        """The activation of `z`, in `keras.ops`; one positional argument for each parameter."""
        raise NotImplementedError(f"{type(self).__name__} must define `formula(self, z, *parameters)`.")

    # Variables

    def _create_if_known(self):
        if self.granularity == "layer":
            self._create_variables(())
            self.built = True
        elif self.channels is not None:
            self._create_variables((int(self.channels),))

    def _create_variables(self, shape: tuple[int, ...]):
        self._shape = shape
        slots = self._slots
        for slot in slots:
            slot.check(shape)
        if slots:
            self._packed = self.add_weight(
                name="parameters",
                shape=(len(slots), *shape),
                dtype=at_least_float32(self.variable_dtype),
                initializer=initialize_rows(slots),
                regularizer=regularize_rows(slots),
                constraint=constrain_rows(slots),
                autocast=False,
            )

    def build(self, input_shape):
        if self.granularity == "channel" and self._shape is None:
            found = input_shape[channel_axis(self.data_format, len(input_shape))]
            owner = _owner(self)
            if found is None or owner is not None:
                received = f"the `activation=` of {owner.name}" if owner else f"input of shape {tuple(input_shape)}"
                raise ValueError(
                    f"{self.name} has parameters for each channel, and can't know for how many: give it "
                    f"`channels={found or 'n'}`. Received: {received}"
                )
            self._create_variables((int(found),))
        self._check_channels(input_shape)

    def _check_channels(self, input_shape):
        """A single channel would broadcast against parameters of several, or the other way round."""
        if self.granularity == "layer" or self._shape is None:
            return
        axis = channel_axis(self.data_format, len(input_shape))
        if input_shape[axis] not in (None, *self._shape):
            raise ValueError(
                f"{self.name} has parameters for {self._shape[0]} channels, and its input has {input_shape[axis]} on "
                f"axis {axis} ({self.data_format}). Received: input of shape {tuple(input_shape)}"
            )

    # Computation

    def call(self, inputs, training=False):
        self._check_channels(inputs.shape)
        behind = 0
        if self.granularity == "channel":
            rank = len(inputs.shape)
            behind = rank - 1 - channel_axis(self.data_format, rank)
        rows = backends.Rows(self._normalize, behind)
        form = backends.Form(self.formula, rows, at_least_float32(self.compute_dtype))
        return backends.run(form, ops.cast(inputs, self.compute_dtype), self._variables(), training)

    def compute_output_shape(self, input_shape):
        self._check_channels(input_shape)
        return input_shape

    @property
    def _normalize(self) -> Callable | None:
        """What makes arguments of the last variable's raw values."""
        return None

    def _variables(self) -> list:
        """Tensors whose rows are the formula's arguments after z."""
        return [] if self._packed is None else [self._packed.value]

    # Access by name

    def get_parameters(self) -> dict[str, np.ndarray]:
        """The trainable numbers by name, as NumPy arrays of shape () or (channels,)."""
        self._require_variables()
        if self._packed is None:
            return {}
        packed = ops.convert_to_numpy(self._packed.value)
        return {slot.name: row for slot, row in zip(self._slots, packed, strict=True)}

    def set_parameters(self, **values):
        """Stores numbers by name: ``layer.set_parameters(a=1.3, c=0.1)``; the others stay.

        A value is a number or an array that broadcasts to the parameter's shape.

        Raises:
            ValueError: for a name that the layer doesn't have, or a value of another shape.
        """
        current = self.get_parameters()
        unknown = sorted(values.keys() - current.keys())
        if unknown:
            raise ValueError(f"{self.name} has the parameters {sorted(current)}. Received: {', '.join(unknown)}")
        for name, value in values.items():
            try:
                current[name] = np.broadcast_to(np.asarray(value, current[name].dtype), current[name].shape)
            except (TypeError, ValueError):
                raise ValueError(
                    f"`{name}` of {self.name} needs a value of shape {current[name].shape}. Received: {value!r}"
                ) from None
        self._assign(current)

    def _assign(self, values: dict[str, np.ndarray]):
        for slot in self._slots:
            slot.check_bounds(values[slot.name])
        if self._packed is not None:
            self._packed.assign(np.stack([values[slot.name] for slot in self._slots]))

    def _require_variables(self):
        if self._shape is None:
            raise ValueError(
                f"{self.name} has no parameters yet: the number of its channels is unknown until it is called. "
                "Call it once, or create it with `channels=n`."
            )

    # Serialization

    def get_config(self):
        config = super().get_config()
        config.update(granularity=self.granularity, channels=self.channels, data_format=self.data_format)
        for slot in self._written_slots():
            config.update(slot.settings())
        return config

    def _written_slots(self) -> Sequence[Slot]:
        """Those whose settings are arguments of the constructor."""
        return self._slots


def at_least_float32(dtype: str) -> str:
    return "float64" if dtype == "float64" else "float32"


def _automatic_name(prefix: str) -> str:
    """`arelu`, `arelu_1`, ...: as Keras numbers layers, which would write `a_re_lu`."""
    number = keras.backend.get_uid(prefix) - 1
    return f"{prefix}_{number}" if number else prefix


def channel_axis(data_format: str, rank: int) -> int:
    if rank < 2:
        raise ValueError(f'granularity="channel" needs an input of rank 2 or more. Received: an input of rank {rank}')
    return 1 if data_format == "channels_first" else rank - 1


def _owner(activation) -> keras.layers.Layer | None:
    """The layer whose `call` is under way and whose `activation=` this is, if it can't have built it before.

    Dense and its kin know their output's shape without a call, and so never build their activation: variables made
    inside their first real call would come too late for the optimizer, without a word. Keras doesn't tell a layer
    who calls it; the stack does.
    """
    frame = inspect.currentframe()
    while frame is not None:
        caller = frame.f_locals.get("self")
        if (
            frame.f_code.co_name == "call"
            and isinstance(caller, keras.layers.Layer)
            and getattr(caller, "activation", None) is activation
            and type(caller).compute_output_shape is not keras.layers.Layer.compute_output_shape
        ):
            return caller
        frame = frame.f_back
    return None
