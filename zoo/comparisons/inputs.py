"""What a comparison is called with, as the files that its runs read."""

import ast
import builtins
import inspect
import linecache
import re
import symtable
import sys
import textwrap
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

import numpy as np

from zoo import config, files
from zoo.comparisons import inputs
from zoo.config.own import CODE, DATA, absolute
from zoo.data import own
from zoo.errors import DataError, UserError

NETWORK, ARRAYS = "network.py", "data.npz"
Network = str | Path | Mapping[str, Any] | Callable[..., Any]
ADVICE = 'write it into a file, and give "my_nets.py:{name}" in its place'


class Inputs(NamedTuple):
    """A config, and the files beside it that become part of a comparison.

    Attributes:
        name: of the comparison, if it gets no other.
        path: of the config.
        carried: files that it names by their name alone.
    """

    name: str
    path: Path
    carried: list[Path]


def prepare(network: Network, data: Mapping[str, Any] | None, settings: Mapping[str, Any], place: Path) -> Inputs:
    """Writes what isn't a file yet into a folder.

    Raises:
        UserError: for what is neither a config, nor a function and its data.
    """
    if data is not None and not isinstance(data, Mapping):
        raise UserError(
            f"data: expected a dict of arrays, or a config's dataset; found a {type(data).__name__}; activations are "
            "given by name: activations=[...]"
        )
    if data is None and not callable(network):
        if settings:
            raise UserError("settings: belong to a function and its data; a config has them itself")
        return _of_config(network, place)
    content = absolute(_as_json("settings", settings), Path.cwd())
    carried: list[Path] = []
    name, code = _code(network, place, carried)
    content["model"] = {"build": code} | content.get("model", {})
    dataset = content.get("dataset", {})
    if data is None:
        raise UserError(f"data: {name} needs some: a dict with {', '.join(own.NEEDED)}, or a config's dataset")
    if data.keys() & {*DATA, "name"}:
        content |= absolute({"dataset": _as_json("data", data) | dataset}, Path.cwd())
    else:
        content["dataset"] = {"file": ARRAYS} | dataset
        carried.append(place / ARRAYS)
    path = place / f"{name}.json"
    files.write_json(path, content)
    if place / ARRAYS in carried:
        _write_arrays(data, config.load(path).dataset, place / ARRAYS)
    return Inputs(name, path, carried)


def _of_config(network: Any, place: Path) -> Inputs:
    if not isinstance(network, Mapping):
        return Inputs(Path(network).stem, Path(network), [])
    files.write_json(place / "network.json", absolute(_as_json("network", network), Path.cwd()))
    return Inputs("network", place / "network.json", [])


