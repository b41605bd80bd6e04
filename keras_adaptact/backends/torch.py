"""On torch: an autograd function that keeps z alone, by kernels, or compiled by torch for large tensors.

Where there is no kernel, inductor, the compiler of `torch.compile`, makes one pass over memory of a formula, and one of
its gradient, but takes seconds to do so. It gets tensors flattened to one shape and of any size, so that one program
serves every layer and batch size. Large tensors have programs compiled, and small ones use them where they exist when
the first small one comes, so that all tensors of a size go the same way for as long as the process lives: equal runs
are equal.

Inside `torch.compile`, `torch.export` and functorch's transforms the formula is run as it stands: they have their own
ways to differentiate it.
"""

import functools
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from keras_adaptact.backends import cuda
from keras_adaptact.backends.common import portably
from keras_adaptact.backends.native import is_pure
from keras_adaptact.backends.torch_kernels import Kernel, by_channel, kernel_of
from keras_adaptact.backends.torch_private import compiler_parts, has_memory, is_traced

NATIVE = 0  # elements from which the kernels pay
CHUNK = 2**17  # elements
LARGE = 2**18  # elements from which a compiled program, or a kernel for the value, pays

# One pass over memory, where inductor would write intermediate values down from a number of operations on, and fused
# multiply-adds: 3.6 ms instead of 15 for method 1's gradient on 2**22 elements.
ONE_PASS = {
    "realize_opcount_threshold": 1000,
    "realize_reads_threshold": 1000,
    "realize_acc_reads_threshold": 1000,
    "cpp.enable_floating_point_contract_flag": "fast",
}


def run(form, z, variables, training):
    if torch.jit.is_tracing() or torch.compiler.is_exporting():
        return portably(form, z, *variables)
    if is_traced(z, *variables) or not is_pure(form, variables):
        return form(z, *variables)
    needs_gradient = torch.is_grad_enabled() and any(x.requires_grad for x in (z, *variables))
    kernel = _kernel(form, z, variables)
    if kernel is not None:
        as_torch = not training and z.numel() < LARGE
        if needs_gradient:
            return _Native.apply(form, kernel, as_torch, z, *variables)
        return form(z, *variables) if as_torch else _forward(form, kernel, z, variables)
    if needs_gradient:
        return _Lean.apply(form, z, *variables)
    layout = _layout(form, z, variables)
    program = _PROGRAMS.get((*layout.key, False))  # a forward pass alone isn't worth compiling for
    if program is not None:
        return layout.restore(program(layout.flatten(z), *variables))
    return _over_chunks(layout, z, variables) if layout.size >= LARGE else form(z, *variables)


def _kernel(form, z, variables) -> Kernel | None:
    if z.numel() < NATIVE or not _may_have_kernels(z):
        return None
    if not all(x.dtype == torch.float32 and x.device == z.device for x in variables):
        return None
    channels = None
    if by_channel(variables):
        channels = "last" if len(_layout(form, z, variables).flat_shape) == 2 else "inside"
    return kernel_of(form, tuple(x.shape for x in variables), z.dtype, channels, z.device)


def _may_have_kernels(z) -> bool:
    return z.is_cpu or (z.is_cuda and cuda.is_wanted() and z.numel() < cuda.LARGEST)


def _forward(form, kernel, z, variables):
    try:
        if not by_channel(variables):
            return kernel.forward(z, variables)
        layout = _layout(form, z, variables)
        return layout.restore(kernel.forward(layout.flatten(z), variables))
    except cuda.Failed:
        return form(z, *variables)


def _backward(form, kernel, z, gradient, variables):
    try:
        if not by_channel(variables):
            return kernel.backward(z, gradient, variables)
        layout = _layout(form, z, variables)
        by_z, *by_variables = kernel.backward(layout.flatten(z), layout.flatten(gradient), variables)
        return layout.restore(by_z), *by_variables
    except cuda.Failed:
        return _pull(form, gradient, z, *variables)


class _Native(torch.autograd.Function):
    """A form by its kernels, keeping z alone."""

    @staticmethod
    def forward(ctx, form, kernel, as_torch, z, *variables):
        ctx.form, ctx.kernel = form, kernel
        ctx.save_for_backward(z, *variables)
        return form(z, *variables) if as_torch else _forward(form, kernel, z, variables)

    @staticmethod
    def backward(ctx, gradient):
        z, *variables = ctx.saved_tensors
        if torch.is_grad_enabled():
            return None, None, None, *_pull_again(ctx.form, gradient, z, *variables)
        if not has_memory(gradient):
            return None, None, None, *_pull(ctx.form, gradient, z, *variables)
        return None, None, None, *_backward(ctx.form, ctx.kernel, z, gradient, variables)


class _Lean(torch.autograd.Function):
    @staticmethod
    def forward(ctx, form, z, *variables):
        ctx.form = form
        ctx.save_for_backward(z, *variables)
        layout = _layout(form, z, variables)
        if not _is_compiled(layout):
            return form(z, *variables)
        return layout.restore(_program(*layout.key, False)(layout.flatten(z), *variables))

    @staticmethod
    def backward(ctx, gradient):
        form, (z, *variables) = ctx.form, ctx.saved_tensors
        if torch.is_grad_enabled():
            return None, *_pull_again(form, gradient, z, *variables)
        layout = _layout(form, z, variables)
        if not _is_compiled(layout):
            return None, *_pull(form, gradient, z, *variables)
        program = _program(*layout.key, True)
        by_z, *by_variables = program(layout.flatten(gradient), layout.flatten(z), *variables)
        return None, layout.restore(by_z), *by_variables


