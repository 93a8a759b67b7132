"""A compressed sparse matrix times a dense one: a program makes one row of a tile of the batch."""

# The language of kernels is not what pyright reads.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ._elements import narrow, widen
from ._products import check, check_pattern, launch, sums, tile_of

LANES = 2048  # products of one step of a program


@triton.jit
def entries(indices, order, at, live, ORDERED: tl.constexpr):
    """Index and place in the values of the entries `at` of a pattern, int64."""
    j = tl.load(indices + at, mask=live, other=0).to(tl.int64)
    return j, tl.load(order + at, mask=live, other=0).to(tl.int64) if ORDERED else at


@triton.jit(do_not_specialize=["rows"])
def spmm_kernel(
    values, offsets, indices, order, dense, bias, y, rows, batch,
    ORDERED: tl.constexpr, BIASED: tl.constexpr, CHUNK: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    # The rows of one tile of the batch follow each other: what they gather from dense stays in the cache.
    p = tl.program_id(0).to(tl.int64)
    i, columns = p % rows, p // rows * TILE + tl.arange(0, TILE)
    inside, lane = columns < batch, tl.arange(0, CHUNK)
    acc = sums((CHUNK, TILE), dense)
    end = tl.load(offsets + i + 1).to(tl.int64)
    for start in range(tl.load(offsets + i).to(tl.int64), end, CHUNK):
        at = start + lane
        live = at < end
        j, place = entries(indices, order, at, live, ORDERED)
        v = widen(tl.load(values + place, mask=live, other=0), acc.dtype)
        x = tl.load(dense + j[:, None] * batch + columns[None, :], mask=live[:, None] & inside[None, :], other=0)
        acc += v[:, None] * widen(x, acc.dtype)
    total = tl.sum(acc, axis=0)
    if BIASED:
        total += widen(tl.load(bias + i), acc.dtype)
    tl.store(y + i * batch + columns, narrow(total, y.dtype.element_ty), mask=inside)


def spmm(
    values: Tensor, offsets: Tensor, indices: Tensor, order: Tensor | None, dense: Tensor, bias: Tensor | None
) -> Tensor:
    """y[i, b] = bias[i] + sum_j W[i, j] dense[j, b]: `[M, B]` from `[K, B]`."""
    (k, batch), rows = dense.shape, len(offsets) - 1
    check("spmm", values, values=(values, indices.shape), dense=(dense, (k, batch)), bias=(bias, (rows,)))
    check_pattern("spmm", values, offsets, indices, order)
    y = dense.new_empty(rows, batch)
    tile = tile_of(batch, 1, 128)
    launch(
        spmm_kernel, rows * triton.cdiv(batch, tile), values, offsets, indices, indices if order is None else order,
        dense, y if bias is None else bias, y, rows, batch,
        ORDERED=order is not None, BIASED=bias is not None, CHUNK=min(LANES // tile, 128), TILE=tile,
    )  # fmt: skip
    return y
