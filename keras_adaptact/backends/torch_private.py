"""The private names of torch's that this library needs: what a tensor is to others is said nowhere else."""

import torch
from torch._C import _has_storage, _len_torch_dispatch_stack
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.autograd import forward_ad

PLAIN = (torch.Tensor, torch.nn.Parameter)  # whose memory holds their values, unlike that of other classes

forward_ad._current_level  # noqa: B018, which is to be missed here rather than in a call


def is_traced(*tensors) -> bool:
    """Whether operations on tensors are watched or transformed, so that none may be written past them."""
    return (
        torch.compiler.is_compiling()
        or _len_torch_dispatch_stack() > 0
        or any(x.is_meta or type(x) not in PLAIN or is_functorch_wrapped_tensor(x) or _has_tangent(x) for x in tensors)
    )


def _has_tangent(x) -> bool:
    """Whether a derivative goes forward with x, which only torch's own operations hand on."""
    return forward_ad._current_level >= 0 and forward_ad.unpack_dual(x).tangent is not None


def has_memory(x) -> bool:
    """Whether a tensor's values lie in memory of its own, which they don't in a batch of gradients."""
    return x.layout == torch.strided and _has_storage(x)


def compiler_parts():
    """What traces a function, what compiles it, and what names the C++ compiler; a second to import."""
    from torch._inductor import standalone_compile
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch.fx.experimental.proxy_tensor import make_fx

    return make_fx, standalone_compile, get_cpp_compiler
