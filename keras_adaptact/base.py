"""The machinery of a trainable activation, once: variables, granularity, dtype, configuration."""

from collections.abc import Callable, Sequence
from typing import ClassVar

import keras
import numpy as np
from keras import ops

from keras_adaptact import backends
from keras_adaptact.keras_private import make_path_unique
from keras_adaptact.owners import owner_of
from keras_adaptact.parameters import (
    SETTINGS,
    SUFFIXES,
    Parameter,
    Slot,
    constrain_rows,
    described,
    hold_others,
    initialize_rows,
    regularize_rows,
)


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

    The numbers of a layer lie one after the other in one variable, `parameters`, of a single axis, so that no
    optimizer takes those of channels for a matrix; those that aren't trained lie in another, `held_parameters`. They
    are stored and computed with in float32 at least: under a policy of float16 or bfloat16, mixed or not, the layer's
    input and output have the low precision, its parameters and their gradients do not.

    Args:
        granularity: `"layer"`, one set of numbers for the layer, which then exist from the start; or
            `"channel"`, one set for each channel, which exist once the number of channels is known.
        channels: number of channels, for `granularity="channel"`. By default that of the first input; as
            `activation=` of one of Keras's layers, that of the layer's output, once it is built.
        data_format: `"channels_last"` or `"channels_first"`, where the channels are in an input of rank 3 or
            more; by default Keras's `image_data_format`, or that of the layer whose `activation=` it is. In an input
            of rank 2 they are last.
        {name}_initializer: for each number (`a_initializer`, ...): a Keras initializer, or a value.
        {name}_regularizer: a Keras regularizer. None by default.
        {name}_constraint: a Keras constraint. None by default, unless the class says otherwise.
        {name}_trainable: False holds a number as it is, under any optimizer. True by default.
        trainable_parameters: the names of those that are trained, such as `["a"]`, instead. All by default.
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
            if setting.endswith(SUFFIXES):
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
        self._packed = self._held = None
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
        elif self.channels is not None:
            self._create_variables((int(self.channels),))
        else:
            return
        self.built = True

    def _create_variables(self, shape: tuple[int, ...]):
        self._shape = shape
        for slot in self._slots:
            slot.check(shape)
        trained, held = ([slot for slot in self._slots if slot.trainable is value] for value in (True, False))
        if trained:
            self._packed = self._add_rows(
                "parameters", trained, initialize_rows(trained), regularize_rows(trained), constrain_rows(trained)
            )
        if held:
            self._held = self._add_rows(
                "held_parameters", held, initialize_rows(held), constraint=constrain_rows(held), trainable=False
            )

    def _add_rows(self, name, rows, initializer, regularizer=None, constraint=None, trainable=True) -> keras.Variable:
        """A variable of a row for each of `rows`; what Keras does to it sees it in rows."""
        shape = (len(rows), *(self._shape or ()))
        variable_shape = shape if self._storage == "rows" else (int(np.prod(shape)),)

        def in_rows(function, after=lambda result: result):
            return function and (lambda flat: after(function(ops.reshape(flat, shape))))

        variable = self.add_weight(
            name=name,
            shape=variable_shape,
            dtype=at_least_float32(self.variable_dtype),
            initializer=lambda _, dtype=None: ops.reshape(initializer(shape, dtype=dtype), variable_shape),
            regularizer=in_rows(regularizer),
            constraint=in_rows(constraint, lambda rows: ops.reshape(rows, variable_shape)),
            trainable=trainable,
            autocast=False,
        )
        make_path_unique(variable)
        return variable

    def _rows(self, values) -> np.ndarray:
        return np.reshape(ops.convert_to_numpy(values), (-1, *(self._shape or ())))

    def build(self, input_shape):
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

    def _build_for(self, owner: keras.layers.Layer, shape: tuple[int | None, ...]):
        """Makes the variables, as what a layer that has been built has for activation; it sees `shape`."""
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

    def call(self, inputs, training=False):
        self._check_channels(inputs.shape)
        behind = 0
        if self.granularity == "channel":
            rank = len(inputs.shape)
            behind = rank - 1 - channel_axis(self.data_format, rank)
        rows = backends.Rows(self._normalize, behind, self._order)
        form = backends.Form(self.formula, rows, at_least_float32(self.compute_dtype))
        return backends.run(form, ops.cast(inputs, self.compute_dtype), self._variables(), training)

    def compute_output_shape(self, input_shape):
        self._check_channels(input_shape)
        return input_shape

    @property
    def _normalize(self) -> Callable | None:
        """What makes arguments of the last variable's raw values."""
        return None

    @property
    def _order(self) -> tuple[int, ...]:
        """Where each parameter lies among the rows of the variables, if they aren't in order."""
        if self._held is None or self._packed is None:
            return ()
        lie = sorted(range(len(self._slots)), key=lambda i: not self._slots[i].trainable)
        return tuple(lie.index(i) for i in range(len(lie)))

    def _variables(self) -> list:
        """Tensors whose rows are the formula's arguments after z."""
        shape = self._shape
        return [ops.reshape(v.value, (-1, *shape)) if shape else v.value for v in self._row_variables()]

    # Access by name

    def get_parameters(self) -> dict[str, np.ndarray]:
        """The trainable numbers by name, as NumPy arrays of shape () or (channels,)."""
        self._require_variables()
        return self._by_name(lambda variable: variable.value)

    def _by_name(self, read: Callable) -> dict[str, np.ndarray]:
        """What `read` makes of the variables, by the names of the parameters."""
        variables = {True: self._packed, False: self._held}
        rows = {trains: iter(() if v is None else self._rows(read(v))) for trains, v in variables.items()}
        return {slot.name: next(rows[slot.trainable]) for slot in self._slots}

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
        for slot in self._bounded_slots():
            if slot.name in values:
                slot.check_bounds(current[slot.name])
        self._store(current)

    def _bounded_slots(self) -> Sequence[Slot]:
        """All parameters, each with the bounds that it has."""
        return self._slots

    def _store(self, values: dict[str, np.ndarray]):
        for variable, trained in ((self._packed, True), (self._held, False)):
            if variable is not None:
                rows = np.stack([values[slot.name] for slot in self._slots if slot.trainable is trained])
                variable.assign(np.reshape(rows, tuple(variable.shape)))

    def _require_variables(self):
        if self._shape is None:
            raise ValueError(
                f"{self.name} has no parameters yet: the number of its channels is unknown until it is called. "
                "Call it once, or create it with `channels=n`."
            )

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

    # Serialization

    def save_own_variables(self, store):
        """In rows of all parameters, trained or not, then other variables: the same whatever is trained."""
        saved, others = self._saved(), self._other_variables()
        for i, value in enumerate([*saved, *others]):
            store[str(i)] = value

    def load_own_variables(self, store):
        values = [np.asarray(store[str(i)]) for i in range(len(store.keys()))]
        if values:
            self._require_variables()
        saved, others = self._saved(), self._other_variables()
        shapes, found = ([tuple(x.shape) for x in xs] for xs in ([*saved, *others], values))
        if found != shapes:
            raise ValueError(f"{self.name} has parameters of the shapes {shapes}. Received: {found}")
        if saved:
            self._load(values[: len(saved)])
        for variable, value in zip(others, values[len(saved) :], strict=True):
            variable.assign(value)

    def _saved(self) -> list[np.ndarray]:
        """The parameters, in rows; and the raw weights of a mixture, likewise."""
        own = {} if self._shape is None else self.get_parameters()
        rows = [own[slot.name] for slot in self._slots if own]
        return [np.stack(rows)] if rows else []

    def _load(self, saved: list[np.ndarray]):
        self._store(dict(zip([slot.name for slot in self._slots], saved[0], strict=True)))

    def _row_variables(self) -> list:
        """The variables of the library's own, as far as there are any."""
        return [variable for variable in (self._packed, self._held) if variable is not None]

    def _other_variables(self) -> list:
        """Those that a subclass made."""
        own = {id(variable) for variable in self._row_variables()}
        return [v for v in (*self._trainable_variables, *self._non_trainable_variables) if id(v) not in own]

    @classmethod
    def from_config(cls, config):
        if "data_format" in config and "storage" not in config:
            config = config | {"storage": "rows"}  # as it was in 0.1.0
        return super().from_config(config)

    def get_config(self):
        config = super().get_config()
        config.update(granularity=self.granularity, channels=self.channels, data_format=self.data_format)
        config["storage"] = self._storage
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
