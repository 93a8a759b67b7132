"""Which entries of a weight count in a tangent kernel, and with which factor."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..nn._sparse import Sparse


class Kept(NamedTuple):
    """The entries of a weight `[M, K]` that count, in CSR form.

    Args:
        shape: (M, K); K inputs of one group.
        groups: of the convolution.
        offsets, columns: int32 `[M + 1]`, `[nnz]`; None: all entries.
        squares: `[nnz]`, the square of dW/dp for each of them; None: 1.
    """

    shape: tuple[int, int]
    groups: int
    offsets: Tensor | None = None
    columns: Tensor | None = None
    squares: Tensor | None = None

    @classmethod
    def of(cls, layer: nn.Module) -> Kept:
        """Take the entries that a layer's parameter moves: kept ones of a sparse layer, all of a dense one."""
        groups = cast(int, getattr(layer, "groups", 1))
        if not isinstance(layer, Sparse):
            weight = cast(Tensor, layer.weight)
            return cls((len(weight), weight[0].numel()), groups)
        shape = layer.weight_shape[0], torch.Size(layer.weight_shape[1:]).numel()
        if layer.layout == "csr":
            scale = layer._buffers.get("scale")
            squares = None if scale is None else scale.to(layer.values.dtype).square()
            return cls(shape, groups, layer.row_offsets, layer.columns, squares)
        # Not Pattern.from_mask, which also sorts the entries by input.
        mask = layer.weight_mask.flatten(1)
        kept = mask != 0
        columns = kept.nonzero()[:, 1].int()
        squares = mask[kept].square() if mask.is_floating_point() else None
        return cls(shape, groups, F.pad(kept.sum(1).cumsum(0), (1, 0)).int(), columns, squares)

    @property
    def entries(self) -> int:
        """How many entries count."""
        return self.shape[0] * self.shape[1] if self.columns is None else len(self.columns)

    def everything(self) -> Kept:
        """All entries, as a dense weight of this shape has them."""
        return Kept(self.shape, self.groups)

    def group(self, g: int) -> Kept:
        """The rows of one group, as a weight of its own."""
        rows = self.shape[0] // self.groups
        shape = rows, self.shape[1]
        if self.groups == 1:
            return self
        if self.offsets is None or self.columns is None:
            return Kept(shape, 1)
        offsets = self.offsets[g * rows : (g + 1) * rows + 1]
        first, last = offsets[[0, -1]].tolist()
        squares = None if self.squares is None else self.squares[first:last]
        return Kept(shape, 1, offsets - first, self.columns[first:last], squares)