def _as_json(where: str, value: Any) -> Any:
    """Of what Python has beside: mappings, tuples, paths, and NumPy's numbers."""
    if isinstance(value, Mapping):
        return {str(key): _as_json(f"{where}.{key}", each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(where, each) for each in value]
    if isinstance(value, Path | np.generic):
        return str(value) if isinstance(value, Path) else value.item()
    if value is not None and not isinstance(value, str | int | float | bool):
        raise UserError(f"{where}: expected what JSON holds; found a {type(value).__name__}")
    return value


def _code(network: Network, place: Path, carried: list[Path]) -> tuple[str, str]:
    """The name of a function, and how a config names it."""
    if callable(network):
        code = inputs.code_of(network)
        if not code:
            files.write_text(place / NETWORK, inputs.text_of(network))
            carried.append(place / NETWORK)
            code = f"{NETWORK}:{network.__name__}"
    elif isinstance(network, str) and re.match(CODE, network):
        code = absolute({"model": {"build": network}}, Path.cwd())["model"]["build"]
    else:
        raise UserError(
            'network: data goes with a function, or where it is: "my_nets.py:build"; found '
            f"{str(network)[:80] or 'nothing'}"
        )
    return code.rpartition(":")[2], code


def _write_arrays(data: Mapping[str, Any], settings: Any, path: Path) -> None:
    """Writes arrays that can be trained on, in an order of ours, so that the same ones make the same file."""
    if unknown := [name for name in data if name not in own.NAMES]:
        raise DataError(f"data: unknown {unknown[0]!r}; expected {', '.join(own.NAMES)}")
    own.read("data", data, settings)
    arrays: dict[str, Any] = {name: np.asarray(data[name]) for name in own.NAMES if name in data}
    files.write_whole(path, lambda unfinished: np.savez(unfinished, **arrays))


def code_of(function: Callable[..., Any]) -> str | None:
    """The "my_nets.py:build" or "package.nets:build" of a function that can be imported; None where it can't.

    Raises:
        UserError: for what is no function made by `def`.
    """
    if not isinstance(function, FunctionType) or not function.__name__.isidentifier():
        raise UserError(f"network: expected a function made by def; found {str(function)[:80]}")
    module = sys.modules.get(function.__module__)
    if function.__module__ == "__main__" or getattr(module, function.__name__, None) is not function:
        return None
    path = inspect.getfile(function)
    return f"{function.__module__ if '.' in function.__module__ else Path(path).resolve()}:{function.__name__}"


def text_of(function: Callable[..., Any]) -> str:
    """A module that holds a function, and what it uses: imports, constants, other functions and classes.

    Raises:
        UserError: where it uses something that can't be written down.
    """
    found = _Module(function.__name__, function.__module__)
    found.add(function.__name__, function, function.__globals__)
    return "\n\n".join(found.parts.values()) + "\n"


class _Module:
    """The statements of a module by the name that each defines."""

    def __init__(self, wanted: str, home: str):
        self.wanted, self.home, self.parts = wanted, home, dict[str, str]()

    def add(self, name: str, value: Any, space: Mapping[str, Any]) -> None:
        """What defines a name, after what that needs."""
        if name in self.parts:
            return
        self.parts[name] = ""  # which it may use itself
        text = _imported(name, value, self.home) or _constant(name, value)
        if not text and isinstance(value, FunctionType | type):
            if name == value.__name__:
                text = self._defined(value, space)
            else:
                self.add(value.__name__, value, space)
                text = f"{name} = {value.__name__}"
        if not text:
            self._refuse(f"uses {name}, a {type(value).__name__}")
        del self.parts[name]
        self.parts[name] = text

    def _defined(self, value: Any, space: Mapping[str, Any]) -> str:
        try:
            text = textwrap.dedent(_source(value))
            used = sorted(set(_globals_of(symtable.symtable(text, value.__name__, "exec"))))
        except (OSError, TypeError, SyntaxError):
            self._refuse(f"needs the source of {value.__name__}, which isn't to be found")
        if isinstance(value, FunctionType):
            function: Any = inspect.unwrap(value)
            space = ChainMap(dict(inspect.getclosurevars(function).nonlocals), function.__globals__)
        for name in used:
            if name in space and name != value.__name__ and not name.startswith("__"):
                self.add(name, space[name], space)
        return text.strip("\n")

    def _refuse(self, why: str) -> None:
        raise UserError(f"network: {self.wanted} {why}; {ADVICE.format(name=self.wanted)}")


def _imported(name: str, value: Any, home: str) -> str:
    """The import of what comes from another module than where the function is at home."""
    if isinstance(value, ModuleType):
        return f"import {value.__name__} as {name}" if value.__name__ in sys.modules else ""
    module, inside = getattr(value, "__module__", None), getattr(value, "__name__", None)
    if module == home or inside is None or getattr(sys.modules.get(str(module)), inside, None) is not value:
        return ""
    return "" if module == builtins.__name__ else f"from {module} import {inside} as {name}"


def _constant(name: str, value: Any) -> str:
    text = repr(value)
    try:
        same = type(ast.literal_eval(text)) is type(value) and ast.literal_eval(text) == value
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return ""
    return f"{name} = {text}" if same else ""


def _globals_of(table: symtable.SymbolTable) -> Iterator[str]:
    """The names that code takes from its module."""
    for symbol in table.get_symbols():
        if symbol.is_global() or (table.get_type() == "module" and symbol.is_referenced()):
            yield symbol.get_name()
    for inside in table.get_children():
        yield from _globals_of(inside)


def _source(value: Any) -> str:
    try:
        return inspect.getsource(value)
    except (OSError, TypeError):
        if isinstance(value, FunctionType):
            raise
    methods = [each for each in vars(value).values() if isinstance(each, FunctionType)]  # of a class in a notebook
    lines = linecache.getlines(methods[0].__code__.co_filename) if methods else []
    for node in ast.walk(ast.parse("".join(lines))):
        if isinstance(node, ast.ClassDef) and node.name == value.__name__:
            first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
            return "".join(lines[first - 1 : node.end_lineno])
    raise OSError
