"""On torch: one autograd function that keeps z alone, compiled for large tensors.

`torch.compile` makes one pass over memory of a formula, and one of its gradient, but takes seconds to do so. It
gets tensors flattened to one shape and with sizes marked dynamic, so that one program serves every layer and batch
size; small tensors go without. Which way a tensor goes depends on its size alone, so that equal runs are equal.

Inside `torch.compile`, `torch.export` and functorch's transforms the formula is run as it stands: they have their own
ways to differentiate it.
"""

import functools
import math
import warnings
from collections.abc import Callable

import torch

from keras_adaptact.backends.common import plain

CHUNK = 2**17  # elements
LARGE = 2**18  # elements from which a compiled program pays


def run(formula, z, parameters, dtype):
    function = plain(formula, dtype)
    if _is_traced(z, *parameters):
        return function(z, *parameters)
    if torch.is_grad_enabled() and any(x.requires_grad for x in (z, *parameters)):
        return _Lean.apply(formula, dtype, z, *parameters)
    if z.numel() < LARGE:
        return function(z, *parameters)
    flat = _Flat(z, parameters)
    program = _PROGRAMS.get(_key(formula, dtype, flat, False))  # a forward pass alone isn't worth compiling for
    if program is None:
        return flat.restore(_over_chunks(function, flat))
    return flat.restore(program(flat.z, *flat.parameters))


def _is_traced(*tensors) -> bool:
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or any(x.is_meta or torch._C._functorch.is_functorch_wrapped_tensor(x) for x in tensors)
    )


class _Lean(torch.autograd.Function):
    @staticmethod
    def forward(ctx, formula, dtype, z, *parameters):
        ctx.formula, ctx.dtype = formula, dtype
        ctx.save_for_backward(z, *parameters)
        if z.numel() < LARGE or not _has_compiler():
            return plain(formula, dtype)(z, *parameters)
        flat = _Flat(z, parameters)
        program = _program(_key(formula, dtype, flat, False))
        return flat.restore(program(flat.z, *flat.parameters))

    @staticmethod
    def backward(ctx, gradient):
        z, *parameters = ctx.saved_tensors
        function = plain(ctx.formula, ctx.dtype)
        if torch.is_grad_enabled():  # a second derivative is wanted
            found = torch.autograd.grad(function(z, *parameters), (z, *parameters), gradient, create_graph=True)
            return None, None, *found
        if z.numel() < LARGE or not _has_compiler():
            return None, None, *_pull(function, z, gradient, *parameters)
        flat = _Flat(z, parameters)
        program = _program(_key(ctx.formula, ctx.dtype, flat, True))
        by_z, *by_parameters = program(flat.z, flat.alike(gradient), *flat.parameters)
        sums = (x.reshape(p.shape) for x, p in zip(by_parameters, parameters, strict=True))
        return None, None, flat.restore(by_z), *sums


def _pull(function, z, gradient, *parameters):
    """Gradients by z and the parameters, by autograd."""
    with torch.enable_grad():
        inputs = [x.detach().requires_grad_() for x in (z, *parameters)]
        return torch.autograd.grad(function(*inputs), inputs, gradient)


_PROGRAMS: dict[tuple, Callable] = {}


def _key(formula, dtype, flat, backward: bool) -> tuple:
    """What a program is compiled for: flat inputs of a rank and any size, the formula or its gradient."""
    return formula, dtype, flat.z.dtype, flat.z.device, flat.z.ndim, len(flat.parameters), backward


def _program(key):
    if key not in _PROGRAMS:
        _PROGRAMS[key] = _compile(*key)
    return _PROGRAMS[key]


def _compile(formula, dtype, z_dtype, device, rank, count, backward):
    """Compiles the formula, or its gradient, for flat inputs of a rank and any size.

    It is taken apart into torch's own operations first: `torch.compile` would go through Keras's code otherwise,
    and counts all formulas as one function, of which it compiles eight at most.
    """
    from torch.fx.experimental.proxy_tensor import make_fx  # half a second to import

    function = plain(formula, dtype)
    z = torch.ones((7, 5, 3)[:rank], dtype=z_dtype, device=device)
    parameter = torch.ones(((), (5,), (5, 1))[rank - 1], dtype=getattr(torch, dtype), device=device)
    parameters = [parameter.clone() for _ in range(count)]
    trace = functools.partial(make_fx, tracing_mode="symbolic")
    if backward:
        graph = trace(functools.partial(_pull, function))(z, torch.ones_like(z), *parameters)
    else:
        graph = trace(function)(z, *parameters)
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

    def __init__(self, z, parameters):
        order = sorted(range(z.ndim), key=lambda axis: -z.stride(axis))
        if not z.permute(order).is_contiguous():
            order = list(range(z.ndim))
        self.order = order
        self.shape = z.permute(order).shape
        rank = next((p.ndim for p in parameters if p.ndim), 0)
        if rank:
            axis = order.index(z.ndim - rank)
            behind = math.prod(self.shape[axis + 1 :])
            self.flat_shape: tuple = (-1, self.shape[axis], behind) if behind > 1 else (-1, self.shape[axis])
            self.parameters = [p.detach().reshape((-1, 1) if behind > 1 else (-1,)) for p in parameters]
        else:
            self.flat_shape = (-1,)
            self.parameters = [p.detach() for p in parameters]
        self.z = self.alike(z)

    def alike(self, x):
        """x in the same order and shape; not a view, for `torch.compile` guards on the sizes of a view's base."""
        flat = x.detach().permute(self.order).contiguous().reshape(self.flat_shape)
        return torch.empty(0, dtype=x.dtype, device=x.device).set_(flat)

    def restore(self, flat):
        inverse = sorted(range(len(self.order)), key=self.order.__getitem__)
        return flat.view(self.shape).permute(inverse)


def _over_chunks(function, flat):
    """The formula's value alone, without temporaries of z's size."""
    y = torch.empty_like(flat.z)
    rows = max(1, CHUNK // math.prod(flat.z.shape[1:]))
    for part, into in zip(flat.z.split(rows), y.split(rows), strict=True):
        into.copy_(function(part, *flat.parameters))
    return y
