"""A coin for every element, fused with the output."""

# The language of kernels is not what pyright reads.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ._elements import BOOL, COUNTS, TILE, global_number, read, rescale, tile_number, write
from ._philox import BERNOULLI, key, lane_bits, words
from ._vector import Outputs, Vector, launch

CERTAIN = tl.constexpr(2.0**62)  # a power of two: exact wherever the compiler makes it fp32 first


@triton.jit(do_not_specialize=["first", "skip", "period", "exponent", "rate", "k0", "k1", "stream"])
def bernoulli_tiles_kernel(
    score, factor, listed, first, skip, numel, period, ids, weight, out, exponent, rate, k0, k1, stream,
    TRANSFORM: tl.constexpr, FACTORED: tl.constexpr, LISTED: tl.constexpr, NUMBERED: tl.constexpr,
    OUTPUT: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    at = row * TILE + tl.arange(0, TILE)
    live = at < numel
    v = read(score, factor, at, live, skip.to(tl.int64), period.to(tl.int64), TRANSFORM, FACTORED)
    v = rescale(v, exponent)
    p = rate.to(tl.int64).to(tl.float64, bitcast=True) * v
    t = (tl.where(p < 1.0, p, 1.0) * CERTAIN).to(tl.int64)
    t = tl.where(t > 1, t, 1)
    tile = global_number(ids, tile_number(listed, first, row, LISTED), NUMBERED)
    coin = (lane_bits(tile, BERNOULLI, k0, k1, stream, TILE) >> 2).to(tl.int64)
    keep = (v > 0) & (coin < t)
    value = keep.to(tl.float64)
    if OUTPUT != COUNTS and OUTPUT != BOOL:
        value = tl.where(keep, tl.full([TILE], CERTAIN, tl.float64) / t.to(tl.float64), 0.0)
    write(out, weight, at, live, value, OUTPUT, WIDE)


def bernoulli_tiles(
    scores: list[Tensor],
    factors: list[Tensor],
    transform: int,
    ids: Tensor,
    exponent: int,
    rate: int,
    seed: int,
    stream: int,
    output: int,
    weights: list[Tensor],
    out: list[Tensor],
) -> None:
    """Keep each element with probability t/2^62, t = trunc(min(1, c v) 2^62) but at least 1 where v > 0; m = 2^62/t.

    c is the fp64 of the bits in `rate`; v is divided by 2^exponent first.
    """
    vector = Vector(scores, factors, transform)
    outputs = Outputs(vector, output, weights, out)
    for run in vector.runs:
        target = outputs.of(run)
        launch(
            bernoulli_tiles_kernel, run.tiles, *run.inputs, ids, target.weight, target.out, exponent, rate,
            *key(seed), *words(stream), NUMBERED=ids.numel() > 0, **run.options, **target.options,
        )  # fmt: skip
    outputs.scatter()
