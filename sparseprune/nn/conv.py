"""A two-dimensional convolution with a mask on its weight, or with its kept weights alone."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from .. import ops
from ._sparse import Sparse

# Measured: a batch that leaves lanes empty; kept weights a channel, for each pixel of a row, that pay for transposing.
_FEW, _MANY = 8, 1.75


class SparseConv2d(Sparse, nn.Conv2d):
    """Apply y = x ⋆ (w*m) + b, an nn.Conv2d in one of two layouts.

    masked: the mask m is in the graph at every forward. The effective weight is exactly 0 where pruned, whatever writes
    into `weight`; the stored weight stays 0 there too under every elementwise optimizer, because its gradient is 0.
    csr: the parameter is the vector of kept weights; gradients and optimizer state exist for those alone. Contiguous
    images with long rows, or few of them, are computed where they lie. Otherwise the output has the usual shape with
    batch-last strides, in which the next csr layer reads it without a copy: elementwise operations and flatten keep
    them, and so do `sparseprune.nn`'s batch norm and pooling, which `sparsify` swaps in.
    Usually made by `sparsify` or `SparseConv2d.from_dense`; constructed directly, the layout is masked, nothing is
    pruned and a checkpoint brings the pattern.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype:
            as for nn.Conv2d.

    Attributes:
        layout: "masked" or "csr".
        weight: `[out_channels, in_channels // groups, kH, kW]`; a parameter (masked), or a read-only view
            differentiable in values (csr).
        weight_mask: masked: buffer of that shape, bool (True = kept), or float m with `scale="keep"`.
        values: csr: parameter `[nnz]` in the order of row_offsets and columns (int32 buffers), those of the weight
            seen as a matrix `[out_channels, in_channels // groups kH kW]`.
        scale: csr: buffer `[nnz]`, m of the kept weights with `scale="keep"` and a float mask.

    Cost:
        masked: that of nn.Conv2d and one pass over the weight. csr: 2 nnz flops an output pixel, and a transposition
        of small contiguous images; a padding_mode other than zeros copies the input.
    """

    dense_type: ClassVar[type[nn.Module]] = nn.Conv2d

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: str | int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: Literal["zeros", "reflect", "replicate", "circular"] = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            padding_mode,
            device=device,
            dtype=dtype,
        )
        self.register_buffer("weight_mask", torch.ones_like(self.weight, dtype=torch.bool))

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """`(out_channels, in_channels // groups, kH, kW)`."""
        return self.out_channels, self.in_channels // self.groups, *self.kernel_size

    @property
    def weight_groups(self) -> int:
        """The groups of the convolution."""
        return self.groups

    def forward(self, input: Tensor) -> Tensor:
        """Return `[B, out_channels, H', W']` from an input `[B, in_channels, H, W]` (or both without B)."""
        if self.layout == "masked":
            return self._conv_forward(ops.batch_first(input), self.masked_weight(), self.bias)
        if input.ndim not in (3, 4):
            shape = list(input.shape)
            raise ValueError(f"SparseConv2d: input must have shape [B, C, H, W] or [C, H, W], got {shape}")
        images = input if input.ndim == 4 else input[None]
        by_rows = self._by_rows(images)
        height = 2 if by_rows else 1  # its dimension
        if not by_rows:
            images = ops.batch_last(images).permute(1, 2, 3, 0)
        left, right, top, bottom = self._reversed_padding_repeated_twice
        if self.padding_mode != "zeros":
            images = _extend(images, height, top, bottom, self.padding_mode)
            images = _extend(images, height + 1, left, right, self.padding_mode)
            left = right = top = bottom = 0
        padding = (top, bottom, left, right)
        geometry = ops.Geometry.of([*self.kernel_size, *self.stride, *padding, *self.dilation, self.groups])
        product = ops.spconv_nchw if by_rows else ops.spconv
        output = product(self.pattern, self.kept_values(), images, geometry, self.bias)
        output = output if by_rows else output.permute(3, 0, 1, 2)
        return output if input.ndim == 4 else output[0]

    def _by_rows(self, images: Tensor) -> bool:
        """Whether to compute contiguous images where they lie, along their rows, instead of along the batch."""
        if torch.compiler.is_exporting():  # for any size
            return False
        if not images.is_contiguous() or images.device.type != "cpu":
            return False
        left, right = self._reversed_padding_repeated_twice[:2]
        room = images.shape[3] + left + right - self.dilation[1] * (self.kernel_size[1] - 1) - 1
        width, channels = room // self.stride[1] + 1, self.in_channels + self.out_channels
        return len(images) < _FEW or len(self.values) < _MANY * channels * width


def _extend(images: Tensor, dim: int, before: int, after: int, mode: str) -> Tensor:
    """Pad one dimension of batch-last images by copies of what is there; the layout stays."""
    size = images.shape[dim]
    limit = {"reflect": size - 1, "circular": size}.get(mode)
    if limit is not None and max(before, after) > limit:
        raise ValueError(f"SparseConv2d: {mode} padding must be at most {limit} here, got {max(before, after)}")
    places = torch.arange(-before, size + after, device=images.device)
    if mode == "reflect":
        places = (size - 1) - ((size - 1) - places.abs()).abs()
    else:
        places = places % size if mode == "circular" else places.clamp(0, size - 1)
    return images.index_select(dim, places)
