"""Products of a block-sparse matrix, its kept blocks `[nnz, S, S]` in the CSR pattern of products.py over blocks."""

from __future__ import annotations

import torch
from torch import Tensor

from .products import row_numbers, wide


def block_spmm(
    blocks: Tensor, offsets: Tensor, indices: Tensor, order: Tensor | None, dense: Tensor, transposed: bool
) -> Tensor:
    """y = W dense: `[M, B]` from `[K, B]`; `transposed`: every block is read as its transpose (W^T, with `order`)."""
    blocks = wide(blocks if order is None else blocks[order.long()])
    size = blocks.shape[1]
    blocks = blocks.transpose(1, 2) if transposed else blocks
    products = blocks @ wide(dense).unflatten(0, (len(dense) // size, size))[indices.long()]
    y = products.new_zeros(len(offsets) - 1, size, dense.shape[1])
    return y.index_add(0, row_numbers(offsets, len(indices)), products).flatten(0, 1).to(dense.dtype)


def block_sddmm(offsets: Tensor, indices: Tensor, left: Tensor, right: Tensor, size: int) -> Tensor:
    """left right^T at the kept blocks: `[nnz, S, S]` from `[M, B]` and `[K, B]`."""
    left, right, dtype = wide(left), wide(right), left.dtype
    rows = left.unflatten(0, (len(offsets) - 1, size))[row_numbers(offsets, len(indices))]
    columns = right.unflatten(0, (len(right) // size, size))[indices.long()]
    return torch.matmul(rows, columns.transpose(1, 2)).to(dtype)
