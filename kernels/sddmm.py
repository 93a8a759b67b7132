"""Dense times dense at the entries of a pattern: a program makes every n-th chunk of one row's entries."""

# The language of kernels is not what pyright reads.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ._elements import narrow, widen
from ._products import check, check_pattern, launch, sums, tile_of
from .spmm import LANES, entries


@triton.jit(do_not_specialize=["shares"])
def sddmm_kernel(
    offsets, indices, order, left, right, values, batch, shares,
    ORDERED: tl.constexpr, CHUNK: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    p = tl.program_id(0).to(tl.int64)
    i, lane, column = p // shares, tl.arange(0, CHUNK), tl.arange(0, TILE).to(tl.int64)
    end = tl.load(offsets + i + 1).to(tl.int64)
    for start in range(tl.load(offsets + i).to(tl.int64) + p % shares * CHUNK, end, shares * CHUNK):
        at = start + lane
        live = at < end
        j, place = entries(indices, order, at, live, ORDERED)
        acc = sums((CHUNK, TILE), left)
        for first in range(0, batch, TILE):
            columns = first + column
            inside = columns < batch
            a = widen(tl.load(left + i * batch + columns, mask=inside, other=0), acc.dtype)
            b = tl.load(right + j[:, None] * batch + columns[None, :], mask=live[:, None] & inside[None, :], other=0)
            acc += a[None, :] * widen(b, acc.dtype)
        tl.store(values + place, narrow(tl.sum(acc, axis=1), values.dtype.element_ty), mask=live)


def sddmm(offsets: Tensor, indices: Tensor, order: Tensor | None, left: Tensor, right: Tensor) -> Tensor:
    """values[order[j]] = sum_b left[i, b] right[indices[j], b] at the kept entries: `[nnz]` from `[M, B]`, `[K, B]`."""
    (k, batch), rows = right.shape, len(offsets) - 1
    check("sddmm", left, left=(left, (rows, batch)), right=(right, (k, batch)))
    check_pattern("sddmm", left, offsets, indices, order)
    values = left.new_empty(len(indices))
    tile = tile_of(batch, 1, 128)
    chunk = min(LANES // tile, 128)
    shares = max(1, len(indices) // (max(rows, 1) * chunk))  # so that few rows fill a GPU as many do
    launch(
        sddmm_kernel, rows * shares, offsets, indices, indices if order is None else order, left, right, values,
        batch, shares, ORDERED=order is not None, CHUNK=chunk, TILE=tile,
    )  # fmt: skip
    return values
