"""Exact selection by keys that sort like the fp64 values: histograms of keys, marking."""

# The language of kernels is not what pyright reads.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._elements import TILE, read, tile_number, write
from ._vector import Outputs, Vector, launch

COUNTERS = 1 << 18  # in all copies of a histogram, so that programs seldom meet at one of them


@triton.jit
def order_keys(v):
    """The bits of v, the low 63 inverted for negative numbers."""
    bits = v.to(tl.int64, bitcast=True)
    return tl.where(bits < 0, bits ^ 0x7FFFFFFFFFFFFFFF, bits)


@triton.jit(do_not_specialize=["first", "skip", "period", "low", "shift", "bins", "step", "copies"])
def key_histogram_kernel(
    score, factor, listed, first, skip, numel, period, histogram, low, shift, bins, step, copies,
    TRANSFORM: tl.constexpr, FACTORED: tl.constexpr, LISTED: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    if tile_number(listed, first, row, LISTED) % step == 0:
        at = row * TILE + tl.arange(0, TILE)
        live = at < numel
        v = read(score, factor, at, live, skip.to(tl.int64), period.to(tl.int64), TRANSFORM, FACTORED)
        key = order_keys(v)
        offset = (key - low).to(tl.uint64, bitcast=True) >> shift.to(tl.uint64)
        reached = live & (key >= low)
        inside = reached & (offset < bins.to(tl.uint64))
        slot = tl.where(inside, offset.to(tl.int64), bins)
        lowest = tl.min(slot, axis=0)  # zeros and other ties meet here: one addition for all of them
        common = inside & (slot == lowest)
        ties = tl.sum(common.to(tl.int64), axis=0)
        above = tl.sum((reached & ~inside).to(tl.int64), axis=0)
        counters = histogram + ((row // step) % copies) * (bins + 2)
        tl.atomic_add(counters + slot, tl.full([TILE], 1, tl.int64), mask=inside & ~common, sem="relaxed")
        tl.atomic_add(counters + lowest, ties, mask=ties > 0, sem="relaxed")
        bad = tl.sum((live & ~(tl.abs(v) < float("inf"))).to(tl.int64), axis=0)
        tl.atomic_add(counters + bins, above, mask=above > 0, sem="relaxed")
        tl.atomic_add(counters + bins + 1, bad, mask=bad > 0, sem="relaxed")


@triton.jit(do_not_specialize=["first", "skip", "period", "threshold", "shift"])
def key_mark_kernel(
    score, factor, listed, first, skip, numel, period, quota, weight, out, ties, threshold, shift,
    TRANSFORM: tl.constexpr, FACTORED: tl.constexpr, LISTED: tl.constexpr, OUTPUT: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    tile = tile_number(listed, first, row, LISTED)
    limit = tl.load(quota + tile)
    if limit >= 0:
        at = row * TILE + tl.arange(0, TILE)
        live = at < numel
        key = order_keys(read(score, factor, at, live, skip.to(tl.int64), period.to(tl.int64), TRANSFORM, FACTORED))
        digit = key >> shift
        tie = live & (digit == threshold)
        keep = (digit > threshold) | (tie & (tl.cumsum(tie.to(tl.int32), axis=0) <= limit))
        write(out, weight, at, live, keep.to(tl.float64), OUTPUT, WIDE)
        tl.store(ties + tile, tl.sum(tie.to(tl.int64), axis=0))


def key_histogram(
    scores: list[Tensor], factors: list[Tensor], transform: int, low: int, shift: int, bits: int, step: int
) -> Tensor:
    """How many keys lie in each of the bins [low + i 2^shift, low + (i + 1) 2^shift), over every step-th tile.

    int64 [2^bits + 2]: the bins, then the number of keys above them, then that of infinite and NaN values.
    """
    vector = Vector(scores, factors, transform)
    bins, copies = 1 << bits, max(1, min(COUNTERS >> bits, vector.tiles))
    histogram = scores[0].new_zeros(copies, bins + 2, dtype=torch.int64)
    for run in vector.runs:
        launch(
            key_histogram_kernel, run.tiles, *run.inputs, histogram, low, shift, bins, step, copies, **run.options
        )  # fmt: skip
    return histogram.sum(dim=0)


def key_mark(
    scores: list[Tensor],
    factors: list[Tensor],
    transform: int,
    threshold: int,
    shift: int,
    quota: Tensor,
    output: int,
    weights: list[Tensor],
    out: list[Tensor],
) -> Tensor:
    """Keep keys above the threshold and the first quota_b of each tile's ties, by index: write bool or weights.

    A key is above, or a tie, after `>> shift`. Tiles of quota -1 are left alone. Returns each tile's ties, int64 [T].
    """
    vector = Vector(scores, factors, transform)
    outputs = Outputs(vector, output, weights, out)
    ties = torch.zeros_like(quota)
    for run in vector.runs:
        target = outputs.of(run)
        launch(
            key_mark_kernel, run.tiles, *run.inputs, quota, target.weight, target.out, ties, threshold, shift,
            **run.options, **target.options,
        )  # fmt: skip
    outputs.scatter()
    return ties