def slope(function, z):
    with torch.enable_grad():
        at = z.detach().requires_grad_()
        return torch.autograd.grad(function(at).sum(), at)[0]


def _pull(form, gradient, *inputs):
    """Gradients by z and the variables, by autograd."""
    with torch.enable_grad():
        at = [x.detach().requires_grad_() for x in inputs]
        return torch.autograd.grad(form(*at), at, gradient, materialize_grads=True)


def _pull_again(form, gradient, *inputs):
    """The same where a second derivative is wanted, as functions of what they are computed from."""
    wanted = [x for x in inputs if x.requires_grad]
    found = torch.autograd.grad(form(*inputs), wanted, gradient, create_graph=True, materialize_grads=True)
    given = iter(found)
    return [next(given) if x.requires_grad else None for x in inputs]


_PROGRAMS: dict[tuple, Callable] = {}
_SMALL: dict[tuple, bool] = {}  # whether small tensors of a kind use programs


def _is_compiled(layout) -> bool:
    if layout.size >= LARGE:
        return _has_compiler()
    return _SMALL.setdefault(layout.key, (*layout.key, False) in _PROGRAMS)


def _program(*key):
    if key not in _PROGRAMS:
        _PROGRAMS[key] = _compile(*key)
    return _PROGRAMS[key]


def _compile(form, dtype, device, rank, shapes, backward):
    """Compiles a form, or its gradient, for flat inputs of a rank and any size.

    Not by `torch.compile`, whose guards and wrappers take longer than a small tensor's arithmetic; all that they
    could find changed is in the key.
    """
    from keras_adaptact.backends.torch_vector import REPLACED

    make_fx, standalone_compile, _ = compiler_parts()
    sizes = {1: (999983,), 2: (16381, 61), 3: (127, 61, 131)}[rank]  # any, but large: the compiler chooses by them
    z = torch.ones(sizes, dtype=dtype, device=device)
    variables = [torch.ones((rows, *sizes[1:2])[:axes], dtype=of, device=device) for rows, axes, of in shapes]
    faster = REPLACED if device.type == "cpu" and form.dtype == "float32" else None
    trace = functools.partial(make_fx, decomposition_table=faster, tracing_mode="symbolic")
    inputs = (torch.ones_like(z), z, *variables) if backward else (z, *variables)
    graph = trace(functools.partial(_pull, form) if backward else lambda *inputs: form(*inputs))(*inputs)
    return standalone_compile(graph, inputs, options={"config_patches": ONE_PASS})


@functools.lru_cache(maxsize=1)
def _has_compiler() -> bool:
    """Whether `torch.compile` can compile here; where it can't, that is said once."""
    try:
        _, _, get_cpp_compiler = compiler_parts()
        if torch.cuda.is_available():
            import triton  # noqa: F401
        else:
            get_cpp_compiler()
    except Exception as error:
        warnings.warn(
            f"keras_adaptact: torch.compile finds no compiler ({type(error).__name__}); large activations are slower "
            "than they need be. Install g++ or clang.",
            stacklevel=2,
        )
        return False
    return True


@dataclass(frozen=True)
class _Layout:
    """How a tensor lies in memory, and what of that its formula cares for.

    Convolutions in channels_last format give permuted views, whose memory is in another order: a formula with scalar
    parameters may take that as it lies, and one by channel may, too, once it knows where the channels are.
    """

    order: tuple[int, ...]  # of the axes in memory
    inverse: tuple[int, ...]
    shape: tuple[int, ...]  # in that order
    flat_shape: tuple[int, ...]
    size: int
    key: tuple  # what a program is compiled for: form, dtype, device, rank, and the variables' kinds

    def flatten(self, x):
        return x.detach().permute(self.order).contiguous().view(self.flat_shape)

    def restore(self, flat):
        return flat.view(self.shape).permute(self.inverse)


def _layout(form, z, variables) -> _Layout:
    kinds = tuple((*variable.shape, variable.dtype) for variable in variables)
    return _layout_of(form, tuple(z.shape), z.stride(), z.dtype, z.device, kinds)


@functools.lru_cache(maxsize=1024)
def _layout_of(form, sizes, strides, dtype, device, kinds) -> _Layout:
    order = sorted(range(len(sizes)), key=lambda axis: -strides[axis])
    shape = [sizes[axis] for axis in order]
    if [strides[axis] for axis in order] != [math.prod(shape[i + 1 :]) for i in range(len(shape))]:
        order, shape = list(range(len(sizes))), list(sizes)
    flat_shape: tuple[int, ...] = (math.prod(shape),)
    if any(len(kind) > 2 for kind in kinds):
        axis = order.index(len(sizes) - 1 - form.rows.behind)
        behind = math.prod(shape[axis + 1 :])
        flat_shape = (math.prod(shape[:axis]), shape[axis], *((behind,) if behind != 1 else ()))
        form = replace(form, rows=replace(form.rows, behind=len(flat_shape) - 2))
    inverse = tuple(sorted(range(len(order)), key=order.__getitem__))
    shapes = tuple((kind[0], len(kind) - 1, kind[-1]) for kind in kinds)
    key = form, dtype, device, len(flat_shape), shapes
    return _Layout(tuple(order), inverse, tuple(shape), flat_shape, math.prod(sizes), key)


def _over_chunks(layout, z, variables):
    """The formula's value alone, without temporaries of z's size."""
    form, flat = layout.key[0], layout.flatten(z)
    y = torch.empty_like(flat)
    rows = max(1, CHUNK // math.prod(flat.shape[1:]))
    for part, into in zip(flat.split(rows), y.split(rows), strict=True):
        into.copy_(form(part, *variables))
    return layout.restore(y)
