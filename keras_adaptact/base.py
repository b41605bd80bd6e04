"""The machinery of a trainable activation, once: variables, granularity, dtype, configuration."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, Self

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike

from keras_adaptact import backends
from keras_adaptact.owners import owner_of
from keras_adaptact.parameters import SETTINGS, SUFFIXES, Parameter, Slot, constrained, described, hold_others
from keras_adaptact.signatures import signature_of
from keras_adaptact.storage import ParameterStorage, at_least_float32

Granularity = Literal["layer", "channel"]
DataFormat = Literal["channels_last", "channels_first"]


class ClassSignature:
    """What `inspect.signature` shows of a class of activations; of a layer, which is called otherwise, nothing."""

    def __get__(self, layer, cls) -> inspect.Signature:
        if layer is not None:
            raise AttributeError("__signature__")
        return signature_of(cls, TrainableActivation, cls.settings(), cls._is_open)


class TrainableActivation(ParameterStorage):
    """Base of the library's layers: an elementwise formula with a few trainable parameters.

    A subclass declares its parameters and its formula, and is complete:

    ```python
    @keras.saving.register_keras_serializable(package="my_package")
    class Snake(ka.TrainableActivation):
        a = ka.Parameter(1.0)

        def formula(self, z, a):
            return z + ops.sin(a * z) ** 2 / a
    ```

    All trained parameters of a layer are in one variable, `parameters`, with a single axis, so that no optimizer takes
    those of channels for a matrix; the others are in `held_parameters`. They are stored and computed in float32 or
    better: under a float16 or bfloat16 policy, mixed or not, only the layer's input and output have low precision.

    Args:
        granularity: `"layer"`, one set of parameters, created with the layer; or `"channel"`, one set for each
            channel, created once the number of channels is known.
        channels: number of channels, for `granularity="channel"`. By default that of the first input; as
            `activation=` of one of Keras's layers, that of the layer's output, once it is built.
        data_format: `"channels_last"` or `"channels_first"`, where the channels are in an input of rank 3 or
            more; by default Keras's `image_data_format`, or that of the layer whose `activation=` it is. In an input
            of rank 2 they are last.
        {name}_initializer: for each parameter (`a_initializer`, ...): a Keras initializer, or a value.
        {name}_regularizer: a Keras regularizer. None by default.
        {name}_constraint: a Keras constraint. None by default, unless the class says otherwise.
        {name}_trainable: False freezes a parameter, under any optimizer. True by default.
        trainable_parameters: the names of those that are trained, such as `["a"]`, instead. All by default.
        **kwargs: `name`, `dtype`, `trainable`, `activity_regularizer` of a Keras layer.

    Input: a tensor of any shape. Output: the same shape, in the layer's compute dtype.

    Raises:
        ValueError: for a setting that is not one of the above, or an input of another number of channels.
    """

    declared: ClassVar[dict[str, Parameter]] = {}
    _is_open: ClassVar[bool] = False  # whether its constructor takes settings of parameters beside `settings()`
    __signature__ = ClassSignature()

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        own = {name: value for name, value in vars(cls).items() if isinstance(value, Parameter)}
        cls.declared = cls.declared | own

    def __init__(
        self,
        granularity: Granularity = "layer",
        channels: int | None = None,
        data_format: DataFormat | None = None,
        **kwargs: Any,
    ):
        slots: Sequence[Slot] = self._declared_slots(kwargs)
        trained = kwargs.pop("trainable_parameters", None)
        slots = slots if trained is None else hold_others(slots, trained)
        self._setup(slots, granularity, channels, data_format, kwargs)
        self._create_if_known()

    def _setup(self, slots: Sequence[Slot], granularity, channels, data_format, kwargs):
        if granularity not in ("layer", "channel"):
            raise ValueError(f'`granularity` must be "layer" or "channel". Received: {granularity!r}')
        if channels is not None and granularity == "layer":
            raise ValueError(f'`channels` belongs to granularity="channel" only. Received: {channels!r}')
        if channels is not None and (not isinstance(channels, int | np.integer) or channels < 1):
            raise ValueError(f"`channels` must be a positive integer. Received: {channels!r}")
        for setting in kwargs:
            if setting.endswith(SUFFIXES) and setting != "activity_regularizer":  # which is any layer's
                known = ", ".join(slot.name for slot in slots) or "none"
                raise ValueError(f"{type(self).__name__} has the parameters {known}. Received: {setting}")
        if kwargs.get("name") is None:
            kwargs["name"] = _automatic_name(type(self).__name__.lower())
        storage = kwargs.pop("storage", "flat")
        super().__init__(**kwargs)
        self.supports_masking = True
        self.granularity = granularity
        self.channels = channels
        self.data_format = keras.config.image_data_format() if data_format is None else data_format
        if self.data_format not in ("channels_last", "channels_first"):
            raise ValueError(f'`data_format` must be "channels_last" or "channels_first". Received: {data_format!r}')
        self._follows_owner = data_format is None
        self._storage = storage  # "rows", a matrix for channels, in models of 0.1.0, as their optimizers' states are
        self._slots = tuple(slots)
        self._shape: tuple[int, ...] | None = None  # of one parameter; None until it is known

    @classmethod
    def settings(cls) -> dict[str, Any]:
        """The constructor's arguments that belong to single parameters, `a_initializer` and so on: their defaults."""
        found: dict[str, Any] = {}
        for name, parameter in cls.declared.items():
            found |= {f"{name}_initializer": parameter.initial, f"{name}_regularizer": None}
            found |= {f"{name}_constraint": parameter.constraint, f"{name}_trainable": True}
        return found

    @classmethod
    def _declared_slots(cls, kwargs: dict) -> tuple[Slot, ...]:
        """Takes the settings of the declared parameters out of `kwargs`."""
        slots = []
        for name, parameter in cls.declared.items():
            chosen = {s: kwargs.pop(f"{name}_{s}") for s in SETTINGS if f"{name}_{s}" in kwargs}
            own = {"constraint": parameter.constraint, "shared": parameter.shared}
            slots.append(Slot.make(name, parameter.initial, **own | chosen))
        return tuple(slots)

    def formula(self, z: Any, *parameters: Any) -> Any:
        """The activation of `z`, in `keras.ops`; one positional argument for each parameter."""
        raise NotImplementedError(f"{type(self).__name__} must define `formula(self, z, *parameters)`.")

    # Variables

    def _create_if_known(self):
        if self.granularity == "layer":
            self._create_variables(())
        elif self.channels is not None:
            self._create_variables((int(self.channels),))
        else:
            return
        self.built = True

    def build(self, input_shape: Sequence[int | None]) -> None:
        if self.granularity == "channel" and self._shape is None:
            found = input_shape[channel_axis(self.data_format, len(input_shape))]
            owner = owner_of(self)
            if found is None or owner is not None:
                received = f"the `activation=` of {owner.name}" if owner else f"input of shape {tuple(input_shape)}"
                raise ValueError(
                    f"{self.name} has parameters for each channel, and can't know for how many: give it "
                    f"`channels={found or 'n'}`. Received: {received}"
                )
            self._create_variables((int(found),))
        self._check_channels(input_shape)

    def build_for(self, owner: keras.layers.Layer, shape: tuple[int | None, ...]) -> None:
        """Makes the variables of what `owner`, which has been built, has as `activation=`; its input has `shape`."""
        if self._shape is not None:
            return
        if self._follows_owner:
            self.data_format = getattr(owner, "data_format", "channels_last")
        channels = shape[channel_axis(self.data_format, len(shape))]
        if channels is not None:
            self._create_variables((int(channels),))
            self.built = True

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

    def call(self, inputs: Any, training: bool = False) -> Any:
        self._check_channels(inputs.shape)
        behind = 0
        if self.granularity == "channel":
            rank = len(inputs.shape)
            behind = rank - 1 - channel_axis(self.data_format, rank)
        rows = backends.Rows(self._normalize, behind, self._order)
        form = backends.Form(self.formula, rows, at_least_float32(self.compute_dtype))
        return backends.run(form, ops.cast(inputs, self.compute_dtype), self._variables(), training)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> Sequence[int | None]:
        self._check_channels(input_shape)
        return input_shape

    @property
    def _normalize(self) -> Callable | None:
        """What makes arguments of the last variable's raw values."""
        return None

    # Parameters by name

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """The names of the parameters, in order: the keys of `get_parameters`."""
        return tuple(slot.name for slot in self._bounded_slots())

    @property
    def parameter_shape(self) -> tuple[int, ...] | None:
        """The shape of one parameter, () or (channels,); None until the number of channels is known."""
        return self._shape

    def get_parameters(self) -> dict[str, np.ndarray]:
        """The parameters by name, as NumPy arrays of shape () or (channels,).

        Raises:
            ValueError: while the number of channels is unknown.
        """
        self._require_variables()
        return self._by_name(lambda variable: variable.value)

    def constrained_parameters(self) -> dict[str, np.ndarray]:
        """The same within their constraints, which optimizers other than Keras's don't apply."""
        self._require_variables()
        return self._by_name(constrained)

    def set_parameters(self, **values: ArrayLike) -> None:
        """Sets parameters by name: ``layer.set_parameters(a=1.3, c=0.1)``; the others stay.

        A value is a scalar or an array that broadcasts to the parameter's shape.

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
        for slot in self._bounded_slots():
            if slot.name in values:
                slot.check_bounds(current[slot.name])
        self._store(current)

    def _bounded_slots(self) -> Sequence[Slot]:
        """All parameters, each with the bounds that it has."""
        return self._slots

    def formula_parameters(self) -> dict[str, np.ndarray]:
        """What `formula` takes after z, by name and in order: the parameters; of a mixture also its mixing weights."""
        return self.get_parameters()

    def trained_parameters(self) -> dict[str, bool]:
        """Whether training changes each of `formula_parameters`, as things are now."""
        trained = {id(variable) for variable in self.trainable_variables}
        return {slot.name: id(getattr(self, self._place(slot))) in trained for slot in self._slots}

    def evaluate(self, z: ArrayLike, **parameters: ArrayLike) -> np.ndarray:
        """The formula over z in NumPy, whatever the layer's dtype: with its parameters, or with others.

        ```python
        z = np.linspace(-5, 5, 401)
        ka.AReLU().evaluate(z, b=0.25)
        ```

        Args:
            z: an array; with parameters for each channel one that broadcasts against (channels,).
            **parameters: values by the names of `formula_parameters`. Those that the layer has by default.

        Returns: float32, of the shape that z and the parameters broadcast to.

        Raises:
            ValueError: for an unknown name, or while the number of channels is unknown.
        """
        current = self.formula_parameters()
        if unknown := sorted(parameters.keys() - current.keys()):
            raise ValueError(f"{self.name} has the parameters {list(current)}. Received: {', '.join(unknown)}")
        values = (current | parameters).values()
        return ops.convert_to_numpy(self.formula(*(ops.array(np.asarray(v, "float32")) for v in (z, *values))))

    def __repr__(self):
        """As of any layer, and what it learned."""
        try:
            learned = described(self._learned())
        except Exception:  # without variables yet; or while a function is traced, where they have no values
            return super().__repr__()
        return f"<{type(self).__name__} name={self.name}, {learned}>"

    def _learned(self) -> dict[str, np.ndarray]:
        """What says most about the function that it became, by name."""
        return self.get_parameters()

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        if "data_format" in config and "storage" not in config:
            config = config | {"storage": "rows"}  # as it was in 0.1.0
        return super().from_config(config)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config.update(granularity=self.granularity, channels=self.channels, data_format=self.data_format)
        config["storage"] = self._storage
        for slot in self._written_slots():
            config.update(slot.settings())
        return config

    def _written_slots(self) -> Sequence[Slot]:
        """Those whose settings are arguments of the constructor."""
        return self._slots


def _automatic_name(prefix: str) -> str:
    """`arelu`, `arelu_1`, ...: as Keras numbers layers, which would write `a_re_lu`."""
    number = keras.backend.get_uid(prefix) - 1
    return f"{prefix}_{number}" if number else prefix


def channel_axis(data_format: str, rank: int) -> int:
    if rank < 2:
        raise ValueError(f'granularity="channel" needs an input of rank 2 or more. Received: an input of rank {rank}')
    return 1 if data_format == "channels_first" else rank - 1
