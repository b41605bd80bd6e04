"""A form's kernels as functions of torch's tensors: in C for the CPU, in CUDA for a GPU."""

import functools
from ctypes import c_int64, c_void_p
from dataclasses import dataclass

import torch

from keras_adaptact.backends import cuda, native


@functools.lru_cache(maxsize=256)
def kernel_of(form, shapes, dtype, channels, device):
    library = _library(device, form, shapes, str(dtype).removeprefix("torch."), channels)
    return library and Kernel(library, len(shapes))


class Kernel:
    """A form's compiled kernels, for tensors in any order without gaps.

    By channel they take tensors of shape (outer, channels) or (outer, channels, inner), which a layout makes.
    """

    def __init__(self, library, variables):
        self._library = library
        self._pointers = c_void_p * variables

    def forward(self, z, variables):
        z, y = _like(z)
        variables = _dense(variables)
        self._library.forward(*_extent(z, variables), z.data_ptr(), y.data_ptr(), self._of(variables))
        return y

    def backward(self, z, gradient, variables):
        z, by_z = _like(z)
        variables = _dense(variables)
        gradient = gradient.resolve_neg() if gradient.stride() == z.stride() else torch.empty_like(z).copy_(gradient)
        by_variables = [torch.empty_like(variable) for variable in variables]
        pointers = z.data_ptr(), gradient.data_ptr(), by_z.data_ptr(), self._of(variables), self._of(by_variables)
        if self._library.backward(*_extent(z, variables), *pointers):
            raise MemoryError("keras_adaptact: out of memory")
        return by_z, *by_variables

    def _of(self, tensors):
        return self._pointers(*(x.data_ptr() for x in tensors))


def _extent(z, variables) -> tuple[int, int, int]:
    """How many elements lie before, along and behind the axis of the channels."""
    return (*z.shape, 1)[:3] if by_channel(variables) else (z.numel(), 1, 1)


def by_channel(variables) -> bool:
    return any(variable.dim() > 1 for variable in variables)


def _dense(variables):
    return [variable.contiguous().resolve_neg() for variable in variables]


def _like(z):
    """z without gaps in memory, and a tensor to write that lies as it does."""
    z = z.resolve_neg()
    other = torch.empty_like(z)
    return (z if other.stride() == z.stride() else torch.empty_like(other).copy_(z)), other


def _library(device, form, shapes, dtype, channels):
    """Functions `forward` and `backward`, or None."""
    if device.type == "cuda":
        return cuda.build(form, shapes, dtype, channels, _Gpu(device.index), cuda.Launched)
    built = native.build(form, shapes, dtype, channels, ("-fopenmp",))
    if built is None:
        return None
    library, _ = built
    library.forward.argtypes = [*[c_int64] * 3, *[c_void_p] * 3]
    library.forward.restype = None
    library.backward.argtypes = [*[c_int64] * 3, *[c_void_p] * 5]
    return library


@dataclass(frozen=True)
class _Gpu:
    """A `cuda.EagerDevice`."""

    index: int

    @property
    def architecture(self):
        return "sm_{}{}".format(*torch.cuda.get_device_capability(self.index))

    @property
    def cuda(self):
        return (torch.version.cuda or "").split(".")[0]

    def stream(self):
        return torch.cuda.current_stream(self.index).cuda_stream

    def scratch(self, size):
        memory = torch.empty(max(1, size), dtype=torch.float32, device=f"cuda:{self.index}")
        return memory, memory.data_ptr()

    def current(self):
        return torch.cuda.device(self.index)
