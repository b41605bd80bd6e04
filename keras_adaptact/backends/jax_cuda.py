"""On JAX: the kernels on a GPU (`cuda`), as handlers of XLA's foreign functions, which native_jax_cuda.c has.

For processes with one GPU. XLA has the memory, and says on which stream they run.
"""

import contextlib
import ctypes
import functools
import hashlib
import math
import re
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec

import jax
import numpy as np

from keras_adaptact.backends import cuda, native


@dataclass(frozen=True)
class Gpu:
    """A `cuda.Device`."""

    architecture: str
    cuda: str
    index: int = 0

    def current(self):
        return contextlib.nullcontext()


def gpu() -> Gpu | None:
    """The one GPU of this process."""
    found = jax.local_devices()
    capability = re.fullmatch(r"(\d+)\.(\d+)", str(getattr(found[0], "compute_capability", "")))
    if len(found) > 1 or not capability:
        return None
    major = next((n for n in ("13", "12") if find_spec(f"jax_cuda{n}_plugin")), "12")
    return Gpu("sm_{}{}".format(*capability.groups()), major)


def kernels(form, shapes, dtype) -> cuda.Kernels | None:
    """The kernels of a form where they are wanted and can be had."""
    device = gpu() if cuda.is_wanted() else None
    if device is None:
        return None
    return cuda.build(form, shapes, dtype, "inside" if form.rows.behind else "last", device, cuda.Kernels)


def call(kernel, form, context, inputs):
    """What lowers to a call of a kernel: its results, or None where there is none."""
    z, *_ = context.avals_in
    shapes = tuple(x.shape for x in context.avals_in[1 if kernel == "forward" else 2 :])
    found = kernels(form, shapes, z.dtype.name) if z.size < cuda.LARGEST else None
    if found is None:
        return None
    vector, plan, sums = found.planned(_extent(z.shape, form.rows.behind, found.kind.channels))
    name = _registered(found.source(vector), len(shapes), found.device)
    if name is None:
        return None
    numbers = np.array([cuda.THREADS, plan.grid, *plan.numbers().values()], np.int64)
    rule = jax.ffi.ffi_lowering(f"keras_adaptact_cuda_{kernel}_{name}")
    if kernel == "forward":
        return rule(context, *inputs, plan=numbers)
    scratch = jax.core.ShapedArray((max(1, sums),), "float32")
    *results, _ = rule(context.replace(avals_out=[*context.avals_out, scratch]), *inputs, plan=numbers)
    return results


def _extent(shape, behind: int, channels: str | None) -> tuple[int, int, int]:
    """How many elements lie before, along and behind the axis of the channels."""
    if channels is None:
        return math.prod(shape), 1, 1
    axis = len(shape) - 1 - behind
    return math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])


PLATFORM = "CUDA"


@functools.cache
def _registered(source: str, variables: int, device: Gpu) -> str | None:
    """The name under which XLA knows the kernels of a source."""
    module = cuda.load(source, device)
    if module is None:
        return None
    digest = hashlib.sha256(f"{device} {source}".encode()).hexdigest()  # so that the name is of these kernels alone
    text = (files("keras_adaptact.backends") / "native_jax_cuda.c").read_text()
    written = f"/* {digest} */\n#define VARIABLES {variables}\n{text}"
    built = native.compiled(written, (f"-I{jax.ffi.include_dir()}",))
    if built is None:
        return None
    library, name = built
    for symbol, address in module.addresses().items():
        ctypes.c_void_p.in_dll(library, symbol).value = address
    for kernel in ("forward", "backward"):
        function = jax.ffi.pycapsule(getattr(library, kernel))
        jax.ffi.register_ffi_target(f"keras_adaptact_cuda_{kernel}_{name}", function, platform=PLATFORM)
    _kept.append(library)
    return name


_kept: list = []
