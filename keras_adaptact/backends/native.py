"""Kernels for the CPU: a formula and its gradient in C, each one pass over memory, compiled when they are first needed.

What automatic differentiation and a general compiler leave on the table is arithmetic on the parameters done once for
each element, and sums each in a pass of its own. Here parameters are combined before the loop, a term is summed once
however many parameters it serves, and all sums are taken in the one pass that writes the gradient by z.

The C is a fifth of a second's work for the compiler, once: what it makes is kept on disk (`cache`).
"""

import contextlib
import ctypes
import functools
import hashlib
import inspect
import os
import platform
import shlex
import shutil
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras

from keras_adaptact.backends import cache
from keras_adaptact.backends.graph import Unknown
from keras_adaptact.backends.printer import ELEMENTS, Kind, source
from keras_adaptact.backends.tracing import is_tracing, reads, reads_nothing

# Vector instructions for these loops, with NaN and infinity as in the formula: no errno, no traps, and sums in lanes.
FLAGS = ["-std=gnu11", "-O3", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "-fopenmp-simd"]
FLAGS += ["-shared", "-fPIC"]
OF_THIS_MACHINE = ["-march=native", *(["-mprefer-vector-width=512"] if platform.machine() == "x86_64" else [])]

LETTERS = str.maketrans("0123456789", "ghijklmnop")  # of a name in hexadecimal; TensorFlow splits names at digits

lock = threading.RLock()


def build(
    form, shapes, dtype: str, channels: str | None, flags: tuple[str, ...] = (), load: Callable = ctypes.CDLL
) -> tuple[Any, str] | None:
    """The compiled kernels of a form, and a name that no others have; or None where they can't be had.

    Args:
        form: what is computed, in float32.
        shapes: those of its variables, which are float32: each (size,), or each (size, channels).
        dtype: of z.
        channels: where they lie in memory, for variables of the latter: "last", or "inside".
        flags: the compiler's for what native_BACKEND.c needs, where @NAME@ stands for the name.
        load: makes something of the compiled file.
    """
    found = kernel_of(form, shapes, dtype, channels)
    with lock:
        return found and _build(*found, flags, load)


def kernel_of(form, shapes, dtype: str, channels: str | None) -> tuple[Any, Kind] | None:
    """A form without its object, and the kind of kernel that it needs; or None if there is none."""
    if is_tracing():
        raise Unknown("another activation")
    ranks = {len(shape) for shape in shapes}
    if form.dtype != "float32" or dtype not in ELEMENTS or ranks not in (set(), {1}, {2}):
        return None
    form = replace(form, formula=detached(form.formula))
    return form, Kind(tuple(shape[0] for shape in shapes), channels if ranks == {2} else None, dtype)


def detached(formula: Callable) -> Callable:
    """A formula without the object that it is a method of; that of a mixture without those of its members."""
    if hasattr(formula, "with_formulas"):
        return formula.with_formulas(detached)
    return Detached(formula.__func__) if inspect.ismethod(formula) else formula


@dataclass(frozen=True)
class Detached:
    """A method without its object, at which one that `is_pure` doesn't look.

    Equal for equal methods: all layers of a class share what is compiled.
    """

    method: Callable

    def __call__(self, z, *parameters):
        return self.method(None, z, *parameters)


_READ: dict[Any, list[tuple[Callable, Any]] | None] = {}


def is_pure(form, variables) -> bool:
    """Whether a formula computes with its arguments alone, as far as its code and a symbolic call of it show.

    One that reads an attribute of its object, or a variable beside its parameters, can't be compiled or cached: what it
    read may change, or want a gradient. Nor can one that has no hash. Numbers and functions that its code has from
    around it may be compiled in for as long as they stay what they were.
    """
    formula = detached(form.formula)
    try:
        key = replace(form, formula=formula), tuple(x.shape[0] for x in variables)
        if key not in _READ:
            if len(_READ) >= 4096:  # of formulas that are made anew for each call
                _READ.clear()
            rows = replace(form.rows, behind=0)
            found = reads(form.formula)
            pure = found is not None and reads_nothing(lambda z, *given: formula(z, *rows(*given)), key[1])
            _READ[key] = found if pure else None
    except TypeError:  # it has no hash
        return False
    found = _READ[key]
    return found is not None and all(read() is value for read, value in found)


