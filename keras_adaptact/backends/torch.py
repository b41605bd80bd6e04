"""On torch: one autograd function that keeps z alone, compiled for large tensors.

`torch.compile` makes one pass over memory of a formula, and one of its gradient, but takes seconds to do so. It
gets tensors flattened to one shape and with sizes marked dynamic, so that one program serves every layer and batch
size. Large tensors have programs compiled, and small ones use them where they exist when the first small one comes,
so that all tensors of a size go the same way for as long as the process lives: equal runs are equal.

Inside `torch.compile`, `torch.export` and functorch's transforms the formula is run as it stands: they have their own
ways to differentiate it.
"""

import functools
import math
import warnings
from collections.abc import Callable
from dataclasses import replace

import torch

CHUNK = 2**17  # elements
LARGE = 2**18  # elements from which a compiled program pays


def run(form, z, variables):
    if _is_traced(z, *variables):
        return form(z, *variables)
    if torch.is_grad_enabled() and any(x.requires_grad for x in (z, *variables)):
        return _Lean.apply(form, z, *variables)
    flat = _Flat(form, z, variables)
    program = _PROGRAMS.get((*flat.key, False))  # a forward pass alone isn't worth compiling for
    if program is not None:
        return flat.restore(program(flat.z, *flat.variables))
    return form(z, *variables) if z.numel() < LARGE else flat.restore(_over_chunks(flat))


def _is_traced(*tensors) -> bool:
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or any(x.is_meta or torch._C._functorch.is_functorch_wrapped_tensor(x) for x in tensors)
    )


class _Lean(torch.autograd.Function):
    @staticmethod
    def forward(ctx, form, z, *variables):
        ctx.form = form
        ctx.save_for_backward(z, *variables)
        flat = _Flat(form, z, variables)
        if not _is_compiled(flat):
            return form(z, *variables)
        return flat.restore(_program(*flat.key, False)(flat.z, *flat.variables))

    @staticmethod
    def backward(ctx, gradient):
        form, (z, *variables) = ctx.form, ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is wanted
            inputs = z, *variables
            found = torch.autograd.grad(form(*inputs), inputs, gradient, create_graph=True, materialize_grads=True)
            return None, *found
        flat = _Flat(form, z, variables)
        if not _is_compiled(flat):
            return None, *_pull(form, gradient, z, *variables)
        by_z, *by_variables = _program(*flat.key, True)(flat.alike(gradient), flat.z, *flat.variables)
        return None, flat.restore(by_z), *by_variables


def _pull(form, gradient, *inputs):
    """Gradients by z and the variables, by autograd."""
    with torch.enable_grad():
        at = [x.detach().requires_grad_() for x in inputs]
        return torch.autograd.grad(form(*at), at, gradient, materialize_grads=True)


_PROGRAMS: dict[tuple, Callable] = {}
_SMALL: dict[tuple, bool] = {}  # whether small tensors of a kind use programs


def _is_compiled(flat) -> bool:
    if flat.z.numel() >= LARGE:
        return _has_compiler()
    return _SMALL.setdefault(flat.key, (*flat.key, False) in _PROGRAMS)


def _program(*key):
    if key not in _PROGRAMS:
        _PROGRAMS[key] = _compile(*key)
    return _PROGRAMS[key]


def _compile(form, dtype, device, rank, shapes, backward):
    """Compiles a form, or its gradient, for flat inputs of a rank and any size.

    It is taken apart into torch's own operations first: `torch.compile` would go through Keras's code otherwise,
    and counts all formulas as one function, of which it compiles eight at most.
    """
    from torch.fx.experimental.proxy_tensor import make_fx  # half a second to import

    from keras_adaptact.backends.torch_vector import REPLACED

    z = torch.ones((7, 5, 3)[:rank], dtype=dtype, device=device)
    variables = [torch.ones((rows, 5)[:axes], dtype=of, device=device) for rows, axes, of in shapes]
    faster = REPLACED if device.type == "cpu" and form.dtype == "float32" else None
    trace = functools.partial(make_fx, decomposition_table=faster, tracing_mode="symbolic")
    if backward:
        graph = trace(functools.partial(_pull, form))(torch.ones_like(z), z, *variables)
    else:
        graph = trace(lambda *inputs: form(*inputs))(z, *variables)
    return torch.compile(graph, dynamic=True)


@functools.lru_cache(maxsize=1)
def _has_compiler() -> bool:
    """Whether `torch.compile` can compile here; where it can't, that is said once."""
    try:
        if torch.cuda.is_available():
            import triton  # noqa: F401
        else:
            from torch._inductor.cpp_builder import get_cpp_compiler

            get_cpp_compiler()
    except Exception as error:
        warnings.warn(
            f"keras_adaptact: torch.compile finds no compiler ({type(error).__name__}); large activations are slower "
            "than they need be. Install g++ or clang.",
            stacklevel=2,
        )
        return False
    return True


class _Flat:
    """A tensor in the order of its memory, without the axes that the formula doesn't care for.

    Convolutions in channels_last format give permuted views, whose memory is in another order: a formula with scalar
    parameters may take that as it lies, and one by channel may, too, once it knows where the channels are.
    """

    def __init__(self, form, z, variables):
        order = sorted(range(z.ndim), key=lambda axis: -z.stride(axis))
        if not z.permute(order).is_contiguous():
            order = list(range(z.ndim))
        self.order = order
        self.shape = z.permute(order).shape
        self.flat_shape: tuple = (-1,)
        if any(variable.ndim > 1 for variable in variables):
            axis = order.index(z.ndim - 1 - form.rows.behind)
            behind = math.prod(self.shape[axis + 1 :])
            self.flat_shape = (-1, self.shape[axis], behind) if behind > 1 else (-1, self.shape[axis])
            form = replace(form, rows=replace(form.rows, behind=len(self.flat_shape) - 2))
        self.form = form
        self.z = self.alike(z)
        self.variables = [variable.detach() for variable in variables]
        shapes = tuple((len(variable), variable.ndim, variable.dtype) for variable in variables)
        self.key = form, z.dtype, z.device, len(self.flat_shape), shapes  # what a program is compiled for

    def alike(self, x):
        """x in the same order and shape; not a view, for `torch.compile` guards on the sizes of a view's base."""
        flat = x.detach().permute(self.order).contiguous().reshape(self.flat_shape)
        return torch.empty(0, dtype=x.dtype, device=x.device).set_(flat)

    def restore(self, flat):
        inverse = sorted(range(len(self.order)), key=self.order.__getitem__)
        return flat.view(self.shape).permute(inverse)


def _over_chunks(flat):
    """The formula's value alone, without temporaries of z's size."""
    y = torch.empty_like(flat.z)
    rows = max(1, CHUNK // math.prod(flat.z.shape[1:]))
    for part, into in zip(flat.z.split(rows), y.split(rows), strict=True):
        into.copy_(flat.form(part, *flat.variables))
    return y
