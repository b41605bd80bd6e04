"""Kernels for NVIDIA GPUs: those of `native` in CUDA, compiled by NVRTC, launched by the driver, both by ctypes.

NVRTC comes with the backends' wheels for CUDA, and needs a few tenths of a second, once: what it makes is kept on disk
(`cache`). Where something is missing, or fails, the formula runs as the backend runs it.

No GPU has run them yet. Until one has, they are for those who ask for them: with `KERAS_ADAPTACT_CUDA=1`.
"""

import ctypes
import functools
import hashlib
import importlib.util
import math
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from ctypes import POINTER, addressof, byref, c_char_p, c_int, c_int64, c_size_t, c_uint, c_void_p
from pathlib import Path
from typing import Any, Protocol

from keras_adaptact.backends import cache, native
from keras_adaptact.backends.printer import Kind, cuda_source

VARIABLE = "KERAS_ADAPTACT_CUDA"
OPTIONS = ("--device-as-default-execution-space",)
LARGEST = 2**31  # elements from which there are no kernels: some indices have 32 bits

THREADS = 256  # of a block
BLOCKS = 2048  # for which each thread takes one unit at a time, ...
TURNS = 32  # ... up to so many: sums in single precision stay short

Pointers = ctypes.Array[c_void_p]


class Failed(Exception):
    """A kernel that can't run here; why has been said."""


class Device(Protocol):
    """A GPU."""

    def __hash__(self) -> int: ...

    @property
    def index(self) -> int: ...

    @property
    def architecture(self) -> str:
        """Such as "sm_90"."""

    @property
    def cuda(self) -> str:
        """The major version of its libraries, such as "12"."""

    def current(self) -> AbstractContextManager:
        """Makes it the device of this thread."""


class EagerDevice(Device, Protocol):
    """One that operations are sent to as they are called."""

    def stream(self) -> int:
        """The stream that the backend's operations go to now."""

    def scratch(self, size: int) -> tuple[Any, int]:
        """Memory for so many float32, as something that holds it, and its address."""


def is_wanted() -> bool:
    return os.environ.get(VARIABLE) == "1"


def build(form, shapes, dtype: str, channels: str | None, device: Device, make: Callable):
    """The kernels of a form that `make` makes, `Kernels` or a kind of them, or None where they can't be had.

    The other arguments are those of `native.build`.
    """
    found = native.kernel_of(form, shapes, dtype, channels)
    with native.lock:
        return found and _build(*found, device, make)


@functools.lru_cache(maxsize=256)
def _build(form, kind, device, make):
    kernels = native.printed(lambda: make(form, kind, device))
    usual = kernels and load(kernels.source(kernels.vectors[0]), device)
    return kernels if usual else None


