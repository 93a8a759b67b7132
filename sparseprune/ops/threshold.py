"""The k-th largest key of a logical vector: histograms of key ranges, no sort, no copy.

A sample guesses where it lies, a histogram of that window (and at most a few finer ones) finds it exactly; a wrong
guess costs time, never exactness.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .reference import PLAIN
from .vector import Absent, Vector

LOWEST = -(1 << 63)
LOWEST_KEY = LOWEST + (1 << 52) - 1  # of minus infinity
FIRST, NEXT = 12, 14  # bits of the histograms: of everything, inside a bin
STEP, ENOUGH = 16, 1024  # the sample: every STEP-th tile, where there are at least ENOUGH tiles
DEVIATIONS = (2.5, 12.0)  # half widths of the first window and of the next: neighbours are alike in nets, so a tile
GUESSES = 3  # tells less than its size, but a window that missed tells exactly by how much


class Race(NamedTuple):
    """What the keys are (PLAIN: the values), and the exponent and random numbers they take."""

    kind: int = PLAIN
    exponent: int = 0
    seed: int = 0
    stream: int = 0

    @property
    def absent(self) -> Absent:
        """What stands for elements of other ranks: keys below all that can be selected."""
        return "lowest" if self.kind == PLAIN else "zero"


def wrapped(number: int) -> int:
    """The int64 with these low 64 bits."""
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)


class Histogram(NamedTuple):
    """Keys in the bins from `low` on, and above them; in races the sum of (key - low) mod 2^64 of each bin."""

    low: int
    shift: int
    bins: np.ndarray
    above: int
    sums: np.ndarray

    def find(self, rank: int) -> Bin | None:
        """The bin that holds the rank-th largest key; None if it lies above or below all bins."""
        blocks = self.bins.reshape(-1, min(len(self.bins), 256))  # two levels: no second array as long as the bins
        reach = blocks.sum(axis=1)[::-1].cumsum()  # keys in this block and in those above it
        if not self.above < rank <= self.above + int(reach[-1]):
            return None
        step = int(reach.searchsorted(rank - self.above))
        block = blocks[len(blocks) - 1 - step]
        rank -= self.above + int(reach[step]) - int(block.sum())  # among the keys of the block
        reach = block[::-1].cumsum()
        place = int(reach.searchsorted(rank))
        digit = (len(blocks) - step) * len(block) - 1 - place
        size = int(self.bins[digit])
        only = wrapped(self.low + int(self.sums[digit])) if size == 1 and len(self.sums) else None
        return Bin(self.low + (digit << self.shift), self.shift, rank - int(reach[place]) + size, size, only)


class Bin(NamedTuple):
    """Keys in [low, low + 2^shift): the one of the rank looked for is the `need`-th of its `size`, from the top."""

    low: int
    shift: int
    need: int
    size: int
    only: int | None  # in races, the key itself where it is alone


Count = Callable[[int, int, int], Histogram]  # low, shift, bits
Enough = Callable[[Bin], bool]


def counter(vector: Vector, race: Race) -> Callable[[int, int, int, int], Histogram]:
    """The histograms (low, shift, bits, step) of a vector; they raise BadScore."""

    def count(low: int, shift: int, bits: int, step: int) -> Histogram:
        total = None
        for part in vector.parts(race.absent, once=True, step=step):
            bins, sums = torch.ops.sparseprune.key_histogram(
                *part.source, race.kind, part.ids, *race[1:], low, shift, bits, step
            )
            if part.fillers.numel():
                fillers = int(part.fillers[part.ids % step == 0].sum())
                without(fillers, LOWEST_KEY if race.kind == PLAIN else 0, low, shift, bins, sums)
            total = (bins, sums) if total is None else (total[0].add_(bins), total[1].add_(sums))
        if total is None:  # a rank without elements
            sizes = (1 << bits) + 2, (1 << bits) if race.kind else 0
            total = tuple(torch.zeros(size, dtype=torch.int64, device=vector.device) for size in sizes)
        bins, sums = (vector.sum(t).cpu().numpy() for t in total)
        if bins[-1]:
            vector.raise_bad(signed=race.kind == PLAIN)
        return Histogram(low, shift, bins[:-2], int(bins[-2]), sums)

    return count


def without(number: int, key: int, low: int, shift: int, bins: Tensor, sums: Tensor) -> None:
    """Take so many fillers out of a histogram and its sums: their mass below all keys would mislead the guess."""
    if key == LOWEST_KEY:
        bins[-1] -= number  # minus infinity was counted as bad
    place = (key - low) >> shift
    if place >= 0:
        bins[min(place, len(bins) - 2)] -= number
        if place < len(sums):
            sums[place] -= wrapped(number * (key - low))


def refine(count: Count, found: Bin | None, rank: int, end: int, enough: Enough) -> Bin:
    """Narrow a bin (None: everything) until its keys agree in all bits from `end` up, or it is enough."""
    found = found or count(LOWEST, 64 - FIRST, FIRST).find(rank)
    assert found is not None  # the first histogram covers every key
    while found.shift > end and not enough(found):
        bits = min(NEXT, found.shift - end)
        shift = found.shift - bits
        found = count(found.low, shift, bits).find(rank)
        assert found is not None
    return found


def window(sampled: Count, whole: Histogram, ranks: tuple[float, float], end: int, wide: int) -> tuple[int, int] | None:
    """A guess (low, shift) of 2^wide bins that hold the keys between these ranks of a sample."""
    ends = []
    for rank in (math.floor(ranks[0]), math.ceil(ranks[1])):
        if not 1 <= rank <= int(whole.bins.sum()):
            return None
        ends.append(refine(sampled, whole.find(rank), rank, max(end, 64 - FIRST - NEXT), lambda b: b.need == b.size))
    top, bottom = ends[0].low + (1 << ends[0].shift), ends[1].low
    shift = end
    while ((top - 1) >> shift) - (bottom >> shift) >= 1 << wide:
        shift += 1
    return (bottom >> shift) << shift, shift


def threshold(vector: Vector, race: Race, rank: int, *, end: int, wide: int, enough: Enough) -> Bin:
    """The bin of the rank-th largest key, 1 <= rank <= numel, narrowed until it is `enough` or has only 2^end keys."""
    count = counter(vector, race)

    @functools.cache  # both ends of a window mostly lie in one bin
    def sampled(low: int, shift: int, bits: int) -> Histogram:
        return count(low, shift, bits, STEP)

    found = None
    if vector.tiles >= ENOUGH:
        whole = sampled(LOWEST, 64 - FIRST, FIRST)
        share = int(whole.bins.sum()) / vector.numel
        middle = rank * share
        slack = DEVIATIONS[0] * math.sqrt(max(1.0, middle * (1.0 - rank / vector.numel)))
        for _ in range(GUESSES):
            place = window(sampled, whole, (middle - slack, middle + slack), end, wide)
            if place is None:
                break
            seen = count(*place, wide, 1)
            found = seen.find(rank)
            if found is not None:
                break
            below = rank - seen.above - int(seen.bins.sum())  # ranks beyond the lower edge, or else the upper one
            edge, off = (middle + slack, below) if below > 0 else (middle - slack, rank - seen.above - 1)
            middle, slack = edge + off * share, DEVIATIONS[1] * math.sqrt(max(1.0, abs(off) * share))
    return refine(lambda low, shift, bits: count(low, shift, bits, 1), found, rank, end, enough)
