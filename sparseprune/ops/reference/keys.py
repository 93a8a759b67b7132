"""Exact selection by order-preserving keys: of the values themselves, or of a race between them."""

from __future__ import annotations

import torch
from torch import Tensor

from .philox import PRIORITY, SUCCESSIVE, random_bits
from .scores import TILE, rescale, tile_blocks, tile_numbers
from .writer import FlatWriter

PLAIN, PRIORITY_RACE, SUCCESSIVE_RACE = range(3)
PURPOSES = {PRIORITY_RACE: PRIORITY, SUCCESSIVE_RACE: SUCCESSIVE}
LN2 = 0.6931471805599453


def order_keys(v: Tensor) -> Tensor:
    """int64 keys that sort like the fp64 values: the bits, the low 63 inverted for negative numbers (-0 is 0)."""
    bits = (v + 0.0).view(torch.int64)
    return torch.where(bits < 0, bits ^ torch.iinfo(torch.int64).max, bits)


def uniforms(bits: Tensor) -> Tensor:
    """u in [2^-64, 1] from 64 random bits: fp64(high 32) 2^-32 + (fp64(low 32) + 1) 2^-64."""
    high, low = (bits >> 32) & 0xFFFFFFFF, bits & 0xFFFFFFFF
    return high.to(torch.float64) * 2.0**-32 + (low.to(torch.float64) + 1.0) * 2.0**-64


def negative_log(u: Tensor) -> Tensor:
    """-log u as a fixed sequence of IEEE operations (library logarithms differ between platforms); error below 1e-13.

    u = f 2^e with f in [sqrt(1/2), sqrt 2), s = (f-1)/(f+1): log f = 2 (s + s^3/3 + s^5/5 + ...). At least 2^-64.
    """
    f, e = torch.frexp(u)
    small = f < 0.7071067811865476
    f, e = torch.where(small, f * 2.0, f), torch.where(small, e - 1, e).to(torch.float64)
    s = (f - 1.0) / (f + 1.0)
    square = s * s
    series = torch.full_like(s, 1.0 / 21.0)
    for odd in range(19, 0, -2):
        series = series * square + 1.0 / odd
    return -(e * LN2 + 2.0 * (s * series)).clamp(max=-(2.0**-64))


def race_values(v: Tensor, race: int, tile: Tensor, exponent: int, seed: int, stream: int) -> tuple[Tensor, Tensor]:
    """Values and what their keys order, for v [tiles, TILE]: v itself, v/u (priority) or v/(-log u) (successive draws).

    In a race v is divided by 2^exponent first, which keeps v/u finite.
    """
    if race == PLAIN:
        return v, v
    v = rescale(v, exponent)
    lane = torch.arange(TILE, device=v.device).expand_as(v)
    u = uniforms(random_bits(lane, tile.unsqueeze(1).expand_as(v), PURPOSES[race], 0, seed, stream))
    return v, v / (u if race == PRIORITY_RACE else negative_log(u))


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
    bins, numel = 1 << bits, sum(score.numel() for score in scores)
    total = scores[0].new_zeros(bins + 2, dtype=torch.int64)
    sums = total.new_zeros(bins + 1 if race else 0)
    for first, v in tile_blocks(scores, factors, transform):
        tile = tile_numbers(ids, first, len(v))
        present = torch.arange(first * TILE, first * TILE + v.numel(), device=v.device).view_as(v) < numel
        present &= (tile % step == 0).unsqueeze(1)
        good = v.isfinite() & ((v >= 0) | (race == PLAIN))
        total[-1] += (present & ~good).sum()
        if race:
            v = v.where(good, 0.0)
        key = order_keys(race_values(v, race, tile, exponent, seed, stream)[1])[present]
        offset = (key - low)[key >= low]  # wraps to the unsigned difference
        place = (offset >> shift) & ((1 << (64 - shift)) - 1 if shift else -1)
        place = torch.where((place < 0) | (place > bins), bins, place)
        total[: bins + 1] += torch.bincount(place, minlength=bins + 1)
        if race:
            sums.index_add_(0, place, offset)
    return total, sums[:bins]


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

    m = max(1, tau/v), tau being fp64 bits. Scores are good, as `key_histogram` has shown; above and tie are
    judged after `>> shift`. Tiles of quota -1 are left alone. Returns the ties a tile, int64 [T].
    """
    flat, numel, ties = FlatWriter(scores, output, weights, out), sum(score.numel() for score in scores), []
    top = torch.tensor(tau, device=scores[0].device).view(torch.float64)
    for first, v in tile_blocks(scores, factors, transform):
        v, keyed = race_values(v, race, tile_numbers(ids, first, len(v)), exponent, seed, stream)
        key = order_keys(keyed) >> shift
        tie = key == threshold
        tie.view(-1)[numel - first * TILE :] = False  # the padding is no element
        limit = quota[first : first + len(v)].unsqueeze(1)
        ties.append(torch.where(limit.view(-1) < 0, 0, tie.sum(dim=1)))
        keep = (key > threshold) | (tie & (tie.cumsum(dim=1) <= limit))
        m = (top / v).clamp(min=1.0) if tau else torch.ones_like(v)
        write = (limit >= 0).expand_as(v).contiguous()
        flat.write(keep.to(torch.int64), torch.where(keep, m, 0.0), write=write)
    return torch.cat(ties)
