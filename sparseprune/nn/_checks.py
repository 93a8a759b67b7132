"""What sparsify and from_dense refuse, before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..shards import is_dtensor

Layout = Literal["auto", "masked", "csr"]
Scale = Literal["fold", "keep"]

_CSR_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_options(who: str, layout: str, scale: str, batch_size: int) -> None:
    """Raise ValueError unless the options are known ones."""
    if layout not in ("auto", "masked", "csr"):
        raise ValueError(f"{who}: layout must be 'auto', 'masked' or 'csr', got {layout!r}")
    if scale not in ("fold", "keep"):
        raise ValueError(f"{who}: scale must be 'fold' or 'keep', got {scale!r}")
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"{who}: batch_size must be an integer >= 1, got {batch_size!r}")


def check_layer(who: str, what: str, module: nn.Module) -> None:
    """Raise ValueError unless swapping the class of `module` keeps what its forward does."""
    base = next(base for base in (nn.Linear, nn.Conv2d) if isinstance(module, base))
    is_sparse = hasattr(type(module), "dense_type")
    known = type(module) if is_sparse else base
    for method in ("forward", "_conv_forward"):
        if method in vars(module) or getattr(type(module), method, None) is not getattr(known, method, None):
            raise ValueError(f"{who}: {what} must use nn.{base.__name__}'s {method}, got {type(module).__name__}'s own")
    if is_sparse and "values" in module._parameters:
        return
    weight = module._parameters.get("weight")
    if weight is None:
        raise ValueError(f"{who}: {what} must own a plain parameter 'weight', got one computed by a parametrization")
    if nn.parameter.is_lazy(weight):
        raise ValueError(f"{who}: {what} must be initialized, got a {type(module).__name__} without a shape")


def check_mask(who: str, what: str, mask: Any, shape: Sequence[int], dtype: torch.dtype, scale: str) -> None:
    """Raise ValueError unless `mask` can multiply a weight of this shape and dtype."""
    if not isinstance(mask, Tensor):
        raise ValueError(f"{who}: {what} must be a tensor, got {type(mask).__name__}")
    if mask.dtype != torch.bool and not mask.is_floating_point():
        raise ValueError(f"{who}: {what} must be bool or floating point, got {mask.dtype}")
    if mask.shape != tuple(shape):
        raise ValueError(f"{who}: {what} must have shape {list(shape)} like weight, got {list(mask.shape)}")
    if mask.is_floating_point() and not mask.is_meta:
        used = mask.to(dtype) if scale == "keep" else mask
        if not used.isfinite().all():
            raise ValueError(f"{who}: {what} must be finite in {used.dtype}, got NaN or infinite values")
        if not torch.equal(used != 0, mask != 0):
            raise ValueError(f"{who}: {what} must not underflow in {used.dtype}, got values that become 0")


def why_not_csr(*tensors: Tensor) -> str | None:
    """Say why a weight and its mask cannot be stored as the kept values alone, or made of them; None if they can."""
    if any(tensor.is_meta for tensor in tensors):
        return "some on the meta device, which has no entries to keep"
    if any(map(is_dtensor, tensors)):
        return "some that are spread over ranks (sparsify first, then fully_shard)"
    return f"a weight of {tensors[0].dtype}" if tensors[0].dtype not in _CSR_DTYPES else None


def check_csr(who: str, what: str, *tensors: Tensor) -> None:
    """Raise ValueError unless a weight (dense, or the kept values) and its mask allow the csr layout."""
    reason = why_not_csr(*tensors)
    if reason is not None:
        raise ValueError(f"{who}: {what} must be plain real tensors for the csr layout, got {reason}")
