"""A linear layer with a mask on its weight."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ._masked import Masked


class SparseLinear(Masked, nn.Linear):
    """Apply y = x (w*m)^T + b, an nn.Linear whose mask m is in the graph at every forward.

    The effective weight is exactly 0 where pruned, whatever writes into `weight`; the stored weight stays 0 there
    too under every elementwise optimizer, because its gradient is exactly 0. Usually made by `sparsify` or
    `SparseLinear.from_dense`; constructed directly, nothing is pruned and a checkpoint brings the pattern.

    Args:
        in_features, out_features, bias, device, dtype: as for nn.Linear.

    Attributes:
        weight: parameter `[out_features, in_features]`.
        weight_mask: buffer `[out_features, in_features]`, bool (True = kept), or float m with `scale="keep"`.

    Cost:
        that of nn.Linear and one pass over the weight.
    """

    dense_type: ClassVar[type[nn.Module]] = nn.Linear

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__(in_features, out_features, bias, device, dtype)
        self.register_buffer("weight_mask", torch.ones_like(self.weight, dtype=torch.bool))

    def forward(self, input: Tensor) -> Tensor:
        """Return `[*, out_features]` from an input `[*, in_features]`."""
        return F.linear(input, self.masked_weight(), self.bias)

    def reset_parameters(self) -> None:
        """Draw the parameters again as nn.Linear does; the pattern stays and pruned weights stay zero."""
        super().reset_parameters()
        self.zero_pruned()
