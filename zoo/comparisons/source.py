"""A function of a notebook or a script as a file, so that the processes of runs can import it."""

import ast
import builtins
import inspect
import linecache
import symtable
import sys
import textwrap
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from zoo.errors import UserError

ADVICE = 'write it into a file, and give "my_nets.py:{name}" in its place'


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
