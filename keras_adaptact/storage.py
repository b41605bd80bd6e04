"""How the parameters of a layer lie in variables, a row each, and how they are saved."""

from collections.abc import Callable

import keras
import numpy as np
from keras import ops

from keras_adaptact.keras_private import make_path_unique
from keras_adaptact.parameters import Slot, constrain_rows, initialize_rows, regularize_rows


class _InRows(keras.constraints.Constraint, keras.regularizers.Regularizer):
    """A constraint or a regularizer of a variable that sees it in rows; Keras 3.12 takes no plain function."""

    def __init__(self, function: Callable, shape: tuple[int, ...], result: tuple[int, ...] | None = None):
        self.function, self.shape, self.result = function, shape, result

    def __call__(self, variable):
        found = self.function(ops.reshape(variable, self.shape))
        return found if self.result is None else ops.reshape(found, self.result)


class ParameterStorage(keras.layers.Layer):
    """A layer whose parameters lie in two variables: those that are trained, and those that are held.

    A subclass sets `_slots`, the parameters; `_shape`, the shape of each, None until it is known; and `_storage`:
    `"flat"` for variables of a single axis, or `"rows"`, a matrix for channels, in models of 0.1.0, whose optimizers'
    states have that shape.
    """

    _slots: tuple[Slot, ...]
    _shape: tuple[int, ...] | None
    _storage: str
    _packed: keras.Variable | None
    _held: keras.Variable | None

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

        variable = self.add_weight(
            name=name,
            shape=variable_shape,
            dtype=at_least_float32(self.variable_dtype),
            initializer=lambda _, dtype=None: ops.reshape(initializer(shape, dtype=dtype), variable_shape),
            regularizer=regularizer and _InRows(regularizer, shape),
            constraint=constraint and _InRows(constraint, shape, variable_shape),
            trainable=trainable,
            autocast=False,
        )
        make_path_unique(variable)
        return variable

    def _rows(self, values) -> np.ndarray:
        return np.reshape(ops.convert_to_numpy(values), (-1, *(self._shape or ())))

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

    def _by_name(self, read: Callable) -> dict[str, np.ndarray]:
        """What `read` makes of the variables, by the names of the parameters."""
        variables = {True: self._packed, False: self._held}
        rows = {trains: iter(() if v is None else self._rows(read(v))) for trains, v in variables.items()}
        return {slot.name: next(rows[slot.trainable]) for slot in self._slots}

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

    # Saved

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
        own = {} if self._shape is None else self._by_name(lambda variable: variable.value)
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


def at_least_float32(dtype: str) -> str:
    return "float64" if dtype == "float64" else "float32"
