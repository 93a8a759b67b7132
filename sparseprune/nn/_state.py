"""Checkpoints of another layout than the layer's: dense, masked and csr ones load into masked and csr layers.

Both functions rewrite the layer's keys in `state` into those of its own layout, and return what is wrong with the
checkpoint, or None; nothing of the layer is written unless it is all right.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..ops import Pattern
from ..shards import like
from ._storage import DERIVED, MASK, SCALE, STORED, VALUES

if TYPE_CHECKING:
    from ._sparse import Sparse


def into_masked(layer: Sparse, state: dict[str, Any], prefix: str) -> str | None:
    """Take a masked checkpoint, a dense one under the pattern that is here, or a csr one with its pattern."""
    csr = _stored(state, prefix)
    if prefix + "weight" not in state and csr is not None:
        values, row_offsets, columns = csr
        shape, scale = layer.weight_shape, state.pop(prefix + SCALE, None)
        try:
            pattern = Pattern.from_csr(row_offsets, columns, shape, layer.weight_groups)
        except ValueError as error:
            return f"pattern of {prefix + VALUES} does not fit a weight of shape {list(shape)}: {error}"
        if values.shape != columns.shape or (scale is not None and scale.shape != columns.shape):
            return f"{prefix + VALUES} must have the {len(columns)} entries of its pattern, got {list(values.shape)}"
        kept = torch.ones_like(columns, dtype=torch.bool) if scale is None else scale
        state[prefix + "weight"] = pattern.dense(values.detach(), shape)
        state[prefix + MASK] = pattern.dense(kept, shape)
        for name in (VALUES, *STORED):
            del state[prefix + name]
    mask = state.setdefault(prefix + MASK, layer.weight_mask)
    if isinstance(mask, Tensor) and mask.shape == layer.weight_mask.shape:
        if mask.is_floating_point() != layer.weight_mask.is_floating_point():
            # copy_ into a buffer of the other kind would drop the scales, or pretend there are some.
            dtype = layer.weight.dtype if mask.is_floating_point() else torch.bool
            layer.weight_mask = torch.empty_like(layer.weight, dtype=dtype).detach()
        weight = state.get(prefix + "weight")
        if isinstance(weight, Tensor) and weight.shape == mask.shape:
            # fully_shard spreads parameters and not buffers.
            kept = like((mask != 0).to(weight.device), weight)
            state[prefix + "weight"] = torch.where(kept, weight.detach(), 0)
    return None


def into_csr(layer: Sparse, state: dict[str, Any], prefix: str, assign: bool) -> str | None:
    """Take a csr or masked checkpoint with its pattern of the same size, or a dense one under the pattern here."""
    if isinstance(state.get(prefix + "weight"), Tensor) and prefix + VALUES not in state:
        error = _gather(layer, state, prefix)
        if error is not None:
            return error
    csr = _stored(state, prefix)
    if csr is None:
        return None  # torch says what is missing
    values, row_offsets, columns = csr
    kept = layer.values.shape
    for name, tensor in ((VALUES, values), ("columns", columns), (SCALE, state.get(prefix + SCALE, values))):
        if tensor.shape != kept:
            return _sizes(prefix + name, tensor.numel(), kept[0])
    try:
        pattern = Pattern.from_csr(row_offsets, columns, layer.weight_shape, layer.weight_groups)
    except ValueError as error:
        return f"pattern of {prefix + VALUES} does not fit a weight of shape {list(layer.weight_shape)}: {error}"
    _take_pattern(layer, pattern, assign)
    state.update({prefix + name: getattr(pattern, name) for name in STORED})
    if prefix + SCALE in state:
        if SCALE not in layer._buffers:
            layer.register_buffer(SCALE, torch.ones_like(layer.values).detach())
    else:
        layer._buffers.pop(SCALE, None)
    return None


def _stored(state: dict[str, Any], prefix: str) -> list[Tensor] | None:
    """The values and the pattern of a csr checkpoint."""
    found = [state.get(prefix + name) for name in (VALUES, *STORED)]
    tensors = [tensor for tensor in found if isinstance(tensor, Tensor)]
    return tensors if len(tensors) == len(found) else None


def _gather(layer: Sparse, state: dict[str, Any], prefix: str) -> str | None:
    """Turn the keys of a dense or masked weight into those of its kept values."""
    weight, mask = state[prefix + "weight"], state.get(prefix + MASK)
    shape = layer.weight_shape
    for name, tensor in (("weight", weight), (MASK, weight if mask is None else mask)):
        if tensor.shape != shape:
            return (
                f"size mismatch for {prefix + name}: the checkpoint has {list(tensor.shape)}, the layer {list(shape)}"
            )
    if mask is None:
        pattern = layer.pattern
        stored = {name: layer._buffers[name] for name in (*STORED, SCALE) if name in layer._buffers}
    else:
        pattern = Pattern.from_mask(mask, layer.weight_groups)
        stored = {name: getattr(pattern, name) for name in STORED}
        if len(pattern.columns) != len(layer.columns):
            return _sizes(prefix + MASK, len(pattern.columns), len(layer.columns))
    places = pattern.places(weight[:1].numel()).to(weight.device)
    if mask is not None and mask.is_floating_point():
        stored[SCALE] = mask.reshape(-1)[places]
    del state[prefix + "weight"]
    state.pop(prefix + MASK, None)
    state[prefix + VALUES] = weight.detach().reshape(-1)[places]
    for name, tensor in stored.items():
        state.setdefault(prefix + name, tensor)
    return None


def _take_pattern(layer: Sparse, pattern: Pattern, assign: bool) -> None:
    """Write what follows from a pattern; torch writes the rest."""
    for name in DERIVED:
        if assign:
            layer._buffers[name] = getattr(pattern, name)
        else:
            getattr(layer, name).copy_(getattr(pattern, name))


def _sizes(name: str, found: int, here: int) -> str:
    return (
        f"size mismatch for {name}: the checkpoint keeps {found} weights, the layer {here}; a csr layer takes another "
        "pattern of its own size only (sparsify with the checkpoint's masks first, or densify)"
    )
