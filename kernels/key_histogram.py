"""Histograms of the keys that order values or a race between them."""

# The language of kernels is not what pyright reads.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._elements import TILE, global_number, read, tile_number
from ._histogram import add, tally
from ._philox import key, words
from ._race import PLAIN, order_keys, race_values
from ._vector import Vector, launch

COUNTERS = 1 << 18  # in all copies of a histogram, so that programs seldom meet at one of them


@triton.jit(do_not_specialize=[
    "first", "skip", "period", "exponent", "k0", "k1", "stream", "low", "shift", "bins", "step", "copies"
])  # fmt: skip
def key_histogram_kernel(
    score, factor, listed, first, skip, numel, period, ids, histogram, sums, exponent, k0, k1, stream,
    low, shift, bins, step, copies,
    TRANSFORM: tl.constexpr, FACTORED: tl.constexpr, LISTED: tl.constexpr, NUMBERED: tl.constexpr, RACE: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    tile = global_number(ids, tile_number(listed, first, row, LISTED), NUMBERED)
    if tile % step == 0:
        at = row * TILE + tl.arange(0, TILE)
        live = at < numel
        v = read(score, factor, at, live, skip.to(tl.int64), period.to(tl.int64), TRANSFORM, FACTORED)
        copy = (tile // step) % copies
        counters = histogram + copy * (bins + 2)
        wrong = live & ~(tl.abs(v) < float("inf"))
        if RACE != PLAIN:
            wrong = wrong | (v < 0)
            v = tl.where(wrong, 0.0, v)
        add(counters + bins + 1, tl.sum(wrong.to(tl.int64), axis=0))
        v, keyed = race_values(v, tile, exponent, k0, k1, stream, RACE)
        place = order_keys(keyed)
        rest = place - low
        slot = (rest.to(tl.uint64, bitcast=True) >> shift.to(tl.uint64)).to(tl.int64, bitcast=True)
        reached = live & (place >= low)
        inside = reached & (slot >= 0) & (slot < bins)  # a slot of 2^63 or more, which is none, is negative here
        add(counters + bins, tl.sum((reached & ~inside).to(tl.int64), axis=0))
        tally(counters, slot, tl.full([TILE], 1, tl.int64), inside)
        if RACE != PLAIN:
            tally(sums + copy * bins, slot, rest, inside)


def key_histogram(
    scores: list[Tensor],
    factors: list[Tensor],
    transform: int,
    race: int,
    ids: Tensor,
    exponent: int,
    seed: int,
    stream: int,
    low: int,
    shift: int,
    bits: int,
    step: int,
) -> tuple[Tensor, Tensor]:
    """How many keys lie in each of the bins [low + i 2^shift, low + (i + 1) 2^shift), in every step-th tile.

    int64 [2^bits + 2]: the bins, the keys above them, the bad scores (PLAIN: infinite or NaN; in races negative ones
    too, which count as 0). Second, in races: the sum of (key - low) mod 2^64 of each bin.
    """
    vector = Vector(scores, factors, transform)
    bins, copies = 1 << bits, max(1, min(COUNTERS >> bits, vector.tiles))
    histogram = scores[0].new_zeros(copies, bins + 2, dtype=torch.int64)
    sums = scores[0].new_zeros(copies, bins if race else 0, dtype=torch.int64)
    for run in vector.runs:
        launch(
            key_histogram_kernel, run.tiles, *run.inputs, ids, histogram, sums, exponent, *key(seed), *words(stream),
            low, shift, bins, step, copies, NUMBERED=ids.numel() > 0, RACE=race, num_warps=16 if race else 8,
            **run.options,
        )  # fmt: skip
    return histogram.sum(dim=0), sums.sum(dim=0)
