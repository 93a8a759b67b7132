"""A linear layer with a mask on its weight, or with its kept weights alone."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import ops
from ._sparse import Sparse


class SparseLinear(Sparse, nn.Linear):
    """Apply y = x (w*m)^T + b, an nn.Linear in one of two layouts.

    masked: the mask m is in the graph at every forward. The effective weight is exactly 0 where pruned, whatever writes
    into `weight`; the stored weight stays 0 there too under every elementwise optimizer, because its gradient is 0.
    csr: the parameter is the vector of kept weights; gradients and optimizer state exist for those alone. Its output
    has the usual shape with batch-last strides, in which the next csr layer reads it without a copy.
    Usually made by `sparsify` or `SparseLinear.from_dense`; constructed directly, the layout is masked, nothing is
    pruned and a checkpoint brings the pattern.

    Args:
        in_features, out_features, bias, device, dtype: as for nn.Linear.

    Attributes:
        layout: "masked" or "csr".
        weight: `[out_features, in_features]`; a parameter (masked), or a read-only view differentiable in values (csr).
        weight_mask: masked: buffer like `weight`, bool (True = kept), or float m with `scale="keep"`.
        values: csr: parameter `[nnz]` in the order of row_offsets and columns (int32 buffers).
        scale: csr: buffer `[nnz]`, m of the kept weights with `scale="keep"` and a float mask.

    Cost:
        masked: that of nn.Linear and one pass over the weight. csr: 2 nnz flops an example, and a transposition where
        the input is not batch-last.
    """

    dense_type: ClassVar[type[nn.Module]] = nn.Linear

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__(in_features, out_features, bias, device, dtype)
        self.register_buffer("weight_mask", torch.ones_like(self.weight, dtype=torch.bool))

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """`(out_features, in_features)`."""
        return self.out_features, self.in_features

    @property
    def weight_groups(self) -> int:
        """A linear layer has one group."""
        return 1

    def forward(self, input: Tensor) -> Tensor:
        """Return `[*, out_features]` from an input `[*, in_features]`."""
        if self.layout == "masked":
            return F.linear(input, self.masked_weight(), self.bias)
        if input.ndim == 1:
            return self.forward(input[None])[0]
        if input.ndim > 2:
            return self.forward(input.flatten(0, -2)).unflatten(0, input.shape[:-1])
        return ops.spmm(self.pattern, self.kept_values(), ops.batch_last(input).t(), self.bias).t()
