"""Draws per tile of the Poisson sketch: variates by the tails of two tables, the exact mean by thinning."""

# The language of kernels is not what pyright reads.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._philox import POISSON, key, random_bits, words
from ._vector import launch

VARIATES = 64  # of one tile in one program
ONE, MANY = tl.constexpr(20), tl.constexpr(96)  # entries of the tables: mean 1, then mean 32


@triton.jit
def variates(r, table, entries):
    """How many of a table's tails exceed r (all unsigned); tails fall, so that a search by halves counts them."""
    found = tl.zeros(r.shape, tl.int64)
    for level in tl.static_range(7):
        ahead = found + (64 >> level)
        tail = tl.load(table + ahead - 1, mask=ahead <= entries, other=0)
        found = tl.where(r < tail.to(tl.uint64, bitcast=True), ahead, found)
    return found


@triton.jit(do_not_specialize=["k0", "k1", "stream"])
def poisson_counts_kernel(
    owners, starts, whole, fraction, ids, tails, result, k0, k1, stream, VARIATES: tl.constexpr
):  # fmt: skip
    # Program p makes VARIATES variates of row owners[p], whose first program is starts[row].
    p = tl.program_id(0).to(tl.int64)
    row = tl.load(owners + p)
    mean, rest, tile = tl.load(whole + row), tl.load(fraction + row), tl.load(ids + row)
    many = mean >> 5
    last = many + (mean & 31)
    x = (p - tl.load(starts + row)) * VARIATES + tl.arange(0, VARIATES)
    attempt = tl.zeros([], tl.int32)
    r = random_bits(x, tile, POISSON, attempt, k0, k1, stream)
    of_many = x < many
    n = variates(r, tails + tl.where(of_many, ONE, 0), tl.where(of_many, MANY, ONE))
    total = tl.sum(tl.where(x < last, n, 0), axis=0)
    thinned = tl.sum(tl.where(x == last, n, 0), axis=0)  # 0 where the last variate is another program's
    if thinned > 0:
        coin = tl.arange(0, 32).to(tl.int64)
        heads = (random_bits(coin, tile, POISSON, attempt + 1, k0, k1, stream) >> 2).to(tl.int64) < rest
        total += tl.sum((heads & (coin < thinned)).to(tl.int64), axis=0)
    tl.atomic_add(result + row, total, sem="relaxed")


def poisson_counts(whole: Tensor, fraction: Tensor, ids: Tensor, tails: Tensor, seed: int, stream: int) -> Tensor:
    """Poisson(whole + fraction/2^62) draws for the tiles `ids`, int64; 0 where both are 0.

    whole = 32 h + l: h variates of Poisson(32), l + 1 of Poisson(1), the last of them thinned by the fraction.
    """
    count = torch.where((whole | fraction) > 0, (whole >> 5) + (whole & 31) + 1, 0)
    programs = (count + (VARIATES - 1)) // VARIATES
    owners = torch.repeat_interleave(programs)
    starts = programs.cumsum(0) - programs
    result = torch.zeros_like(whole)
    if len(owners):
        launch(
            poisson_counts_kernel, len(owners), owners, starts, whole, fraction, ids, tails, result,
            *key(seed), *words(stream), VARIATES=VARIATES, num_warps=1,
        )  # fmt: skip
    return result
