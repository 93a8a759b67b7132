"""Draws with replacement inside every tile, fused with the output."""

# The language of kernels is not what pyright reads.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._elements import BOOL, COUNTS, TILE, global_number, quantize, read, tile_number, write
from ._philox import DRAW, key, random_bits, words
from ._vector import Outputs, Vector, launch

PROGRAMS = 512  # each with scratch of one tile: running sums (int64) and counts (int32)
LANES = 512  # draws made at once


@triton.jit
def uniform_below(j, live, tile, mass, k0, k1, stream):
    """r uniform in 0 ... mass - 1 for the draws j, without error: the high word of u mass, with rejection."""
    m = mass.to(tl.uint64)
    modulus = (tl.zeros([], tl.uint64) - m) % m  # 2^64 mod mass
    r = tl.zeros(j.shape, tl.int64)
    pending = live
    attempt = tl.zeros([], tl.int32)
    while tl.max(pending.to(tl.int32), axis=0) > 0:
        u = random_bits(j, tile, DRAW, attempt, k0, k1, stream)
        accepted = pending & (u * m >= modulus)
        r = tl.where(accepted, tl.umulhi(u, m).to(tl.int64), r)
        pending = pending & (~accepted)
        attempt += 1
    return r


@triton.jit
def search(sums, r):
    """The first element of a tile whose running sum exceeds r."""
    found = tl.zeros(r.shape, tl.int32)
    for level in tl.static_range(12):
        step = TILE >> (level + 1)
        found += tl.where(tl.load(sums + found + (step - 1)) <= r, step, 0)
    return found


@triton.jit
def tile_counts(q, n, tile, sums, counts, k0, k1, stream, LANES: tl.constexpr):
    """How often each element is drawn in n draws; `counts` is zero before and after."""
    lane = tl.arange(0, TILE)
    tl.store(sums + lane, tl.cumsum(q, axis=0))
    tl.debug_barrier()
    mass = tl.sum(q, axis=0)
    begin = tl.zeros([], tl.int64)
    while begin < n:
        j = begin + tl.arange(0, LANES)
        r = uniform_below(j, j < n, tile, mass, k0, k1, stream)
        tl.atomic_add(counts + search(sums, r), 1, mask=j < n, sem="relaxed")
        begin += LANES
    tl.debug_barrier()
    return tl.atomic_and(counts + lane, 0, sem="relaxed")  # read and clear where the counts were made


@triton.jit(do_not_specialize=["first", "skip", "period", "rows", "k0", "k1", "stream"])
def draw_tiles_kernel(
    score, factor, listed, first, skip, numel, period, ids, exponents, scales, draws, weight, out, sums, counts,
    rows, k0, k1, stream,
    TRANSFORM: tl.constexpr, FACTORED: tl.constexpr, LISTED: tl.constexpr, NUMBERED: tl.constexpr,
    OUTPUT: tl.constexpr, WIDE: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    scratch = tl.program_id(0).to(tl.int64) * TILE
    row = tl.program_id(0).to(tl.int64)
    while row < rows:
        tile = tile_number(listed, first, row, LISTED)
        at = row * TILE + tl.arange(0, TILE)
        live = at < numel
        n = tl.load(draws + tile)
        value = tl.zeros([TILE], tl.float64)
        if n > 0:
            v = read(score, factor, at, live, skip.to(tl.int64), period.to(tl.int64), TRANSFORM, FACTORED)
            q = quantize(v, tl.load(exponents + tile))
            number = global_number(ids, tile, NUMBERED)
            drawn = tile_counts(q, n, number, sums + scratch, counts + scratch, k0, k1, stream, LANES)
            value = drawn.to(tl.float64)
            if OUTPUT != COUNTS and OUTPUT != BOOL:
                value = (value * tl.load(scales + tile)) / tl.maximum(q, 1).to(tl.float64)
                value = tl.where(drawn > 0, value, 0.0)
        write(out, weight, at, live, value, OUTPUT, WIDE)
        row += tl.num_programs(0)


def draw_tiles(
    scores: list[Tensor],
    factors: list[Tensor],
    transform: int,
    ids: Tensor,
    exponents: Tensor,
    scales: Tensor,
    draws: Tensor,
    seed: int,
    stream: int,
    output: int,
    weights: list[Tensor],
    out: list[Tensor],
) -> None:
    """Make the draws of every tile and write m, counts, w m or count > 0 into `out`."""
    vector = Vector(scores, factors, transform)
    outputs = Outputs(vector, output, weights, out)
    programs = min(PROGRAMS, vector.tiles)
    sums = draws.new_empty(programs * TILE.value)
    counts = draws.new_zeros(programs * TILE.value, dtype=torch.int32)
    for run in vector.runs:
        target = outputs.of(run)
        launch(
            draw_tiles_kernel, min(programs, run.tiles), *run.inputs, ids, exponents, scales, draws,
            target.weight, target.out, sums, counts, run.tiles, *key(seed), *words(stream),
            LANES=LANES, NUMBERED=ids.numel() > 0, num_warps=16, **run.options, **target.options,
        )  # fmt: skip
    outputs.scatter()
