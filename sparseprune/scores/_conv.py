"""A convolution of one small image, where reading the weights is all the work: products that read them in place."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.modules.utils import _pair

# Places of an output up to which this is faster on CPU: torch's own convolutions reorder the weights, or write zeros
# where the gradient goes and add to them, passes over memory that more images or places would repay.
_PLACES = 64


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """Return torch.conv2d of the same arguments."""
    small = input.shape[:-3] == (1,) and groups == 1 and not isinstance(padding, str) and not input.is_cuda
    if small:
        geometry = _pair(stride), _pair(padding), _pair(dilation)
        size = [
            (n + 2 * p - d * (k - 1) - 1) // s + 1
            for n, k, s, p, d in zip(input.shape[2:], weight.shape[2:], *geometry, strict=True)
        ]
        if 0 < size[0] * size[1] <= _PLACES and min(size) > 0:
            y = _Product.apply(input, weight, geometry).view(1, len(weight), *size)
            return y if bias is None else y + bias.view(-1, 1, 1)
    return torch.conv2d(input, weight, bias, stride, padding, dilation, groups)


class _Product(torch.autograd.Function):
    """Y [O, P] = W [O, K] X [K, P], X the patches of one image [1, C, H, W] at P places; differentiable once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, geometry: Any) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        stride, padding, dilation = geometry
        ctx.unfolding = {"kernel_size": weight.shape[2:], "stride": stride, "padding": padding, "dilation": dilation}
        ctx.size = x.shape[2:]
        patches = F.unfold(x, **ctx.unfolding)[0]
        ctx.save_for_backward(patches, weight)
        return weight.flatten(1) @ patches

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        patches, weight = ctx.saved_tensors
        dx = dw = None
        if ctx.needs_input_grad[0]:
            # g^T W, not W^T g: that reads the rows of W as they lie
            dx = F.fold((grad.t() @ weight.flatten(1)).t()[None], ctx.size, **ctx.unfolding)
        if ctx.needs_input_grad[1]:
            dw = (grad @ patches.t()).view_as(weight)
        return dx, dw, None
