"""A formula called once with Keras's symbolic tensors, which write down the operations: what its graph is made of.

A formula with an operation that `vocabulary` doesn't know has no graph, and runs as the backends run it.
"""

import builtins
import dataclasses
import dis
import functools
import threading
import types
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_adaptact.backends.graph import Graph, Node, Unknown
from keras_adaptact.backends.vocabulary import CONDITIONS, ELEMENTWISE, OF_CONDITIONS, OF_PARAMETERS, WITH_OPTIONS
from keras_adaptact.keras_private import call_of

_thread = threading.local()


def is_tracing() -> bool:
    """Whether this thread traces a formula, which may call other activations."""
    return getattr(_thread, "is_tracing", False)


def reads_nothing(function: Callable, sizes: tuple[int, ...]) -> bool:
    """Whether ``function(z, *variables)`` computes with these and numbers alone; False where it can't be traced."""
    try:
        z, variables, y = _called(function, sizes)
        left, seen = [y], {id(x) for x in (z, *variables)}
        while left:
            x = left.pop()
            if not isinstance(x, keras.KerasTensor):
                return False
            if id(x) not in seen:
                seen.add(id(x))
                operation, call = call_of(x)
                given = keras.tree.flatten([vars(operation), call.arguments.args, call.arguments.kwargs])
                if isinstance(operation, keras.layers.Layer) or any(map(_is_foreign, given)):
                    return False
                left += call.input_tensors
    except (Unknown, LookupError):
        return False
    return True


_MODULES = "keras", "keras_adaptact", "numpy", "math"
# What a symbolic call doesn't show: gradients of one's own, bodies of loops, chance, settings, kinds of objects.
_HIDDEN = {
    *("custom_gradient", "fori_loop", "while_loop", "scan", "associative_scan", "cond", "switch", "map"),
    *("vectorized_map", "random", "config", "epsilon", "floatx"),
    *("eval", "exec", "globals", "locals", "vars", "super", "type"),
}
_NOT_KNOWN = {"IMPORT_NAME", "STORE_GLOBAL", "CONTAINS_OP", "LOAD_SUPER_ATTR", "PUSH_EXC_INFO"}  # the last of `except`


