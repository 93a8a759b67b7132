"""Independent choices: a histogram of the scores by their leading bits, and a coin for every element."""

from __future__ import annotations

import torch
from torch import Tensor

from .philox import BERNOULLI, random_bits
from .scores import TILE, rescale, tile_blocks, tile_numbers
from .writer import FlatWriter

BINS = 1 << 18


def mass_histogram(scores: list[Tensor], factors: list[Tensor], transform: int, exponent: int) -> tuple[Tensor, Tensor]:
    """Counts of positive values in the bins bits(v 2^-exponent) >> 45, and sums of the next 16 bits: int64 [2, 2^18].

    Second, int64 [1], the number of scores that are NaN, infinite or negative; they are in no bin.
    """
    total = scores[0].new_zeros(2, BINS, dtype=torch.int64)
    bad = total.new_zeros(1)
    for _, v in tile_blocks(scores, factors, transform):
        bad += (~((v >= 0) & (v < torch.inf))).sum()
        bits = rescale(v[(v > 0) & (v < torch.inf)], exponent).view(torch.int64)
        total[0] += torch.bincount(bits >> 45, minlength=BINS)
        total[1].index_add_(0, bits >> 45, (bits >> 29) & 65535)
    return total, bad


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
    flat = FlatWriter(scores, output, weights, out)
    c = torch.tensor(rate, device=scores[0].device).view(torch.float64)
    for first, v in tile_blocks(scores, factors, transform):
        v = rescale(v, exponent)
        t = ((c * v).clamp(max=1.0) * 2.0**62).to(torch.int64).clamp(min=1)
        lane = torch.arange(TILE, device=v.device).expand_as(v)
        tile = tile_numbers(ids, first, len(v)).unsqueeze(1).expand_as(v)
        coin = (random_bits(lane, tile, BERNOULLI, 0, seed, stream) >> 2) & ((1 << 62) - 1)
        keep = (v > 0) & (coin < t)
        m = torch.full_like(v, 2.0**62) / t.to(torch.float64)  # a number / t would round twice on CUDA
        flat.write(keep.to(torch.int64), torch.where(keep, m, 0.0))