class Kernels:
    """The kernels of a form on a device: with units of several elements, and of one for what these don't fit."""

    def __init__(self, form, kind: Kind, device: Device):
        self.kind, self.device = kind, device
        self._bytes = 4 if kind.dtype == "float32" else 2
        self.vectors = [(4 if kind.channels == "last" else 16) // self._bytes, 1]
        self._printed = {vector: cuda_source(form, kind, THREADS, vector) for vector in self.vectors}

    def source(self, vector: int) -> str:
        return self._printed[vector][0]

    def planned(self, extent: tuple[int, int, int], *addresses: int) -> tuple[int, "Plan", int]:
        """For a tensor of (outer, channels, inner) elements: those of a unit, the plan, and how many sums it takes."""
        along = {None: 0, "last": 1, "inside": 2}[self.kind.channels]
        sizes = [vector for vector in self.vectors if extent[along] % vector == 0]
        vector = next(n for n in sizes if all(address % (n * self._bytes) == 0 for address in addresses))
        plan = Plan(self.kind.channels, vector, *extent)
        return vector, plan, self._printed[vector][1] * plan.channels * plan.blocks


class Launched(Kernels):
    """Those that are called as the kernels in C are: by addresses, in the stream of the moment."""

    device: EagerDevice

    def forward(self, outer: int, channels: int, inner: int, z: int, result: int, variables: Pointers) -> None:
        vector, plan, _ = self.planned((outer, channels, inner), z, result)
        self._launch(vector, {"forward": plan.grid}, self._call(plan, variables, z=z, result=result))

    def backward(self, outer, channels, inner, z, gradient, result, variables, by_variables) -> int:
        vector, plan, sums = self.planned((outer, channels, inner), z, gradient, result)
        held, address = self.device.scratch(sums)
        call = self._call(plan, variables, z=z, gradient=gradient, result=result, sums=address)
        call.by_variables[: len(by_variables)] = by_variables[:]
        self._launch(vector, {"backward": plan.grid, "add_up": channels}, call)
        del held  # the memory's next user comes after these kernels on their stream
        return 0

    def _call(self, plan: "Plan", variables: Pointers, **addresses: int) -> ctypes.Structure:
        call = _pass_of(len(self.kind.sizes))(**addresses, **plan.numbers())
        call.variables[: len(variables)] = variables[:]
        return call

    def _launch(self, vector: int, grids: dict[str, int], call: ctypes.Structure) -> None:
        module = load(self.source(vector), self.device)
        if module is None:
            raise Failed
        try:
            with self.device.current():
                for name, blocks in grids.items():
                    if blocks:
                        module.launch(name, blocks, call, self.device.stream())
        except OSError as error:
            native.warn(f"can't launch its kernels on the GPU ({error})")
            raise Failed from error


class Plan:
    """How a tensor is shared out among blocks of threads, by its shape alone: equal calls have equal sums."""

    def __init__(self, where: str | None, vector: int, outer: int, channels: int, inner: int):
        self.channels, self.inner, self.width, tiles = channels, inner // vector, 1, channels
        self.units = outer * self.inner
        if where is None:
            self.units = outer // vector
        if where == "last":
            columns = channels // vector
            self.width = max(1, min(columns, THREADS))
            self.units, tiles = outer, math.ceil(columns / self.width)
        rows = THREADS // self.width
        self.turns = min(TURNS, max(1, math.ceil(self.units * tiles / (rows * BLOCKS))))
        self.blocks = math.ceil(self.units / (rows * self.turns))
        self.grid = self.blocks * tiles

    def numbers(self) -> dict[str, int]:
        """Those of native.cu's Pass, in order."""
        return {name: getattr(self, name) for name in NUMBERS}


NUMBERS = ("channels", "inner", "units", "blocks", "width", "turns")


@functools.cache
def _pass_of(variables: int) -> type[ctypes.Structure]:
    """native.cu's Pass."""
    addresses = c_void_p * (variables + 1)
    fields: list[tuple[str, Any]] = [(name, c_void_p) for name in ("z", "gradient", "result", "sums")]
    fields += [("variables", addresses), ("by_variables", addresses)]
    fields += [(name, c_int64) for name in NUMBERS]
    return type("Pass", (ctypes.Structure,), {"_fields_": fields})


@functools.cache  # a failure, too, which has been said
def load(source: str, device: Device) -> "Module | None":
    """The compiled kernels of a source on a device."""
    try:
        cubin = compiled(source, device.architecture, nvrtc(device.cuda))
        with device.current():
            return Module(cubin, device.index)
    except (OSError, AttributeError) as error:  # the latter of a library without one of its functions
        native.warn(f"can't use its kernels on the GPU ({error})")
        return None


def compiled(source: str, architecture: str, compiler: "Nvrtc") -> bytes:
    """The machine code of a source, which is kept on disk."""
    made_of = architecture, compiler.version, OPTIONS, source
    name = hashlib.sha256(repr(made_of).encode()).hexdigest()[:32] + ".cubin"
    kept = cache.find(name)
    if kept is not None:
        return kept.read_bytes()[: -cache.DIGEST]
    cubin = compiler.compile(source, architecture)
    with cache.workplace() as folder:
        made = folder / name
        made.write_bytes(cubin)
        cache.keep(made, name)
    return cubin


@functools.cache
def nvrtc(major: str) -> "Nvrtc":
    """The compiler of a major version of CUDA."""
    for path in (*_of_wheels(major), f"libnvrtc.so.{major}"):
        try:
            return Nvrtc(ctypes.CDLL(str(path)))
        except OSError:
            continue
    raise OSError(f"finds no NVRTC. Install nvidia-cuda-nvrtc for CUDA {major}")


def _of_wheels(major: str) -> Iterator[Path]:
    spec = importlib.util.find_spec("nvidia")
    for folder in (spec and spec.submodule_search_locations) or ():
        yield from sorted(Path(folder).glob(f"*/lib/libnvrtc.so.{major}"))


class Nvrtc:
    """NVIDIA's compiler as a library."""

    def __init__(self, library):
        self._library = library
        library.nvrtcGetErrorString.restype = c_char_p
        library.nvrtcCreateProgram.argtypes = [POINTER(c_void_p), c_char_p, c_char_p, c_int, c_void_p, c_void_p]
        for name in ("CompileProgram", "GetProgramLogSize", "GetProgramLog", "GetCUBINSize", "GetCUBIN"):
            getattr(library, f"nvrtc{name}").argtypes = [c_void_p, *([c_int] if name[0] == "C" else []), c_void_p]
        numbers = c_int(), c_int()
        self._check(library.nvrtcVersion(*map(byref, numbers)))
        self.version = tuple(number.value for number in numbers)

    def compile(self, source: str, architecture: str) -> bytes:
        options = [option.encode() for option in (f"--gpu-architecture={architecture}", *OPTIONS)]
        program = c_void_p()
        self._check(self._library.nvrtcCreateProgram(byref(program), source.encode(), b"kernel.cu", 0, None, None))
        try:
            status = self._library.nvrtcCompileProgram(program, len(options), (c_char_p * len(options))(*options))
            if status:
                lines = self._of(program, "ProgramLog").decode(errors="replace").splitlines()
                raise OSError(next((line for line in lines if "error" in line), None) or self._name(status))
            return self._of(program, "CUBIN")
        finally:
            self._library.nvrtcDestroyProgram(byref(program))

    def _of(self, program, what: str) -> bytes:
        size = c_size_t()
        self._check(getattr(self._library, f"nvrtcGet{what}Size")(program, byref(size)))
        content = ctypes.create_string_buffer(size.value)
        self._check(getattr(self._library, f"nvrtcGet{what}")(program, content))
        return content.raw

    def _check(self, status: int) -> None:
        if status:
            raise OSError(self._name(status))

    def _name(self, status: int) -> str:
        return self._library.nvrtcGetErrorString(status).decode()


class Module:
    """Machine code on a device."""

    def __init__(self, cubin: bytes, index: int):
        self._driver = driver()
        self._context = c_void_p()
        device, module = c_int(), c_void_p()
        self._call("cuDeviceGet", byref(device), index)
        self._call("cuDevicePrimaryCtxRetain", byref(self._context), device)  # the backends', for good
        self._call("cuCtxSetCurrent", self._context)
        self._call("cuModuleLoadData", byref(module), cubin)
        self._functions = {name: c_void_p() for name in ("forward", "backward", "add_up")}
        for name, function in self._functions.items():
            self._call("cuModuleGetFunction", byref(function), module, name.encode())

    def launch(self, name: str, blocks: int, call: ctypes.Structure, stream: int) -> None:
        self._call("cuCtxSetCurrent", self._context)  # a thread may have none
        arguments = (c_void_p * 1)(addressof(call))
        sizes = blocks, 1, 1, THREADS, 1, 1, 0
        self._call("cuLaunchKernel", self._functions[name], *map(c_uint, sizes), c_void_p(stream), arguments, None)

    def addresses(self) -> dict[str, int | None]:
        """What native_jax_cuda.c needs of it, by its names."""
        of_driver = {"launch": self._driver.cuLaunchKernel, "set_context": self._driver.cuCtxSetCurrent}
        found = {name: ctypes.cast(function, c_void_p).value for name, function in of_driver.items()}
        kernels = {f"{name}_kernel": function.value for name, function in self._functions.items()}
        return found | kernels | {"context": self._context.value}

    def _call(self, name: str, *arguments) -> None:
        status = getattr(self._driver, name)(*arguments)
        if status:
            said = c_char_p()
            self._driver.cuGetErrorString(status, byref(said))
            raise OSError(f"{name}: {(said.value or str(status).encode()).decode()}")


@functools.cache
def driver():
    """CUDA's driver."""
    library = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    if status := library.cuInit(0):
        raise OSError(f"cuInit: {status}")
    return library
