"""Exact selection: marking the elements above a key and the first of those at it."""

# The language of kernels is not what pyright reads.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._elements import BOOL, COUNTS, TILE, global_number, read, tile_number, write
from ._philox import key, words
from ._race import order_keys, race_values
from ._vector import Outputs, Vector, launch


@triton.jit(do_not_specialize=[
    "first", "skip", "period", "exponent", "k0", "k1", "stream", "threshold", "shift", "tau"
])  # fmt: skip
def key_mark_kernel(
    score, factor, listed, first, skip, numel, period, ids, quota, weight, out, ties, exponent, k0, k1, stream,
    threshold, shift, tau,
    TRANSFORM: tl.constexpr, FACTORED: tl.constexpr, LISTED: tl.constexpr, NUMBERED: tl.constexpr, RACE: tl.constexpr,
    OUTPUT: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    tile = tile_number(listed, first, row, LISTED)
    limit = tl.load(quota + tile)
    if limit >= 0:
        at = row * TILE + tl.arange(0, TILE)
        live = at < numel
        v = read(score, factor, at, live, skip.to(tl.int64), period.to(tl.int64), TRANSFORM, FACTORED)
        v, keyed = race_values(v, global_number(ids, tile, NUMBERED), exponent, k0, k1, stream, RACE)
        digit = order_keys(keyed) >> shift
        tie = live & (digit == threshold)
        keep = (digit > threshold) | (tie & (tl.cumsum(tie.to(tl.int32), axis=0) <= limit))
        value = keep.to(tl.float64)
        if OUTPUT != COUNTS and OUTPUT != BOOL:  # noqa: SIM102 (one is known when compiling, one only when running)
            if tau != 0:
                m = tau.to(tl.int64).to(tl.float64, bitcast=True) / tl.where(v > 0, v, 1.0)
                value = tl.where(keep & (m > 1.0), m, value)
        write(out, weight, at, live, value, OUTPUT, WIDE)
        tl.store(ties + tile, tl.sum(tie.to(tl.int64), axis=0))


def key_mark(
    scores: list[Tensor],
    factors: list[Tensor],
    transform: int,
    race: int,
    ids: Tensor,
    exponent: int,
    seed: int,
    stream: int,
    threshold: int,
    shift: int,
    tau: int,
    quota: Tensor,
    output: int,
    weights: list[Tensor],
    out: list[Tensor],
) -> Tensor:
    """Keep keys above the threshold and, in index order, the first quota_b of each tile's ties; write m, w m or a mask.

    m = max(1, tau/v), tau being fp64 bits. A key is above, or a tie, after `>> shift`. Tiles of quota -1 are left
    alone. Returns each tile's ties, int64 [T].
    """
    vector = Vector(scores, factors, transform)
    outputs = Outputs(vector, output, weights, out)
    ties = torch.zeros_like(quota)
    for run in vector.runs:
        target = outputs.of(run)
        launch(
            key_mark_kernel, run.tiles, *run.inputs, ids, quota, target.weight, target.out, ties, exponent,
            *key(seed), *words(stream), threshold, shift, tau,
            NUMBERED=ids.numel() > 0, RACE=race, num_warps=16 if race else 8, **run.options, **target.options,
        )  # fmt: skip
    outputs.scatter()
    return ties
