"""Gram matrices of gradients on kept weights: a program holds a tile (n, n') and walks a share of the neurons.

The shares' tiles are then added in a fixed order, and their number depends on shapes alone: equal calls, equal bits.
"""

# The language of kernels is not what pyright reads.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._images import SCRATCH
from ._products import PROGRAMS, TILES, UPCAST, check, check_pattern, check_wide, launch, sums, tile_of

# fp32 as three products of tf32 ("tf32x3"), with an error near that of fp32, where Triton has it: on CUDA.
EMULATION = not UPCAST and torch.version.hip is None
EMULATED_TILE = (64, 64, 32)  # BM, BN, BK of such products; others take those of _products.TILES
APART = {4: 16, 8: 4}  # outputs p of a program that keeps outputs apart, by bytes an element
LEAST = 4  # neurons of a share


@triton.jit
def add_rows(
    acc, left, right, j, live, scale, n, n2, batch, batch2, SCALED: tl.constexpr, EMULATED: tl.constexpr
):  # fmt: skip
    """acc + sum_j scale_j left[j, n] right[j, n'] over some rows j of two matrices; `scale` points to factors."""
    x = tl.load(left + j[None, :] * batch + n[:, None], mask=live[None, :] & (n < batch)[:, None], other=0)
    y = tl.load(right + j[:, None] * batch2 + n2[None, :], mask=live[:, None] & (n2 < batch2)[None, :], other=0)
    if SCALED:
        x = x * tl.load(scale, mask=live, other=0)[None, :]
    precision: tl.constexpr = "tf32x3" if EMULATED else "ieee"
    return tl.dot(x, y, acc, input_precision=precision, out_dtype=acc.dtype)


