"""A two-dimensional convolution with a mask on its weight."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from ._masked import Masked


class SparseConv2d(Masked, nn.Conv2d):
    """Apply y = x ⋆ (w*m) + b, an nn.Conv2d whose mask m is in the graph at every forward.

    The effective weight is exactly 0 where pruned, whatever writes into `weight`; the stored weight stays 0 there
    too under every elementwise optimizer, because its gradient is exactly 0. Usually made by `sparsify` or
    `SparseConv2d.from_dense`; constructed directly, nothing is pruned and a checkpoint brings the pattern.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype:
            as for nn.Conv2d.

    Attributes:
        weight: parameter `[out_channels, in_channels // groups, kH, kW]`.
        weight_mask: buffer of that shape, bool (True = kept), or float m with `scale="keep"`.

    Cost:
        that of nn.Conv2d and one pass over the weight.
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

    def forward(self, input: Tensor) -> Tensor:
        """Return `[B, out_channels, H', W']` from an input `[B, in_channels, H, W]` (or both without B)."""
        return self._conv_forward(input, self.masked_weight(), self.bias)

    def reset_parameters(self) -> None:
        """Draw the parameters again as nn.Conv2d does; the pattern stays and pruned weights stay zero."""
        super().reset_parameters()
        self.zero_pruned()
