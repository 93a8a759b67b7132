"""Exact selection of the k largest values over a list of tensors, ties by index: key histograms, no sort, no copy."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from . import _library  # noqa: F401  (registers torch.ops.sparseprune)
from .reference import SQUARE, TILE

LOWEST = -(1 << 63)
FIRST, NEXT, WIDE = 12, 14, 16  # bits of the histograms: of everything, inside a bin, of the guessed window
STEP, ENOUGH = 16, 1024  # the sample: every STEP-th tile, where there are at least ENOUGH tiles
DEVIATIONS = (2.5, 12.0)  # half widths of the window; neighbours are alike in nets, so a tile tells less than its size

Count = Callable[[int, int, int], Tensor]  # low, shift, bits -> histogram


class NotFinite(ValueError):
    """A score is NaN or infinite."""


class Bin(NamedTuple):
    """Keys in [low, low + 2^shift): the element of the rank looked for is the `need`-th of its `size`, from the top."""

    low: int
    shift: int
    need: int
    size: int


def find_bin(histogram: Tensor, rank: int, low: int, shift: int) -> Bin | None:
    """The bin that holds the rank-th largest key; None if it lies above or below all bins."""
    counts = histogram.cpu().numpy()
    bins, above, bad = counts[:-2], int(counts[-2]), int(counts[-1])
    if bad:
        raise NotFinite("a score is NaN or infinite")
    reach = bins[::-1].cumsum()  # keys in this bin of the window and in those above it
    if not above < rank <= above + int(reach[-1]):
        return None
    place = int(reach.searchsorted(rank - above))
    digit, size = len(bins) - 1 - place, int(bins[len(bins) - 1 - place])
    return Bin(low + (digit << shift), shift, rank - above - int(reach[place]) + size, size)


def refine(count: Count, found: Bin | None, rank: int, end: int) -> Bin:
    """Narrow a bin (None: everything) until its keys agree in all bits from `end` up, or all of them are needed."""
    found = found or find_bin(count(LOWEST, 64 - FIRST, FIRST), rank, LOWEST, 64 - FIRST)
    assert found is not None  # the first histogram covers every key
    while found.shift > end and found.need < found.size:
        bits = min(NEXT, found.shift - end)
        shift = found.shift - bits
        found = find_bin(count(found.low, shift, bits), rank, found.low, shift)
        assert found is not None
    return found


def window(sampled: Count, whole: Tensor, numel: int, k: int, deviations: float, end: int) -> tuple[int, int] | None:
    """A guess (low, shift) of a histogram that holds the k-th largest key, from a sample and its histogram `whole`."""
    size = int(whole[:-1].sum())
    middle = k * size / numel
    slack = deviations * math.sqrt(max(1.0, middle * (1.0 - middle / size)))
    ends = []
    for rank in (math.floor(middle - slack), math.ceil(middle + slack)):
        if not 1 <= rank <= size:
            return None
        coarse = find_bin(whole, rank, LOWEST, 64 - FIRST)
        assert coarse is not None
        ends.append(refine(sampled, coarse, rank, max(end, 64 - FIRST - NEXT)))
    top, bottom = ends[0].low + (1 << ends[0].shift), ends[1].low
    shift = end
    while ((top - 1) >> shift) - (bottom >> shift) >= 1 << WIDE:
        shift += 1
    return (bottom >> shift) << shift, shift


def guess(count: Callable[[int, int, int, int], Tensor], numel: int, k: int, end: int) -> Bin | None:
    """A bin that holds the k-th largest key, found by way of a sample; None if the sample misleads."""

    @functools.cache  # both ends of a window mostly lie in one bin
    def sampled(low: int, shift: int, bits: int) -> Tensor:
        return count(low, shift, bits, STEP)

    whole = sampled(LOWEST, 64 - FIRST, FIRST)
    for deviations in DEVIATIONS:
        place = window(sampled, whole, numel, k, deviations, end)
        found = place and find_bin(count(*place, WIDE, 1), k, *place)
        if found or not place:
            return found
    return None


def threshold(count: Callable[[int, int, int, int], Tensor], numel: int, k: int, end: int) -> Bin:
    """The bin of the k-th largest of `numel` keys; `count` makes histograms (low, shift, bits, step)."""
    found = guess(count, numel, k, end) if numel >= ENOUGH * TILE else None
    return refine(lambda low, shift, bits: count(low, shift, bits, 1), found, k, end)


def top_k(
    scores: list[Tensor],
    k: int,
    *,
    transform: int,
    factors: list[Tensor],
    output: int,
    weights: list[Tensor],
    out: list[Tensor],
) -> None:
    """Write the mask (or the masked weights) of exactly the k largest transformed scores into `out`, 1 <= k <= numel.

    A sample guesses where the threshold lies, a histogram of that window (and at most a few finer ones) finds it
    exactly, and a last pass writes; a wrong guess costs time, never exactness.

    Args: as in `sketch_multinomial`; output BOOL or WEIGHTS; scores of any sign; `out` must not overlap the scores.
    Raises:
        NotFinite: before anything is written.
    Cost: about 2 reads of the scores and one more with the write; O(numel / 4096) memory.
    """
    ops = torch.ops.sparseprune

    def count(low: int, shift: int, bits: int, step: int) -> Tensor:
        return ops.key_histogram(scores, factors, transform, low, shift, bits, step)

    narrow = not factors and transform != SQUARE and all(score.dtype != torch.float64 for score in scores)
    numel = sum(score.numel() for score in scores)
    found = threshold(count, numel, k, 29 if narrow else 0)  # values exact in fp32 have 29 zero bits at the end
    cut = found.low >> found.shift
    everything = torch.full((-(-numel // TILE),), TILE, dtype=torch.int64, device=scores[0].device)
    ties = ops.key_mark(scores, factors, transform, cut, found.shift, everything, output, weights, out)
    if found.need < found.size:  # too many were written: take back the last ties, tile by tile
        quota = (found.need - (ties.cumsum(0) - ties)).clamp(min=0)
        quota = torch.where(quota < ties, quota, -1)
        ops.key_mark(scores, factors, transform, cut, found.shift, quota, output, weights, out)
