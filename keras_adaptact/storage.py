"""How the parameters of a layer lie in variables, a row each, and how they are saved."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_adaptact.keras_private import make_path_unique
from keras_adaptact.parameters import Slot, constrain_rows, initialize_rows, regularize_rows

# The variables of a layer, by attribute: the name of each, whether its parameters are trained, and whether they have
# one value for all channels.
VARIABLES = {
    "_packed": ("parameters", True, False),
    "_held": ("held_parameters", False, False),
    "_shared": ("shared_parameters", True, True),
    "_held_shared": ("held_shared_parameters", False, True),
}


class _InRows(keras.constraints.Constraint, keras.regularizers.Regularizer):
    """A constraint or a regularizer of a variable that sees it in rows; Keras 3.12 takes no plain function."""

    def __init__(self, function: Callable, shape: tuple[int, ...], result: tuple[int, ...] | None = None):
        self.function, self.shape, self.result = function, shape, result

    def __call__(self, variable):
        found = self.function(ops.reshape(variable, self.shape))
        return found if self.result is None else ops.reshape(found, self.result)


class ParameterStorage(keras.layers.Layer):
    """A layer whose parameters lie in variables of a kind: those that are trained, and those that are held.

    Where there are channels, parameters with one value for all of them have variables of their own.

    A subclass sets `_slots`, the parameters; `_shape`, the shape of each, None until it is known; and `_storage`:
    `"flat"` for variables of a single axis, or `"rows"`, a matrix for channels, in models of 0.1.0, whose optimizers'
    states have that shape.
    """

    _slots: tuple[Slot, ...]
    _shape: tuple[int, ...] | None
    _storage: str
    _packed: keras.Variable | None = None
    _held: keras.Variable | None = None
    _shared: keras.Variable | None = None
    _held_shared: keras.Variable | None = None

    def _create_variables(self, shape: tuple[int, ...]):
        self._shape = shape
        for slot in self._slots:
            slot.check(self._shape_at(self._place(slot)))
        for place, (name, trainable, _) in VARIABLES.items():
            slots = [slot for slot in self._slots if self._place(slot) == place]
            if slots:
                regularizer = regularize_rows(slots) if trainable else None
                rows = len(slots), *self._shape_at(place)
                constraint = constrain_rows(slots)
                made = self._add_rows(name, rows, initialize_rows(slots), regularizer, constraint, trainable)
                setattr(self, place, made)

    def _place(self, slot: Slot) -> str:
        """The attribute whose variable a parameter lies in."""
        kind = slot.trainable, slot.shared and bool(self._shape)
        return next(place for place, (_, *of_kind) in VARIABLES.items() if tuple(of_kind) == kind)

    def _shape_at(self, place: str) -> tuple[int, ...]:
        """Of each parameter in that variable."""
        return () if VARIABLES[place][-1] else self._shape or ()

    def _made(self) -> dict[str, keras.Variable]:
        """The variables that there are, by attribute."""
        found = {place: getattr(self, place) for place in VARIABLES}
        return {place: variable for place, variable in found.items() if variable is not None}

    def _add_rows(self, name, shape, initializer, regularizer=None, constraint=None, trainable=True) -> keras.Variable:
        """A variable of this shape, a row for each parameter; what Keras does to it sees it in rows."""
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
        if len(self._made()) < 2:
            return ()
        lie = sorted(range(len(self._slots)), key=lambda i: list(VARIABLES).index(self._place(self._slots[i])))
        return tuple(lie.index(i) for i in range(len(lie)))

    def _variables(self) -> list:
        """Tensors whose rows are the formula's arguments after z."""
        return [self._in_rows(v, v is self._shared or v is self._held_shared) for v in self._row_variables()]

    def _in_rows(self, variable: keras.Variable, is_shared: bool) -> Any:
        shape = self._shape
        if not shape:
            return variable.value
        if is_shared:
            return ops.broadcast_to(ops.reshape(variable.value, (-1, 1)), (variable.shape[0], *shape))
        return ops.reshape(variable.value, (-1, *shape))

    def _by_name(self, read: Callable) -> dict[str, np.ndarray]:
        """What `read` makes of the variables, by the names of the parameters."""
        rows = {
            place: iter(np.reshape(ops.convert_to_numpy(read(variable)), (-1, *self._shape_at(place))))
            for place, variable in self._made().items()
        }
        return {slot.name: next(rows[self._place(slot)]) for slot in self._slots}

    def _store(self, values: dict[str, np.ndarray]):
        for place, variable in self._made().items():
            rows = np.stack([values[slot.name] for slot in self._slots if self._place(slot) == place])
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
        rows = [np.broadcast_to(own[slot.name], self._shape or ()) for slot in self._slots if own]
        return [np.stack(rows)] if rows else []

    def _load(self, saved: list[np.ndarray]):
        self._store(self._named(list(saved[0])))

    def _named(self, rows: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """Rows as they are saved, by name; what all channels have alike once."""
        shapes = {slot.name: self._shape_at(self._place(slot)) for slot in self._slots}
        return {
            name: row if np.shape(row) == shape else np.ravel(row)[0]
            for (name, shape), row in zip(shapes.items(), rows, strict=True)
        }

    def _row_variables(self) -> list:
        """The variables of the library's own, as far as there are any."""
        return list(self._made().values())

    def _other_variables(self) -> list:
        """Those that a subclass made."""
        own = {id(variable) for variable in self._row_variables()}
        return [v for v in (*self._trainable_variables, *self._non_trainable_variables) if id(v) not in own]


def at_least_float32(dtype: str) -> str:
    return "float64" if dtype == "float64" else "float32"