def reads(formula: Callable) -> list[tuple[Callable, Any]] | None:
    """What the code of a formula reads beside its arguments: calls that read it again, each with what it read.

    That is global names, and what functions have from around them: modules, functions and numbers. None of code that
    reads something else, such as an object of its own, or that says what isn't true of symbolic tensors: none is
    equal to a number.
    """
    found: list[tuple[Callable, Any]] = []
    left: list[Any] = [formula]
    seen: list[Any] = []
    while left:
        x = left.pop()
        if x is None or isinstance(x, bool | int | float | str | np.ufunc) or any(x is other for other in seen):
            continue
        seen.append(x)
        home = (getattr(x, "__module__", None) or "").split(".")
        if isinstance(x, types.ModuleType):
            parts = x.__name__.split(".")
            if parts[0] not in _MODULES or not _HIDDEN.isdisjoint(parts):
                return None
        elif isinstance(x, tuple):
            left += x
        elif isinstance(x, functools.partial):
            left += [x.func, *x.args, *x.keywords.values()]
        elif dataclasses.is_dataclass(x) and home[0] == "keras_adaptact":
            left += [getattr(x, field.name) for field in dataclasses.fields(x)]
        elif isinstance(x, types.FunctionType | types.MethodType):
            function: Any = getattr(x, "__func__", x)
            is_known = home[0] in _MODULES
            names = set() if is_known else _names_in(function.__code__, isinstance(x, types.MethodType))
            if names is None or (is_known and not _HIDDEN.isdisjoint((function.__name__, *home))):
                return None
            calls: list[Callable] = [functools.partial(_held, cell) for cell in function.__closure__ or ()]
            calls += [functools.partial(_named, function.__globals__, name) for name in names]
            read = [(call, call()) for call in calls]
            found += read
            left += [value for _, value in read]
            if not is_known:
                left += [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
        elif isinstance(x, types.BuiltinFunctionType):
            if x.__name__ in _HIDDEN or not isinstance(x.__self__, types.ModuleType):
                return None
        elif not (isinstance(x, type) and home == ["builtins"] and x.__name__ not in _HIDDEN):
            return None
    return found


def _held(cell: types.CellType) -> Any:
    return cell.cell_contents if cell != types.CellType() else _held


def _named(names: dict[str, Any], name: str) -> Any:
    return names[name] if name in names else getattr(builtins, name, None)


def _names_in(code: types.CodeType, is_method: bool) -> set[str] | None:
    """The global names that code reads; None where it does what isn't known, or a method looks at its object."""
    own = code.co_varnames[0] if is_method else None
    names, left = set(), [code]
    while left:
        code = left.pop()
        left += [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
        for instruction in dis.get_instructions(code):
            kind, argument = instruction.opname, instruction.argval
            touched = argument if isinstance(argument, tuple) else (argument,)
            if kind in ("LOAD_GLOBAL", "LOAD_NAME"):
                names.add(argument)
            is_equality = kind == "COMPARE_OP" and "==" in str(argument)
            is_hidden = kind in ("LOAD_ATTR", "LOAD_METHOD") and argument in _HIDDEN
            is_own = own is not None and own in touched
            if kind in _NOT_KNOWN or is_equality or is_hidden or is_own:
                return None
    return None if names & _HIDDEN else names


def _is_foreign(x) -> bool:
    """Whether something holds values that may change."""
    return isinstance(x, keras.Variable | np.ndarray) or (ops.is_tensor(x) and not isinstance(x, keras.KerasTensor))


def trace(function: Callable, sizes: tuple[int, ...]) -> tuple[Node, Node, list[list[Node]]]:
    """The graph of ``y = function(z, *variables)``, with a scalar z and variables of shape (size,): y, z, variables.

    Raises:
        Unknown: for an operation that has no place in a graph.
    """
    z, variables, y = _called(function, sizes)
    graph = Graph()
    start = graph.node("z", wide=True)
    numbers = [[graph.node("variable", value=(i, j)) for j in range(size)] for i, size in enumerate(sizes)]
    known = {id(z): np.array(start, object)}
    known |= {id(variable): np.array(row, object) for variable, row in zip(variables, numbers, strict=True)}
    found = _value(y, known).item()
    if not isinstance(found, Node) or not found.wide:
        raise Unknown("a value without z")
    return found, start, numbers


def _called(function: Callable, sizes: tuple[int, ...]) -> tuple[Any, list, Any]:
    """A scalar z, variables of shape (size,), and what a function makes of them, all symbolic.

    Raises:
        Unknown: where it can't be called so.
    """
    traced: list = []

    def call():
        _thread.is_tracing = True
        try:
            z = keras.KerasTensor((), "float32")
            variables = [keras.KerasTensor((size,), "float32") for size in sizes]
            traced.append((z, variables, function(z, *variables)))
        except Exception as error:  # whatever a formula of a user's does with a tensor that has no values
            traced.append(error)

    # Keras counts operations for their names, and has scopes that change them and what they do, all by thread and with
    # no public way to put them back: traced here, a formula would give the user's next layers other names.
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    if isinstance(traced[0], Exception):
        raise Unknown(str(traced[0])) from traced[0]
    return traced[0]


def _value(x, known: dict[int, np.ndarray]):
    """What an argument of an operation is in nodes."""
    if isinstance(x, int | float) and not isinstance(x, bool):  # `z == 1` of a symbolic tensor is False
        return x
    if not isinstance(x, keras.KerasTensor):
        raise Unknown(f"a value of its own, {type(x).__name__}")  # which may change, or want a gradient
    if id(x) not in known:
        try:
            operation, call = call_of(x)
        except LookupError as error:
            raise Unknown(str(error)) from error
        _check(operation, call)
        inputs = [_value(argument, known) for argument in call.arguments.args]
        result = _result(operation, inputs)
        results = result if isinstance(result, tuple) else (result,)
        known |= {id(t): np.asarray(r, object) for t, r in zip(call.output_tensors, results, strict=True)}
    return known[id(x)]


def _check(operation, call) -> None:
    """Refuses what an operation's name doesn't say."""
    name = type(operation).__name__
    if isinstance(operation, keras.layers.Layer):
        raise Unknown(f"the layer {name}")
    if any(value is not None for value in call.arguments.kwargs.values()):
        raise Unknown(f"{name} with options")
    of_values = any(keras.backend.standardize_dtype(t.dtype) != "bool" for t in call.input_tensors)
    if name in OF_CONDITIONS and of_values:
        raise Unknown(f"{name} of numbers")
    dtypes = {keras.backend.standardize_dtype(t.dtype) for t in call.output_tensors}
    if dtypes != {"bool" if name in CONDITIONS | OF_CONDITIONS else "float32"}:
        raise Unknown(f"{name} of {', '.join(sorted(dtypes))}")


def _result(operation, inputs):
    name = type(operation).__name__
    if name in ELEMENTWISE:
        return ELEMENTWISE[name](*inputs)
    if name in WITH_OPTIONS:
        return WITH_OPTIONS[name](operation, *inputs)
    if name in OF_PARAMETERS and not any(node.wide for x in inputs for node in np.ravel(x)):
        return OF_PARAMETERS[name](operation, *inputs)
    raise Unknown(name)  # or one that is not elementwise, of z
