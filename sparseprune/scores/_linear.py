"""The linearized net: normalisations, smooth activations and softmax are left out as the forward runs."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

_NORMALIZATIONS = "layer_norm rms_norm group_norm instance_norm softmax log_softmax softmin"
_ACTIVATIONS = "gelu silu mish elu elu_ selu selu_ celu celu_ softplus hardswish hardtanh hardtanh_ relu6 tanh tanh_"
_LEFT_OUT = frozenset(f"{_NORMALIZATIONS} {_ACTIVATIONS}".split())


class Linearized(TorchFunctionMode):
    """Run ops with each normalisation over units, smooth activation and softmax replaced by the identity.

    Attention of queries q, keys k and values v is then (q k^T / sqrt(d)) v, zero where a mask forbids it. All other ops
    (batch norm in eval mode, ReLU, pools) stay as they are: on values >= 0 they are linear already.
    """

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run one op, or what stands for it."""
        kwargs = kwargs or {}
        if func.__name__ in _LEFT_OUT:
            return args[0] if args else kwargs["input"]
        stand_in = _STAND_INS.get(func.__name__)
        return stand_in(*args, **kwargs) if stand_in else func(*args, **kwargs)


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Return (q k^T scale) v without the softmax, with the arguments of F.scaled_dot_product_attention."""
    if enable_gqa:
        key, value = (x.repeat_interleave(query.size(-3) // x.size(-3), -3) for x in (key, value))
    affinity = query @ key.transpose(-2, -1) * (1 / math.sqrt(query.size(-1)) if scale is None else scale)
    if is_causal and attn_mask is None:
        attn_mask = torch.ones(affinity.shape[-2:], dtype=torch.bool, device=affinity.device).tril()
    return _allowed(affinity, attn_mask) @ value


def _allowed(affinity: Tensor, mask: Tensor | None) -> Tensor:
    """Keep what a mask allows (True, or a bias above minus infinity, which is added in absolute value)."""
    if mask is None:
        return affinity
    if mask.dtype == torch.bool:
        return affinity * mask
    open_ = mask != -math.inf
    return affinity * open_ + mask.masked_fill(~open_, 0).abs()


def _multi_head(*args: Any, **kwargs: Any) -> tuple[Tensor, None]:
    """Return what F.multi_head_attention_forward does, without the softmax and without the attention weights."""
    a = _MULTI_HEAD.bind(*args, **kwargs).arguments
    batched = a["query"].dim() == 3
    q, k, v = (a[name] if batched else a[name].unsqueeze(1) for name in ("query", "key", "value"))  # [L, B, E]
    weights = [a[f"{name}_proj_weight"] for name in "qkv"] if a.get("use_separate_proj_weight") else None
    biases = (None,) * 3 if a["in_proj_bias"] is None else a["in_proj_bias"].chunk(3)
    q, k, v = map(F.linear, (q, k, v), weights or a["in_proj_weight"].chunk(3), biases)
    if a["bias_k"] is not None:
        k, v = (torch.cat([x, a[b].expand(1, x.size(1), -1)]) for x, b in ((k, "bias_k"), (v, "bias_v")))
    # add_zero_attn adds a key and a value of zeros: nothing, without the softmax
    q, k, v = (x.unflatten(2, (a["num_heads"], -1)).permute(1, 2, 0, 3) for x in (q, k, v))  # [B, H, L, E/H]
    out = _attention(q, k, v, _biases(a, q.size(0), k.size(2)))
    out = F.linear(out.permute(2, 0, 1, 3).flatten(2), a["out_proj_weight"], a["out_proj_bias"])
    return (out if batched else out.squeeze(1)), None


def _biases(a: dict[str, Any], batch: int, keys: int) -> Tensor | None:
    """Return the masks of multi-head attention (True: forbidden) as one bias, [..., L or 1, keys], or None."""
    total = None
    mask, padding = a.get("attn_mask"), a.get("key_padding_mask")
    if mask is not None and mask.dim() == 3:  # [B H, L, S]
        mask = mask.unflatten(0, (batch, -1))
    if padding is not None:  # [B, S] or [S]
        padding = padding.view(batch, 1, 1, -1)
    for given in (mask, padding):
        if given is None:
            continue
        bias = given if given.is_floating_point() else given.float().masked_fill(given, -math.inf)
        bias = F.pad(bias, (0, keys - bias.size(-1)))  # a learned last key is always allowed
        total = bias if total is None else total + bias
    return total


_MULTI_HEAD = inspect.signature(F.multi_head_attention_forward)
_STAND_INS: dict[str, Callable[..., Any]] = {
    "scaled_dot_product_attention": _attention,
    "multi_head_attention_forward": _multi_head,
}
