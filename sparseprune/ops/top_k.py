"""Exact selection of k elements over one logical vector, ties by index: the largest, or the winners of a race."""

from __future__ import annotations

import torch
from torch import Tensor

from .reference import PRIORITY_RACE, TILE
from .threshold import Race, threshold
from .vector import Part, Vector, exponent

WIDE, WIDE_RACE = 16, 18  # bits of the histogram around the guess: cheap, and one that finds a single key saves a pass


def mark(vector: Vector, race: Race, cut: int, shift: int, tau: int, ties: int, of: int) -> None:
    """Write the result for keys above `cut` (both >> shift), and the first `ties` of the `of` keys that equal it."""

    def write(part: Part, quota: Tensor) -> Tensor:
        return torch.ops.sparseprune.key_mark(
            *part.source, race.kind, part.ids, *race[1:], cut, shift, tau, quota, vector.output, part.weights, part.out
        )

    found = torch.zeros(vector.tiles, dtype=torch.int64, device=vector.device)
    for part in vector.parts(race.absent):
        quota = torch.full((part.tiles,), TILE if ties else 0, dtype=torch.int64, device=vector.device)
        part.put(found, write(part, quota))
    if 0 < ties < of:  # too many were written: take back the last ties, tile by tile
        quota = vector.quota(found, ties, write, race.absent)
        for part in vector.parts(race.absent):
            write(part, part.pick(quota))


def top_k(vector: Vector, k: int) -> None:
    """Write the mask (or the masked weights) of exactly the k largest scores, of any sign, 1 <= k <= numel.

    Raises: BadScore for NaN and infinities, before anything is written.
    """
    end = 29 if vector.narrow else 0  # values exact in fp32 have 29 zero bits at the end
    found = threshold(vector, Race(), k, end=end, wide=WIDE, enough=lambda b: b.need == b.size)
    mark(vector, Race(), found.low >> found.shift, found.shift, 0, found.need, found.size)


def race(vector: Vector, k: int, kind: int, seed: int, stream: int) -> None:
    """Write the result of a race: the k elements with the largest keys, all positive ones where there are fewer.

    PRIORITY_RACE: key v/u, m = max(1, tau/v) with tau = key k + 1. SUCCESSIVE_RACE: key v/(-log u), m = 1.

    Raises: BadScore, NoPositiveScore, before anything is written.
    """
    lots = Race(kind, exponent(vector), seed, stream)
    tau, need, size = 0, 1, 1
    if k < vector.numel:
        found = threshold(vector, lots, k + 1, end=0, wide=WIDE_RACE, enough=lambda b: b.only is not None)
        tau, need, size = found.low if found.only is None else found.only, found.need, found.size
    if tau == 0:  # at most k scores are positive
        vector.table()
        need = 1
    mark(vector, lots, tau, 0, tau if kind == PRIORITY_RACE else 0, need - 1, size)
