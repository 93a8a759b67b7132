"""Draws per tile of the Poisson sketch: variates by the tails of two tables, the exact mean by thinning."""

from __future__ import annotations

from fractions import Fraction
from functools import cache

import torch
from torch import Tensor

from .philox import POISSON, random_bits, unsigned_less

ENTRIES = {1: 20, 32: 96}  # mean of the law: length of its table
BLOCK = 1 << 16  # variates at once


@cache
def poisson_tails(mean: int, entries: int) -> tuple[int, ...]:
    """round(2^64 P(X > k)) for k = 0, 1, ...; entry k = mean makes them sum to exactly mean 2^64, so E[X] = mean."""
    term = total = Fraction(1)
    head = [Fraction(1)]  # e^mean P(X <= k)
    for k in range(1, entries + 200):
        term *= Fraction(mean, k)
        total += term
        head.append(total)
    tails = [round((1 - h / total) * 2**64) for h in head[:entries]]
    tails[mean] += (mean << 64) - sum(tails)
    return tuple(tails)


def poisson_table(device: torch.device) -> Tensor:
    """Both tables as int64 bits: 20 entries for mean 1, then 96 for mean 32."""
    tails = [tail for mean, entries in ENTRIES.items() for tail in poisson_tails(mean, entries)]
    return torch.tensor([tail - (1 << 64) * (tail >> 63) for tail in tails], device=device)


def poisson_counts(whole: Tensor, fraction: Tensor, ids: Tensor, tails: Tensor, seed: int, stream: int) -> Tensor:
    """Poisson(whole + fraction/2^62) draws for the tiles `ids`, int64; 0 where both are 0.

    whole = 32 h + l: h variates of Poisson(32), l + 1 of Poisson(1), the last of them thinned by the fraction.
    """
    many, some = whole >> 5, torch.where((whole | fraction) > 0, (whole & 31) + 1, 0)
    rows = torch.repeat_interleave(torch.arange(len(ids), device=ids.device), many + some)
    x = torch.arange(len(rows), device=ids.device) - ((many + some).cumsum(0) - (many + some))[rows]
    result = torch.zeros_like(whole)
    for r, j in zip(rows.split(BLOCK), x.split(BLOCK), strict=True):
        bits = random_bits(j, ids[r], POISSON, 0, seed, stream)
        of_one, of_many = (unsigned_less(bits.unsqueeze(1), t).sum(dim=1) for t in (tails[:20], tails[20:]))
        variate = torch.where(j < many[r], of_many, of_one)
        last = j == (many + some)[r] - 1
        y = torch.arange(20, device=ids.device).expand(int(last.sum()), 20).reshape(-1)
        coin = random_bits(y, ids[r[last]].repeat_interleave(20), POISSON, 1, seed, stream).view(-1, 20)
        heads = ((coin >> 2) & ((1 << 62) - 1)) < fraction[r[last]].unsqueeze(1)
        variate[last] = (heads & (y.view(-1, 20) < variate[last].unsqueeze(1))).sum(dim=1)
        result.index_add_(0, r, variate)
    return result
