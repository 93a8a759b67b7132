"""Both gradients of a sparse product in one walk by input: a row of grad, once loaded, serves both."""

# The language of kernels is not what pyright reads.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ._elements import narrow, widen
from ._products import check, check_pattern, launch, sums, tile_of
from .sddmm import sddmm
from .spmm import LANES, entries, spmm

WIDEST = 512  # batch columns that a program holds


@triton.jit
def spmm_backward_kernel(
    values, offsets, indices, order, dense, grad, dx, dvalues, batch, CHUNK: tl.constexpr, TILE: tl.constexpr
):  # fmt: skip
    k = tl.program_id(0).to(tl.int64)
    columns, lane = tl.arange(0, TILE), tl.arange(0, CHUNK)
    inside = columns < batch
    acc = sums((CHUNK, TILE), dense)
    x = widen(tl.load(dense + k * batch + columns, mask=inside, other=0), acc.dtype)
    end = tl.load(offsets + k + 1).to(tl.int64)
    for start in range(tl.load(offsets + k).to(tl.int64), end, CHUNK):
        at = start + lane
        live = at < end
        i, place = entries(indices, order, at, live, True)
        v = widen(tl.load(values + place, mask=live, other=0), acc.dtype)
        g = tl.load(grad + i[:, None] * batch + columns[None, :], mask=live[:, None] & inside[None, :], other=0)
        g = widen(g, acc.dtype)
        acc += v[:, None] * g
        dv = tl.sum(g * x[None, :], axis=1)
        tl.store(dvalues + place, narrow(dv, dvalues.dtype.element_ty), mask=live)
    tl.store(dx + k * batch + columns, narrow(tl.sum(acc, axis=0), dx.dtype.element_ty), mask=inside)


def spmm_backward(
    values: Tensor, offsets: Tensor, indices: Tensor, order: Tensor, dense: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor]:
    """W^T grad `[K, B]` and dW `[nnz]` of y = W dense, by the transposed pattern; in two walks for large batches."""
    (outputs, batch), rows = grad.shape, len(offsets) - 1
    check(
        "spmm_backward",
        values,
        values=(values, indices.shape),
        dense=(dense, (rows, batch)),
        grad=(grad, (outputs, batch)),
    )
    check_pattern("spmm_backward", values, offsets, indices, order)
    if batch > WIDEST:
        return spmm(values, offsets, indices, order, grad, None), sddmm(offsets, indices, order, dense, grad)
    dx, dvalues = dense.new_empty(rows, batch), values.new_empty(len(values))
    tile = tile_of(batch, 1, WIDEST)
    launch(
        spmm_backward_kernel, rows, values, offsets, indices, order, dense, grad, dx, dvalues, batch,
        CHUNK=min(LANES // tile, 128), TILE=tile,
    )  # fmt: skip
    return dx, dvalues
