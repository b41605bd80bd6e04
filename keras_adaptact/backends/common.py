"""What the backends have in common."""

import importlib
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

from keras import ops


@dataclass(frozen=True)
class Rows:
    """How the variables of a layer become the parameters of its formula: a row each, that broadcasts against z.

    The last variable is normalized first, where a mixture says how. `behind` is the number of z's axes behind the
    channels. `order` says which row is the first parameter, the second and so on, where they lie otherwise; rows
    beyond it stay where they are.
    """

    normalize: Callable | None = None
    behind: int = 0
    order: tuple[int, ...] = ()

    def __call__(self, *variables) -> list:
        if self.normalize is not None:
            variables = (*variables[:-1], self.normalize(variables[-1]))
        rows = [row for variable in variables for row in ops.unstack(variable)]
        rows = [rows[i] for i in self.order] + rows[len(self.order) :]
        return [ops.reshape(row, (-1,) + (1,) * self.behind) for row in rows] if self.behind else rows


@dataclass(frozen=True)
class Form:
    """A formula ``f(z, *parameters)`` as a function of z and a layer's variables, computed in `dtype`.

    Forms of equal parts are equal, and share what is compiled for them.
    """

    formula: Callable
    rows: Rows
    dtype: str

    def __call__(self, z, *variables):
        return plain(self.formula, self.dtype)(z, *self.parameters(*variables))

    def parameters(self, *variables) -> list:
        return self.rows(*(ops.cast(variable, self.dtype) for variable in variables))


def plain(formula, dtype):
    """The formula in its own precision, between a cast from and to that of z."""

    def in_dtype(z, *parameters):
        return ops.cast(formula(ops.cast(z, dtype), *parameters), z.dtype)

    return in_dtype


def canonical(shape, parameters) -> tuple[tuple, tuple]:
    """Shapes without the axes that an elementwise formula doesn't care for: of z, and of each parameter.

    One value per channel leaves (rows, c) where the channels are last, (rows, c, rest) where they are not;
    scalars leave (elements,). An unknown size is -1.
    """
    parameter = next((tuple(p.shape) for p in parameters if len(p.shape)), ())
    if not parameter:
        return (-1,), ()
    if len(parameter) == 1:
        return (-1, parameter[0]), parameter
    return (-1, parameter[0], _product(shape[-len(parameter) + 1 :])), (parameter[0], 1)


def _product(sizes) -> int:
    total = 1
    for size in sizes:
        total *= size
    return total


_thread = threading.local()


def is_portable() -> bool:
    """Whether formulas are to be written in operations that the converters of other runtimes know."""
    return getattr(_thread, "is_portable", False)


def portably(function: Callable, *inputs):
    """A function's value, in such operations."""
    before, _thread.is_portable = is_portable(), True
    try:
        return function(*inputs)
    finally:
        _thread.is_portable = before


_COSTS = {"jax_jet": "`jax.experimental.jet` has no rules for activations"}  # of a module that is missing

FOUND: dict[str, ModuleType | None] = {}  # a dict, as `torch.compile` follows a look into one, and no cache or import


def optional(name: str) -> ModuleType | None:
    """A module beside this one; None, said once, where this version of a backend lacks a private name that it needs."""
    if name not in FOUND:
        FOUND[name] = _imported(name)
    return FOUND[name]


def _imported(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(f"keras_adaptact.backends.{name}")
    except (ImportError, AttributeError) as error:
        costs = _COSTS.get(name, "activations are slower than they need be")
        warnings.warn(
            f"keras_adaptact can't use its {name} with this version of the backend ({error}); {costs}.", stacklevel=2
        )
        return None


def run(form, z, variables, training):
    """The formula as it stands, differentiated by the backend."""
    return form(z, *variables)


def slope(function, z):
    raise NotImplementedError


def tell(take: Callable, z) -> None:
    """Hands the values of a tensor to `take`, as NumPy; inside a loop of JAX's by the end of `wait`."""
    take(ops.convert_to_numpy(z))


def wait() -> None:
    """Waits until every tensor given to `tell` has been taken."""
