"""How a sparse layer stores its weight, and the ways between dense, masked and csr, all in place.

masked: parameter `weight`, buffer `weight_mask`. csr: parameter `values` (the kept weights in CSR order), buffers
`row_offsets` and `columns`, `scale` where a float mask is kept, and three that follow from the pattern and are in no
checkpoint: `column_offsets`, `rows`, `order`.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from ..ops import Pattern
from ._checks import why_not_csr

if TYPE_CHECKING:
    from ._sparse import Sparse

MASK, VALUES, SCALE = "weight_mask", "values", "scale"
STORED = ("row_offsets", "columns")
DERIVED = ("column_offsets", "rows", "order")


def stored(layer: nn.Module) -> tuple[nn.Parameter, Sequence[int]]:
    """The parameter that holds a layer's weight in its layout, and the shape of the dense weight."""
    values = layer._parameters.get(VALUES)
    if values is not None:
        return values, cast("Sparse", layer).weight_shape
    weight = layer._parameters["weight"]
    assert weight is not None
    return weight, weight.shape


@torch.no_grad()
def attach(layers: Sequence[tuple[nn.Module, type[Sparse]]], mask: Tensor, scale: str) -> None:
    """Turn layers that share one weight into masked ones, in place; everything has been checked."""
    to_masked([cast("Sparse", layer) for layer, _ in layers if VALUES in layer._parameters])
    weight = cast(Tensor, layers[0][0].weight)
    mask = mask.detach().to(weight.device)
    if scale == "fold" and mask.is_floating_point():
        weight.mul_(mask)
        mask = mask != 0
    else:
        # A float mask in another dtype would promote the product away from the dtype of the input.
        mask = mask.to(weight.dtype if mask.is_floating_point() else torch.bool)
    for layer, kind in layers:
        old = layer._buffers.get(MASK)
        # A copy: loading a checkpoint writes into the buffer, and the caller's masks must not change.
        buffer = mask.clone() if old is None else _compose(old, mask)
        if not isinstance(layer, kind):
            layer.__class__ = kind
        layer.register_buffer(MASK, buffer)
        # A gradient from before would wake the pruned weights at the next step.
        for tensor in (weight, weight.grad):
            if tensor is not None:
                zero(tensor, buffer)


@torch.no_grad()
def detach(layers: Sequence[Sparse]) -> None:
    """Turn sparse layers that share one weight (and so one mask) back into dense ones, in place."""
    to_masked([layer for layer in layers if VALUES in layer._parameters])
    weight = layers[0].weight
    weight.copy_(effective(weight, layers[0].weight_mask))
    for layer in layers:
        del layer._buffers[MASK]
        layer.__dict__.pop("_chosen", None)
        cast(Any, layer).__class__ = layer.dense_type


@torch.no_grad()
def to_csr(layers: Sequence[Sparse]) -> None:
    """Keep the kept weights alone of masked layers that share one weight; those of zero stay kept."""
    weight, mask = layers[0]._parameters["weight"], layers[0].weight_mask
    assert weight is not None
    kept = (mask.reshape(-1) != 0).nonzero()[:, 0]
    values = _parameter_like(weight, lambda tensor: tensor.reshape(-1)[kept])
    scale = mask.reshape(-1)[kept] if mask.is_floating_point() else None
    patterns: dict[int, Pattern] = {}
    for layer in layers:
        groups = layer.weight_groups
        pattern = patterns.setdefault(groups, patterns.get(groups) or Pattern.from_mask(mask, groups))
        del layer._buffers[MASK]
        _replace_parameter(layer, "weight", VALUES, values)
        for name in (*STORED, *DERIVED):
            layer.register_buffer(name, getattr(pattern, name), persistent=name in STORED)
        if scale is not None:
            layer.register_buffer(SCALE, scale)


@torch.no_grad()
def to_masked(layers: Sequence[Sparse]) -> None:
    """Give csr layers that share one vector of values a dense weight and masks again."""
    if not layers:
        return
    values, pattern, shape = layers[0].values, layers[0].pattern, layers[0].weight_shape
    scale = layers[0]._buffers.get(SCALE)
    kept = torch.ones_like(values, dtype=torch.bool) if scale is None else scale
    weight = _parameter_like(values, lambda tensor: pattern.dense(tensor, shape))
    for layer in layers:
        _replace_parameter(layer, VALUES, "weight", weight)
        for name in (*STORED, *DERIVED, SCALE):
            layer._buffers.pop(name, None)
            layer._non_persistent_buffers_set.discard(name)
        layer.register_buffer(MASK, pattern.dense(kept, shape))


def can_be_csr(layer: Sparse) -> bool:
    """Whether a masked layer's weight can be stored as its kept values."""
    return why_not_csr(layer.weight, layer.weight_mask) is None


def effective(weight: Tensor, mask: Tensor) -> Tensor:
    """The weight that a masked layer's forward uses."""
    if mask.dtype == torch.bool:
        return torch.where(mask, weight, 0)
    return torch.where(mask != 0, weight, 0) * mask


@torch.no_grad()
def zero(tensor: Tensor, mask: Tensor) -> None:
    """Write zeros where `mask` prunes."""
    tensor.copy_(torch.where(mask != 0, tensor, 0))


def copy_layer(module: nn.Module) -> nn.Module:
    """Copy a layer: tensors and hook tables of its own, the same hooks."""
    twin = copy.copy(module)
    for name, value in module.__dict__.items():
        if isinstance(value, (dict, set)):
            twin.__dict__[name] = value.copy()
    twin._parameters = copy.deepcopy(module._parameters)
    twin._buffers = copy.deepcopy(module._buffers)
    return twin


def _compose(old: Tensor, new: Tensor) -> Tensor:
    return old & new if old.dtype == new.dtype == torch.bool else old * new


def _parameter_like(old: nn.Parameter | Tensor, change: Any) -> nn.Parameter:
    new = nn.Parameter(change(old.detach()), requires_grad=old.requires_grad)
    if old.grad is not None:
        new.grad = change(old.grad.detach())
    return new


def _replace_parameter(layer: nn.Module, old: str, name: str, parameter: nn.Parameter) -> None:
    """Put a parameter in the place of another: optimizers number them in the order of a model's."""
    others = {key: value for key, value in layer._parameters.items() if key != old}
    layer._parameters.clear()
    layer._parameters.update({name: parameter, **others})
