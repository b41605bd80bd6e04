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
        packed = torch.stack(parameters) if parameters else z.new_empty(0)  # one tensor costs less than fifteen
        return _Lean.apply(formula, dtype, z, packed)
    if z.numel() < LARGE:
        return function(z, *parameters)
    flat = _Flat(z, torch.stack(parameters) if parameters else z.new_empty(0))
    program = _PROGRAMS.get(_key(formula, dtype, flat, False))  # a forward pass alone isn't worth compiling for
    if program is None:
        return flat.restore(_over_chunks(function, flat))
    return flat.restore(program(flat.z, flat.packed))


def _is_traced(*tensors) -> bool:
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or any(x.is_meta or torch._C._functorch.is_functorch_wrapped_tensor(x) for x in tensors)
    )


class _Lean(torch.autograd.Function):
    @staticmethod
    def forward(ctx, formula, dtype, z, packed):
        ctx.formula, ctx.dtype = formula, dtype
        ctx.save_for_backward(z, packed)
        if z.numel() < LARGE or not _has_compiler():
            return plain(formula, dtype)(z, *packed.unbind())
        flat = _Flat(z, packed)
        return flat.restore(_program(_key(formula, dtype, flat, False))(flat.z, flat.packed))

    @staticmethod
    def backward(ctx, gradient):
        z, packed = ctx.saved_tensors
        function = plain(ctx.formula, ctx.dtype)
        if torch.is_grad_enabled():  # a second derivative is wanted
            y = function(z, *packed.unbind())
            found = torch.autograd.grad(y, (z, packed), gradient, create_graph=True, materialize_grads=True)
            return None, None, *found
        if z.numel() < LARGE or not _has_compiler():
            return None, None, *_pull(function, z, packed, gradient)
        flat = _Flat(z, packed)
        program = _program(_key(ctx.formula, ctx.dtype, flat, True))
        by_z, by_packed = program(flat.z, flat.packed, flat.alike(gradient))
        return None, None, flat.restore(by_z), by_packed.view(packed.shape)


def _pull(function, z, packed, gradient):
    """Gradients by z and the packed parameters, by autograd."""
    with torch.enable_grad():
        z, packed = (x.detach().requires_grad_() for x in (z, packed))
        return torch.autograd.grad(function(z, *packed.unbind()), (z, packed), gradient, materialize_grads=True)


_PROGRAMS: dict[tuple, Callable] = {}


def _key(formula, dtype, flat, backward: bool) -> tuple:
    """What a program is compiled for: flat inputs of a rank and any size, the formula or its gradient."""
    return formula, dtype, flat.z.dtype, flat.z.device, flat.z.ndim, len(flat.packed), backward


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
    packed = torch.ones((count, *((), (5,), (5, 1))[rank - 1]), dtype=getattr(torch, dtype), device=device)
    trace = functools.partial(make_fx, tracing_mode="symbolic")
    if backward:
        graph = trace(functools.partial(_pull, function))(z, packed, torch.ones_like(z))
    else:
        graph = trace(lambda z, packed: function(z, *packed.unbind()))(z, packed)
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

    def __init__(self, z, packed):
        order = sorted(range(z.ndim), key=lambda axis: -z.stride(axis))
        if not z.permute(order).is_contiguous():
            order = list(range(z.ndim))
        self.order = order
        self.shape = z.permute(order).shape
        rank = packed.ndim - 1
        if rank:
            axis = order.index(z.ndim - rank)
            behind = math.prod(self.shape[axis + 1 :])
            self.flat_shape: tuple = (-1, self.shape[axis], behind) if behind > 1 else (-1, self.shape[axis])
            self.packed = packed.detach().reshape((len(packed), -1, 1) if behind > 1 else (len(packed), -1))
        else:
            self.flat_shape = (-1,)
            self.packed = packed.detach()
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
        into.copy_(function(part, *flat.packed.unbind()))
    return y
