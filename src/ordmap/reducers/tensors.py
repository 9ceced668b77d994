"""PyTorch's CPU tensors as they travel: as the arrays that they are, where their own way copies them thrice.

A view carries its part of the memory alone. What a tensor was computed from stays where it is: a graph leads through
the memory of one process. That is said once, in the process of the user's loop.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

from ordmap.reducers.purpose import RESULT, Purpose
from ordmap.telling import warn

__all__ = ["reducers_of_torch"]


def reducers_of_torch(torch: Any, purpose: Purpose) -> dict[type, Any]:
    """Have CPU tensors travel as arrays, and those of a subclass with what has been written on them."""

    def reduced(value: Any) -> Any:
        if value.device.type != "cpu" or value.layout is not torch.strided or value.is_quantized:
            if value.is_cpu and value.layout in sparse and not value.requires_grad and type(value) is torch.Tensor:
                return _reduced_sparse(torch, value)
            return value.__reduce_ex__(pickle.HIGHEST_PROTOCOL)
        state = value.__getstate__()
        bare = type(value) is torch.Tensor and not value.requires_grad and not state
        try:
            plain = _reduced_tensor(torch, value if bare else _plain(torch, value))
        except (TypeError, RuntimeError):  # a lazy tensor, or a view that computes
            return value.__reduce_ex__(pickle.HIGHEST_PROTOCOL)
        if bare:
            return plain
        has_graph = value.grad_fn is not None
        if has_graph and purpose != RESULT:
            _say_once()
        return _restored, (*plain, type(value), value.requires_grad, state, has_graph and purpose == RESULT)

    sparse = {torch.sparse_coo, torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc}
    return dict.fromkeys((torch.Tensor, *_alike(torch.Tensor)), reduced)


def _alike(kind: Any) -> Iterator[type]:
    """Yield the subclasses that leave it to their base how they are pickled."""
    names = ("__reduce_ex__", "__getstate__", "__setstate__", "__torch_dispatch__")
    for one in kind.__subclasses__():
        if all(getattr(one, name) == getattr(kind, name) for name in names):
            yield one
            yield from _alike(one)


def _plain(torch: Any, tensor: Any) -> Any:
    """Return the same memory as a tensor and no more."""
    with torch._C.DisableTorchFunctionSubclass():
        return tensor.detach().as_subclass(torch.Tensor)


def _reduced_tensor(torch: Any, tensor: Any) -> tuple[Any, ...]:
    if not tensor.is_contiguous():
        order = sorted(range(tensor.dim()), key=tensor.stride, reverse=True)
        dense = tensor.permute(order)
        if dense.is_contiguous():  # channels last, or transposed: it comes back so
            return _permuted, (dense, sorted(range(len(order)), key=order.__getitem__))
        tensor = tensor.contiguous()
    try:
        return torch.from_numpy, (tensor.numpy(),)
    except TypeError:  # a type that numpy lacks, such as bfloat16
        return _tensor, (tensor.reshape(-1).view(torch.uint8).numpy(), tensor.dtype, tensor.shape)


def _reduced_sparse(torch: Any, tensor: Any) -> tuple[Any, ...]:
    """Reduce a sparse tensor to its parts. What its own way makes of them PyTorch keeps for ever, to be validated."""
    if tensor.layout is torch.sparse_coo:
        options = {"is_coalesced": tensor.is_coalesced()}
        return _sparse, ("sparse_coo_tensor", (tensor._indices(), tensor._values(), tensor.shape), options)
    by_row = tensor.layout in {torch.sparse_csr, torch.sparse_bsr}
    ends, places = (tensor.crow_indices, tensor.col_indices) if by_row else (tensor.ccol_indices, tensor.row_indices)
    parts = ends(), places(), tensor.values(), tensor.shape
    return _sparse, ("sparse_compressed_tensor", parts, {"layout": tensor.layout})


def _sparse(maker: str, parts: tuple[Any, ...], options: dict[str, Any]) -> Any:
    import torch

    return getattr(torch, maker)(*parts, check_invariants=False, **options)  # it was a tensor


def _permuted(tensor: Any, order: list[int]) -> Any:
    return tensor.permute(order)


def _tensor(data: Any, dtype: Any, shape: Any) -> Any:
    import torch  # who gets a tensor has it anyway

    return torch.from_numpy(data).view(dtype).reshape(shape)


def _restored(build: Any, args: tuple[Any, ...], kind: type, requires_grad: bool, state: Any, has_graph: bool) -> Any:  # noqa: FBT001, PLR0917
    """Build a tensor with all that its own way brings: its class, whether it has a gradient, and its attributes."""
    import torch

    tensor = build(*args)
    with torch._C.DisableTorchFunctionSubclass():
        if kind is not torch.Tensor:
            tensor = tensor.as_subclass(kind)
        if requires_grad:
            tensor.requires_grad_()
        for attributes in state if isinstance(state, tuple) else (state,):
            for name, value in (attributes or {}).items():
                setattr(tensor, name, value)
    if has_graph:
        _say_once()
    return tensor


_said = False


def _say_once() -> None:
    global _said
    if not _said:
        _said = True
        warn(
            "a tensor that requires a gradient has come from, or goes to, a worker without what it was computed from: "
            "no gradient goes back from there. Compute it under torch.no_grad(), send tensor.detach(), or use "
            "backend='threads'"
        )