@triton.jit
def inputs_gram(
    offsets, indices, squares, a, a2, i, n, n2, batch, batch2,
    SQUARED: tl.constexpr, EMULATED: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """sum_j q_j a[c_j, n] a2[c_j, n'] over the entries of row i."""
    acc, end = sums((BM, BN), a), tl.load(offsets + i + 1).to(tl.int64)
    for start in range(tl.load(offsets + i).to(tl.int64), end, BK):
        at = start + tl.arange(0, BK)
        live = at < end
        j = tl.load(indices + at, mask=live, other=0).to(tl.int64)
        acc = add_rows(acc, a, a2, j, live, squares + at, n, n2, batch, batch2, SQUARED, EMULATED)
    return acc


@triton.jit
def signals_gram(
    b, b2, i, outputs, n, n2, batch, batch2,
    EMULATED: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BO: tl.constexpr,
):  # fmt: skip
    """sum_o b[i, o, n] b2[i, o, n']."""
    acc = sums((BM, BN), b)
    for first in range(0, outputs, BO):
        o = first + tl.arange(0, BO)
        live = o < outputs
        acc = add_rows(acc, b, b2, i * outputs + o, live, b, n, n2, batch, batch2, False, EMULATED)
    return acc


@triton.jit
def signal_pairs(b, b2, i, outputs, left, right, n, n2, batch, batch2):
    """b[i, o, n] b2[i, p, n'] for one output o = left of the one side, several p of the other: `[BM, BN, BO]`."""
    x = tl.load(b + (i * outputs + left) * batch + n, mask=n < batch, other=0)
    live = (n2 < batch2)[:, None] & (right < outputs)[None, :]
    y = tl.load(b2 + (i * outputs + right[None, :]) * batch2 + n2[:, None], mask=live, other=0)
    return x[:, None, None] * y[None, :, :]


@triton.jit(do_not_specialize=["rows", "tiles", "across", "shares"])
def ntk_gram_kernel(
    offsets, indices, squares, a, b, a2, b2, partial, rows, outputs, batch, batch2, tiles, across, shares,
    SQUARED: tl.constexpr, SYMMETRIC: tl.constexpr, FULL: tl.constexpr, EMULATED: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, BO: tl.constexpr,
):  # fmt: skip
    # The tiles of one share follow each other: what they gather from a stays in the cache.
    p = tl.program_id(0).to(tl.int64)
    tile, share = p % tiles, p // tiles % shares
    n, n2 = tile // across * BM + tl.arange(0, BM), tile % across * BN + tl.arange(0, BN)
    at, live = (share * batch + n[:, None]) * batch2 + n2[None, :], (n < batch)[:, None] & (n2 < batch2)[None, :]
    if FULL:  # one output o of the left, BO outputs of the right
        parts, part = (outputs + BO - 1) // BO, p // tiles // shares
        left, right = part // parts, part % parts * BO + tl.arange(0, BO)
        at = (at[:, :, None] * outputs + left) * outputs + right[None, None, :]
        live = live[:, :, None] & (right < outputs)[None, None, :]
        total = sums((BM, BN, BO), a)
    else:
        total = sums((BM, BN), a)
    end = rows.to(tl.int64)
    if SYMMETRIC:  # tiles above the diagonal are mirrored, not computed
        end = tl.where(tile % across * BN < tile // across * BM + BM, end, 0)
    for i in range(share, end, shares):
        inner = inputs_gram(offsets, indices, squares, a, a2, i, n, n2, batch, batch2, SQUARED, EMULATED, BM, BN, BK)
        if FULL:
            total += inner[:, :, None] * signal_pairs(b, b2, i, outputs, left, right, n, n2, batch, batch2)
        else:
            total += inner * signals_gram(b, b2, i, outputs, n, n2, batch, batch2, EMULATED, BM, BN, BO)
    tl.store(partial + at, total, mask=live)


def _tile(n: int, n2: int, outputs: int, full: bool, like: Tensor) -> dict[str, int]:
    """How a tile is computed, by shape and type alone."""
    emulated = EMULATION and like.dtype == torch.float32
    tall, wide, inner = EMULATED_TILE if emulated else TILES[like.element_size()]
    most = 32 if full else 64  # BO numbers for each pair of examples, where outputs are kept apart
    return {
        "EMULATED": emulated,
        "BM": tile_of(n, 16, min(tall, most)), "BN": tile_of(n2, 16, min(wide, most)), "BK": inner,
        "BO": tile_of(outputs, 1, APART[like.element_size()]) if full else 16,
        "num_warps": 8 if full else 4,
    }  # fmt: skip


def ntk_gram(
    offsets: Tensor, indices: Tensor, squares: Tensor | None, a: Tensor, b: Tensor, a2: Tensor | None,
    b2: Tensor | None, full: bool,
) -> Tensor:  # fmt: skip
    """sum_i (sum_{j in row i} q_j a[c_j, n] a2[c_j, n']) (sum_o b[i, o, n] b2[i, o, n']): `[N, N2]`.

    `full`: `[N, N2, O, O]`. Without a2 and b2 symmetric to the last bit.
    """
    symmetric = a2 is None and b2 is None
    a2, b2 = a if a2 is None else a2, b if b2 is None else b2
    (k, n), n2, rows, outputs = a.shape, a2.shape[1], len(offsets) - 1, b.shape[1]
    check_wide("ntk_gram", a)
    check(
        "ntk_gram", a, a=(a, (k, n)), a2=(a2, (k, n2)), b=(b, (rows, outputs, n)), b2=(b2, (rows, outputs, n2)),
        squares=(squares, (len(indices),)),
    )  # fmt: skip
    check_pattern("ntk_gram", a, offsets, indices)
    shape = (n, n2, outputs, outputs) if full else (n, n2)
    if 0 in shape:
        return a.new_empty(shape)
    held = _tile(n, n2, outputs, full, a)
    across = triton.cdiv(n2, held["BN"])
    tiles = triton.cdiv(n, held["BM"]) * across
    parts = outputs * triton.cdiv(outputs, held["BO"]) if full else 1
    numbers = n * n2 * (outputs**2 if full else 1)
    shares = max(1, min(triton.cdiv(8 * PROGRAMS, tiles * parts), rows // LEAST, SCRATCH // numbers))
    partial = a.new_empty(shares, *shape)
    launch(
        ntk_gram_kernel, tiles * shares * parts, offsets, indices, a if squares is None else squares, a, b, a2, b2,
        partial, rows, outputs, n, n2, tiles, across, shares,
        SQUARED=squares is not None, SYMMETRIC=symmetric, FULL=full, **held,
    )  # fmt: skip
    total = partial.sum(0) if shares > 1 else partial[0]
    return _mirrored(total) if symmetric else total


def _mirrored(lower: Tensor) -> Tensor:
    """The symmetric matrix `[N, N]` or `[N, N, O, O]` of which a lower triangle is given, whatever is above it."""
    below = torch.ones(lower.shape[:2], dtype=torch.bool, device=lower.device).tril()
    if lower.dim() == 2:
        return torch.where(below, lower, lower.t())
    return torch.where(below[:, :, None, None], lower, lower.permute(1, 0, 3, 2))
