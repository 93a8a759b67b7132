"""Convolutions with a compressed sparse weight, on batch-last images `[C, H, W, B]`.

The weight `[O, C / groups, KH, KW]` is a matrix `[O, (C / groups) KH KW]` in CSR form: row_offsets, columns. Two of the
operations take it by input: the entry of output o, absolute input channel c and tap t = kh KW + kw stands in row
c KH KW + t of a pattern column_offsets `[C KH KW + 1]`, rows (the o), order (its place in `values`).
geometry, eleven integers: KH, KW, stride (2), padding (top, bottom, left, right), dilation (2), groups.
"""

# torch says int where it takes pairs.
# pyright: reportArgumentType=false

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.grad import conv2d_input, conv2d_weight

from .products import matrix, row_numbers, wide


class Geometry(NamedTuple):
    """What a convolution is beside its weight."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]  # top, bottom, left, right
    dilation: tuple[int, int]
    groups: int

    @classmethod
    def of(cls, numbers: list[int]) -> Geometry:
        kh, kw, sh, sw, top, bottom, left, right, dh, dw, groups = numbers
        return cls((kh, kw), (sh, sw), (top, bottom, left, right), (dh, dw), groups)

    @property
    def numbers(self) -> list[int]:
        return [*self.kernel, *self.stride, *self.padding, *self.dilation, self.groups]

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        top, bottom, left, right = self.padding
        rows = (height + top + bottom - self.dilation[0] * (self.kernel[0] - 1) - 1) // self.stride[0] + 1
        columns = (width + left + right - self.dilation[1] * (self.kernel[1] - 1) - 1) // self.stride[1] + 1
        return rows, columns


def _batch_first(x: Tensor, geometry: Geometry | None = None) -> Tensor:
    top, bottom, left, right = geometry.padding if geometry else (0, 0, 0, 0)
    return F.pad(wide(x).permute(3, 0, 1, 2), (left, right, top, bottom))


def _batch_last(x: Tensor, dtype: torch.dtype) -> Tensor:
    return x.permute(1, 2, 3, 0).to(dtype).contiguous()


def _places(column_offsets: Tensor, rows: Tensor, geometry: Geometry) -> Tensor:
    """Where the entries of a pattern by input stand in the flat dense weight."""
    width = (len(column_offsets) - 1) // geometry.groups
    return rows.long() * width + row_numbers(column_offsets, len(rows)) % width


def spconv(
    values: Tensor, row_offsets: Tensor, columns: Tensor, x: Tensor, bias: Tensor | None, geometry: list[int]
) -> Tensor:
    """y = W ⋆ x + bias: `[O, OH, OW, B]` from `[C, H, W, B]`."""
    g = Geometry.of(geometry)
    channels = x.shape[0] // g.groups
    weight = matrix(wide(values), row_offsets, columns, None, channels * g.kernel[0] * g.kernel[1])
    bias = None if bias is None else wide(bias)
    weight = weight.view(-1, channels, *g.kernel)
    y = F.conv2d(_batch_first(x, g), weight, bias, g.stride, 0, g.dilation, g.groups)
    return _batch_last(y, x.dtype)


def spconv_dx(
    values: Tensor, column_offsets: Tensor, rows: Tensor, order: Tensor, grad: Tensor, size: list[int],
    geometry: list[int],
) -> Tensor:  # fmt: skip
    """The gradient of spconv's input, `[C, H, W, B]` with size = [H, W], from grad `[O, OH, OW, B]`."""
    g = Geometry.of(geometry)
    taps, (top, bottom, left, right) = g.kernel[0] * g.kernel[1], g.padding
    channels = (len(column_offsets) - 1) // taps
    flat = wide(values).new_zeros(len(grad) * channels // g.groups * taps)
    flat = flat.index_put((_places(column_offsets, rows, g),), wide(values)[order.long()])
    weight = flat.view(len(grad), channels // g.groups, *g.kernel)
    padded = (grad.shape[3], channels, size[0] + top + bottom, size[1] + left + right)
    dx = conv2d_input(padded, weight, _batch_first(grad), g.stride, 0, g.dilation, g.groups)
    return _batch_last(dx[:, :, top : top + size[0], left : left + size[1]], grad.dtype)


def spconv_dw(row_offsets: Tensor, columns: Tensor, x: Tensor, grad: Tensor, geometry: list[int]) -> Tensor:
    """The gradient of spconv's kept weights, `[nnz]` in CSR order."""
    g = Geometry.of(geometry)
    channels = x.shape[0] // g.groups
    shape = (len(grad), channels, *g.kernel)
    dw = conv2d_weight(_batch_first(x, g), shape, _batch_first(grad), g.stride, 0, g.dilation, g.groups)
    kept = dw.reshape(len(grad), -1)[row_numbers(row_offsets, len(columns)), columns.long()]
    return kept.to(x.dtype)


def spconv_backward(
    values: Tensor, column_offsets: Tensor, rows: Tensor, order: Tensor, x: Tensor, grad: Tensor, geometry: list[int]
) -> tuple[Tensor, Tensor]:
    """Both gradients of y = W ⋆ x by the pattern of inputs: that of x, and that of the kept weights in CSR order."""
    g = Geometry.of(geometry)
    dx = spconv_dx(values, column_offsets, rows, order, grad, list(x.shape[1:3]), geometry)
    shape = (len(grad), x.shape[0] // g.groups, *g.kernel)
    dw = conv2d_weight(_batch_first(x, g), shape, _batch_first(grad), g.stride, 0, g.dilation, g.groups)
    kept = dw.reshape(-1)[_places(column_offsets, rows, g)].to(x.dtype)
    return dx, torch.empty_like(kept).index_put((order.long(),), kept)


def spconv_nchw(
    values: Tensor, row_offsets: Tensor, columns: Tensor, x: Tensor, bias: Tensor | None, geometry: list[int]
) -> Tensor:
    """y = W ⋆ x + bias: `[B, O, OH, OW]` from `[B, C, H, W]`."""
    return _nchw(spconv(values, row_offsets, columns, _chwn(x), bias, geometry))


def spconv_nchw_dx(
    values: Tensor, column_offsets: Tensor, rows: Tensor, order: Tensor, grad: Tensor, size: list[int],
    geometry: list[int],
) -> Tensor:  # fmt: skip
    """The gradient of spconv_nchw's input, `[B, C, H, W]` with size = [H, W], from grad `[B, O, OH, OW]`."""
    return _nchw(spconv_dx(values, column_offsets, rows, order, _chwn(grad), size, geometry))


def spconv_nchw_dw(row_offsets: Tensor, columns: Tensor, x: Tensor, grad: Tensor, geometry: list[int]) -> Tensor:
    """The gradient of spconv_nchw's kept weights, `[nnz]` in CSR order."""
    return spconv_dw(row_offsets, columns, _chwn(x), _chwn(grad), geometry)


def spconv_nchw_backward(
    values: Tensor, column_offsets: Tensor, rows: Tensor, order: Tensor, x: Tensor, grad: Tensor, geometry: list[int]
) -> tuple[Tensor, Tensor]:
    """Both gradients of y = W ⋆ x for images `[B, C, H, W]`."""
    dx, dw = spconv_backward(values, column_offsets, rows, order, _chwn(x), _chwn(grad), geometry)
    return _nchw(dx), dw


def _chwn(x: Tensor) -> Tensor:
    return x.permute(1, 2, 3, 0)


def _nchw(x: Tensor) -> Tensor:
    return x.permute(3, 0, 1, 2).contiguous()
