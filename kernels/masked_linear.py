"""Linear layers with a dense weight under a bool mask, which the main loop applies to every tile that it reads."""

# The language of kernels is not what pyright reads.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ._elements import narrow, widen
from ._products import UPCAST, check, check_mask, dot, launch, masked_load, sums, tile_numbers, tiles

GROUP = 8  # rows of tiles in a band


@triton.jit(do_not_specialize=["down", "across"])
def masked_linear_kernel(
    x, weight, keep, bias, y, m, n, k, stride_n, stride_k, down, across,
    BIASED: tl.constexpr, UPCAST: tl.constexpr, GROUP: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    # y [m, n] = x [m, k] W, where W[i, j] lies at i stride_k + j stride_n; one program a tile of y.
    i, j = tile_numbers(tl.program_id(0).to(tl.int64), down, across, GROUP)
    rows, columns = i * BM + tl.arange(0, BM), j * BN + tl.arange(0, BN)
    inner = tl.arange(0, BK).to(tl.int64)
    x_at = rows[:, None] * k + inner[None, :]
    w_at = inner[:, None] * stride_k + columns[None, :] * stride_n
    inside_m, inside_n = rows[:, None] < m, columns[None, :] < n
    acc = sums((BM, BN), x)
    for start in range(0, k, BK):
        left = k - start
        a = tl.load(x + x_at, mask=inside_m & (inner[None, :] < left), other=0)
        w = masked_load(weight, keep, w_at, (inner[:, None] < left) & inside_n)
        acc = dot(a, w, acc, UPCAST)
        x_at += BK
        w_at += tl.full([], BK, tl.int64) * stride_k
    if BIASED:
        acc += widen(tl.load(bias + columns, mask=columns < n, other=0), acc.dtype)[None, :]
    tl.store(y + rows[:, None] * n + columns[None, :], narrow(acc, y.dtype.element_ty), mask=inside_m & inside_n)


@triton.jit(do_not_specialize=["down", "across"])
def masked_linear_dw_kernel(
    grad, x, keep, dw, m, n, k, down, across,
    UPCAST: tl.constexpr, GROUP: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    # dw [n, k] = grad [m, n]^T x [m, k] where the mask keeps; a tile without kept weights is zeros, and no product.
    i, j = tile_numbers(tl.program_id(0).to(tl.int64), down, across, GROUP)
    rows, columns = i * BM + tl.arange(0, BM), j * BN + tl.arange(0, BN)
    inside_n, inside_k = rows[:, None] < n, columns[None, :] < k
    at = rows[:, None] * k + columns[None, :]
    kept = tl.load(keep + at, mask=inside_n & inside_k, other=0) != 0
    batch = tl.arange(0, BK).to(tl.int64)
    grad_at = batch[None, :] * n + rows[:, None]
    x_at = batch[:, None] * k + columns[None, :]
    acc = sums((BM, BN), x)
    for start in range(0, tl.where(tl.max(kept.to(tl.int32)) > 0, m, 0), BK):
        left = m - start
        a = tl.load(grad + grad_at, mask=(batch[None, :] < left) & inside_n, other=0)
        b = tl.load(x + x_at, mask=(batch[:, None] < left) & inside_k, other=0)
        acc = dot(a, b, acc, UPCAST)
        grad_at += tl.full([], BK, tl.int64) * n
        x_at += tl.full([], BK, tl.int64) * k
    acc = tl.where(kept, acc, tl.zeros_like(acc))
    tl.store(dw + at, narrow(acc, dw.dtype.element_ty), mask=inside_n & inside_k)


def _grid(rows: int, columns: int, like: Tensor) -> tuple[int, int, dict[str, int]]:
    """Tiles down and across, and the options that say what a tile is."""
    tile = tiles(rows, columns, like)
    return triton.cdiv(rows, tile["BM"]), triton.cdiv(columns, tile["BN"]), {**tile, "GROUP": GROUP, "UPCAST": UPCAST}


def masked_linear(x: Tensor, weight: Tensor, mask: Tensor, bias: Tensor | None) -> Tensor:
    """y = x W^T + bias, W = where(mask, weight, 0): `[M, N]` from x `[M, K]`, weight and mask `[N, K]`."""
    (m, k), n = x.shape, len(weight)
    check("masked_linear", x, x=(x, (m, k)), weight=(weight, (n, k)), bias=(bias, (n,)))
    keep = check_mask("masked_linear", weight, mask)
    y = x.new_empty(m, n)
    down, across, options = _grid(m, n, x)
    launch(
        masked_linear_kernel, down * across, x, weight, keep, y if bias is None else bias, y,
        m, n, k, k, 1, down, across, BIASED=bias is not None, **options,
    )  # fmt: skip
    return y


def masked_linear_dx(grad: Tensor, weight: Tensor, mask: Tensor) -> Tensor:
    """grad W: `[M, K]` from grad `[M, N]`."""
    (m, n), k = grad.shape, weight.shape[1]
    check("masked_linear_dx", grad, grad=(grad, (m, n)), weight=(weight, (n, k)))
    keep = check_mask("masked_linear_dx", weight, mask)
    dx = grad.new_empty(m, k)
    down, across, options = _grid(m, k, grad)
    launch(
        masked_linear_kernel, down * across, grad, weight, keep, dx, dx, m, k, n, 1, k, down, across,
        BIASED=False, **options,
    )  # fmt: skip
    return dx


def masked_linear_dw(grad: Tensor, x: Tensor, mask: Tensor) -> Tensor:
    """grad^T x where the mask keeps, else 0: `[N, K]`."""
    (m, n), k = grad.shape, x.shape[1]
    check("masked_linear_dw", x, grad=(grad, (m, n)), x=(x, (m, k)))
    dw = x.new_empty(n, k)
    keep = check_mask("masked_linear_dw", dw, mask)
    down, across, options = _grid(n, k, x)
    launch(masked_linear_dw_kernel, down * across, grad, x, keep, dw, m, n, k, down, across, **options)
    return dw
