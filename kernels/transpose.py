"""The transpose of a matrix, in square tiles: both sides are read and written along their rows."""

# The language of kernels is not what pyright reads.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ._products import launch

TILE = 64


@triton.jit(do_not_specialize=["across"])
def transpose_kernel(x, y, rows, columns, across, TILE: tl.constexpr):
    p = tl.program_id(0).to(tl.int64)
    r, c = p // across * TILE + tl.arange(0, TILE), p % across * TILE + tl.arange(0, TILE)
    tile = tl.load(x + r[:, None] * columns + c[None, :], mask=(r[:, None] < rows) & (c[None, :] < columns), other=0)
    tl.store(y + c[:, None] * rows + r[None, :], tl.trans(tile), mask=(c[:, None] < columns) & (r[None, :] < rows))


def transpose(x: Tensor) -> Tensor:
    """`[R, C]` -> `[C, R]`, contiguous."""
    if x.dim() != 2 or not x.is_contiguous():
        raise ValueError(f"transpose: x must be a contiguous matrix, got {list(x.shape)}, strides {list(x.stride())}")
    rows, columns = x.shape
    y = x.new_empty(columns, rows)
    across = triton.cdiv(columns, TILE)
    launch(transpose_kernel, triton.cdiv(rows, TILE) * across, x, y, rows, columns, across, TILE=TILE)
    return y
