"""The synaptic flow through one layer: v = |w|^power where the mask (None: everywhere) keeps the weight w, else 0."""

from __future__ import annotations

import torch
from torch import Tensor


def _values(weight: Tensor, mask: Tensor | None, power: int) -> Tensor:
    v = weight.abs() if power == 1 else weight.square()
    return v if mask is None else v * mask


def flow_forward(weight: Tensor, mask: Tensor | None, x: Tensor, power: int) -> Tensor:
    """y = v x^T: `[O, P]` from `[O, K]` and `[P, K]`, P places or samples."""
    return _values(weight, mask, power) @ x.t()


def flow_backward(
    weight: Tensor, mask: Tensor | None, x: Tensor, grad: Tensor, power: int
) -> tuple[Tensor, Tensor, Tensor]:
    """What a gradient `[O, P]` of y gives: dx `[P, K]`, the scores v (grad x) `[O, K]`, the bounds of 0 and these."""
    v = _values(weight, mask, power)
    scores = v * (grad @ x)
    zero = scores.new_zeros(1)
    return grad.t() @ v, scores, torch.stack(torch.cat([scores.flatten(), zero]).aminmax())
