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
from importlib.resources import files
from pathlib import Path
from typing import Any

import keras

from keras_adaptact.backends import cache
from keras_adaptact.backends.tracing import Node, Unknown, gradients, inputs_first, is_tracing, trace

C = {
    "add": "{} + {}",
    "subtract": "{} - {}",
    "multiply": "{} * {}",
    "divide": "{} / {}",
    "negative": "-{}",
    "select": "{} ? {} : {}",
    "exp": "exp_of({})",
    "expm1": "expm1_of({})",
    "tanh": "tanh_of({})",
    "sigmoid": "sigmoid_of({})",
}
CONDITIONS = {
    "greater": "{} > {}",
    "greater_equal": "{} >= {}",
    "less": "{} < {}",
    "less_equal": "{} <= {}",
    "equal": "{} == {}",
    "not_equal": "{} != {}",
    "or": "{} | {}",
    "and": "{} & {}",
}
SPECIAL = {"inf": "INFINITY", "-inf": "(-INFINITY)", "nan": "NAN"}

# Vector instructions for these loops, with NaN and infinity as in the formula: no errno, no traps, and sums in lanes.
FLAGS = ["-std=gnu11", "-O3", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "-fopenmp-simd"]
FLAGS += ["-shared", "-fPIC"]
OF_THIS_MACHINE = ["-march=native", *(["-mprefer-vector-width=512"] if platform.machine() == "x86_64" else [])]

LETTERS = str.maketrans("0123456789", "ghijklmnop")  # of a name in hexadecimal; TensorFlow splits names at digits

_lock = threading.RLock()


def build(form, shapes, flags: tuple[str, ...] = (), load: Callable = ctypes.CDLL) -> tuple[Any, str] | None:
    """The compiled kernels of a form, and a name that no others have; or None where they can't be had.

    They are of float32, and of one value of each parameter for the whole tensor: `shapes`, those of the variables,
    are each (size,). `flags` are the compiler's for what native_BACKEND.c needs, where @NAME@ stands for the name;
    `load` makes something of the compiled file.
    """
    if is_tracing():
        raise Unknown("another activation")
    if form.dtype != "float32" or any(len(shape) != 1 for shape in shapes):
        return None
    if inspect.ismethod(form.formula):
        form = replace(form, formula=Detached(form.formula.__func__))
    with _lock:
        return _build(form, tuple(size for (size,) in shapes), flags, load)


@dataclass(frozen=True)
class Detached:
    """A method without its object. One that looks at it has no kernel, which would take what it finds for constant.

    Equal for equal methods: all layers of a class share what is compiled.
    """

    method: Callable

    def __call__(self, z, *parameters):
        looked_at: list[str] = []

        class Nobody:
            def __getattribute__(self, name):
                looked_at.append(name)
                raise Unknown(f"`{name}` of its object")

        y = self.method(Nobody(), z, *parameters)
        if looked_at:  # and went on without it
            raise Unknown(f"`{looked_at[0]}` of its object")
        return y


@functools.lru_cache(maxsize=256)
def _build(form, sizes, flags, load):
    try:
        written = source(form, sizes)
    except (Unknown, RecursionError):  # the latter of hundreds of operations in a row
        return None
    compiler = _compiler()
    return _compile(compiler, written, flags, load) if compiler else None


