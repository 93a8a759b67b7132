"""Products of a compressed sparse matrix W [M, K] with dense matrices whose columns are the batch.

Row i of W keeps the entries offsets[i] <= j < offsets[i + 1]: column indices[j], value values[j], or values[order[j]]
where `order` is given (the transposed pattern shares the values of the straight one). Half-precision sums are taken in
fp32. These definitions form the dense matrix; C++ and Triton touch kept entries alone, and agree up to rounding.
"""

from __future__ import annotations

import torch
from torch import Tensor

HALVES = (torch.float16, torch.bfloat16)


def wide(x: Tensor) -> Tensor:
    """The type in which sums are taken."""
    return x.float() if x.dtype in HALVES else x


def row_numbers(offsets: Tensor, kept: int) -> Tensor:
    """The row of every kept entry, int64."""
    rows = torch.arange(len(offsets) - 1, device=offsets.device)
    return rows.repeat_interleave(offsets.diff().long(), output_size=kept)


def matrix(values: Tensor, offsets: Tensor, indices: Tensor, order: Tensor | None, columns: int) -> Tensor:
    """W as a dense matrix `[M, K]`."""
    at = row_numbers(offsets, len(indices)) * columns + indices
    flat = values.new_zeros((len(offsets) - 1) * columns)
    return flat.index_put((at,), values if order is None else values[order.long()]).view(len(offsets) - 1, columns)


def transpose(x: Tensor) -> Tensor:
    """`[R, C]` -> `[C, R]`, contiguous."""
    return x.t().contiguous()


def spmm(
    values: Tensor, offsets: Tensor, indices: Tensor, order: Tensor | None, dense: Tensor, bias: Tensor | None
) -> Tensor:
    """y[i, b] = bias[i] + sum_j W[i, j] dense[j, b]: `[M, B]` from `[K, B]`."""
    product = wide(matrix(values, offsets, indices, order, len(dense))) @ wide(dense)
    return (product if bias is None else product + wide(bias)[:, None]).to(values.dtype)


def sddmm(offsets: Tensor, indices: Tensor, order: Tensor | None, left: Tensor, right: Tensor) -> Tensor:
    """values[order[j]] = sum_b left[i, b] right[indices[j], b] at the kept entries: `[nnz]` from `[M, B]`, `[K, B]`."""
    product = wide(left) @ wide(right).t()
    kept = product[row_numbers(offsets, len(indices)), indices.long()].to(left.dtype)
    return kept if order is None else torch.empty_like(kept).index_put((order.long(),), kept)


def spmm_backward(
    values: Tensor, offsets: Tensor, indices: Tensor, order: Tensor, dense: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor]:
    """Both gradients of y = W dense in one pass, by the transposed pattern: W^T grad `[K, B]` and dW `[nnz]`.

    offsets `[K + 1]` and indices (rows of W) are those of W^T; dW[order[j]] = sum_b dense[i, b] grad[indices[j], b].
    """
    return spmm(values, offsets, indices, order, grad, None), sddmm(offsets, indices, order, dense, grad)