@functools.lru_cache(maxsize=256)
def _build(form, kind, flags, load):
    written = printed(lambda: source(form, kind))
    return compiled(written, flags, load) if written else None


def printed(prints: Callable):
    """What `printer` makes of a form, or None for what it doesn't know."""
    try:
        return prints()
    except (Unknown, RecursionError):  # the latter of hundreds of operations in a row
        return None


def compiled(written: str, flags: tuple[str, ...], load: Callable = ctypes.CDLL) -> tuple[Any, str] | None:
    """What C compiles to, and a name that nothing else has; or None, which has been said."""
    compiler = _compiler()
    return _compile(compiler, written, flags, load) if compiler else None


@functools.lru_cache(maxsize=1)
def _compiler() -> tuple[str, ...]:
    """The command of the C compiler, which may have options of its own; nothing where there is none."""
    try:
        named = shlex.split(os.environ.get("CC", ""))
    except ValueError as error:
        warn(f"can't read the environment variable CC, {os.environ['CC']!r} ({error})")
        return ()
    commands = [named] if named else [["cc"], ["gcc"], ["clang"]]
    found = next((tuple(command) for command in commands if shutil.which(command[0])), ())
    if not found:
        warn("finds no C compiler. Install gcc or clang, or name one in the environment variable CC")
    return found


@functools.cache  # what is loaded is so for good; and two layers' methods, which are not equal, may be written alike
def _compile(compiler: tuple[str, ...], written: str, flags: tuple[str, ...], load: Callable):
    try:
        made_of = compiler, _identity(compiler[0]), _processor(), _backend(), FLAGS, flags, written
        name = hashlib.sha256(repr(made_of).encode()).hexdigest()[:32].translate(LETTERS)
        kept = cache.find(f"{name}.so")
        if kept is not None:
            with contextlib.suppress(Exception):  # of the loader: each backend's has its own
                return load(str(kept)), name
        with cache.workplace() as folder:
            made = _made(compiler, written, [flag.replace("@NAME@", name) for flag in flags], folder)
            return load(str(cache.keep(made, f"{name}.so"))), name
    except Exception as error:
        warn(f"can't use what {' '.join(compiler)} compiles ({error})")
        return None


def _made(compiler: tuple[str, ...], written: str, flags: list[str], folder: Path) -> Path:
    """The compiled file."""
    path = folder / "kernel.c"
    path.write_text(written)
    for machine in (OF_THIS_MACHINE, []):  # a compiler that doesn't know these flags may do without
        command = [*compiler, *FLAGS, *machine, path.name, *flags, "-o", f"{path.name}.so", "-lm"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
        if not done.returncode:
            return folder / f"{path.name}.so"
    lines = done.stderr.splitlines() or ["no message"]
    raise OSError(next((line for line in lines if "error" in line), lines[0]))


def _identity(command: str) -> tuple:
    """What changes with a compiler's version."""
    found = Path(shutil.which(command) or command).stat()
    return found.st_size, found.st_mtime_ns


def _backend() -> str:
    """The backend and its version, whose headers a kernel may be compiled with."""
    name = keras.backend.backend()
    return f"{name} {getattr(sys.modules.get(name), '__version__', '')}"


@functools.lru_cache(maxsize=1)
def _processor() -> str:
    """What `-march=native` goes by."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return "\n".join(
            sorted({line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))})
        )
    return f"{platform.machine()} {platform.processor()}"


@functools.lru_cache(maxsize=8)
def warn(what: str) -> None:
    warnings.warn(f"keras_adaptact {what}; activations are slower than they need be.", stacklevel=2)