def source(form, sizes: tuple[int, ...]) -> str:
    """The kernels of a form in C, with variables of these sizes.

    Raises:
        Unknown: for an operation that they can't be made of.
    """
    y, z, variables = trace(lambda z, *variables: form.formula(z, *form.rows(*variables)), sizes)
    gradient, by_z, by_variables = gradients(y, z, variables)
    results = [node for row in by_variables for node in row]
    sums = [node for node in inputs_first(results, lambda node: node.op == "sum") if node.op == "sum"]
    terms = [node.inputs[0] for node in sums]
    named = {id(z): "z[i]", id(gradient): "gradient[i]"}
    lines = [
        f"#define SUMS {len(sums)}",
        f"#define VARIABLES {len(sizes)}",
        "static inline void forward_chunk(const float *const *v, const float *restrict z, float *restrict result,",
        "                                 int64_t size) {",
        *_loop([y], ["result[i] = {};"], [], named),
        "}",
        "static inline void backward_chunk(const float *const *v, const float *restrict z,",
        "                                  const float *restrict gradient, float *restrict result, double *sums,",
        "                                  int64_t size) {",
        *_loop([by_z, *terms], ["result[i] = {};", *(f"sum{i} += {{}};" for i in range(len(sums)))], sums, named),
        "}",
        "static void finish(const float *const *v, const double *sums, float *const *by) {",
    ]
    statements, names = _statements(results, {id(node): f"(float)sums[{i}]" for i, node in enumerate(sums)})
    places = [f"by[{i}][{j}]" for i, size in enumerate(sizes) for j in range(size)]
    lines += [*statements, *(f"{place} = {name};" for place, name in zip(places, names, strict=True)), "}"]
    folder = files("keras_adaptact.backends")
    common, calls = ((folder / name).read_text() for name in ("native.c", f"native_{keras.backend.backend()}.c"))
    return common.replace("/* FORMULA */", "\n".join(lines)) + calls


def _loop(roots: list[Node], uses: list[str], sums: list[Node], named: dict[int, str]) -> list[str]:
    """Statements of a loop over z that computes `roots` and puts each to its use."""
    wide = [node for node in inputs_first(roots) if node.wide]
    outside = list({id(x): x for node in [*wide, *roots] for x in (node, *node.inputs) if not x.wide}.values())
    before, names = _statements(outside, {}, "fixed")
    inside, results = _statements(roots, named | dict(zip(map(id, outside), names, strict=True)))
    reduction = f" reduction(+ : {', '.join(f'sum{i}' for i in range(len(sums)))})" if sums else ""
    return [
        *before,
        *(f"float sum{i} = 0;" for i in range(len(sums))),
        f"#pragma omp simd{reduction}",
        "for (int64_t i = 0; i < size; i++) {",
        *inside,
        *(use.format(result) for use, result in zip(uses, results, strict=True)),
        "}",
        *(f"sums[{i}] = sum{i};" for i in range(len(sums))),
    ]


def _statements(roots: list[Node], named: dict[int, str], prefix: str = "t") -> tuple[list[str], list[str]]:
    """Statements that compute `roots` from what is named, and what each is called."""
    names = dict(named)
    statements: list[str] = []
    for node in inputs_first(roots, lambda node: id(node) in named):
        if id(node) in names:
            continue
        if node.op == "constant":
            names[id(node)] = SPECIAL.get(repr(node.value)) or f"({node.value!r}f)"
            continue
        if node.op == "variable":
            value = "v[{}][{}]".format(*node.value)
        else:
            value = (C | CONDITIONS)[node.op].format(*(names[id(x)] for x in node.inputs))
        names[id(node)] = f"{prefix}{len(statements)}"
        statements.append(f"const {'int' if node.op in CONDITIONS else 'float'} {names[id(node)]} = {value};")
    return statements, [names[id(root)] for root in roots]


@functools.lru_cache(maxsize=1)
def _compiler() -> tuple[str, ...]:
    """The command of the C compiler, which may have options of its own; nothing where there is none."""
    try:
        named = shlex.split(os.environ.get("CC", ""))
    except ValueError as error:
        _warn(f"can't read the environment variable CC, {os.environ['CC']!r} ({error})")
        return ()
    commands = [named] if named else [["cc"], ["gcc"], ["clang"]]
    found = next((tuple(command) for command in commands if shutil.which(command[0])), ())
    if not found:
        _warn("finds no C compiler. Install gcc or clang, or name one in the environment variable CC")
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
        _warn(f"can't use what {' '.join(compiler)} compiles ({error})")
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
def _warn(what: str) -> None:
    warnings.warn(f"keras_adaptact {what}; activations are slower than they need be.", stacklevel=2)
