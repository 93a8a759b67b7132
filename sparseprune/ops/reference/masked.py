"""Products with a dense weight under a bool mask, W = where(mask, weight, 0): the mask is applied where it is read."""

# torch says int where it takes pairs.
# pyright: reportArgumentType=false

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.grad import conv2d_input, conv2d_weight

from .convolution import Geometry
from .products import wide


def _masked(weight: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, wide(weight), 0)


def _padded(x: Tensor, geometry: Geometry) -> Tensor:
    top, bottom, left, right = geometry.padding
    return F.pad(wide(x), (left, right, top, bottom))


def masked_linear(x: Tensor, weight: Tensor, mask: Tensor, bias: Tensor | None) -> Tensor:
    """y = x W^T + bias: `[M, N]` from x `[M, K]`, weight and mask `[N, K]`."""
    return F.linear(wide(x), _masked(weight, mask), None if bias is None else wide(bias)).to(x.dtype)


def masked_linear_dx(grad: Tensor, weight: Tensor, mask: Tensor) -> Tensor:
    """grad W: `[M, K]` from grad `[M, N]`."""
    return (wide(grad) @ _masked(weight, mask)).to(grad.dtype)


def masked_linear_dw(grad: Tensor, x: Tensor, mask: Tensor) -> Tensor:
    """grad^T x where the mask keeps, else 0: `[N, K]`."""
    return _masked(wide(grad).t() @ wide(x), mask).to(x.dtype)


def masked_conv2d(x: Tensor, weight: Tensor, mask: Tensor, bias: Tensor | None, geometry: list[int]) -> Tensor:
    """y = W ⋆ x + bias: `[B, O, OH, OW]` from x `[B, C, H, W]`, weight and mask `[O, C / groups, KH, KW]`."""
    g = Geometry.of(geometry)
    bias = None if bias is None else wide(bias)
    return F.conv2d(_padded(x, g), _masked(weight, mask), bias, g.stride, 0, g.dilation, g.groups).to(x.dtype)


def masked_conv2d_dx(grad: Tensor, weight: Tensor, mask: Tensor, size: list[int], geometry: list[int]) -> Tensor:
    """The gradient of x `[B, C, H, W]`, size = [H, W], from grad `[B, O, OH, OW]`."""
    g = Geometry.of(geometry)
    top, bottom, left, right = g.padding
    padded = (len(grad), weight.shape[1] * g.groups, size[0] + top + bottom, size[1] + left + right)
    dx = conv2d_input(padded, _masked(weight, mask), wide(grad), g.stride, 0, g.dilation, g.groups)
    return dx[:, :, top : top + size[0], left : left + size[1]].to(grad.dtype).contiguous()


def masked_conv2d_dw(grad: Tensor, x: Tensor, mask: Tensor, geometry: list[int]) -> Tensor:
    """The gradient of the weight where the mask keeps, else 0: `[O, C / groups, KH, KW]`."""
    g = Geometry.of(geometry)
    dw = conv2d_weight(_padded(x, g), mask.shape, wide(grad), g.stride, 0, g.dilation, g.groups)
    return _masked(dw, mask).to(x.dtype)
