"""Products with a matrix of square blocks of 32, 64 or 128: tiles of dots over the kept blocks alone."""

# The language of kernels is not what pyright reads.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ._elements import narrow
from ._products import TILES, UPCAST, check, check_pattern, dot, launch, sums, tile_of

SIZES = (32, 64, 128)


@triton.jit(do_not_specialize=["parts"])
def block_spmm_kernel(
    blocks, offsets, indices, order, dense, y, parts, batch,
    ORDERED: tl.constexpr, TRANSPOSED: tl.constexpr, UPCAST: tl.constexpr,
    SIZE: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    # One program: BM rows of a row of blocks, times a tile of the batch. `parts`: all rows of y / BM.
    p = tl.program_id(0).to(tl.int64)
    part, columns = p % parts, p // parts * BN + tl.arange(0, BN)
    i, first = part // (SIZE // BM), part % (SIZE // BM) * BM
    row, inner = first + tl.arange(0, BM), tl.arange(0, BK).to(tl.int64)
    inside = columns[None, :] < batch
    acc = sums((BM, BN), dense)
    STEPS: tl.constexpr = SIZE // BK  # one loop over the steps of all blocks, which can be pipelined
    begin, end = tl.load(offsets + i).to(tl.int64), tl.load(offsets + i + 1).to(tl.int64)
    for step in range(begin * STEPS, end * STEPS):
        entry = step // STEPS
        j = tl.load(indices + entry).to(tl.int64)
        place = tl.load(order + entry).to(tl.int64) if ORDERED else entry
        k = step % STEPS * BK + inner
        if TRANSPOSED:
            a = tl.load(blocks + place * SIZE * SIZE + k[None, :] * SIZE + row[:, None])
        else:
            a = tl.load(blocks + place * SIZE * SIZE + row[:, None] * SIZE + k[None, :])
        b = tl.load(dense + (j * SIZE + k[:, None]) * batch + columns[None, :], mask=inside, other=0)
        acc = dot(a, b, acc, UPCAST)
    at = (i * SIZE + row[:, None]) * batch + columns[None, :]
    tl.store(y + at, narrow(acc, y.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["shares"])
def block_sddmm_kernel(
    offsets, indices, left, right, blocks, batch, shares,
    UPCAST: tl.constexpr, SIZE: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    # One program: the same BM x BN corner of every n-th block of a row of blocks.
    p = tl.program_id(0).to(tl.int64)
    DOWN: tl.constexpr = SIZE // BM
    ACROSS: tl.constexpr = SIZE // BN
    share, corner = p // (DOWN * ACROSS), p % (DOWN * ACROSS)
    i = share // shares
    row, column = corner // ACROSS * BM + tl.arange(0, BM), corner % ACROSS * BN + tl.arange(0, BN)
    inner = tl.arange(0, BK).to(tl.int64)
    end = tl.load(offsets + i + 1).to(tl.int64)
    for entry in range(tl.load(offsets + i).to(tl.int64) + share % shares, end, shares):
        j = tl.load(indices + entry).to(tl.int64)
        acc = sums((BM, BN), left)
        for start in range(0, batch, BK):
            b = start + inner
            rows = tl.load(left + (i * SIZE + row[:, None]) * batch + b[None, :], mask=b[None, :] < batch, other=0)
            cols = tl.load(right + (j * SIZE + column[None, :]) * batch + b[:, None], mask=b[:, None] < batch, other=0)
            acc = dot(rows, cols, acc, UPCAST)
        at = entry * SIZE * SIZE + row[:, None] * SIZE + column[None, :]
        tl.store(blocks + at, narrow(acc, blocks.dtype.element_ty))


def _check_size(op: str, size: int) -> None:
    if size not in SIZES:
        raise ValueError(f"{op}: blocks must have a size of 32, 64 or 128, got {size}")


def _tile(size: int, columns: int, like: Tensor) -> dict[str, int]:
    """A tile inside a block of `size` rows, for so many columns."""
    tall, wide, inner = TILES[like.element_size()]
    return {"BM": min(size, tall), "BN": tile_of(columns, 16, wide), "BK": min(size, inner)}


def block_spmm(
    blocks: Tensor, offsets: Tensor, indices: Tensor, order: Tensor | None, dense: Tensor, transposed: bool
) -> Tensor:
    """y = W dense: `[M, B]` from `[K, B]`; `transposed`: every block is read as its transpose (W^T, with `order`)."""
    size, (k, batch), rows = blocks.shape[-1], dense.shape, len(offsets) - 1
    _check_size("block_spmm", size)
    check(
        "block_spmm", blocks, blocks=(blocks, (len(indices), size, size)), dense=(dense, (k // size * size, batch))
    )  # fmt: skip
    check_pattern("block_spmm", blocks, offsets, indices, order)
    y = dense.new_empty(rows * size, batch)
    tile = _tile(size, batch, dense)
    parts = rows * size // tile["BM"]
    launch(
        block_spmm_kernel, parts * triton.cdiv(batch, tile["BN"]), blocks, offsets, indices,
        indices if order is None else order, dense, y, parts, batch,
        ORDERED=order is not None, TRANSPOSED=transposed, UPCAST=UPCAST, SIZE=size, **tile,
    )  # fmt: skip
    return y


def block_sddmm(offsets: Tensor, indices: Tensor, left: Tensor, right: Tensor, size: int) -> Tensor:
    """left right^T at the kept blocks: `[nnz, S, S]` from `[M, B]` and `[K, B]`."""
    _check_size("block_sddmm", size)
    (k, batch), rows = right.shape, len(offsets) - 1
    check("block_sddmm", left, left=(left, (rows * size, batch)), right=(right, (k // size * size, batch)))
    check_pattern("block_sddmm", left, offsets, indices)
    blocks = left.new_empty(len(indices), size, size)
    tile = _tile(size, size, left)
    shares = max(1, len(indices) // max(rows, 1))  # programs for every block of a row of average length
    corners = (size // tile["BM"]) * (size // tile["BN"])
    launch(
        block_sddmm_kernel, rows * shares * corners, offsets, indices, left, right, blocks, batch, shares,
        UPCAST=UPCAST, SIZE=size, **tile,
    )  # fmt: skip
    return blocks
